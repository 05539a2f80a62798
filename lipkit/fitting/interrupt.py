"""Ctrl-C between two steps instead of in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held_interrupts() -> Iterator[Callable[[], None]]:
    """Hold a Ctrl-C until the function given is called; a second one does not wait.

    A step cut in half could not be resumed: some weights would be updated, others not.

    >>> with held_interrupts() as release:
    ...     for step in range(3):
    ...         release()  # here, and only here, KeyboardInterrupt may be raised
    """
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:  # only the main thread may ask, and a program's own handler is left alone
        yield lambda: None
        return
    held = []

    def hold(*_) -> None:
        held.append(True)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def release() -> None:
        if held:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, hold)
    try:
        yield release
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

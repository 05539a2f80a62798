"""The one loop: steps that can be watched, interrupted, saved and resumed to the same bits.

Through it run the fit (`lipkit.fit`), the mask search of `lipkit.find.oes`, the search of a
generator's range (`lipkit.gan.search`), each round of its tickets (`lipkit.gan.imp`), and its
training (`lipkit.gan.train`).

A Ctrl-C has one answer. The step under way is done to its end, the state is saved where a file was
given, and `run` says that it was interrupted; before the first step is done there is nothing to say
it about, and `KeyboardInterrupt` goes its way. A second Ctrl-C does not wait, and saves nothing. A
caller hands on what there is, marked as interrupted; where its result could not say so, it raises
`unfinished`.
"""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..formats import state

if TYPE_CHECKING:
    from tqdm import tqdm

SAVE_EVERY = 30.0  # seconds


class Work(ABC):
    """What the loop runs, and where it stands; only where there is a file it is asked for parts."""

    kind = "fit"  # in one word, for errors
    signature: Mapping[str, str] = {}  # settings and data: only equal ones go on from a file
    steps: int  # in all
    step = 0  # done so far
    seconds = 0.0  # taken so far
    reason = ""  # why it ended before all steps were done; empty while it goes on

    @abstractmethod
    def advance(self) -> Any:
        """Do one step, and count it."""

    def parts(self) -> dict[str, state.Part]:
        """Name all that changes from step to step: networks, optimizers, random generators."""
        raise TypeError(f"a {self.kind} has no parts that could be saved")

    def state(self) -> state.Tensors:
        """Return all that changes from step to step, as tensors."""
        return state.collect(self.parts())

    def restore(self, tensors: state.Tensors) -> None:
        """Take back what `state` returned."""
        state.put_back(tensors, self.parts())


class End(NamedTuple):
    """Why a loop ended, as a sentence, and whether that was a Ctrl-C."""

    reason: str
    interrupted: bool


def run(
    work: Work,
    path: str | Path | None = None,
    *,
    progress: bool = True,
    label: str | None = None,
    minutes: float | None = None,
    seen: Callable[[Any], object] | None = None,
) -> End:
    """Do all steps that are left.

    Args:
        path: a file to resume from, and to save to now and then, when interrupted, and at the end.
        label: of the progress bar.
        minutes: stop after this time, to go on later.
        seen: called after each step with what `work.advance` returned. It may set `work.reason`.
    """
    path = None if path is None else Path(path)
    if path is not None:
        resume(work, path)
    deadline = float("inf") if minutes is None else time.perf_counter() + 60 * minutes
    start = time.perf_counter() - work.seconds
    saved = time.perf_counter()
    whole = True  # False in the middle of a step, when nothing must be saved
    reason = ""
    shown = bar(progress, label, total=work.steps, initial=work.step)
    try:
        with shown, held_interrupts() as release:
            while work.step < work.steps and not work.reason and time.perf_counter() < deadline:
                whole = False
                result = work.advance()
                whole = True
                shown.update()
                work.seconds = time.perf_counter() - start
                if seen is not None:
                    seen(result)
                if path is not None and time.perf_counter() - saved > SAVE_EVERY:
                    save(work, path)
                    saved = time.perf_counter()
                release()
    except KeyboardInterrupt:
        if work.step == 0:
            raise
        reason = f"interrupted at step {work.step} of {work.steps}"
    work.seconds = time.perf_counter() - start
    if path is not None and whole:
        save(work, path)
    if reason:
        return End(reason, interrupted=True)
    early = f"the {minutes} minutes are over" if work.step < work.steps else ""
    return End(work.reason or early or f"all {work.steps} steps are done", interrupted=False)


def bar(progress: bool, label: str | None, **how) -> tqdm:
    """Make a progress bar, which is silent if `progress` is False, or TQDM_DISABLE is set."""
    from tqdm import tqdm  # late: it is not needed to import lipkit

    silent = {} if progress else {"disable": True}  # else the environment decides
    return tqdm(desc=label, leave=False, **silent, **how)


def save(work: Work, path: Path) -> None:
    """Write the state of a work between two of its steps."""
    numbers = {"step": work.step, "seconds": work.seconds, "reason": work.reason}
    state.write(path, work.kind, work.signature, work.state(), numbers)


def resume(work: Work, path: Path) -> None:
    """Put a work where a file left it; do nothing if there is no file yet."""
    found = state.read(path, work.kind, work.signature)
    if found is None:
        return
    tensors, numbers = found
    try:
        work.step = numbers["step"]
        work.seconds = numbers["seconds"]
        work.reason = numbers["reason"]
        work.restore(tensors)
    except (KeyError, RuntimeError) as error:  # written by another version
        raise state.damaged(path, error) from None


def unfinished(what: str, end: End, path: str | Path | None, hint: str = "") -> KeyboardInterrupt:
    """Make the interrupt that stands for a result which could not say that it is half done.

    >>> unfinished("the search", End("interrupted at step 3 of 9", True), None).args[0]
    'the search was interrupted at step 3 of 9; nothing was saved'
    """
    after = f"{path} goes on from there" if path else "nothing was saved"
    return KeyboardInterrupt(f"{what} was {end.reason}; {after}{hint}")


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

"""Compiling functions once for a machine, and running them with torch's threads."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import numba
import torch

_ONE_TEAM = threading.Lock()  # not every threading layer can start two at a time


def stamp(*files: str) -> str:
    """Changes with every one of these files.

    The compiler's cache looks at a function's own file and at what the function closes over: a
    stamp makes it notice changes of the other files that go into the machine code.
    """
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()


def compiled(function: Callable, options: dict) -> Callable:
    """Compiled at the first call, and kept on disk where there is a place for it."""
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)


def as_team(team: int, function: Callable, *work) -> None:
    """By several threads: those that torch uses too, so that they do not get in each other's way.

    How many there are is no condition: who comes late, or never, is not waited for.
    """
    threads = torch.get_num_threads()
    numba_threads = numba.get_num_threads()
    with _ONE_TEAM:
        numba.set_num_threads(min(team, numba.config.NUMBA_NUM_THREADS))
        try:
            function(*work)
        finally:
            numba.set_num_threads(numba_threads)
            if torch.get_num_threads() != threads:  # numba's first start changes it
                torch.set_num_threads(threads)

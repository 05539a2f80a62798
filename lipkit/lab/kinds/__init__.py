"""The kinds of experiments, a file each; another kind is one more file, and its name in `KINDS`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ...checks import check_one_of
from ..results import Found, Outcome
from ..settings import Settings
from . import classify, generator, mri, restore


class Kind(Protocol):
    """What each of the files has."""

    TASKS: dict[str, str]  # names of `task`, and what the strength means
    MASKS_ARE_OF: str  # masks are for kinds that say the same, as their networks are alike

    def takes(self, e: Settings) -> bool:
        """Whether an experiment is of this kind, if it is of none before it in `KINDS`."""

    def check(self, e: Settings) -> None:
        """Refuse what cannot be run, before anything is."""

    def problem(self, e: Settings) -> Any:
        """What is to be solved: pictures, operators and measurements."""

    def find(
        self, search: Settings, device: str, folder: str | Path | None, progress: bool
    ) -> Found:
        """The mask, from the folder if it is there; `search` is the search of an experiment."""

    def run(self, e: Settings, found: Found, progress: bool) -> Outcome:
        """Solve the problem with the mask that was found."""


KINDS: tuple[Kind, ...] = (generator, restore, mri, classify)
TASKS = {name: strength for kind in KINDS for name, strength in kind.TASKS.items()}


def kind_of(e: Settings) -> Kind:
    """Decide of which kind an experiment is.

    >>> kind_of(Settings("slice-1", 64, task="mri")).__name__
    'lipkit.lab.kinds.mri'
    """
    check_one_of("task", e.task, TASKS)
    return next(kind for kind in KINDS if kind.takes(e))

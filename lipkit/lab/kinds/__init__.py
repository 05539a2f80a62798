"""The kinds of experiments, a file each; another kind is one more file, and its name below."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ...checks import check_one_of
from ..results import Found, Outcome
from ..settings import TRAINED, Settings
from . import classify, generator, mri, restore


class Kind(Protocol):
    """What each of the files has; those that are chosen by `task` also have `TASKS`."""

    MASKS_ARE_OF: str  # masks are for kinds that say the same, as their networks are alike

    def check(self, e: Settings) -> None:
        """Refuse what cannot be run, before anything is."""

    def problem(self, e: Settings) -> Any:
        """Make what is to be solved: pictures, operators and measurements."""

    def find(
        self, search: Settings, device: str, folder: str | Path | None, progress: bool
    ) -> Found:
        """Find the mask, in the folder if it is there; `search` is the search of an experiment."""

    def run(self, e: Settings, found: Found, progress: bool) -> Outcome:
        """Solve the problem with the mask that was found."""


OF_PRIOR: dict[str, Kind] = {TRAINED: generator}
OF_TASK: dict[str, Kind] = {t: kind for kind in (restore, mri, classify) for t in kind.TASKS}


def kind_of(e: Settings) -> Kind:
    """Decide of which kind an experiment is.

    >>> kind_of(Settings("slice-1", 64, task="mri")).__name__
    'lipkit.lab.kinds.mri'
    """
    if e.prior in OF_PRIOR:
        return OF_PRIOR[e.prior]
    check_one_of("task", e.task, OF_TASK)
    return OF_TASK[e.task]

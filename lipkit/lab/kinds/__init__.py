"""The kinds of experiments, a file each; another kind is one more file, and its name below.

Each file has a word for what its masks are of, `MASKS_ARE_OF` (masks are for kinds that say the
same), the names of its tasks with what their strength means, `TASKS`, and these functions:

- `check(e)` refuses what cannot be run, before anything is;
- `problem(e)` makes what is to be solved: pictures, operators and measurements;
- `find(search, device, folder, progress)` finds the mask and returns a `Found`; `search` is the
  search of an experiment, and `folder` keeps masks, or is None;
- `run(e, found, progress)` solves the problem with that mask and returns an `Outcome`.
"""

from __future__ import annotations

from types import ModuleType

from ...errors import check_one_of
from ..settings import TRAINED, Settings
from . import classify, generator, mri, restore

OF_PRIOR: dict[str, ModuleType] = {TRAINED: generator}  # whose tasks are those of `restore`
OF_TASK: dict[str, ModuleType] = {
    task: kind for kind in (restore, classify, mri) for task in kind.TASKS
}


def kind_of(e: Settings) -> ModuleType:
    """Decide of which kind an experiment is.

    >>> kind_of(Settings("slice-1", 64, task="mri")).__name__
    'lipkit.lab.kinds.mri'
    """
    if e.prior in OF_PRIOR:
        return OF_PRIOR[e.prior]
    check_one_of("task", e.task, OF_TASK)
    return OF_TASK[e.task]

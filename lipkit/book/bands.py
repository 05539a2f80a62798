"""The bands of the chapters' numbers: how far they scatter from machine to machine.

`book/_data/bands.jsonl` has a line for every execution of a chapter on a machine, imitated or real,
with the numbers that the chapter handed to `Chapter.band`; `python -m lipkit.book.calibrate` makes
them. A band is where the next one is expected with a probability of 99.9 %, if the numbers scatter
normally. Each profile has its own. Runs of another source than the chapter has now count no more.
No two bands of the book share a name.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from ..errors import FileError
from ..lab.paths import data_folder
from . import notebooks

FILE = "bands.jsonl"
FEWEST = 6  # runs that a band needs
CHANCE = 0.001  # of a run outside its band though nothing is wrong
ROUNDING = 1e-3  # of the number itself: no band is narrower


class Band(NamedTuple):
    """Where a number is expected, and on how many runs that rests."""

    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        return f"band {self.low:.4g} to {self.high:.4g} of {self.runs} runs"


def find(name: str, profile: str = "laptop") -> Band | None:
    """Return the band of a number by its name; None where too few runs are known.

    >>> find("a number that no chapter has") is None
    True
    """
    found = _values(profile).get(name, ())
    return band_of(list(found)) if len(found) >= FEWEST else None


def count(name: str, profile: str = "laptop") -> int:
    """Count the runs that measured a number, be they enough for a band or not.

    >>> count("a number that no chapter has")
    0
    """
    return len(_values(profile).get(name, ()))


def _values(profile: str) -> dict[str, tuple[float, ...]]:
    folder = _folder()
    if folder is None:
        return {}
    path = folder / FILE
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    return _read(folder, stamp, profile)


def _folder() -> Path | None:
    """Find the book's data; a book without any, and a chapter far from its book, have no bands."""
    try:
        return data_folder()
    except FileError:
        return None


def band_of(values: list[float]) -> Band:
    """Compute the band of some numbers.

    >>> print(band_of([1.0, 1.2, 1.1, 0.9]))
    band -0.8165 to 2.916 of 4 runs
    """
    from scipy.special import stdtrit  # late: loading it takes its time

    mean, count = fmean(values), len(values)
    quantile = float(stdtrit(count - 1, 1 - CHANCE / 2))
    half = quantile * stdev(values) * (1 + 1 / count) ** 0.5 + ROUNDING * abs(mean)
    return Band(mean - half, mean + half, count)


def digest(chapter: Path) -> str:
    """Hash what a chapter computes: its code, whatever its comments, its layout and its text."""
    cells = notebooks.read(chapter)["cells"]
    code = "\n".join(notebooks.source(cell) for cell in cells if cell["cell_type"] == "code")
    return hashlib.sha256(ast.dump(ast.parse(code)).encode()).hexdigest()[:16]


def valid(folder: Path | None = None, profile: str = "laptop") -> list[dict[str, Any]]:
    """Return the runs at a profile of the chapters as they are now.

    >>> all(run["numbers"] for run in valid())
    True
    """
    folder = folder or _folder()
    if folder is None:
        return []
    found = [run for run in runs(folder) if run["profile"] == profile]
    chapters = folder.parents[1] / "notebooks"
    sources = {name: chapters / f"{name}.ipynb" for name in {run["chapter"] for run in found}}
    now = {name: digest(path) for name, path in sources.items() if path.is_file()}
    return [run for run in found if now.get(run["chapter"]) == run["digest"]]


def runs(folder: Path | None = None) -> list[dict[str, Any]]:
    """Read the lines of the file; none where there is no file.

    >>> all("chapter" in run and "numbers" in run for run in runs())
    True
    """
    folder = folder or _folder()
    path = folder / FILE if folder else None
    if path is None or not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as problem:
        raise FileError(f"{path} is damaged: {problem}; take it from the repository") from None


@functools.lru_cache(maxsize=4)
def _read(folder: Path, _stamp: int, profile: str) -> dict[str, tuple[float, ...]]:
    values: dict[str, list[float]] = defaultdict(list)
    for run in valid(folder, profile):
        for name, value in run["numbers"].items():
            values[name].append(value)
    return {name: tuple(found) for name, found in values.items()}

"""A grid of experiments, read from a TOML file.

One is written like this::

    title = "Denoising at 64 pixels"
    common = {size = 64, prior = "dip", steps = 400}   # what all have in common

    [axes]                                             # every combination of these
    seed = [0, 1, 2]
    image = ["astronaut", {image = "coffee", steps = 600}]

    [arms]                                             # what is compared
    dense = {}
    ticket = {method = "imp", density = 0.17}
    shuffled = {image = "shuffled:{image}"}            # a value of the axes in a text
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import FileError, InputError
from .experiment import Experiment
from .paths import grids_folder

TEXTS = ("title", "about", "scale", "paper", "code")
KEYS = (*TEXTS, "common", "axes", "arms")
SCALES = ("laptop", "paper")


class Point(NamedTuple):
    """One experiment of a grid: the arm it belongs to, and its place on each axis."""

    arm: str
    place: dict[str, Any]
    experiment: Experiment


@dataclass(frozen=True)
class Grid:
    """A grid: `points` in the order in which they are run, whole comparisons one after another.

    `paper` says which table of the papers it is to be put beside, `code` which numbers of the
    published programs; see `lipkit.lab.claims`.

    >>> grid = Grid.of("tiny", {"common": {"image": "coffee", "size": 32}, "axes": {"seed": [0, 1]},
    ...                         "arms": {"dense": {}, "snip": {"method": "snip", "density": 0.1}}})
    >>> [(point.arm, point.experiment.seed) for point in grid.points]
    [('dense', 0), ('snip', 0), ('dense', 1), ('snip', 1)]
    """

    name: str
    points: list[Point]
    title: str = ""
    about: str = ""
    scale: str = "paper"
    paper: dict[str, Any] = field(default_factory=dict)
    code: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Grid:
        """Read a grid from a file, or one of the book's by name."""
        path = Path(path)
        ours = not path.suffix
        if ours:
            path = grids_folder() / f"{path.name}.toml"
        try:
            return cls.of(path.stem, tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as problem:
            hint = f"; the book's grids are: {', '.join(names())}" if ours else ""
            raise FileError(f"cannot read {path}: {problem.strerror or problem}{hint}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
            raise FileError(f"{path} is no TOML file: {problem}") from None
        except InputError as problem:
            raise InputError(f"{path}: {problem}") from None

    @classmethod
    def of(cls, name: str, data: Mapping[str, Any]) -> Grid:
        """Make a grid from the content of a file."""
        for key in data:
            if key not in KEYS:
                raise InputError(f"a grid has {', '.join(KEYS)}, not {key!r}")
        arms = data.get("arms")
        axes = data.get("axes", {})
        if not _is_table(arms, dict) or not arms:
            raise InputError("a grid needs [arms], a table of tables: what is to be compared")
        if not _is_table(axes, list) or not all(axes.values()):
            raise InputError("[axes] holds lists of values, none of them empty")
        if data.get("scale", "paper") not in SCALES:
            raise InputError(f"scale is one of {', '.join(SCALES)}, not {data['scale']!r}")
        points = []
        for values in itertools.product(*axes.values()):
            place = dict(zip(axes, values, strict=True))
            chosen = dict(data.get("common", {}))
            for axis, value in place.items():
                chosen |= value if isinstance(value, dict) else {axis: value}
            place = {a: v.get(a, str(v)) if isinstance(v, dict) else v for a, v in place.items()}
            points += [
                _point(arm, place, chosen | _filled(own, place)) for arm, own in arms.items()
            ]
        return cls(name, points, **{key: data[key] for key in TEXTS if key in data})

    def only(self, arms: Iterable[str]) -> Grid:
        """Return the part of the grid with these arms."""
        for arm in arms:
            if arm not in self.arms:
                raise InputError(
                    f"grid {self.name!r} has no arm {arm!r}; it has {', '.join(self.arms)}"
                )
        return replace(self, points=[point for point in self.points if point.arm in arms])

    @property
    def arms(self) -> list[str]:
        """List what is compared, in order."""
        return list(dict.fromkeys(point.arm for point in self.points))


def _is_table(found: Any, kind: type) -> bool:
    return isinstance(found, dict) and all(isinstance(value, kind) for value in found.values())


def _filled(value: Any, place: Mapping[str, Any]) -> Any:
    """Put values of the axes where texts of an arm name them.

    >>> _filled({"find_on": {"image": "shuffled:{image}"}, "steps": 4}, {"image": "coffee"})
    {'find_on': {'image': 'shuffled:coffee'}, 'steps': 4}
    """
    if isinstance(value, dict):
        return {name: _filled(inner, place) for name, inner in value.items()}
    if isinstance(value, str):
        for axis, chosen in place.items():
            value = value.replace(f"{{{axis}}}", str(chosen))
    return value


def _point(arm: str, place: dict[str, Any], given: dict[str, Any]) -> Point:
    try:
        return Point(arm, place, Experiment.of(given))
    except InputError as problem:
        raise InputError(f"arm {arm!r}: {problem}") from None


def names() -> list[str]:
    """List the grids of the book.

    >>> "first-light" in names()
    True
    """
    return [path.stem for path in sorted(grids_folder().glob("*.toml"))]

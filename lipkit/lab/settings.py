"""Settings of an experiment as plain data, and the hash that identifies them.

Equal settings have equal hashes, on any machine and in any version, so that a result can be
looked up before it is computed again. Nothing here knows what kinds of experiment there are.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from ..errors import InputError, check_one_of, is_number, is_whole

# Raise a number when a method gives other results than before: records made with the older one
# are then stale. "fit" counts for every experiment; "gan" for those on a trained generator, instead
# of both, and also for the generator that comes with lipkit.
VERSIONS = {
    "fit": 1, "dense": 1, "random": 1, "magnitude": 1, "snip": 1, "grasp": 1, "synflow": 1,
    "imp": 1, "imp_multi": 1, "oes": 2, "universal": 1,
    "gan": 2,
}  # fmt: skip
METHODS = tuple(name for name in VERSIONS if name not in ("fit", "gan"))
TRAINED = "pgan"  # the network that is searched, not fitted: see `lipkit.gan`

__all__ = ["METHODS", "TRAINED", "VERSIONS", "Settings", "check_names"]


@dataclass(frozen=True)
class Settings:
    """All fields of an experiment; `lipkit.lab.Experiment` says what they mean.

    The hash is over what differs from the defaults, so new fields may be added, but the
    defaults of these never change.
    """

    image: str | list
    size: int
    task: str = "denoise"
    strength: float = 25
    task_options: dict = field(default_factory=dict)
    gray: bool = False
    stretch: bool = False
    prior: str = "dip"
    options: dict = field(default_factory=dict)
    initial: dict = field(default_factory=dict)
    method: str = "dense"
    density: float = 1
    find: dict = field(default_factory=dict)
    find_on: dict = field(default_factory=dict)
    control: str = "none"
    steps: int = 3000
    lr: float = 0.01
    fit: dict = field(default_factory=dict)
    stop: dict = field(default_factory=dict)
    every: int | None = None
    seed: int = 0
    precision: str = "auto"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Make settings from plain data, with the names and the types checked."""
        check_names("experiment field", given, names())
        for name in ("image", "size"):
            if name not in given:
                raise InputError(f"an experiment needs {name!r}; it has only {', '.join(given)}")
        made = cls(**{name: _plain(value) for name, value in given.items()})
        made.check_types()
        return made

    def given(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as plain data."""
        found = {name: _plain(getattr(self, name)) for name in names()}
        return {name: v for name, v in found.items() if v != getattr(_DEFAULTS, name)}

    @functools.cached_property
    def digest(self) -> str:
        """The hash that identifies these settings.

        >>> Settings("astronaut", 64).digest == Settings("astronaut", 64, strength=25.0).digest
        True
        """
        text = json.dumps(self.given(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.digest)

    def versions(self) -> dict[str, int]:
        """Return the versions of what an experiment rests on."""
        needed = ("gan",) if self.prior == TRAINED else ("fit", self.method)
        return {name: VERSIONS[name] for name in needed}

    def search(self) -> Self:
        """Return the search for the mask by itself: equal for all that use this mask."""
        fitted = {n: getattr(_DEFAULTS, n) for n in ("steps", "lr", "fit", "stop", "every")}
        return replace(self, **(fitted | {"control": "none", "find_on": {}} | self.find_on))

    def check_types(self) -> None:
        """Refuse a field of another type than its own."""
        for f in fields(self):
            value = getattr(self, f.name)
            right = {
                "int": is_whole(value, least=0 if f.name == "seed" else 1),
                "int | None": value is None or is_whole(value, least=1),
                "float": is_number(value, least=0),
                "dict": isinstance(value, dict),
                "bool": isinstance(value, bool),
                "str": isinstance(value, str),
                "str | list": isinstance(value, (str, list)),
            }[f.type]
            if not right:
                raise InputError(f"{f.name} of an experiment must be {f.type}, got {value!r}")


_DEFAULTS = Settings("", 0)


@functools.cache
def names() -> list[str]:
    """List the fields of an experiment."""
    return [f.name for f in fields(Settings)]


def check_names(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a name that is not among the known.

    >>> check_names("fit option", {"average": 0.9}, ["average", "langevin"])
    """
    for name in given:
        check_one_of(what, name, known)


def _plain(value: Any) -> Any:
    """Lists for tuples and whole numbers for 25.0, so that equal things have equal hashes."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value

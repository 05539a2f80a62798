"""An experiment as data: what is restored, by which network, with which mask, fitted how.

Equal experiments have equal hashes, on any machine and in any version, so that a result can be
looked up before it is computed again.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .. import models
from ..checks import is_number, is_whole
from ..data.drawn import is_drawn
from ..errors import InputError
from .kinds.restore import LAWS, Problem, initial_prior, problem

# Raise a number when a method gives other results than before: records made with the older one
# are then stale. "fit" counts for every experiment; "gan" for those on a trained generator, instead
# of both, and also for the generator that comes with lipkit.
VERSIONS = {
    "fit": 1, "dense": 1, "random": 1, "magnitude": 1, "snip": 1, "grasp": 1, "synflow": 1,
    "imp": 1, "imp_multi": 1, "oes": 2, "universal": 1,
    "gan": 2,
}  # fmt: skip
METHODS = tuple(name for name in VERSIONS if name not in ("fit", "gan"))
TASKS = {
    "denoise": "standard deviation of the noise, white being 255",
    "inpaint": "fraction of the pixels that are known",
    "sr": "factor: 2, 4 or 8",
    "sensing": "number of random sums of all pixels that are measured",
    "classify": "number of labelled pictures to learn from",
    "mri": "acceleration: 1 / strength of k-space is measured; 1 is all that the scan has",
}
CONTROLS = ("none", "shuffled", "random", "fresh")
TRAINED = "pgan"  # the network that is searched, not fitted: see `lipkit.gan`
MRI_OPTIONS = ("pattern", "calibration", "sigma", "coils")  # of `sampling_mask` and `data.scan`
FIT_OPTIONS = ("input_noise", "average", "langevin", "weight_decay", "backtrack")
FRESH_SEED = 1000  # added to the seed of initial weights that a mask was not found for

__all__ = [
    "METHODS", "TASKS", "VERSIONS", "Experiment", "Problem", "initial_prior", "problem",
]  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """One restoration; only `image` and `size` have to be given.

    The hash is over what differs from the defaults, so new fields may be added, but the
    defaults of these never change.

    Args:
        image: a name of `lipkit.data.names()`, for MRI of `lipkit.data.scans()`; for `find_on`
            also a list of them.
        size: side of the square picture; cropped to it, or with `stretch` resized as it is. Of
            a scan, the longer side.
        task: "denoise", "inpaint", "sr", "sensing" or "mri"; or "classify" the pictures of a
            labelled set, with the `variant`, `side` and `batch` of `lipkit.classify`.
        strength: standard deviation of the noise on the scale to 255; fraction of pixels known;
            factor; number of measurements; acceleration; number of pictures to learn from.
        prior: the network's name, with its `options`; "pgan" is a generator, its `weights` by name,
            whose range is searched for several `pictures` (of `task_options`) at once: of "faces"
            or of a folder.
        initial: {law, scale} of the convolutions' initial weights: "xavier" in place of the
            network's own law, and a factor.
        method: how the mask is found: a name of `lipkit.find`, with options `find`; or "dense".
            Beside those, {until_oracle = true} ends each round of "imp" at the step at which the
            dense fit is nearest to the clean picture.
        find_on: fields in which the search differs: other pictures, another task or strength
            (0 is the clean picture).
        control: instead of the mask found, "shuffled" within layers, "random" with equal layers,
            or the mask with "fresh" initial weights; of a generator, which starts from trained
            weights, the mask with those "finetuned" under it.
        fit: options of `lipkit.fit`, or of `lipkit.gan.search`; of a fit, `average` is a weight or
            {burn_in, every}.
        stop: window and patience of a `WMV` rule that picks a picture without ending the fit.
        every: steps between two points of the curve; by default a hundredth of the steps.

    >>> one = Experiment("astronaut", 64, method="snip", density=0.2, options={"levels": 4})
    >>> one.digest, one == Experiment.of({"image": "astronaut", "size": 64} | one.given())
    ('238bd6674581ea5e', True)
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
    def of(cls, given: Mapping[str, Any]) -> Experiment:
        """From plain data, checked."""
        known = [f.name for f in fields(cls)]
        for name in given:
            one_of("experiment field", name, known)
        for name in ("image", "size"):
            if name not in given:
                raise InputError(f"an experiment needs {name!r}; it has only {', '.join(given)}")
        made = cls(**{name: _plain(value) for name, value in given.items()})
        made.check()
        return made

    def given(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as plain data."""
        found = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        return {name: v for name, v in found.items() if v != getattr(_DEFAULTS, name)}

    @functools.cached_property
    def digest(self) -> str:
        """The hash that identifies this experiment."""
        text = json.dumps(self.given(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.digest)

    def versions(self) -> dict[str, int]:
        """The versions of what this experiment rests on."""
        names = ("gan",) if self.prior == TRAINED else ("fit", self.method)
        return {name: VERSIONS[name] for name in names}

    def search(self) -> Experiment:
        """The search for the mask, by itself: equal for all experiments that use this mask."""
        fitted = {n: getattr(_DEFAULTS, n) for n in ("steps", "lr", "fit", "stop", "every")}
        return replace(self, **(fitted | {"control": "none", "find_on": {}} | self.find_on))

    @property
    def work(self) -> int:
        """Optimizer steps in all, of the fit and the search; time is estimated from them."""
        searching = 0
        if self.method == "oes":
            searching = self.find.get("steps", 1000)
        elif self.method.startswith("imp"):
            from ..find.schedule import rounds_to

            rounds = self.find.get("rounds") or rounds_to(self.density, self.find.get("rate", 0.2))
            searching = rounds * self.find.get("steps", 3000)
        return self.steps + searching

    def check(self) -> None:
        """Refuse what cannot be run, before anything is."""
        for f in fields(self):
            self._check_type(f.name, f.type)
        if self.prior == TRAINED:
            from .kinds.generator import check

            return check(self)
        one_of("task", self.task, TASKS)
        one_of("method", self.method, METHODS)
        one_of("control", self.control, CONTROLS)
        one_of("network", self.prior, models.PRESETS)
        for name in self.options:
            one_of(f"option of network {self.prior!r}:", name, _network_options(self.prior))
        for name in self.initial:
            one_of("option of the initial weights:", name, ("law", "scale"))
        one_of("law of initial weights", self.initial.get("law", ""), ("", *LAWS))
        if not is_number(self.initial.get("scale", 1), least=0):
            raise InputError("the scale of initial weights is a number of at least 0")
        if self.stretch and is_drawn(self.image):
            raise InputError(f"{self.image!r} is drawn at its size: leave out stretch")
        for name in self.fit:
            one_of("fit option", name, FIT_OPTIONS)
        for name in self.find:
            one_of(f"option of {self.method!r}:", name, _find_options(self.method))
        if self.task == "classify":
            from .kinds.classify import check

            check(self)
        if self.find.get("until_oracle") and self.search().task in ("mri", "classify"):
            raise InputError("only where there is a clean picture is the oracle's step known")
        for name in self.task_options if self.task == "mri" else ():
            one_of("option of task 'mri':", name, MRI_OPTIONS)
        if self.task == "mri" and (self.gray or self.stretch or self.strength < 1):
            raise InputError("task 'mri' has an acceleration of at least 1, no gray and no stretch")
        for name in self.stop:
            one_of("stop option", name, ("window", "patience"))
        if self.method == "dense" and (self.find or self.find_on or self.density != 1):
            raise InputError("method 'dense' has no mask: no density, find or find_on")
        if self.method == "dense" and self.control not in ("none", "fresh"):
            raise InputError(f"method 'dense' has no mask to make the control {self.control!r} of")
        if self.find_on:
            for name in self.find_on:
                one_of("experiment field", name, vars(_DEFAULTS))
            self.search().check()
            if (self.search().task == "mri") != (self.task == "mri"):
                raise InputError("a mask found on a picture is not for MRI, nor the other way")
        if not isinstance(self.image, str) and self.method != "imp_multi":
            raise InputError("several pictures in one experiment are for method 'imp_multi' only")

    def _check_type(self, name: str, kind: str) -> None:
        value = getattr(self, name)
        right = {
            "int": is_whole(value, least=0 if name == "seed" else 1),
            "int | None": value is None or is_whole(value, least=1),
            "float": is_number(value, least=0),
            "dict": isinstance(value, dict),
            "bool": isinstance(value, bool),
            "str": isinstance(value, str),
            "str | list": isinstance(value, (str, list)),
        }[kind]
        if not right:
            raise InputError(f"{name} of an experiment must be {kind}, got {value!r}")


_DEFAULTS = Experiment("", 0)


def one_of(what: str, name: object, known) -> None:
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.7)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"there is no {what} {name!r}; {hint}there are: {', '.join(known)}")


@functools.cache
def _network_options(name: str) -> list[str]:
    return [*models.options(name), "code", "code_scale"]


@functools.cache
def _find_options(method: str) -> list[str]:
    """What the function of a method takes, beside what an experiment gives it."""
    if method == "dense":
        return []
    from .. import find
    from ..find.imp import FIT_OPTIONS as HANDED_ON

    ours = ("prior", "op", "ops", "y", "ys", "density", "seed", "progress", "options",
            "fit_options", "folder", "checkpoint", "details")  # fmt: skip
    names = [*inspect.signature(getattr(find, method)).parameters]
    if method.startswith("imp"):
        names += [*inspect.signature(find.imp).parameters, *HANDED_ON]
    if method == "imp":
        names.append("until_oracle")
    return [name for name in dict.fromkeys(names) if name not in ours and "reference" not in name]


def _plain(value: Any) -> Any:
    """Lists for tuples and whole numbers for 25.0, so that equal things have equal hashes."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value

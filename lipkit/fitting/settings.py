"""Settings of a fit, checked, the averages it can keep, and what makes two fits the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..errors import (
    InputError,
    check_choice,
    check_picture,
    check_positive,
    check_whole,
    is_number,
    is_whole,
    kind_of,
)
from ..masks import Mask
from ..prior import Prior

PRECISIONS = ("auto", "fp32", "bf16")
ENGINES = ("auto", "plain")


@dataclass(frozen=True)
class EMA:
    """Exponential average of the outputs, started at the first."""

    weight: float = 0.99

    def __post_init__(self) -> None:
        if not is_number(self.weight) or not 0 < self.weight < 1:
            raise InputError(f"the weight of an EMA lies between 0 and 1, got {self.weight!r}")

    def update(self, mean: Tensor, count: int, step: int, x: Tensor) -> tuple[Tensor, int]:
        return (x.clone() if count == 0 else mean.lerp_(x, 1 - self.weight)), count + 1


@dataclass(frozen=True)
class PosteriorMean:
    """Mean of the outputs every so many steps after a burn-in: the estimate of SGLD."""

    burn_in: int = 7000
    every: int = 50

    def __post_init__(self) -> None:
        if not is_whole(self.burn_in) or not is_whole(self.every, least=1):
            raise InputError(f"a posterior mean needs burn_in >= 0 and every >= 1, got {self}")

    def update(self, mean: Tensor, count: int, step: int, x: Tensor) -> tuple[Tensor, int]:
        drawn = step - 1  # the published loop counts from 0
        if drawn <= self.burn_in or drawn % self.every:
            return mean, count
        return (x.clone() if count == 0 else mean.lerp_(x, 1 / (count + 1))), count + 1


@dataclass(frozen=True)
class Settings:
    """The arguments of `fit` that are numbers and rules; two equal ones make equal fits."""

    steps: int
    lr: float
    input_noise: float
    average: EMA | PosteriorMean | None
    stop: object
    langevin: float
    weight_decay: float
    backtrack: float | None
    every: int
    seed: int
    precision: str
    engine: str

    def check(self) -> None:
        for name in ("steps", "every"):
            check_whole(name, getattr(self, name), least=1)
        check_whole("seed", self.seed)
        for name in ("input_noise", "langevin", "weight_decay"):
            value = getattr(self, name)
            if not is_number(value, least=0):
                raise InputError(f"{name} must be a number of at least 0, got {value!r}")
        check_positive("lr", self.lr)
        if self.average is not None and not isinstance(self.average, (EMA, PosteriorMean)):
            raise InputError(
                "average must be a weight between 0 and 1, an EMA or a PosteriorMean, "
                f"got {self.average!r}"
            )
        if self.backtrack is not None and not (is_number(self.backtrack) and self.backtrack > 0):
            raise InputError(f"backtrack is a drop in dB above 0, got {self.backtrack!r}")
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("engine", self.engine, ENGINES)
        if self.stop is not None and not _is_stop_rule(self.stop):
            raise InputError(f"stop must be a rule of lipkit.stop such as WMV(), got {self.stop!r}")


def _is_stop_rule(given: object) -> bool:
    """An object with the three methods; not the class of such objects."""
    methods = ("init", "update", "reason")
    return not isinstance(given, type) and all(hasattr(given, name) for name in methods)


def check_prior(prior: Prior) -> None:
    """Refuse what is not a prior."""
    if not isinstance(prior, Prior):
        raise InputError(
            f"prior must be a lipkit.Prior, got {kind_of(prior)}; Prior('dip') makes one"
        )


def check_operator(op) -> None:
    """Refuse what is not an operator."""
    if not callable(getattr(op, "A", None)):
        raise InputError(
            "op must be an operator with a method A, such as lipkit.physics.Denoise(), "
            f"got {kind_of(op)}"
        )


def check_parts(
    prior: Prior,
    op,
    y: Tensor,
    mask: Mask | None = None,
    reference: Tensor | None = None,
    callback: Callable | None = None,
) -> None:
    """Refuse what is not a prior, an operator, a measurement; a mask, a picture, a function."""
    check_prior(prior)
    check_operator(op)
    if mask is not None and not isinstance(mask, Mask):
        raise InputError(
            f"mask must be a lipkit.Mask, got {kind_of(mask)}; Mask.from_flat(vector, prior.net) "
            "makes one of a 0/1 vector"
        )
    if callback is not None and not callable(callback):
        raise InputError(f"callback must be a function of one argument, got {kind_of(callback)}")
    check_picture("measurement", y)
    if reference is not None:
        check_picture("reference", reference)


def signature(prior: Prior, op, y: Tensor, mask: Mask | None, settings: object) -> dict[str, str]:
    """Say what makes two fits the same, setting by setting; the number of steps may grow."""
    state = hashlib.sha256()
    for value in (*prior.state_dict().values(), y):
        state.update(value.detach().cpu().contiguous().numpy().tobytes())
    known = {k: repr(v) for k, v in vars(settings).items() if k != "steps"}
    return known | {
        "prior": repr(prior.recipe),
        "operator": type(op).__name__,
        "mask": "none" if mask is None else mask.digest(),
        "weights and measurement": state.hexdigest(),
    }

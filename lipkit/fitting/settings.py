"""What a fit is asked to do: its settings, checked, and the averages it can keep."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..checks import is_number, is_whole
from ..errors import InputError

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
            value = getattr(self, name)
            if not is_whole(value, least=1):
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not is_whole(self.seed):
            raise InputError(f"seed must be a whole number of at least 0, got {self.seed!r}")
        for name in ("input_noise", "langevin", "weight_decay"):
            value = getattr(self, name)
            if not is_number(value, least=0):
                raise InputError(f"{name} must be a number of at least 0, got {value!r}")
        if not is_number(self.lr, least=0) or self.lr == 0:
            raise InputError(f"lr must be a number above 0, got {self.lr!r}")
        if self.average is not None and not isinstance(self.average, (EMA, PosteriorMean)):
            raise InputError(
                "average must be a weight between 0 and 1, an EMA or a PosteriorMean, "
                f"got {self.average!r}"
            )
        if self.backtrack is not None and not (is_number(self.backtrack) and self.backtrack > 0):
            raise InputError(f"backtrack is a drop in dB above 0, got {self.backtrack!r}")
        for name, choices in (("precision", PRECISIONS), ("engine", ENGINES)):
            value = getattr(self, name)
            if value not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if self.stop is not None and not hasattr(self.stop, "update"):
            raise InputError(f"stop must be a rule of lipkit.stop such as WMV(), got {self.stop!r}")

"""What the search for a mask leaves, and what an experiment with it comes to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..masks import Mask


@dataclass(frozen=True)
class Found:
    """The mask of an experiment, and what its fit starts from.

    Args:
        mask: None for a dense network.
        start: a prior, with rewinding not with its initial weights; or a trained generator.
        seconds: of the search; 0 if the mask was found before.
        rounds: density and losses of every round of pruning.
        numbers: of the search itself.
        tuned: the trained generator as it was fine-tuned under the mask.
    """

    mask: Mask | None
    start: Any
    seconds: float = 0.0
    rounds: list[dict[str, float]] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    tuned: Any = None


@dataclass(frozen=True)
class Outcome:
    """Numbers and curves of an experiment, and why its fit ended.

    `picture` is kept by whoever writes the record, or not.
    """

    reason: str
    numbers: dict[str, float]
    curve: dict[str, Iterable[float]]
    seconds: float
    picture: Tensor | None = None


def not_interrupted(result: Any) -> None:
    """End as Ctrl-C does where a result was cut short by it: half a result is none."""
    if result.interrupted:
        raise KeyboardInterrupt


def shortened(value: float) -> float | int | None:
    """Keep enough digits to compare with; None for what cannot be measured.

    >>> shortened(1 / 3), shortened(2.0), shortened(math.nan)
    (0.333333, 2, None)
    """
    value = float(value)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else float(f"{value:.6g}")

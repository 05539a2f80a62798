"""Fit an untrained network to a measurement as an experiment says, and what is noted of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..fitting import Fit, PosteriorMean, fit
from ..fitting.stop import WMV
from ..masks import Mask
from ..prior import Prior
from .results import Found, Outcome, not_interrupted
from .settings import Settings
from .untrained import FRESH_SEED

POINTS = 100  # of a recorded curve
CURVES = ("step", "loss", "psnr", "low", "high")


class Problem(NamedTuple):
    """Operator, measurement, how to judge a picture, and the clean one if there is any.

    The score of a picture is its PSNR; of a scan that was undersampled in the scanner, how well it
    predicts samples that were set aside (`lipkit.mri.judged`).
    """

    op: Any
    y: Tensor
    score: Callable[[Tensor], float]
    clean: Tensor | None


def start(e: Settings, found: Found, initial_prior: Callable[..., Prior]) -> Prior:
    """Return the network that the fit starts from: that of the search, if it fits this problem."""
    device = str(found.start.z.device)
    if e.control == "fresh":
        return initial_prior(e, device, e.seed + FRESH_SEED)
    if not e.find_on:
        return found.start
    prior = initial_prior(e, device)  # the code belongs to the picture to restore
    prior.net.load_state_dict(found.start.net.state_dict())
    return prior


def restored(
    e: Settings, prior: Prior, mask: Mask | None, problem: Problem, progress: bool, **seen
) -> Fit:
    """Fit the prior to the measurement; what is `seen` along the way changes nothing."""
    average = e.fit.get("average")
    if isinstance(average, dict):
        average = PosteriorMean(**average)
    result = fit(
        prior, problem.op, problem.y, mask=mask, steps=e.steps, lr=e.lr,
        stop=_Watched(**e.stop) if e.stop else None,
        every=e.every or max(1, e.steps // POINTS), seed=e.seed, precision=e.precision,
        progress=progress, **seen, **e.fit | {"average": average},
    )  # fmt: skip
    not_interrupted(result)
    return result


def outcome(
    result: Fit, problem: Problem, more: dict[str, float], picture: Tensor | None = None
) -> Outcome:
    """Note the numbers that every fit has, and `more`; the history has the PSNR by now."""
    psnr = result.history["psnr"]
    numbers = {
        "stopped": problem.score(result.image),
        "oracle": float(psnr.max()),
        "last": float(psnr[-1]),
        "tail": float(psnr[-5:].mean()),
        "oracle_step": int(result.history["step"][psnr.argmax()]),
        "loss": float(result.history["loss"][-1]),
        **weights(result.net),
    }
    curve = {name: result.history[name] for name in CURVES if name in result.history}
    return Outcome(result.reason, numbers | more, curve, result.seconds, picture)


def weights(net: torch.nn.Module) -> dict[str, float]:
    """Count the weights of a network that are not zero, and those of a dense one."""
    return {
        "weights": sum(int(p.count_nonzero()) for p in net.parameters()),
        "kept": sum(p.numel() for p in net.parameters()),
        "density": 1.0,
    }


@torch.no_grad()
def untrained_picture(prior: Prior, mask: Mask | None) -> Tensor:
    """Return what the masked network shows before it is trained."""
    prior = prior.clone()
    if mask is not None:
        mask.apply(prior.net)
    return prior()[0].float().cpu()


def likeness(one: Tensor, other: Tensor) -> float:
    """Return the correlation of two pictures."""
    return float(torch.stack([one.flatten(), other.flatten()]).corrcoef()[0, 1])


@dataclass(frozen=True)
class _Watched(WMV):
    """A stop rule that picks its picture but lets the fit go on, so that curves are whole."""

    def init(self, x: Tensor) -> dict[str, Tensor]:
        return self._hidden(super().init(x))

    def update(self, state: dict[str, Tensor], step: int, x: Tensor) -> dict[str, Tensor]:
        return self._hidden(super().update(state | {"done": state["fired"]}, step, x))

    @staticmethod
    def _hidden(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return state | {"fired": state["done"], "done": torch.zeros_like(state["done"])}

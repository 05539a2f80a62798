"""Restore a picture from a measurement of it, by an untrained network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ... import data, metrics, physics
from ...errors import InputError
from ...fitting import Fit, Snapshot
from ...prior import Prior
from .. import restoring, untrained
from ..restoring import Problem
from ..results import Found, Outcome
from ..search import restoring_mask
from ..settings import Settings, check_names

TASKS = {
    "denoise": "standard deviation of the noise, white being 255",
    "inpaint": "fraction of the pixels that are known",
    "sr": "factor: 2, 4 or 8",
    "sensing": "number of random sums of all pixels that are measured",
}
OPTIONS = {  # of the operators, beside what the strength and the seed say
    "inpaint": ("per_channel",),
    "sr": ("kernel", "source"),
    "sensing": ("corrupted", "corruption", "sigma"),
}
MASKS_ARE_OF = "a picture"


def check(e: Settings) -> None:
    """Refuse what no operator can be asked."""
    untrained.check(e)
    check_names(f"option of task {e.task!r}:", e.task_options, OPTIONS.get(e.task, ()))


def problem(e: Settings, image: str | None = None) -> Problem:
    """Load the picture of an experiment, make its operator, and measure.

    >>> problem(Settings("astronaut", 16, task="sr", strength=2)).y.shape
    torch.Size([3, 8, 8])
    """
    clean = _picture(e, image or e.image)
    op = operator(e, tuple(clean.shape))
    y = op.measure(clean, seed=e.seed)
    return Problem(op, y, lambda x: metrics.psnr(x, clean), clean)


def operator(e: Settings, shape: tuple[int, ...]) -> physics.Operator:
    """Make the operator of an experiment on pictures of a shape."""
    if e.task == "denoise":
        return physics.Denoise(e.strength / 255, **e.task_options)
    if e.task == "inpaint":
        return physics.Inpaint.random(shape, e.strength, seed=e.seed, **e.task_options)
    if e.task == "sensing":
        return physics.CompressedSensing(shape, int(e.strength), seed=e.seed, **e.task_options)
    if e.task == "sr":
        return physics.SuperResolution(int(e.strength), **e.task_options)
    raise InputError(
        f"no operator restores pictures of task {e.task!r}: {', '.join(TASKS)} have one"
    )


def _picture(e: Settings, name: str) -> Tensor:
    if e.stretch:
        x = data.image(name, gray=e.gray)
        x = torch.nn.functional.interpolate(
            x[None], (e.size, e.size), mode="bicubic", antialias=True, align_corners=False
        )[0].clamp(0, 1)
    else:
        x = data.image(name, size=e.size, gray=e.gray)
    return x if e.gray or len(x) == 3 else x.expand(3, -1, -1).contiguous()


def initial_prior(e: Settings, device: str, seed: int | None = None) -> Prior:
    """Make the network of an experiment with its initial weights and its code."""
    made = {"out_channels": 1} if e.gray else {}
    return untrained.initial_prior(e, e.size, device, seed, **made)


def find(search: Settings, device: str, folder: str | Path | None, progress: bool) -> Found:
    """Find a mask by restoring."""
    return restoring_mask(search, initial_prior(search, device), problem, folder, progress)


def run(e: Settings, found: Found, progress: bool) -> Outcome:
    """Restore the picture, and note how it came about."""
    task = problem(e)
    prior = restoring.start(e, found, initial_prior)
    numbers = _start_numbers(restoring.untrained_picture(prior, found.mask), task)
    bands = _Bands(task.clean)
    result = restoring.restored(
        e, prior, found.mask, task, progress, reference=task.clean, callback=bands
    )
    result.history.update(bands.history())
    numbers |= _numbers(e, result, task.clean)
    return restoring.outcome(result, task, numbers, picture=result.image)


def _start_numbers(start: Tensor, task: Problem) -> dict[str, float]:
    """How the masked network looks untrained, and the measurement, beside the clean picture."""
    numbers = {"start": task.score(start), "start_likeness": restoring.likeness(start, task.clean)}
    if task.y.shape == task.clean.shape:
        numbers["noisy"] = task.score(task.y)
    return numbers


def _numbers(e: Settings, result: Fit, clean: Tensor) -> dict[str, float]:
    numbers = {}
    if e.size >= 11:
        numbers["stopped_ssim"] = metrics.ssim(result.image, clean)
    if e.task == "sr" and not e.gray and e.size > 8:
        numbers["stopped_y"] = metrics.psnr_y(result.image, clean)
        numbers["oracle_y"] = metrics.psnr_y(result.best, clean)
    return numbers


class _Bands:
    """A callback that follows how much of the clean picture's low and high frequencies is there."""

    def __init__(self, clean: Tensor) -> None:
        self.clean = clean
        self.shares: list[tuple[float, float]] = []

    def __call__(self, now: Snapshot) -> None:
        self.shares.append(metrics.bands(now.image, self.clean))

    def history(self) -> dict[str, np.ndarray]:
        return dict(zip(("low", "high"), np.round(self.shares, 3).T, strict=True))

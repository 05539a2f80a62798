"""What an experiment restores: its picture or scan, operator and measurement, and its network."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ... import metrics, physics
from ...prior import Prior

if TYPE_CHECKING:
    from ...data.scans import Scan
    from ..experiment import Experiment


LAWS = {"xavier": torch.nn.init.xavier_normal_}  # of initial weights, beside the networks' own


class Problem(NamedTuple):
    """Operator, measurement, how to judge a picture, and the clean one if there is any.

    The score of a picture is its PSNR; of a scan that was undersampled in the scanner, how well it
    predicts samples that were set aside (`lipkit.mri.judged`).
    """

    op: Any
    y: Tensor
    score: Callable[[Tensor], float]
    clean: Tensor | None


def problem(experiment: Experiment, image: str | None = None) -> Problem:
    """The picture of an experiment, its operator and its measurement.

    >>> from lipkit.lab import Experiment
    >>> problem(Experiment("astronaut", 16, task="sr", strength=2)).y.shape
    torch.Size([3, 8, 8])
    """
    e = experiment
    if e.task == "mri":
        return _mri_problem(e, image or e.image)
    clean = _picture(e, image or e.image)
    op = operator(e, tuple(clean.shape))
    y = op.measure(clean, seed=e.seed)
    return Problem(op, y, lambda x: metrics.psnr(x, clean), clean)


def operator(e: Experiment, shape: tuple[int, ...]) -> physics.Operator:
    """The operator of an experiment on pictures of a shape."""
    options = {name: value for name, value in e.task_options.items() if name != "pictures"}
    if e.task == "denoise":
        return physics.Denoise(e.strength / 255, **options)
    if e.task == "inpaint":
        return physics.Inpaint.random(shape, e.strength, seed=e.seed, **options)
    if e.task == "sensing":
        return physics.CompressedSensing(shape, int(e.strength), seed=e.seed, **options)
    return physics.SuperResolution(int(e.strength), **options)


def _picture(e: Experiment, name: str) -> Tensor:
    from ... import data

    if e.stretch:
        x = data.image(name, gray=e.gray)
        x = torch.nn.functional.interpolate(
            x[None], (e.size, e.size), mode="bicubic", antialias=True, align_corners=False
        )[0].clamp(0, 1)
    else:
        x = data.image(name, size=e.size, gray=e.gray)
    return x if e.gray or len(x) == 3 else x.expand(3, -1, -1).contiguous()


def _mri_problem(e: Experiment, name: str) -> Problem:
    from ... import mri

    scan, sampling = _scan(e, name), None
    if e.strength > 1:
        how = {k: v for k, v in e.task_options.items() if k in ("pattern", "calibration")}
        size = tuple(scan.sampling.shape)
        sampling = physics.sampling_mask(size, e.strength, seed=e.seed, **how)
    return Problem(*mri.judged(scan, sampling), scan.target)


@functools.lru_cache(maxsize=2)  # its coil maps take seconds
def _scan(e: Experiment, name: str) -> Scan:
    from ... import data

    how = {k: v for k, v in e.task_options.items() if k in ("sigma", "coils")}
    return data.scan(name, e.size, seed=e.seed, **how)


def initial_prior(e: Experiment, device: str, seed: int | None = None) -> Prior:
    """The network of an experiment with its initial weights and its code."""
    size, made = e.size, {"out_channels": 1} if e.gray else {}
    if e.task == "mri":
        name = e.image if isinstance(e.image, str) else e.image[0]
        size = tuple(_scan(e, name).sampling.shape)
        made = {"out_channels": 2, "sigmoid": False}
    prior = Prior(e.prior, size, e.seed if seed is None else seed, **made, **e.options)
    _redraw(prior, **e.initial)
    return prior.to(device)


@torch.no_grad()
def _redraw(prior: Prior, law: str = "", scale: float = 1) -> None:
    """Other initial weights of the convolutions: of another law, or larger or smaller."""
    draw = torch.Generator().manual_seed(prior.recipe.seed)
    for weight in (w for w in prior.net.parameters() if w.ndim == 4):
        if law:
            LAWS[law](weight, generator=draw)
        weight.mul_(scale)

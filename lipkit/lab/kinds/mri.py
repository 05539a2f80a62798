"""Reconstruct a scan from undersampled k-space, by an untrained network."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from torch import Tensor

from ... import data, mri, physics
from ...data.scans import Scan
from ...errors import InputError
from ...fitting import Fit
from ...prior import Prior
from .. import restoring, untrained
from ..restoring import Problem
from ..results import Found, Outcome
from ..search import restoring_mask
from ..settings import Settings, check_names

TASKS = {"mri": "acceleration: 1 / strength of k-space is measured; 1 is all that the scan has"}
MASKS_ARE_OF = "MRI"
SAMPLING_OPTIONS = ("pattern", "calibration")  # of `physics.sampling_mask`
SCAN_OPTIONS = ("sigma", "coils")  # of `data.scan`


def check(e: Settings) -> None:
    """Refuse what no scan can be asked."""
    untrained.check(e)
    untrained.check_no_oracle(e)
    check_names("option of task 'mri':", e.task_options, (*SAMPLING_OPTIONS, *SCAN_OPTIONS))
    if e.gray or e.stretch or e.strength < 1:
        raise InputError("task 'mri' has an acceleration of at least 1, no gray and no stretch")


def problem(e: Settings, image: str | None = None) -> Problem:
    """Load the scan, choose the part of its k-space that is measured, and how to score."""
    scan = _scan(e, image or e.image)
    sampling = None
    if e.strength > 1:
        how = {k: v for k, v in e.task_options.items() if k in SAMPLING_OPTIONS}
        size = tuple(scan.sampling.shape)
        sampling = physics.sampling_mask(size, e.strength, seed=e.seed, **how)
    return Problem(*mri.judged(scan, sampling), scan.target)


def _scan(e: Settings, name: str) -> Scan:
    how = {k: v for k, v in e.task_options.items() if k in SCAN_OPTIONS}
    return _loaded(name, e.size, e.seed, tuple(how.items()))


@functools.lru_cache(maxsize=2)  # its coil maps take seconds
def _loaded(name: str, size: int, seed: int, how: tuple[tuple[str, float], ...]) -> Scan:
    return data.scan(name, size, seed=seed, **dict(how))


def initial_prior(e: Settings, device: str, seed: int | None = None) -> Prior:
    """Make the network of an experiment, which draws real and imaginary part."""
    name = e.image if isinstance(e.image, str) else e.image[0]
    size = tuple(_scan(e, name).sampling.shape)
    return untrained.initial_prior(e, size, device, seed, out_channels=2, sigmoid=False)


def find(search: Settings, device: str, folder: str | Path | None, progress: bool) -> Found:
    """Find a mask by reconstructing; rounds report no PSNR, which would be that of pictures."""
    prior = initial_prior(search, device)
    return restoring_mask(search, prior, problem, folder, progress, psnr=False)


def run(e: Settings, found: Found, progress: bool) -> Outcome:
    """Reconstruct the scan; its PSNR is that of magnitudes."""
    task = problem(e)
    prior = restoring.start(e, found, initial_prior)
    numbers = _start_numbers(restoring.untrained_picture(prior, found.mask), task)
    watch = mri.Watch(task.score)
    result = restoring.restored(e, prior, found.mask, task, progress, callback=watch)
    result.history["psnr"] = np.array(watch.values)
    return restoring.outcome(result, task, numbers | _numbers(result, task))


def _start_numbers(start: Tensor, task: Problem) -> dict[str, float]:
    """How the masked network looks untrained, and the zero-filled picture.

    It is like the target only where the object is: nothing else is measured.
    """
    numbers = {
        "start": task.score(start),
        "noisy": task.score(mri.zero_filled(task.op, task.y)),
    }
    if task.clean is not None:
        inside = task.op.support[0] > 0
        numbers["start_likeness"] = restoring.likeness(start[:, inside], task.clean[:, inside])
    return numbers


def _numbers(result: Fit, task: Problem) -> dict[str, float]:
    if task.clean is None:
        return {}
    return {"stopped_ssim": mri.scores(result.image * task.op.support, task.clean)["ssim"]}

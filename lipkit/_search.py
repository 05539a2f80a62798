"""The mask of an experiment: found once, and kept in a folder for all that use it."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from . import find
from .experiment import Experiment, initial_prior, problem
from .masks import LayerCollapseWarning, Mask
from .prior import Prior


class Found(NamedTuple):
    """What a search left."""

    mask: Mask | None
    prior: Prior  # what the fit starts from: with rewinding not the initial weights
    seconds: float
    rounds: list[dict[str, float]]


def find_mask(e: Experiment, device: str, masks, progress: bool) -> Found:
    """The mask of an experiment, from the folder of masks if it is there."""
    if e.method == "dense":
        return Found(None, initial_prior(e, device), 0.0, [])
    search = e.search()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)  # it is counted in the record
        if search.method.startswith("imp"):
            return _iterative(search, device, masks, progress)
        return _at_once(search, device, masks, progress)


def _at_once(search: Experiment, device: str, masks, progress: bool) -> Found:
    prior = initial_prior(search, device)
    path = None if masks is None else Path(masks) / f"{_version_name(search)}.mask"
    with _alone(path):
        if path and path.exists():
            return Found(Mask.load(path, prior), prior, 0.0, [])
        began = time.perf_counter()
        op, y, *_ = problem(search)
        more: dict[str, Any] = {"seed": search.seed} | search.find
        if search.method == "oes":
            # its fit-like loop ends early on Ctrl-C and says so; a half-found mask is none
            more |= {"details": True, "progress": progress, "precision": search.precision}
        mask = getattr(find, search.method)(prior, op, y, search.density, **more)
        if search.method == "oes":
            not_interrupted(mask)
            mask = mask.mask
        if path:
            mask.save(path)
    return Found(mask, prior, time.perf_counter() - began, [])


def _iterative(search: Experiment, device: str, masks, progress: bool) -> Found:
    prior = initial_prior(search, device)
    # searches that differ in how far they go only share their rounds
    how = {name: value for name, value in search.find.items() if name != "rounds"}
    family = _version_name(replace(search, density=1, find=how))
    folder = None if masks is None else Path(masks) / family
    options = dict(seed=search.seed, precision=search.precision, progress=progress, folder=folder)
    options |= search.find
    if "rounds" not in options:
        options["density"] = search.density
    began = time.perf_counter()
    with _alone(folder):
        if search.method == "imp_multi":
            problems = [problem(search, name) for name in search.image]
            ops, ys, *_ = zip(*problems, strict=True)
            result = find.imp_multi(prior, ops, ys, **options)
        else:
            op, y, _, clean = problem(search)
            clean = None if search.task == "mri" else clean  # its rounds report PSNR of pictures
            result = find.imp(prior, op, y, reference=clean, **options)
    not_interrupted(result)
    names = ("density", "loss", "psnr", "best_psnr")
    rounds = [{n: shortened(getattr(r, n)) for n in names} for r in result.rounds]
    return Found(result.mask, result.start, time.perf_counter() - began, rounds)


def _version_name(search: Experiment) -> str:
    return "-".join([search.digest, *map(str, search.versions().values())])


@contextmanager
def _alone(path: Path | None) -> Iterator[None]:
    """Nobody else finds the same mask meanwhile: they wait, and then take it from the folder."""
    if path is None:
        yield
        return
    from filelock import FileLock  # comes with torch

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        yield


def not_interrupted(result) -> None:
    """What is cut short is no result."""
    if result.interrupted:
        raise KeyboardInterrupt


def shortened(value: float) -> float | int | None:
    """Enough digits to compare with, few enough to keep; None for what cannot be measured."""
    value = float(value)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else float(f"{value:.6g}")

"""The mask of an experiment: found once, and kept in a folder for all that use it."""

from __future__ import annotations

import inspect
import math
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import find
from ..fitting import fit
from ..formats import maskfile
from ..formats.atomic import alone, write
from ..masks import LayerCollapseWarning, Mask
from ..prior import Prior
from .experiment import Experiment, initial_prior, problem
from .kinds import classify as _lesson

ORACLE_EVERY = 10  # steps between two looks at the clean picture
STILL = 0.1  # odds that change less than this part of themselves stand still


class Found(NamedTuple):
    """What a search left."""

    mask: Mask | None
    prior: Prior  # what the fit starts from: with rewinding not the initial weights
    seconds: float
    rounds: list[dict[str, float]]
    numbers: dict[str, float]  # of the search itself


def find_mask(e: Experiment, device: str, masks, progress: bool) -> Found:
    """The mask of an experiment, from the folder of masks if it is there."""
    if e.method == "dense":
        return Found(None, initial_prior(e, device), 0.0, [], {})
    search = e.search()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)  # it is counted in the record
        if search.method.startswith("imp") and search.task != "classify":
            return _iterative(search, device, masks, progress)
        return _at_once(search, device, masks, progress)


def _at_once(search: Experiment, device: str, masks, progress: bool) -> Found:
    prior = initial_prior(search, device)
    path = None if masks is None else Path(masks) / f"{_version_name(search)}.mask"
    with alone(path):
        if path and path.exists():
            kept = maskfile.read(path)
            if search.method != "oes" or "search" in kept.about:  # older files lack its numbers
                return Found(Mask(kept.keep), prior, 0.0, [], kept.about.get("search", {}))
        began = time.perf_counter()
        mask, numbers = _new(search, prior, progress)
        if path:
            about = {"made_with": maskfile.versions(), "search": numbers}
            write(path, maskfile.pack(maskfile.MASK, mask.named(), about))
    return Found(mask, prior, time.perf_counter() - began, [], numbers)


def _new(search: Experiment, prior: Prior, progress: bool) -> tuple[Mask, dict[str, Any]]:
    """A mask, and numbers of its search where there are any."""
    if search.task == "classify":
        return _lesson.find_mask(search, prior, progress), {}
    op, y, *_ = problem(search)
    more: dict[str, Any] = {"seed": search.seed} | search.find
    if search.method != "oes":
        return getattr(find, search.method)(prior, op, y, search.density, **more), {}
    more |= {"details": True, "progress": progress, "precision": search.precision}
    found = find.oes(prior, op, y, search.density, **more)
    not_interrupted(found)  # its loop ends early on Ctrl-C and says so; a half-found mask is none
    return found.mask, _numbers(found)


def _numbers(found: find.Oes) -> dict[str, float | int | None]:
    """What the odds of keeping a weight came to, and for how many steps they had stood there."""
    steps, odds = found.history["step"], found.history["kept"]
    moving = abs(odds - odds[-1]) > STILL * odds[-1]
    since = steps[moving][-1] if moving.any() else 0
    spread = torch.cat([v.flatten() for v in found.logits.values()]).std()
    numbers = {"odds": odds[-1], "still": found.steps - since, "spread": spread}
    return {name: shortened(value) for name, value in numbers.items()}


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
    until_oracle, numbers = options.pop("until_oracle", False), {}
    began = time.perf_counter()
    with alone(folder):
        if search.method == "imp_multi":
            problems = [problem(search, name) for name in search.image]
            ops, ys, *_ = zip(*problems, strict=True)
            result = find.imp_multi(prior, ops, ys, **options)
        else:
            op, y, _, clean = problem(search)
            clean = None if search.task == "mri" else clean  # its rounds report PSNR of pictures
            if until_oracle:
                options["steps"] = _oracle_step(prior, op, y, clean, options)
                numbers["round_steps"] = options["steps"]
            result = find.imp(prior, op, y, reference=clean, **options)
    not_interrupted(result)
    names = ("density", "loss", "psnr", "best_psnr")
    rounds = [{n: shortened(getattr(r, n)) for n in names} for r in result.rounds]
    return Found(result.mask, result.start, time.perf_counter() - began, rounds, numbers)


def _oracle_step(prior: Prior, op, y: Tensor, clean: Tensor, options: dict[str, Any]) -> int:
    """When the dense fit, of as many steps as a round has, is nearest to the clean picture."""
    taken, folder = inspect.signature(fit).parameters, options["folder"]
    how = {"steps": 3000} | {n: v for n, v in options.items() if n in taken}
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        how["checkpoint"] = folder / "dense"
    result = fit(prior, op, y, reference=clean, **how | {"every": ORACLE_EVERY})
    not_interrupted(result)
    return int(result.history["step"][result.history["psnr"].argmax()])


def _version_name(search: Experiment) -> str:
    return "-".join([search.digest, *map(str, search.versions().values())])


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

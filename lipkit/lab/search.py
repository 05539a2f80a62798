"""The mask of an experiment: found once, and kept in a folder for all that use it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import find
from ..fitting import fit
from ..formats import maskfile
from ..formats.atomic import alone, write
from ..masks import Mask
from ..prior import Prior
from .results import Found, not_interrupted, shortened
from .settings import Settings

ORACLE_EVERY = 10  # steps between two looks at the clean picture
STILL = 0.1  # odds that change less than this part of themselves stand still
MaskAndNumbers = tuple[Mask, dict[str, Any]]


def restoring_mask(
    search: Settings,
    prior: Prior,
    problem: Callable[..., Any],
    folder: str | Path | None,
    progress: bool,
    psnr: bool = True,
) -> Found:
    """Find the mask of a restoration.

    `problem(search)`, or `problem(search, image)` for each of several, gives the operator, the
    measurement, a score and the clean picture. `psnr`: report that of every round of pruning.
    """
    if search.method.startswith("imp"):
        return _pruned(search, prior, problem, folder, progress, psnr)
    return kept_mask(search, prior, folder, lambda: _new(search, prior, problem(search), progress))


def kept_mask(
    search: Settings, prior: Prior, folder: str | Path | None, new: Callable[[], MaskAndNumbers]
) -> Found:
    """Read a mask and the numbers of its search from the folder, or make it anew and keep it."""
    if search.method == "dense":
        return Found(None, prior)
    path = None if folder is None else Path(folder) / f"{mask_name(search)}.mask"
    with alone(path):
        if path and path.exists():
            kept = maskfile.read(path)
            if search.method != "oes" or "search" in kept.about:  # older files lack its numbers
                return Found(Mask(kept.keep), prior, numbers=kept.about.get("search", {}))
        began = time.perf_counter()
        mask, numbers = new()
        if path:
            about = {"made_with": maskfile.versions(), "search": numbers}
            write(path, maskfile.pack(maskfile.MASK, mask.named(), about))
    return Found(mask, prior, time.perf_counter() - began, numbers=numbers)


def _new(search: Settings, prior: Prior, problem: Any, progress: bool) -> MaskAndNumbers:
    op, y, *_ = problem
    options: dict[str, Any] = {"seed": search.seed} | search.find
    if search.method != "oes":
        return getattr(find, search.method)(prior, op, y, search.density, **options), {}
    options |= {"details": True, "progress": progress, "precision": search.precision}
    found = find.oes(prior, op, y, search.density, **options)
    not_interrupted(found)
    return found.mask, _numbers(found)


def _numbers(found: find.Oes) -> dict[str, float | int | None]:
    """What the odds of keeping a weight came to, and for how many steps they had stood there."""
    steps = found.history["step"]
    odds = found.history["kept"]
    moving = abs(odds - odds[-1]) > STILL * odds[-1]
    since = steps[moving][-1] if moving.any() else 0
    spread = torch.cat([v.flatten() for v in found.logits.values()]).std()
    numbers = {"odds": odds[-1], "still": found.steps - since, "spread": spread}
    return {name: shortened(value) for name, value in numbers.items()}


def _pruned(
    search: Settings,
    prior: Prior,
    problem: Callable[..., Any],
    masks: str | Path | None,
    progress: bool,
    psnr: bool,
) -> Found:
    """Prune round by round; what was done before is read from the folder of rounds."""
    # searches that differ in how far they go only share their rounds
    how = {name: value for name, value in search.find.items() if name != "rounds"}
    family = mask_name(replace(search, density=1, find=how))
    folder = None if masks is None else Path(masks) / family
    options: dict[str, Any] = dict(
        seed=search.seed, precision=search.precision, progress=progress, folder=folder
    )
    options |= search.find
    if "rounds" not in options:
        options["density"] = search.density
    until_oracle = options.pop("until_oracle", False)
    numbers = {}
    began = time.perf_counter()
    with alone(folder):
        if search.method == "imp_multi":
            ops, ys, *_ = zip(*(problem(search, name) for name in search.image), strict=True)
            result = find.imp_multi(prior, ops, ys, **options)
        else:
            op, y, _, clean = problem(search)
            if until_oracle:
                options["steps"] = _oracle_step(prior, op, y, clean, options)
                numbers["round_steps"] = options["steps"]
            result = find.imp(prior, op, y, reference=clean if psnr else None, **options)
    not_interrupted(result)
    names = ("density", "loss", "psnr", "best_psnr")
    rounds = [{n: shortened(getattr(r, n)) for n in names} for r in result.rounds]
    return Found(result.mask, result.start, time.perf_counter() - began, rounds, numbers)


def _oracle_step(prior: Prior, op, y: Tensor, clean: Tensor, options: dict[str, Any]) -> int:
    """When the dense fit, of as many steps as a round has, is nearest to the clean picture."""
    taken = inspect.signature(fit).parameters
    folder = options["folder"]
    how = {"steps": 3000} | {n: v for n, v in options.items() if n in taken}
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        how["checkpoint"] = folder / "dense"
    result = fit(prior, op, y, reference=clean, **how | {"every": ORACLE_EVERY})
    not_interrupted(result)
    return int(result.history["step"][result.history["psnr"].argmax()])


def mask_name(search: Settings) -> str:
    """Name what a search finds: its hash and the versions that it rests on."""
    return "-".join([search.digest, *map(str, search.versions().values())])

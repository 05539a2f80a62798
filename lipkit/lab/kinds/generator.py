"""Restore pictures on a trained generator's range, which is searched, not fitted.

All pictures of an experiment are searched side by side; its numbers are their means.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ... import data, physics
from ...data.registry import folder as data_folder
from ...errors import FileError, InputError
from ...find.schedule import rounds_to
from ...gan import generators, tickets
from ...gan.search import Found as Searched
from ...gan.search import search as search_range
from ...models import Generator
from ..restoring import weights
from ..results import Found, Outcome, not_interrupted
from ..search import mask_name
from ..settings import Settings, check_names
from . import restore

PICTURES = 8  # of an experiment, unless it says otherwise
TRAINING = 2000  # pictures that tickets are fine-tuned on, of those that "faces-64" was trained on
HELD_OUT = 100  # added to an experiment's seed: the seed of faces that nothing was trained on
MASKS_ARE_OF = "a trained generator"
PARTS = {  # what an experiment on a generator may say
    "method": ("dense", "random", "magnitude", "imp"),
    "task": ("denoise", "inpaint", "sensing"),
    "control": ("none", "shuffled", "random", "finetuned"),
}
OPTIONS = ("weights",)
SEARCH = ("loss", "restarts", "average", "blocks", "shuffle", "patience")
FIND = {
    "magnitude": ("score",),
    "imp": ("steps", "batch", "lr", "rate", "score", "prune_critic", "pictures"),
}
NOTHING = ("find_on", "stop", "initial", "gray", "stretch", "precision")
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


class Several(NamedTuple):
    """An operator, the measurements of several pictures, and the clean pictures."""

    op: physics.Operator
    ys: list[Tensor]
    clean: Tensor


def check(e: Settings) -> None:
    """Refuse what no generator can be asked."""
    for name, known in PARTS.items():
        check_names(f"{name} for a trained generator:", [getattr(e, name)], known)
    check_names("network option:", e.options, OPTIONS)
    check_names("option of a search:", e.fit, SEARCH)
    check_names(f"option of {e.method!r}:", e.find, FIND.get(e.method, ()))
    if wrong := [name for name in NOTHING if name in e.given()]:
        raise InputError(f"an experiment on a trained generator takes no {wrong[0]!r}")
    if e.control == "finetuned" and e.method != "imp":
        raise InputError("only method 'imp' fine-tunes the generator")
    if e.method == "dense" and (e.density != 1 or e.control != "none"):
        raise InputError("method 'dense' has no mask: no density and no control")


def problem(e: Settings, side: int | None = None) -> Several:
    """Measure the pictures of an experiment, which are as large as the generator's."""
    clean = pictures(e, side or _trained(e).side, held_out=True)
    options = {name: value for name, value in e.task_options.items() if name != "pictures"}
    op = restore.operator(replace(e, task_options=options), tuple(clean[0].shape))
    return Several(op, [op.measure(x, seed=e.seed + i) for i, x in enumerate(clean)], clean)


def pictures(e: Settings, side: int, held_out: bool, count: int | None = None) -> Tensor:
    """Load pictures to restore, or others to fine-tune on: painted faces, or a folder's."""
    count = count or e.task_options.get("pictures", PICTURES)
    if e.image == "faces":
        return data.faces(count, side, HELD_OUT + e.seed if held_out else 0)
    path = next((p for p in (Path(e.image), data_folder() / e.image) if p.is_dir()), None)
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in _ENDINGS) if path else []
    first = len(files) * 2 // 5  # the published program trains on the first 40 %
    files = files[first:][:count] if held_out else files[:first][:count]
    if len(files) < (count if held_out else 1):
        raise FileError(
            f"{e.image!r} is no folder of enough pictures, here or in {data_folder()}; the first "
            f"40 % of it are for training, and {count} more are needed"
        )
    return torch.stack([data.image(f, size=side) for f in files])


def find(search: Settings, device: str, folder: str | Path | None, progress: bool) -> Found:
    """Prune the generator, or read from the folder what was pruned before."""
    net = _trained(search).to(device)
    began = time.perf_counter()
    if search.method == "dense":
        return Found(None, net)
    if search.method != "imp":
        if search.method == "random":
            mask = tickets.random(net, search.density, search.seed)
        else:
            mask = tickets.magnitude(net, search.density, **search.find)
        return Found(mask, net, time.perf_counter() - began)
    how = {"rate": 0.2, "pictures": TRAINING} | search.find
    real = pictures(search, net.side, held_out=False, count=how.pop("pictures"))
    found = tickets.imp(
        net, generators.critic(_name(search)).to(device), real, **how,
        rounds=rounds_to(search.density, how["rate"]), seed=search.seed, progress=progress,
        folder=folder and Path(folder) / _family(search),
    )  # fmt: skip
    seconds = time.perf_counter() - began
    return Found(found.masks[-1], net, seconds, found.log, tuned=found.finetuned[-1])


def _trained(e: Settings) -> Generator:
    return generators.generator(_name(e))


def _name(e: Settings) -> str:
    return e.options.get("weights", "faces-64")


def _family(search: Settings) -> str:
    """Tickets that differ in how far they were pruned, or in their use, share their rounds."""
    own = replace(
        search, density=0.5, control="none", task="denoise", strength=25, task_options={},
        steps=1, lr=1, fit={}, every=None,
    )  # fmt: skip
    return f"gan-{mask_name(own)}"


def sparse(e: Settings, found: Found) -> Generator:
    """Mask the generator, with its trained weights or with those fine-tuned under the mask."""
    if found.mask is None:
        return found.start
    return found.tuned if e.control == "finetuned" else tickets.masked(found.start, found.mask)


def run(e: Settings, found: Found, progress: bool) -> Outcome:
    """Search the range for the pictures, and note how near it comes to them on average."""
    net = sparse(e, found)
    task = problem(e, net.side)
    searched = search_range(
        net, task.op, task.ys, steps=e.steps, lr=e.lr, every=e.every or max(1, e.steps // 50),
        reference=list(task.clean), seed=e.seed, progress=progress, **e.fit,
    )  # fmt: skip
    not_interrupted(searched[0])
    psnr = _of_best(searched, "psnr")
    loss = _of_best(searched, "loss")
    pairs = zip(searched, task.clean, strict=True)
    errors = [float((one.image - x).square().mean()) for one, x in pairs]
    numbers = {
        "stopped": float(np.mean(-10 * np.log10(errors))),
        "oracle": psnr.max(1).mean(),
        "last": psnr[:, -1].mean(),
        "tail": psnr[:, -5:].mean(),
        "error": 4 * float(np.mean(errors)),  # of pictures from -1 to 1, as the papers count it
        "loss": loss[:, -1].mean(),
        **weights(net),
    }
    curve = {"step": searched[0].history["step"], "loss": loss.mean(0), "psnr": psnr.mean(0)}
    return Outcome(searched[0].reason, numbers, curve, searched[0].seconds)


def _of_best(searched: list[Searched], name: str) -> np.ndarray:
    """A curve of each picture: that of the restart whose loss ended lowest."""
    return np.array([one.history[name][:, one.losses.argmin()] for one in searched])

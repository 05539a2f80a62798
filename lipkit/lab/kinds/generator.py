"""An experiment on a generator's range: its pictures, its ticket, its search, and their numbers.

All pictures of an experiment are searched side by side; its numbers are their means.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...errors import FileError, InputError
from ...find.schedule import rounds_to
from ...gan import generators, tickets
from ...gan.search import search
from ...masks import Mask
from ...models import Generator

if TYPE_CHECKING:
    from ..experiment import Experiment

PICTURES = 8  # of an experiment, unless it says otherwise
TRAINING = 2000  # pictures that tickets are fine-tuned on, of those that "faces-64" was trained on
HELD_OUT = 100  # added to an experiment's seed: the seed of faces that nothing was trained on
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


def run(e: Experiment, device: str, masks: str | Path | None, progress: bool) -> dict[str, Any]:
    """What a record of the experiment says, beside what it was made with."""
    from ..search import not_interrupted, shortened
    from .restore import operator

    net = generators.generator(e.options.get("weights", "faces-64")).to(device)
    clean = pictures(e, net.side, held_out=True)
    began = time.perf_counter()
    mask, sparse, rounds = ticket(e, net, masks, progress)
    searched = time.perf_counter() - began
    op = operator(e, tuple(clean[0].shape))
    ys = [op.measure(x, seed=e.seed + i) for i, x in enumerate(clean)]
    found = search(
        sparse, op, ys, steps=e.steps, lr=e.lr, every=e.every or max(1, e.steps // 50),
        reference=list(clean), seed=e.seed, progress=progress, **e.fit,
    )  # fmt: skip
    not_interrupted(found[0])
    best = [f.losses.argmin() for f in found]  # of the restarts, by loss
    psnr, loss = (
        np.array([f.history[name][:, i] for f, i in zip(found, best, strict=True)])
        for name in ("psnr", "loss")
    )
    errors = [float((f.image - x).square().mean()) for f, x in zip(found, clean, strict=True)]
    numbers = {
        "stopped": float(np.mean(-10 * np.log10(errors))),
        "oracle": psnr.max(1).mean(),
        "last": psnr[:, -1].mean(),
        "tail": psnr[:, -5:].mean(),
        "error": 4 * float(np.mean(errors)),  # of pictures from -1 to 1, as the papers count it
        "loss": loss[:, -1].mean(),
        "weights": sum(int(p.count_nonzero()) for p in sparse.parameters()),
        "kept": sum(p.numel() for p in sparse.parameters()),
        "density": 1.0,
    }
    if mask is not None:
        numbers |= {"kept": mask.kept, "density": mask.density, "collapsed": len(mask.collapsed())}
    curve = {"step": found[0].history["step"], "loss": loss.mean(0), "psnr": psnr.mean(0)}
    return {
        "reason": found[0].reason,
        "numbers": {name: shortened(value) for name, value in numbers.items()},
        "curve": {name: [shortened(v) for v in values] for name, values in curve.items()},
        "layers": {} if mask is None else {n: list(c) for n, c in mask.per_layer().items()},
        "rounds": rounds,
        "search_seconds": round(searched, 2),
        "fit_seconds": round(found[0].seconds, 2),
    }


def check(e: Experiment) -> None:
    """Refuse what cannot be run on a generator, before anything is."""
    from ..experiment import one_of

    for name, known in PARTS.items():
        one_of(f"{name} for a trained generator:", getattr(e, name), known)
    given = [("network option", e.options, OPTIONS), ("option of a search", e.fit, SEARCH),
             (f"option of {e.method!r}", e.find, FIND.get(e.method, ()))]  # fmt: skip
    for what, options, known in given:
        for name in options:
            one_of(f"{what}:", name, known)
    if wrong := [name for name in NOTHING if name in e.given()]:
        raise InputError(f"an experiment on a trained generator takes no {wrong[0]!r}")
    if e.control == "finetuned" and e.method != "imp":
        raise InputError("only method 'imp' fine-tunes the generator")
    if e.method == "dense" and (e.density != 1 or e.control != "none"):
        raise InputError("method 'dense' has no mask: no density and no control")


def ticket(
    e: Experiment, net: Generator, folder: str | Path | None, progress: bool = False
) -> tuple[Mask | None, Generator, list[dict[str, float]]]:
    """The mask of an experiment, the generator under it, and the rounds that led to it."""
    if e.method == "dense":
        return None, net, []
    if e.method == "random":
        mask, rounds = tickets.random(net, e.density, e.seed), []
    elif e.method == "magnitude":
        mask, rounds = tickets.magnitude(net, e.density, **e.find), []
    else:
        how = dict(e.find)
        rate, real = how.setdefault("rate", 0.2), how.pop("pictures", TRAINING)
        found = tickets.imp(
            net, generators.critic(e.options.get("weights", "faces-64")).to(net.start.weight),
            pictures(e, net.side, held_out=False, count=real), **how,
            rounds=rounds_to(e.density, rate), seed=e.seed, progress=progress,
            folder=folder and Path(folder) / _family(e),
        )  # fmt: skip
        mask, rounds = found.masks[-1], found.log
        if e.control == "finetuned":
            return mask, found.finetuned[-1], rounds
    if e.control != "none":
        mask = (
            mask.shuffled(e.seed) if e.control == "shuffled" else mask.same_density_random(e.seed)
        )
    return mask, tickets.masked(net, mask), rounds


def _family(e: Experiment) -> str:
    """Tickets that differ in how far they were pruned, or in their use, share their rounds."""
    own = replace(
        e, density=0.5, control="none", task="denoise", strength=25, task_options={},
        steps=1, lr=1, fit={}, every=None,
    )  # fmt: skip
    return "-".join(["gan", own.digest, *map(str, own.versions().values())])


def pictures(e: Experiment, side: int, held_out: bool, count: int | None = None) -> Tensor:
    """Pictures to restore, or others to fine-tune on: procedural faces, or a folder's."""
    count = count or e.task_options.get("pictures", PICTURES)
    if e.image == "faces":
        from ...data import faces

        return faces(count, side, HELD_OUT + e.seed if held_out else 0)
    from ...data import image
    from ...data.registry import folder

    path = next((p for p in (Path(e.image), folder() / e.image) if p.is_dir()), None)
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in _ENDINGS) if path else []
    first = len(files) * 2 // 5  # the published program trains on the first 40 %
    files = files[first:][:count] if held_out else files[:first][:count]
    if len(files) < (count if held_out else 1):
        raise FileError(
            f"{e.image!r} is no folder of enough pictures, here or in {folder()}; the first "
            f"40 % of it are for training, and {count} more are needed"
        )
    return torch.stack([image(f, size=side) for f in files])

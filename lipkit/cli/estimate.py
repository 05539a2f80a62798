"""Time and memory that a large picture will take, found out on a small one."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import click
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ..errors import InputError
from ..prior import Recipe
from .task import Problem

LARGE = 640 * 640  # pixels above which it is worth half a second to find out
_SIDE = 128
_OVERHEAD = 1.3  # gradients and workspace beyond what the forward pass keeps (measured: 0.7 to 1.6)
_GIGA = 2**30


def announce(problem: Problem, recipe: Recipe, steps: int, window: int, device: str) -> None:
    """Say on stderr what a large picture costs; refuse what cannot fit into memory.

    Args:
        window: how many whole pictures the stop rule holds.
    """
    height, width = problem.size
    if height * width < LARGE:
        return
    from ..lab.sweep import duration  # late: only large pictures need it

    stored, seconds = probe(recipe)
    pixels = height * width
    needed = pixels * (_OVERHEAD * stored + 4 * problem.channels * window)
    free = available_memory(device)
    side = max(problem.y.shape[1:])
    if free is not None and needed > free:
        fits = max(32, int(side * (0.9 * free / needed) ** 0.5) // 32 * 32)
        raise InputError(
            f"{width} x {height} pixels need about {needed / _GIGA:.0f} GB of memory and "
            f"{free / _GIGA:.0f} GB are free; shrink the picture with --size {fits}"
            + (", or use --stop emv" if window > 1 else "")
        )
    cost = f"about {needed / _GIGA:.1f} GB of memory"
    if device == "cpu":  # a GPU is not filled by a small picture: no telling from one
        cost += f" and at most {duration(steps * pixels * seconds)}"
    click.echo(
        f"{width} x {height} pixels: {cost}; --size {side // 2} would take a quarter", err=True
    )


def probe(recipe: Recipe) -> tuple[float, float]:
    """Measure bytes kept for the backward pass, and seconds a step, each for one pixel."""
    prior = replace(recipe, size=(_SIDE, _SIDE)).prior()
    own = {p.untyped_storage().data_ptr() for p in prior.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        prior().sum().backward()  # also warms up
    began = time.perf_counter()
    prior().sum().backward()
    height, width = prior.net_size
    return sum(kept.values()) / (height * width), (time.perf_counter() - began) / (height * width)


def available_memory(device: str) -> int | None:
    """Return the bytes free for us, or None where nobody says."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        with open("/proc/meminfo") as table:
            rows = dict(line.split(":") for line in table)
        return 1024 * int(rows["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        pass
    try:  # macOS tells how much there is, not how much is free
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None

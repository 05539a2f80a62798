"""What each ingredient of a masked fit's step is worth, beside the plainest loop.

The loop as published goes through the full network and multiplies the gradients by the mask. Added
in turn: channels_last with fused Adam; bfloat16 (on top of that, by itself); pooling before the
convolutions; the network without the channels that have no influence; the sparse step. "fit" is a
step of `lipkit.fit`, which chooses for itself and measures PSNR and SSIM every 50 steps.

Masks are uniform, but for a whole last layer; "learned" ones keep in each convolution as many
weights as the published 5 % mask of the picture "pepper", at random places. `part` is the part of
the multiply-adds that is kept, `gflops` counts 6 operations for each multiply-add kept (of the
plain loop: for all), and `peak_gflops` is what a product of large matrices reaches here. `peak_mib`
is the memory needed at most, beside that of the libraries.

    python benchmarks/fit.py
"""

from __future__ import annotations

import contextlib
import copy
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from side_by_side import Row, main, take_turns

import lipkit as lk
from lipkit.engine import EVEN, boxed, cost, drop_channels, sparse_network
from lipkit.fitting.descent import _Run
from lipkit.fitting.settings import Settings

STEPS = {"128": 5, "256": 3, "384x256": 2}  # a block
MASKS = ("3 %", "5 %", "10 %", "20 %", "learned")
CASES = [
    *(
        dict(threads=t, net="oes", size=s, mask=m)
        for t in (1, 2)
        for s in ("128", "256")
        for m in MASKS
    ),
    *(dict(threads=2, net="oes", size="384x256", mask=m) for m in ("5 %", "learned")),
    dict(threads=2, net="dip", size="256", mask="10 %"),
]
LEVELS = {"32": 3, "128": 5, "256": 6, "384x256": 6}  # of `oes`: so many that it need not crop
# weights kept in down0a, down0b, down1a, ..., down5b; up5a, ..., up0a, head
LEARNED_DOWN = (868, 134, 331, 561, 827, 1225, 2165, 3978, 6845, 11025, 19029, 26521)
LEARNED_UP = (25405, 22328, 17083, 7495, 2202, 1190, 28)


def make_mask(net: torch.nn.Module, kind: str) -> lk.Mask:
    """Uniform at a density, or with the counts of a learned mask in each layer."""
    if kind != "learned":
        uniform = lk.Mask.random(net, float(kind.split()[0]) / 100)
        keep = {name: uniform[name] for name in uniform.names}
        return lk.Mask(keep | {"head.weight": torch.ones_like(keep["head.weight"])})
    draw = torch.Generator().manual_seed(0)
    counts = iter(LEARNED_DOWN[: 2 * net.levels] + LEARNED_UP[-net.levels - 1 :])
    keep = {}
    for name, p in net.named_parameters():
        if p.ndim == 4:
            flat = torch.zeros(p.numel(), dtype=torch.bool)
            flat[torch.randperm(p.numel(), generator=draw)[: next(counts)]] = True
            keep[name] = flat.reshape(p.shape)
    return lk.Mask(keep)


def loop(net, z, y, mask=None, fast: bool = True, half: bool = False) -> Callable[[int], None]:
    """Steps of training; `fast`: in the faster memory layout, with the fused optimizer."""
    layout = torch.channels_last if fast else torch.contiguous_format
    net, z = net.to(memory_format=layout), z.to(memory_format=layout)
    pairs = [] if mask is None else mask.pairs(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, fused=fast or None)

    def run(steps: int) -> None:
        for _ in range(steps):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                x = net(z)
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(x.float(), y[None]).backward()
            for p, m in pairs:
                p.grad.mul_(m)
            optimizer.step()

    return run


def fitting(prior: lk.Prior, y: torch.Tensor, mask: lk.Mask) -> Callable[[int], None]:
    """Steps of `lipkit.fit`."""
    numbers = Settings(10**9, 0.01, 0.0, None, None, 0.0, 0.0, None, 50, 0, "auto", "auto")
    run = _Run(prior, lk.physics.Denoise(), y, mask, numbers, y)

    def steps(count: int) -> None:
        for _ in range(count):
            run.advance()

    return steps


def makers(net_name: str, size: str, kind: str) -> tuple[dict[str, Callable], Row]:
    """A function for each way that builds its loop, and numbers on the mask."""
    height, width = (int(s) for s in (size.split("x") * 2)[:2])
    options = {"levels": LEVELS[size]} if net_name == "oes" else {}
    prior = lk.Prior(net_name, (height, width), **options)
    y = lk.physics.Denoise(0.1).measure(lk.testing.tiny_image((height, width)))
    mask, z = make_mask(prior.net, kind), prior.z
    mask.apply(prior.net)
    small = drop_channels(prior.net, mask)
    even = drop_channels(prior.net, mask, EVEN)
    kept = cost(small.net, z, small.mask).kept
    dense = cost(prior.net, z).multiply_adds

    def full() -> torch.nn.Module:
        return copy.deepcopy(prior.net)

    ways = {
        "plain": lambda: loop(full(), z, y, mask, fast=False),
        "channels_last": lambda: loop(full(), z, y, mask),
        "bf16": lambda: loop(full(), z, y, mask, half=True),
        "box": lambda: loop(boxed(full()), z, y, mask),
        "compact": lambda: loop(boxed(even.net), z, y, even.mask),
        "sparse": lambda: loop(sparse_network(small.net, small.mask), z, y),
        "fit": lambda: fitting(prior, y, mask),
    }
    about = dict(
        density=round(mask.density, 4), part=round(kept / dense, 4), mega_multiply_adds=dense / 1e6,
        channels_kept=round(small.channels[0] / small.channels[1], 3),
    )  # fmt: skip
    return ways, about


def measure(threads: int, net: str, size: str, mask: str) -> Row:
    """One network, size, mask and number of threads."""
    ways, row = makers(net, size, mask)
    runs = {name: make() for name, make in ways.items()}
    row |= take_turns(runs, 1 if net == "dip" else STEPS[size])
    operations = 6 * row["mega_multiply_adds"] / 1000
    row["plain_gflops"] = round(1000 * operations / row["plain_ms"], 1)
    row["sparse_gflops"] = round(1000 * operations * row["part"] / row["sparse_ms"], 1)
    row["peak_gflops"] = round(peak(), 1)
    row["speedup"] = round(1 / row["fit_ratio"], 2)
    for name in ways:
        asked = threads == 1 and size == "256"  # it takes a while and does not depend on threads
        row[f"{name}_peak_mib"] = memory(net, size, mask, name) if asked else ""
    return row


def peak(side: int = 1024) -> float:
    """Billions of operations a second in a product of square matrices."""
    a, times = torch.rand(side, side), []
    for _ in range(10):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times) / 1e9


def memory(*case: str) -> float:
    """MiB at the peak of a few steps in a process of its own."""
    command = [sys.executable, __file__, "--memory", *case]
    # what is freed goes back to the system at once, so that it does not hide what comes after
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def few_steps(net: str, size: str, mask: str, name: str) -> None:
    """What `memory` runs."""
    makers(net, "32", mask)[0][name]()(1)  # loads libraries and compiled code
    ways, _ = makers(net, size, mask)
    with contextlib.suppress(OSError):  # elsewhere than on Linux the peak is that of the process
        Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    ways[name]()(3)
    print((_resident("VmHWM") - before) // 1024)


def _resident(field: str) -> int:
    """Kibibytes of memory in use, or at the peak."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        few_steps(*sys.argv[2:])
    else:
        sys.exit(main(__file__, __doc__, measure, CASES))

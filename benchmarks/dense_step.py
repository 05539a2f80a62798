"""What one step of `lipkit.fit` costs beside the plainest loop for the same network.

Both fit the dense `dip` network to a noisy picture with Adam; `lipkit.fit` also measures PSNR and
SSIM against the clean picture every 50 steps. The two take turns, block by block, so that whatever
else the machine does falls on both. Prints a table and writes dense_step.csv beside this file.

    python benchmarks/dense_step.py
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch

import lipkit as lk

SIZES = (64, 128, 256)
THREADS = (1, 2)
EVERY = 50  # the default of lipkit.fit
BLOCKS = 5
STEPS = {64: 25, 128: 8, 256: 2}  # a block; lipkit.fit measures at least once in each
COLUMNS = (
    "size", "threads", "plain_ms", "plain_spread_ms", "lipkit_ms", "lipkit_spread_ms", "ratio",
    "steps_a_block", "blocks", "measured_every", "busy", "machine", "cores", "torch", "lipkit",
)  # fmt: skip


def plain_loop(prior: lk.Prior, y: torch.Tensor, steps: int) -> None:
    """The loop that everybody writes first."""
    net, z = copy.deepcopy(prior.net), prior.z
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        out = net(z)
        loss = torch.nn.functional.mse_loss(out, y[None])
        loss.backward()
        optimizer.step()


def lipkit_fit(prior: lk.Prior, y: torch.Tensor, steps: int, clean: torch.Tensor) -> None:
    op = lk.physics.Denoise(0.1)
    lk.fit(prior, op, y, steps=steps, reference=clean, every=EVERY, progress=False)


def milliseconds_a_step(run, steps: int) -> float:
    start = time.perf_counter()
    run(steps)
    return 1000 * (time.perf_counter() - start) / steps


def compare(size: int, threads: int) -> dict:
    """Medians and half the interquartile range over blocks that take turns."""
    torch.set_num_threads(threads)
    clean = lk.testing.tiny_image((size, size))
    y = lk.physics.Denoise(0.1).measure(clean)
    prior = lk.Prior("dip", size)
    runs = {
        "plain": lambda n: plain_loop(prior, y, n),
        "lipkit": lambda n: lipkit_fit(prior, y, n, clean),
    }
    steps = STEPS[size]
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():  # the first step chooses kernels and allocates memory
        run(1)
    for block in range(BLOCKS):
        names = list(runs) if block % 2 == 0 else list(reversed(runs))
        for name in names:
            times[name].append(milliseconds_a_step(runs[name], steps))
    row = {"size": size, "threads": threads, "steps_a_block": steps, "blocks": BLOCKS}
    for name, values in times.items():
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        row[f"{name}_ms"] = round(statistics.median(values), 2)
        row[f"{name}_spread_ms"] = round((high - low) / 2, 2)
    pairs = zip(times["lipkit"], times["plain"], strict=True)
    row["ratio"] = round(statistics.median(ours / plain for ours, plain in pairs), 3)
    # a block is measured once, at its end: more often than the default, never less
    return row | {"measured_every": min(EVERY, steps)}


def processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


def load() -> float:
    """Processes that wanted a core during the last minute; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    options = parser.parse_args()
    busy = load() > 0.5
    if busy and not options.force:
        print(
            f"the machine is busy (load {load():.2f}): the times would say nothing; wait for a "
            "load below 0.5, or pass --force",
            file=sys.stderr,
        )
        return 2
    about = {
        "machine": processor(), "cores": os.cpu_count(), "torch": torch.__version__,
        "lipkit": lk.__version__, "busy": busy,
    }  # fmt: skip
    print(f"{about['machine']}, {about['cores']} cores, torch {about['torch']}\n")
    print(
        f"{'size':>5} {'threads':>8} {'plain loop (ms)':>18} {'lipkit.fit (ms)':>18} {'ratio':>7}"
    )
    rows = []
    for threads in THREADS:
        for size in SIZES:
            row = compare(size, threads) | about
            plain = f"{row['plain_ms']:.1f} ± {row['plain_spread_ms']:.1f}"
            ours = f"{row['lipkit_ms']:.1f} ± {row['lipkit_spread_ms']:.1f}"
            print(f"{size:>5} {threads:>8} {plain:>18} {ours:>18} {row['ratio']:>7.3f}", flush=True)
            rows.append(row)
    path = Path(__file__).with_suffix(".csv")
    part = path.with_suffix(".csv.part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)
    print(f"\nwritten to {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

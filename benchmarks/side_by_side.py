"""Timings of several ways to do one thing, which take turns block by block.

Whatever else the machine does then falls on all of them, and the ratios hold where the
milliseconds do not. A busy machine is refused all the same.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import lipkit as lk

BLOCKS = 5
Row = dict[str, object]


def take_turns(runs: dict[str, Callable[[int], object]], steps: int) -> Row:
    """Milliseconds a step: medians, half the interquartile range, ratios to the first run."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():  # the first step chooses kernels and allocates memory
        run(1)
    for block in range(BLOCKS):
        for name in list(runs)[:: 1 if block % 2 == 0 else -1]:
            start = time.perf_counter()
            runs[name](steps)
            times[name].append(1000 * (time.perf_counter() - start) / steps)
    row: Row = {"steps_a_block": steps, "blocks": BLOCKS}
    first = times[next(iter(runs))]
    for name, values in times.items():
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        row[f"{name}_ms"] = round(statistics.median(values), 2)
        row[f"{name}_spread_ms"] = round((high - low) / 2, 2)
        ratios = [ours / theirs for ours, theirs in zip(values, first, strict=True)]
        row[f"{name}_ratio"] = round(statistics.median(ratios), 3)
    return row


def main(script: str, doc: str, measure: Callable[..., Row], cases: Sequence[Row]) -> int:
    """Measure every case, print each as it is there, write a CSV beside the script."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    options = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5 and not options.force:
        print(
            f"the machine is busy (load {load:.2f}): the times would say nothing; wait for a "
            "load below 0.5, or pass --force",
            file=sys.stderr,
        )
        return 2
    about = {
        "busy": load > 0.5, "machine": _processor(), "cores": os.cpu_count(),
        "torch": torch.__version__, "lipkit": lk.__version__,
    }  # fmt: skip
    print(f"{about['machine']}, {about['cores']} cores, torch {about['torch']}")
    rows = []
    for case in cases:
        torch.set_num_threads(int(case["threads"]))
        rows.append(case | measure(**case) | about)
        shown = {k: v for k, v in rows[-1].items() if k in case or k.endswith(("_ms", "_ratio"))}
        print("  ".join(f"{k} {v}" for k, v in shown.items() if "spread" not in k), flush=True)
    path = Path(script).with_suffix(".csv")
    part = path.with_suffix(".csv.part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)
    print(f"written to {path.name}")
    return 0


def _processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()

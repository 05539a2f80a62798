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
BUSY = 0.2  # of the processors' time, used by others
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
    """Measure every case, print each as it is there, write a CSV beside the script.

    With `--cases 0:4` only the first four are measured; the rows of the others stay as they are.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    parser.add_argument("--cases", default=":", help="only some, such as 0:4")
    options = parser.parse_args()
    load = _load()
    if load > BUSY and not options.force:
        print(
            f"the machine is busy ({100 * load:.0f} % of its time): the times would say nothing; "
            "wait until it is idle, or pass --force",
            file=sys.stderr,
        )
        return 2
    about = {
        "busy": load > BUSY, "machine": _processor(), "cores": os.cpu_count(),
        "torch": torch.__version__, "lipkit": lk.__version__, "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    print(f"{about['machine']}, {about['cores']} cores, torch {about['torch']}")
    path = Path(script).with_suffix(".csv")
    names = list(cases[0])
    rows = _rows(path, names)
    first, last = (int(text) if text else None for text in options.cases.split(":"))
    for case in cases[first:last]:
        torch.set_num_threads(int(case["threads"]))
        row = case | measure(**case) | about
        rows[_key(case, names)] = row
        shown = {k: v for k, v in row.items() if k in case or k.endswith(("_ms", "_ratio"))}
        print("  ".join(f"{k} {v}" for k, v in shown.items() if "spread" not in k), flush=True)
    ordered = [rows[k] for k in (_key(case, names) for case in cases) if k in rows]
    part = path.with_suffix(".csv.part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(ordered)
    part.replace(path)
    print(f"written to {path.name}")
    return 0


def _key(row: Row, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in names)


def _rows(path: Path, names: Sequence[str]) -> dict[tuple[str, ...], Row]:
    """What was measured before, by case."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {_key(row, names): row for row in csv.DictReader(file)}


def _load() -> float:
    """The part of the processors' time that is in use while this program waits a second."""
    try:
        before = _jiffies()
        time.sleep(1)
        busy, total = (b - a for a, b in zip(before, _jiffies(), strict=True))
        return busy / total
    except (OSError, ValueError, IndexError):  # no Linux
        return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0


def _jiffies() -> tuple[int, int]:
    numbers = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)  # all but idle and waiting


def _processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()

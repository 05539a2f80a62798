"""Run a grid of experiments: in this process, on a cluster of this machine, or on any Dask one.

Whatever is recorded already is not run again, so an interrupted sweep is simply started anew.
"""

from __future__ import annotations

import contextlib
import math
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import Error, InputError
from ..fitting.loop import held_interrupts
from ..workers import device_name
from . import running
from .experiment import Experiment
from .grid import Grid, Point
from .records import Record, Records, commit, is_clean, state
from .tables import Table

Result = tuple[Point, Record]
Runner = Callable[[Iterator[Point]], Iterator[Result]]


class Summary(NamedTuple):
    """What became of a grid's experiments."""

    recorded: int  # before
    done: int
    failed: int
    left: int  # for want of time
    seconds: float


def run(
    grid: Grid | str | Path,
    records: Records | None = None,
    *,
    serial: bool = False,
    scheduler: str | None = None,
    workers: int | None = None,
    budget: float | None = None,
    masks: str | Path | None = None,
    retry_failed: bool = False,
    say: Callable[[str], None] = print,
) -> Summary:
    """Run what is not recorded yet; every result is written down as soon as it is there.

    Args:
        grid: a grid, its file, or the name of one of the book's.
        records: where results are looked up and put; by default the book's.
        serial: in this process, one after another, without Dask.
        scheduler: address of a Dask scheduler; by default a cluster of this machine.
        workers: processes of that cluster; by default one for each GPU, or else for each core.
        budget: seconds; only what is likely to end within them is started.
        masks: folder that keeps masks found; by default `_build/masks` of the book, or `masks`
            beside records that lie elsewhere.
        retry_failed: also run what failed before.

    >>> import tempfile
    >>> tiny = dict(image="coffee", size=16, steps=2, options={"levels": 2, "down": 4})
    >>> grid = Grid.of("tiny", {"common": tiny, "arms": {"dense": {}}})
    >>> folder = tempfile.mkdtemp()
    >>> quiet = dict(serial=True, masks=folder, say=lambda line: None)
    >>> run(grid, Records(folder), **quiet).done, run(grid, Records(folder), **quiet).done
    (1, 0)
    """
    began = time.monotonic()
    grid = grid if isinstance(grid, Grid) else Grid.load(grid)
    records = Records() if records is None else records
    masks = _masks_beside(records.path) if masks is None else Path(masks)
    points, recorded = todo(grid, records, retry_failed)
    progress = _Progress(points, recorded, _costs_here(records), budget, began, say)
    if points:
        if not is_clean(commit()):
            say(_unclean(commit()))
        runner, progress.slots = _runner(serial, scheduler, workers, masks.resolve())
        progress.follow(runner(progress.affordable()), lambda r: records.add(r, grid.name))
    return progress.summary()


def _masks_beside(records: Path) -> Path:
    root = records.resolve().parent.parent
    return root / "_build" / "masks" if (root / "_config.yml").is_file() else records / "masks"


def _unclean(commit: str) -> str:
    """Say that records made of such sources will not count."""
    base = commit.removesuffix("+changed")
    if base == commit:
        where, hint = "are in no git repository", "run this in a clone"
    else:
        where, hint = f"differ from commit {base}", "commit first"
    return f"the sources of lipkit {where}: these records will decide nothing; {hint}"


def todo(grid: Grid, records: Records, retry_failed: bool = False) -> tuple[list[Point], int]:
    """List what is left to run, and count the experiments that are recorded."""
    settled = ["done"]
    if not retry_failed:
        settled.append("failed")
    if not is_clean(commit()):  # running it again would make no better one
        settled.append("unclean")
    known = {r["hash"] for r in records.all if state(r) in settled}
    once: dict[str, Point] = {}
    for point in grid.points:
        once.setdefault(point.experiment.digest, point)
    left = [point for digest, point in once.items() if digest not in known]
    return left, len(once) - len(left)


def failed(grid: Grid, records: Records) -> int:
    """Count the experiments of a grid that failed and were not repeated with success.

    >>> failed(Grid.load("first-light"), Records())
    0
    """
    own = {point.experiment.digest: point.experiment for point in grid.points}
    lost = {r["hash"] for r in records.all if r["hash"] in own and state(r) == "failed"}
    return sum(records.get(own[digest], unclean=True) is None for digest in lost)


def estimate(grid: Grid, records: Records) -> Table:
    """Estimate what a sweep would do and how long it would take here, from past records.

    Experiments that share a mask are counted as if each had to find its own.
    """
    points, _ = todo(grid, records)
    costs = _costs_here(records)
    rows = []
    for arm in grid.arms:
        mine = [p.experiment for p in grid.points if p.arm == arm]
        left = [p.experiment for p in points if p.arm == arm]
        known = [costs.of(e) for e in left]
        total = "unknown" if None in known else duration(sum(known))
        rows.append([arm, len(mine), len(mine) - len(left), len(left), total])
    return Table(["arm", "experiments", "recorded", "to run", "time, one at a time"], rows)


class Costs:
    """Seconds that an experiment takes on this device, from those of others like it.

    >>> costs = Costs([], "cpu")
    >>> costs.of(Experiment("coffee", 64)) is None
    True
    """

    def __init__(self, records: Iterable[Record], device: str) -> None:
        self.device = device
        self.same: dict[str, list[float]] = defaultdict(list)
        self.alike: dict[str, list[float]] = defaultdict(list)
        for record in records:
            self.learn(record)

    def learn(self, record: Record) -> None:
        """Take one more record into account."""
        if record["status"] == "done" and record["device"] == self.device:
            e = Experiment(**record["experiment"])
            same, alike = self._likeness(e)
            self.same[same].append(record["seconds"])
            found_here = record["search_seconds"] > 0 or e.method == "dense"
            work = e.work if found_here else e.steps
            self.alike[alike].append(record["seconds"] / work)

    def of(self, experiment: Experiment) -> float | None:
        """Return the seconds to expect, or None if nothing like it is known."""
        same, alike = self._likeness(experiment)
        if same in self.same:
            return statistics.median(self.same[same])
        if alike in self.alike:
            return statistics.median(self.alike[alike]) * experiment.work
        return None

    @staticmethod
    def _likeness(e: Experiment) -> tuple[str, str]:
        network = f"{e.prior}{e.size}{sorted(e.options.items())}{e.precision}"
        return f"{network}{e.task}{e.method}{e.density}{e.steps}{e.find}{e.control}", network


def _costs_here(records: Records) -> Costs:
    return Costs(records.all, device_name())


@dataclass
class _Progress:
    """A sweep under way: what is to do, what is done, and how long it takes."""

    points: list[Point]
    recorded: int
    costs: Costs
    budget: float | None
    began: float
    say: Callable[[str], None]
    slots: int = 1  # experiments at a time
    counts: Counter[str] = field(default_factory=Counter)

    def affordable(self) -> Iterator[Point]:
        """Go through the points in order, but for those for which there is no time any more."""
        for point in self.points:
            if self.budget is not None:
                left = self.budget - (time.monotonic() - self.began)
                if left <= 0 or left < (self.costs.of(point.experiment) or 0):
                    continue
            yield point

    def follow(self, results: Iterator[Result], keep: Callable[[Record], None]) -> None:
        """Keep and show the results as they come."""
        self.say(f"{len(self.points)} experiments to run, {self.recorded} recorded")
        self.say(_line("", "arm", "where", "stopped", "oracle", "last", "seconds", "left"))
        for point, record in results:
            with held_interrupts() as release:  # what is finished is written before anything else
                self.costs.learn(record)
                keep(record)
                self.counts[record["status"]] += 1
                self._show(point, record)
                release()

    def _show(self, point: Point, record: Record) -> None:
        done = sum(self.counts.values())
        where = " ".join(str(v) for v in point.place.values()) or str(point.experiment.image)
        number = f"{done}/{len(self.points)}"
        if record["status"] == "failed":
            self.say(f"{number:>9}  {point.arm:16.16}  {where:24.24}  failed: {record['reason']}")
            return
        numbers = record["numbers"]
        psnr = [f"{numbers[n]:.2f}" if n in numbers else "" for n in ("stopped", "oracle", "last")]
        seconds = f"{record['seconds']:.1f}"
        self.say(_line(number, point.arm, where, *psnr, seconds, self._left(done)))

    def _left(self, done: int) -> str:
        mean = (time.monotonic() - self.began) * self.slots / done
        rest = self.points[done:]
        return duration(sum(self.costs.of(p.experiment) or mean for p in rest) / self.slots)

    def summary(self) -> Summary:
        done = self.counts["done"]
        failed = self.counts["failed"]
        left = len(self.points) - done - failed
        return Summary(self.recorded, done, failed, left, time.monotonic() - self.began)


def _line(*cells: str) -> str:
    number, arm, where, *rest = cells
    return f"{number:>9}  {arm:16.16}  {where:24.24}  " + "  ".join(f"{c:>7}" for c in rest)


def _runner(serial: bool, scheduler, workers, masks: Path) -> tuple[Runner, int]:
    """What runs the points, and how many at a time."""
    if serial:
        return lambda points: ((p, running.run(p.experiment, masks=masks)) for p in points), 1
    try:
        from .cluster import Cluster  # loaded late: only this needs Dask
    except ModuleNotFoundError:
        raise Error(
            "running experiments side by side needs Dask: pip install 'lipkit[sweep]', "
            "or run them one after another with --serial"
        ) from None
    cluster = Cluster(scheduler, workers, masks)
    return cluster.run, cluster.slots


def seconds(text: str) -> float:
    """Read a time such as 25m, 90s or 1h30m, in seconds.

    >>> seconds("1h30m"), seconds("45")
    (5400.0, 45.0)
    """
    units = {"h": 3600, "m": 60, "s": 1}
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    if parts and "".join(map("".join, parts)) == text:
        return float(sum(float(number) * units[unit] for number, unit in parts))
    with contextlib.suppress(ValueError):
        if 0 < (plain := float(text)) < math.inf:
            return plain
    raise InputError(f"a time is written like 25m, 90s or 1h30m, and is above 0, not {text!r}")


def duration(time_s: float) -> str:
    """Write a time for people.

    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if time_s < 100:
        return f"{time_s:.0f} s"
    return f"{time_s / 60:.0f} min" if time_s < 6000 else f"{time_s / 3600:.1f} h"


__all__ = ["Costs", "Summary", "duration", "estimate", "failed", "run", "seconds", "todo"]

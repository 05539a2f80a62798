"""Run finished records again with today's code, and judge how far the numbers are apart.

The same processor with as many threads must give the same six digits. Another one rounds
differently, and a fit amplifies that: there the difference may be three times the spread over
seeds, but not less than 0.3 dB is asked for, which rounding alone is known to move; and 1 dB where
only one seed was run. A GPU need not repeat itself, so it is judged like another processor.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import FileError
from ..formats.atomic import write
from . import running
from .experiment import Experiment
from .grid import Grid
from .records import Record, Records

# What is compared, and how far it may be apart where the spread over seeds is not known.
ALONE = {"stopped": 1.0, "oracle": 1.0, "last": 1.0, "accuracy": 0.05}
SPREADS = 3
LEAST = 0.3  # of ALONE, however small the spread of two or three seeds happens to be
MACHINE = ("device", "processor", "threads", "torch")
SAVED = "verified.json"  # beside the folder of the records


@dataclass(frozen=True)
class Repeat:
    """A record, what its experiment gives today, and the spread over seeds of each number."""

    record: Record
    again: Record
    spreads: dict[str, float]

    @property
    def names(self) -> list[str]:
        """List the numbers that are compared."""
        return [name for name in ALONE if name in self.record["numbers"]]

    @property
    def same_machine(self) -> bool:
        """Whether nothing but the code can differ."""
        known = self.record.get("processor") and self.record["device"] == "cpu"
        return bool(known) and all(self.record[n] == self.again[n] for n in MACHINE)

    def difference(self, name: str) -> float | None:
        """Return by how much a number has moved; None if only one of the two could be measured."""
        before = self.record["numbers"][name]
        now = self.again.get("numbers", {}).get(name)
        if before is None and now is None and self.again["status"] == "done":
            return 0.0
        return None if before is None or now is None else now - before

    def allowed(self, name: str) -> float:
        """Return by how much a number may move."""
        if self.same_machine:
            return 0.0
        if name not in self.spreads:
            return ALONE[name]
        return max(SPREADS * self.spreads[name], LEAST * ALONE[name])

    def holds(self, name: str) -> bool:
        """Tell whether a number moved no further than is allowed."""
        moved = self.difference(name)
        return moved is not None and abs(moved) <= self.allowed(name)

    @property
    def verified(self) -> bool:
        """Whether all of them hold."""
        return self.again["status"] == "done" and all(map(self.holds, self.names))

    def report(self) -> dict[str, Any]:
        """Return all of this as plain data."""
        numbers = {
            name: {
                "recorded": self.record["numbers"][name],
                "repeated": self.again.get("numbers", {}).get(name),
                "difference": self.difference(name),
                "spread": self.spreads.get(name),
                "allowed": self.allowed(name),
                "holds": self.holds(name),
            }
            for name in self.names
        }
        made = {
            "recorded_on": {name: self.record.get(name) for name in MACHINE},
            "repeated_on": {name: self.again.get(name) for name in MACHINE},
        }
        about = {"hash": self.record["hash"], "what": what(self.record)}
        verdict = {"verified": self.verified, "reason": self.again.get("reason", "")}
        return about | made | {"numbers": numbers} | verdict


def draw(
    records: Records, among: Iterable[Record], count: int, seed: int = 0, limit: float = math.inf
) -> tuple[list[Record], list[Record]]:
    """Draw finished records at random; also return those left out, of more than `limit` seconds.

    A mask that an earlier experiment had found has to be found again: its seconds count too.
    Those that do not count, as of sources that no commit holds, are not drawn.

    >>> draw(Records("nowhere"), [], 10)
    ([], [])
    """
    searches: dict[str, float] = defaultdict(float)
    for record in filter(records.counts, records.all):
        searches[_search(record)] = max(searches[_search(record)], record["search_seconds"])
    short = []
    long = []
    for record in filter(records.counts, among):
        seconds = record["seconds"] - record["search_seconds"] + searches[_search(record)]
        (short if seconds <= limit else long).append(record)
    short.sort(key=lambda record: record["hash"])  # whatever the order of the files
    return random.Random(seed).sample(short, min(count, len(short))), long


def _search(record: Record) -> str:
    return Experiment(**record["experiment"]).search().digest


def repeat(drawn: Iterable[Record], records: Records) -> Iterator[Repeat]:
    """Run each record's experiment again, the search for its mask included.

    >>> list(repeat([], Records("nowhere")))
    []
    """
    over_seeds = _over_seeds(records)
    for record in drawn:
        e = Experiment(**record["experiment"])
        with _threads(record.get("threads")):
            again = running.run(e)
        spreads = {
            name: max(values) - min(values)
            for name, values in over_seeds[_without_seed(e)].items()
            if len(values) > 1
        }
        yield Repeat(record, again, spreads)


def save(
    repeated: Sequence[Repeat], records: Records, seed: int, limit: str, left_out: int
) -> Path:
    """Keep what was repeated beside the folder of the records, for the book's page of evidence.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save([], Records(f"{folder}/records"), seed=0, limit="2m", left_out=3)
    ...     saved(path.parent)["left_out"]
    3
    """
    arms = _arms(records.path.parent / "grids")
    about = {
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": running.commit(),
        "seed": seed,
        "limit": limit,
        "left_out": left_out,
    }
    found = [arms.get(one.record["hash"], {}) | one.report() for one in repeated]
    found.sort(key=lambda one: (one.get("grid", ""), one.get("arm", ""), one["hash"]))
    path = records.path.parent / SAVED
    text = json.dumps(about | {"repeated": found}, indent=1, sort_keys=True, allow_nan=False)
    write(path, (text + "\n").encode())
    return path


def saved(book: Path) -> dict[str, Any] | None:
    """Return what `save` has kept in a folder; None if nothing is there."""
    path = book / SAVED
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise FileError(
            f"cannot read {path} ({problem}); `lipkit records --verify 10 --save` writes it anew"
        ) from None


def _arms(grids: Path) -> dict[str, dict[str, str]]:
    """Name the grid and the arm of each experiment; of those of several grids the first."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(grids.glob("*.toml")):
        for point in Grid.load(path).points:
            found.setdefault(point.experiment.digest, {"grid": path.stem, "arm": point.arm})
    return found


def _over_seeds(records: Records) -> dict[str, dict[str, list[float]]]:
    """Collect the numbers of experiments that differ in their seed alone."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in filter(records.counts, records.all):
        group = found[_without_seed(Experiment(**record["experiment"]))]
        for name in ALONE:
            if (value := record["numbers"].get(name)) is not None:
                group[name].append(value)
    return found


def _without_seed(e: Experiment) -> str:
    return replace(e, seed=0).digest


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Compute with as many threads as a record was made with."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def what(record: Record) -> str:
    """Say in a few words what was run.

    >>> what({"experiment": {"image": "coffee", "size": 64, "method": "snip", "density": 0.1}})
    'coffee 64 denoise dip snip 0.1 seed 0'
    """
    e = Experiment(**record["experiment"])
    image = e.image if isinstance(e.image, str) else "+".join(e.image)
    mask = [] if e.method == "dense" else [f"{e.density:.3g}"]
    mask += [] if e.control == "none" else [e.control]
    return " ".join([image, str(e.size), e.task, e.prior, e.method, *mask, f"seed {e.seed}"])

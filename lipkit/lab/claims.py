"""The papers' claims, tested against records: verdicts are computed, nobody types them.

A claim's tests are data (`book/_data/claims.yml`). Each names a grid and statements about its
arms, such as

    [ticket.oracle, ">", dense.oracle, -0.2]      # more than dense.oracle - 0.2
    [oes.last, "~", imp.last, 0.3]                # equal to within 0.3
    [random.last, "<", 16]

`arm.number` is one of `NUMBERS`, `arm.psnr@500` the value of one of `CURVES` at a step (`low` and
`high`: how much of the clean picture's low and high frequencies is there), `arm.layer/NAME` the
density of a layer, `arm.rise` how many rounds after the best one the loss of the rounds first rises
twice in a row. Of a search for a mask by OES, `odds` is the mean probability of keeping a weight
at the end, `still` for how many steps it had been that to within a tenth, and `spread` the standard
deviation of the logits. A statement is asked for each picture, strength or density by itself, with
means over seeds, and holds if it is true for a `share` of them (70 % unless told).
`range arm.number` is the spread between them. A test of `penalties` needs no records: it asks for
the slope of each penalty of a mask search at these targets.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from ..errors import InputError
from ..find.schedule import rising_run
from ..masks.relaxed import PENALTIES
from . import papers
from .grid import Grid, Point
from .paths import data_folder
from .records import Record, Records
from .tables import Table

VERDICTS = ("reproduced", "partly", "not reproduced", "not yet run", "not tested here")
NUMBERS = (
    "stopped", "oracle", "last", "fall", "rise", "tail", "start", "start_likeness", "noisy", "loss",
    "oracle_step", "stopped_ssim", "stopped_y", "oracle_y", "error", "density", "kept", "weights",
    "collapsed", "odds", "still", "spread", "accuracy",
)  # fmt: skip
CURVES = ("psnr", "loss", "low", "high")
SHARE = 0.7  # "most" of the pictures
Grids = Callable[[str], Grid]
Groups = dict[tuple, dict[str, list[Record]]]  # place without seed -> arm -> records


class Statement(NamedTuple):
    """One line of a claim's test: `left` is more or less than `right`, or about the same.

    >>> print(Statement("ticket.oracle", ">", "dense.oracle", -0.2))
    ticket.oracle > dense.oracle -0.2
    """

    left: str | float
    sign: str
    right: str | float
    plus: float = 0

    def __str__(self) -> str:
        text = f"{self.left} {self.sign} {self.right}"
        if self.sign == "~":
            return f"{text} ± {self.plus:g}"
        return f"{text} {self.plus:+g}" if self.plus else text

    def holds(self, left: float, right: float) -> bool:
        """Say whether it is true of two numbers."""
        if self.sign == "~":
            return abs(left - right) <= self.plus
        return left > right + self.plus if self.sign == ">" else left < right + self.plus


@dataclass(frozen=True)
class Finding:
    """What the records, or a paper's own table, say of one statement."""

    statement: str
    source: str  # the grid or table
    scale: str  # "laptop", "paper"; "printed": the paper's own numbers; "exact": of functions
    left: float | None
    right: float | None
    held: int
    asked: int
    planned: int
    ok: bool | None  # None: no record says anything


@dataclass(frozen=True)
class Claim:
    """A claim with its verdict, the scale it was reached at, and the findings behind it."""

    id: str
    says: str
    paper: str
    where: str
    verdict: str
    scale: str
    findings: list[Finding]
    why_not: str = ""


def ledger(book: str | Path | None = None, records: Records | None = None) -> list[Claim]:
    """Judge every claim by the records there are.

    >>> {claim.verdict for claim in ledger()} <= set(VERDICTS)
    True
    """
    book = data_folder().parent if book is None else Path(book)
    records = Records(book / "records") if records is None else records
    grids = functools.cache(lambda name: Grid.load(book / "grids" / f"{name}.toml"))
    return [_judged(e, grids, records) for e in papers.read_yaml(book / "_data" / "claims.yml")]


def counts(claims: list[Claim]) -> dict[str, int]:
    """Count the claims of each verdict."""
    found = Counter(claim.verdict for claim in claims)
    return {verdict: found[verdict] for verdict in VERDICTS}


def table(claims: list[Claim]) -> Table:
    """List the verdicts as a table."""
    return Table(["claim", "verdict", "scale"], [[c.id, c.verdict, c.scale] for c in claims])


def _judged(entry: dict[str, Any], grids: Grids, records: Records) -> Claim:
    findings = [f for test in entry.get("tests", []) for f in _tested(test, grids, records)]
    verdict, scale = _verdict(findings)
    text = {name: entry[name] for name in ("id", "says", "paper", "where")}
    return Claim(**text, verdict=verdict, scale=scale, findings=findings,
                 why_not=entry.get("why_not", ""))  # fmt: skip


def _verdict(findings: list[Finding]) -> tuple[str, str]:
    """From the largest scale at which everything was run; printed numbers decide nothing."""
    ours = [f for f in findings if f.scale != "printed"]
    if not ours:
        return "not tested here", ""
    for scale in ("exact", "paper", "laptop"):
        results = [f.ok for f in ours if f.scale == scale]
        if not results or None in results:
            continue
        verdict = "reproduced" if all(results) else "partly" if any(results) else "not reproduced"
        return verdict, "" if scale == "exact" else scale
    return "not yet run", ""


@dataclass(frozen=True)
class _Source:
    """What statements are asked of: groups of records, printed rows, or functions.

    `read(group, token)` is the number of a group that a token names, or None.
    """

    name: str
    scale: str
    planned: int  # how many groups there are when all is run
    groups: Iterable[Any]
    read: Callable[[Any, str], float | None]

    def ask(self, statement: Statement, share: float) -> Finding:
        """Look where the statement holds, and whether that is often enough."""
        found = [self._sides(group, statement) for group in self.groups]
        sides = [pair for pair in found if None not in pair]
        if str(statement.left).startswith("range ") and sides:
            values = [left for left, _ in sides]
            spread = max(values) - min(values)
            sides = [(spread, sides[0][1])] if len(sides) > 1 else []
        held = sum(statement.holds(*pair) for pair in sides)
        means = [round(fmean(side), 3) for side in zip(*sides, strict=True)] or [None, None]
        return Finding(
            str(statement), self.name, self.scale, *means,
            held=held, asked=len(sides), planned=self.planned,
            ok=held >= share * len(sides) if sides else None,
        )  # fmt: skip

    def _sides(self, group: Any, statement: Statement) -> tuple[float | None, ...]:
        return tuple(
            float(token) if isinstance(token, (int, float)) else self.read(group, token)
            for token in (statement.left, statement.right)
        )


def _tested(test: dict[str, Any], grids: Grids, records: Records) -> list[Finding]:
    statements = [_statement(given) for given in test["holds"]]
    if "penalties" in test:
        slopes = [_slopes(p0) for p0 in test["penalties"]]
        source = _Source("penalties", "exact", len(slopes), slopes, dict.get)
    elif "table" in test:
        rows = papers.rows(test["table"])
        source = _Source(test["table"], "printed", len(rows), rows, dict.get)
    else:
        grid = grids(test["grid"])
        for statement in statements:
            _check_arms(statement, grid)
        groups, planned = grouped(grid, records, test.get("at", {}))
        source = _Source(grid.name, grid.scale, planned, groups.values(), _number)
    return [source.ask(statement, test.get("share", SHARE)) for statement in statements]


def _statement(given: list) -> Statement:
    if len(given) not in (3, 4) or given[1] not in (">", "<", "~"):
        raise InputError(f"a statement is [left, '>' or '<' or '~', right, plus], not {given}")
    return Statement(*given)


def grouped(grid: Grid, records: Records, at: Mapping[str, Any]) -> tuple[Groups, int]:
    """Sort the records of a grid by place and arm, and count the places that were planned."""
    groups: Groups = defaultdict(lambda: defaultdict(list))
    planned = set()
    for point in grid.points:
        if all(_inside(point.place[axis], wanted) for axis, wanted in at.items()):
            place = place_without_seed(point)
            planned.add(place)
            if record := records.get(point.experiment):
                groups[place][point.arm].append(record)
    return groups, len(planned)


def place_without_seed(point: Point) -> tuple[tuple[str, Any], ...]:
    """Say where in its grid a point lies, but for the seed: means are over seeds."""
    return tuple((axis, value) for axis, value in point.place.items() if axis != "seed")


def curves(
    name: str, axis: str, number: str, records: Records | None = None
) -> dict[str, tuple[list[float], list[float]]]:
    """Return a number of each arm of a grid along one axis: means over all other places.

    The axis "sparsity" is that of the density, the other way round; along the axis "step" there
    are the "loss" and the "psnr" of each fit.

    >>> curves("first-light", "seed", "oracle")["dense"][0]
    [0, 1, 2]
    >>> curves("first-light", "step", "psnr")["dense"][0][:2]
    [10, 20]
    """
    groups: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    records = Records() if records is None else records
    for point in Grid.load(name).points:
        if (record := records.get(point.experiment)) is None:
            continue
        for place, value in _along(axis, number, point.place, record):
            groups[point.arm][place].append(value)
    return {
        arm: (sorted(found), [fmean(found[x]) for x in sorted(found)])
        for arm, found in groups.items()
    }


def _along(axis: str, number: str, place: dict, record: Record) -> list[tuple[float, float]]:
    """Where on the axis a record belongs, with the number there."""
    if axis == "step":
        return [*zip(record["curve"]["step"], record["curve"][number], strict=True)]
    value = number_of(record, number)
    if value is None:
        return []
    return [(1 - place["density"] if axis == "sparsity" else place[axis], value)]


def _inside(value: Any, wanted: list) -> bool:
    """In a list of names, or between two numbers."""
    if isinstance(value, str):
        return value in wanted
    return wanted[0] <= value <= wanted[-1]


def _slopes(p0: float) -> dict[str, float]:
    """How steep each penalty of a mask search is for a weight that is at its target."""
    p = torch.tensor([p0], dtype=torch.float64, requires_grad=True)
    found = {name: of(p, p0) for name, of in PENALTIES.items() if of is not None}
    return {name: float(torch.autograd.grad(value, p)[0]) for name, value in found.items()}


def _number(group: Mapping[str, list[Record]], token: str) -> float | None:
    """The mean over seeds of a number of an arm."""
    arm, _, name = token.removeprefix("range ").partition(".")
    values = [number_of(record, name) for record in group.get(arm, [])]
    values = [v for v in values if v is not None]
    return fmean(values) if values else None


def number_of(record: Record, name: str) -> float | None:
    """Look up a number of a record by its name in statements; None if it was not measured."""
    if name.startswith("layer/"):
        layer = name.removeprefix("layer/")
        if record["layers"] and layer not in record["layers"]:
            raise InputError(f"no layer {layer!r} in a record of {record['experiment']}")
        kept, total = record["layers"].get(layer, (1, 1))  # a dense network has no mask
        return kept / total
    if name == "fall":
        return record["numbers"]["oracle"] - record["numbers"]["last"]
    if name == "rise":
        return _rise(record["rounds"])
    if "@" in name:
        curve, wanted = name.split("@")
        steps = record["curve"]["step"]
        values = record["curve"].get(curve)
        nearest = min(range(len(steps)), key=lambda i: abs(steps[i] - int(wanted)))
        return None if values is None else values[nearest]
    return record["numbers"].get(name)


def _rise(rounds: list[dict[str, float]]) -> float | None:
    losses = [r["loss"] for r in rounds]
    runs = (rising_run(losses[:end], 2) for end in range(len(losses) + 1))
    first = next((run[0] for run in runs if run), None)  # as a search that stops there would
    if first is None:
        return None
    return first - max(range(len(rounds)), key=lambda i: rounds[i]["best_psnr"])


def _check_arms(statement: Statement, grid: Grid) -> None:
    for token in (t for t in (statement.left, statement.right) if isinstance(t, str)):
        arm, _, number = token.removeprefix("range ").partition(".")
        if arm not in grid.arms:
            raise InputError(f"grid {grid.name!r} has no arm {arm!r}, only {', '.join(grid.arms)}")
        known = number in NUMBERS or number.partition("@")[0] in CURVES
        if not known and not number.startswith("layer/"):
            raise InputError(f"records have no number {number!r}; they have {', '.join(NUMBERS)}")

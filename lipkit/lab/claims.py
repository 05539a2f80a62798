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
deviation of the logits. `range arm.number` is the spread between places. A test of `penalties`
needs no records: it asks for the slope of each penalty of a mask search at these targets.

A statement that compares two arms is judged by its differences: one for each place (picture,
strength, density), a mean over the seeds that both arms have there. It holds if the whole 95 %
interval of their mean (Student's t) is beyond the threshold, does not if the whole of it is on the
other side, and is undecided otherwise; fewer than `PLACES` places are too little evidence. Effects
that differ in size from place to place have wide intervals: where all of `AGREEING` or more places
agree on which side of the threshold they are, that decides. A claim
marked `one_picture` may take every run (a seed at a place) in their stead. A statement with a
`share` of its own must besides be true at that share of the places ("on all pictures"); with less
than half ("sometimes") it is counted alone. Single facts, as a number of one arm beside a constant,
have no pairs: they hold if true at a `share` of the places (70 % unless told).

Each statement is a part of its claim. `untested` lists parts that nothing tests, at one scale or at
all; with them a claim is at most partly reproduced.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from ..errors import InputError
from ..find.schedule import rising_run
from ..masks.relaxed import PENALTIES
from . import papers
from .gaps import interval
from .grid import Grid, Point
from .paths import data_folder
from .records import Record, Records
from .tables import Table

VERDICTS = (
    "reproduced", "partly", "not reproduced", "undecided", "too little evidence", "not yet run",
    "not tested",
)  # fmt: skip
PLACES = 3  # as many an interval needs
AGREEING = 6  # were chance to decide, all of so many places would agree once in 32 times
NUMBERS = (
    "stopped", "oracle", "last", "fall", "rise", "tail", "start", "start_likeness", "noisy", "loss",
    "oracle_step", "stopped_ssim", "stopped_y", "oracle_y", "error", "density", "kept", "weights",
    "collapsed", "odds", "still", "spread", "accuracy",
)  # fmt: skip
CURVES = ("psnr", "loss", "low", "high")
SHARE = 0.7  # "most" of the places, for single facts
Grids = Callable[[str], Grid]
Sides = dict[int, float]  # seed -> number
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
    """What the records, or a paper's own table, say of one statement.

    `verdict` is "holds", "does not hold", "undecided", "too little evidence" or "not yet run";
    `noise` half the interval of `difference`, None of what is counted and not compared.
    """

    statement: Statement
    source: str  # the grid or table
    scale: str  # "laptop", "paper"; "printed": the paper's own numbers; "exact": of functions
    setting: str  # sizes and steps
    left: float | None
    right: float | None
    difference: float | None
    noise: float | None
    held: int
    asked: int
    planned: int
    seeds: int
    verdict: str


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
    untested: list[str] = field(default_factory=list)
    why_not: str = ""

    def settings(self, scale: str) -> list[str]:
        """List the sizes and steps of the grids of one scale."""
        found = (f.setting for f in self.findings if f.scale == scale)
        return list(dict.fromkeys(found))


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
    one = entry.get("one_picture", False)
    findings = [f for t in entry.get("tests", []) for f in _tested(t, one, grids, records)]
    for scale in ("exact", "paper", "laptop"):
        untested = [part["says"] for part in entry.get("untested", [])
                    if part.get("scale", scale) == scale]  # fmt: skip
        if verdict := _verdict([f.verdict for f in findings if f.scale == scale], untested):
            break
    else:
        ours = any(f.scale != "printed" for f in findings)
        verdict, scale = "not yet run" if ours else "not tested", ""
    text = {name: entry[name] for name in ("id", "says", "paper", "where")}
    return Claim(
        **text,
        verdict=verdict,
        scale="" if scale == "exact" else scale,
        findings=findings,
        untested=untested,
        why_not=entry.get("why_not", ""),
    )


def _verdict(parts: list[str], untested: list[str]) -> str:
    """From all parts at one scale; empty if not all of them were run.

    >>> _verdict(["holds", "undecided"], []), _verdict(["undecided", "too little evidence"], [])
    ('partly', 'undecided')
    """
    if not parts or "not yet run" in parts:
        return ""
    if "holds" in parts:
        return "reproduced" if {*parts} == {"holds"} and not untested else "partly"
    if "does not hold" in parts:
        return "not reproduced"
    return "undecided" if "undecided" in parts else "too little evidence"


@dataclass(frozen=True)
class _Source:
    """What statements are asked of: groups of records, printed rows, or functions.

    `read(group, token)` are the numbers of a group that a token names, by seed.
    """

    name: str
    scale: str
    planned: int  # how many groups there are when all is run
    groups: Iterable[Any]
    read: Callable[[Any, str], Sides]
    setting: str = ""

    def ask(self, statement: Statement, share: float | None, one_picture: bool) -> Finding:
        """Look where the statement holds, and whether that is beyond noise."""
        pairs = [pairs for group in self.groups if (pairs := self._pairs(group, statement))]
        sides = [(fmean(a for a, _ in p), fmean(b for _, b in p)) for p in pairs]
        if str(statement.left).startswith("range ") and sides:
            values = [left for left, _ in sides]
            spread = max(values) - min(values)
            sides = [(spread, sides[0][1])] if len(sides) > 1 else []
        held = sum(statement.holds(*pair) for pair in sides)
        means = [round(fmean(side), 3) for side in zip(*sides, strict=True)] or [None, None]
        difference = noise = None
        if not sides:
            verdict = "not yet run"
        elif self.scale in ("printed", "exact") or not _compares(statement):
            verdict = _counted(held, len(sides), share or SHARE)
        else:
            runs = [run for place in pairs for run in place]
            units = runs if one_picture and len(sides) < PLACES else sides
            difference, noise = interval([left - right for left, right in units])
            verdict = "too little evidence"
            if noise is not None and len(units) >= PLACES:
                verdict = _beyond(statement, difference, noise, held, len(sides), share)
        return Finding(
            statement, self.name, self.scale, self.setting, *means, difference, noise, held,
            asked=len(sides), planned=self.planned, seeds=max(map(len, pairs), default=0),
            verdict=verdict,
        )  # fmt: skip

    def _pairs(self, group: Any, statement: Statement) -> list[tuple[float, float]]:
        """Both sides for each seed that both have; a constant has every seed."""
        tokens = (statement.left, statement.right)
        found = [self.read(group, t) if isinstance(t, str) else None for t in tokens]
        seeds = set.intersection(*({*side} for side in found if side is not None))
        values = [
            [float(token) if side is None else side[seed] for seed in sorted(seeds)]
            for token, side in zip(tokens, found, strict=True)
        ]
        return [*zip(*values, strict=True)]


def _compares(statement: Statement) -> bool:
    """Tell whether both sides are measured, so that differences can be paired."""
    both = isinstance(statement.left, str) and isinstance(statement.right, str)
    return both and not statement.left.startswith("range ")


def _counted(held: int, asked: int, share: float) -> str:
    return "holds" if held >= share * asked else "does not hold"


def _beyond(
    statement: Statement, mean: float, noise: float, held: int, asked: int, share: float | None
) -> str:
    """Judge by the whole interval of the mean difference."""
    if share is not None and share < 0.5:  # "sometimes" is no statement about a mean
        return _counted(held, asked, share)
    low, high = mean - noise, mean + noise
    points = (low, min(max(0, low), high), high)  # "~" may hold between two ends where it does not
    found = {statement.holds(point, 0) for point in points}
    if found == {False}:
        return "does not hold"
    if asked >= AGREEING and statement.sign != "~" and held in (0, asked):
        return "holds" if held else "does not hold"
    enough = share is None or held >= share * asked
    return "holds" if found == {True} and enough else "undecided"


def _tested(
    test: dict[str, Any], one_picture: bool, grids: Grids, records: Records
) -> list[Finding]:
    statements = [_statement(given) for given in test["holds"]]
    if "penalties" in test:
        slopes = [_slopes(p0) for p0 in test["penalties"]]
        source = _Source("penalties", "exact", len(slopes), slopes, _cell)
    elif "table" in test:
        rows = papers.rows(test["table"])
        source = _Source(test["table"], "printed", len(rows), rows, _cell)
    else:
        grid = grids(test["grid"])
        for statement in statements:
            _check_arms(statement, grid)
        at = test.get("at", {})
        groups, planned = grouped(grid, records, at)
        setting = _setting([p for p in grid.points if _at(p, at)])
        source = _Source(grid.name, grid.scale, planned, groups.values(), _numbers, setting)
    return [source.ask(one, test.get("share"), one_picture) for one in statements]


def _setting(points: list[Point]) -> str:
    """Say how large the pictures are and how long the fits."""
    sizes = sorted({point.experiment.size for point in points})
    steps = sorted({point.experiment.steps for point in points})
    return f"{_from_to(sizes)} pixels, {_from_to(steps)} steps"


def _from_to(values: list[int]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _cell(row: Mapping[str, Any], token: str) -> Sides:
    value = row.get(token)
    return {} if value is None else {0: float(value)}


def _statement(given: list) -> Statement:
    if len(given) not in (3, 4) or given[1] not in (">", "<", "~"):
        raise InputError(f"a statement is [left, '>' or '<' or '~', right, plus], not {given}")
    return Statement(*given)


def grouped(grid: Grid, records: Records, at: Mapping[str, Any]) -> tuple[Groups, int]:
    """Sort the records of a grid by place and arm, and count the places that were planned."""
    groups: Groups = defaultdict(lambda: defaultdict(list))
    planned = set()
    for point in grid.points:
        if _at(point, at):
            place = place_without_seed(point)
            planned.add(place)
            if record := records.get(point.experiment):
                groups[place][point.arm].append(record)
    return groups, len(planned)


def _at(point: Point, at: Mapping[str, Any]) -> bool:
    return all(_inside(point.place[axis], wanted) for axis, wanted in at.items())


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


def _numbers(group: Mapping[str, list[Record]], token: str) -> Sides:
    """The numbers of an arm by seed, as far as they were measured."""
    arm, _, name = token.removeprefix("range ").partition(".")
    found = {r["experiment"].get("seed", 0): number_of(r, name) for r in group.get(arm, [])}
    return {seed: value for seed, value in found.items() if value is not None}


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

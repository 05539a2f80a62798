"""Pages made from records: the claims with their verdicts, and the papers' tables beside ours."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

from ..lab import papers
from ..lab.claims import VERDICTS, Claim, Finding, grouped, ledger, place_without_seed
from ..lab.grid import Grid, Point
from ..lab.records import Records

COLOURS = {
    "reproduced": "success", "partly": "warning", "not reproduced": "danger",
    "not yet run": "muted", "not tested here": "light",
}  # fmt: skip

CLAIMS_HEAD = """# Claims and verdicts

Every claim of the three papers that can be put in a sentence, with a test that is data, and a
verdict computed from the [records](comparison.md) of this book. Nobody types a verdict. A statement
is asked for each picture, noise level or density by itself, with means over seeds; it holds if it
is true for most of them. *Laptop scale* means small pictures and short fits, run in minutes: it
says what a reader can see for themselves, not what happens at the papers' size. PSNR is in dB.

"""

COMPARISON_HEAD = """# The papers' numbers beside ours

Where a table of a paper has a grid in this repository, its numbers stand here beside those of
our records: mean ± standard deviation over seeds. *At the end* is the PSNR of the last output, or
of a classifier the part of the test pictures that it recognises; *stopped* what a user gets,
*oracle* the best along the way, seen with the clean picture. *Code* is what the published programs
print, where they do. `lipkit sweep NAME` runs a grid, and goes on where it ended.

"""


def badges(book: Path) -> str:
    """Write a line of counts, for other pages to include; each scale by itself."""
    return _badges(ledger(book))


def claims_page(book: Path) -> str:
    """Write the claims and their verdicts as Markdown."""
    claims = ledger(book)
    return CLAIMS_HEAD + _badges(claims) + "\n" + "\n".join(map(_claim, claims))


def _badges(claims: list[Claim]) -> str:
    found = Counter((claim.verdict, claim.scale) for claim in claims)
    order = sorted(found, key=lambda key: (VERDICTS.index(key[0]), key[1] != "paper"))
    parts = [_badge(v, f"{found[v, s]} {v}" + (f" at {s} scale" if s else "")) for v, s in order]
    return " ".join(parts) + "\n"


def _badge(verdict: str, text: str) -> str:
    return f"{{bdg-{COLOURS[verdict]}}}`{text}`"


def _claim(claim: Claim) -> str:
    scale = f" at {claim.scale} scale" if claim.scale else ""
    lines = [
        f"({claim.id.lower()})=",
        ":::{div} lipkit-note",
        f"**{claim.id}** {_badge(claim.verdict, claim.verdict)}{scale}",
        "",
        f"{claim.says} {{cite}}`{claim.paper}`, {claim.where}.",
        "",
    ]
    if claim.why_not:
        lines += [f"*Not tested here.* {claim.why_not}", ""]
    if asked := [f for f in claim.findings if f.ok is not None]:
        lines += ["| tested on | statement | left | right | true for |", "|---|---|---:|---:|---|"]
        lines += [*map(_row, asked), ""]
    waiting: dict[str, list[str]] = defaultdict(list)
    for f in claim.findings:
        if f.ok is None:
            waiting[f"`{f.source}` at {f.scale} scale"].append(f"`{f.statement}`")
    lines += [f"Not yet run: {grid}: {'; '.join(found)}\n" for grid, found in waiting.items()]
    return "\n".join([*lines, ":::", ""])


def _row(f: Finding) -> str:
    own = {"printed": "the paper's own table", "exact": "the functions themselves"}
    where = own.get(f.scale, f"`{f.source}`, {f.scale} scale")
    some = f" ({f.planned} planned)" if f.asked < f.planned else ""
    mark = "holds" if f.ok else "does not hold"
    numbers = f"{_number(f.left)} | {_number(f.right)}"
    return f"| {where} | `{f.statement}` | {numbers} | {f.held} of {f.asked}{some}: {mark} |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def comparison_page(book: Path) -> str:
    """Write the papers' tables beside our records as Markdown."""
    records = Records(book / "records")
    grids = [Grid.load(path) for path in sorted((book / "grids").glob("*.toml"))]
    return COMPARISON_HEAD + "\n".join(_section(grid, records) for grid in grids)


def _section(grid: Grid, records: Records) -> str:
    found = [record for p in grid.points if (record := records.get(p.experiment))]
    devices = sorted({record["device"] for record in found})
    where = f" on {', '.join(devices)}" if devices else ""
    state = f"{len(found)} of {len(grid.points)} recorded{where}"
    lines = [f"## {grid.title}", "", grid.about, ""]
    lines += [f"Grid `{grid.name}`, {grid.scale} scale: {state}.", ""]
    if found:
        theirs = [name for name in ("paper", "code") if getattr(grid, name)]
        head = ["where", "method", *theirs, "at the end", "stopped", "oracle", "weights", "seeds"]
        lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(row) + " |" for row in _rows(grid, records)]
        lines += [""]
    return "\n".join(lines)


def _rows(grid: Grid, records: Records) -> Iterator[list[str]]:
    groups, _ = grouped(grid, records, {})
    points = {(place_without_seed(p), p.arm): p for p in grid.points}
    luma = "_y" if grid.paper.get("number", "").endswith("_y") else ""
    for place, arms in groups.items():
        for arm in (a for a in grid.arms if a in arms):
            point = points[place, arm]
            ours = [record["numbers"] for record in arms[arm]]
            row = [", ".join(f"{v}" for _, v in place) or point.experiment.image, arm]
            if grid.paper:
                row.append(printed(grid, arm, point))
            if grid.code:
                row.append(printed_by_code(grid, arm))
            end = "accuracy" if "accuracy" in ours[0] else "last"
            row += [_spread(ours, name) for name in (end, f"stopped{luma}", f"oracle{luma}")]
            yield [*row, f"{fmean(numbers['weights'] for numbers in ours):,.0f}", str(len(ours))]


def _spread(ours: list[dict[str, float]], name: str) -> str:
    values = [numbers[name] for numbers in ours if numbers.get(name) is not None]
    if not values:
        return ""
    spread = f"\u00a0±\u00a0{stdev(values):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{spread}"


def printed(grid: Grid, arm: str, point: Point) -> str:
    """Look up the paper's number for an arm at a place of the grid, if there is one."""
    paper = grid.paper
    density = point.place.get("density", 1)
    column = paper.get("columns", {}).get(arm, paper.get("column"))
    if column is None:
        return ""
    column = column.format(**point.place, sparsity=f"{100 - 100 * density:.0f}")
    label = paper.get("rows", {}).get(arm, arm)
    if "row" in paper:
        short = str(getattr(point.experiment, paper["row"])).split("/")[-1]
        label = paper.get("labels", {}).get(short, short.capitalize())
    only = paper.get("only", {})
    for row in papers.rows(paper["table"]):
        title = next(value for name, value in row.items() if name not in only)
        if title == label and all(row[name] == value for name, value in only.items()):
            if paper.get("mse"):  # of pictures from -1 to 1
                return f"{-10 * math.log10(row[column] / 4):.2f}"
            return f"{row[column]}"
    return ""


def printed_by_code(grid: Grid, arm: str) -> str:
    """Look up what the published programs print for an arm, if anything."""
    if arm not in grid.code:
        return ""
    name, label, column = grid.code[arm]
    found = [row[column] for row in papers.rows(name) if label in row.values()]
    return f"{found[0]}" if found else ""

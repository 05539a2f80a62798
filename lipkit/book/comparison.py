"""The page that puts the papers' tables beside our records, and says whether records repeat."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ..lab import papers
from ..lab.claims import grouped, place_without_seed
from ..lab.grid import Grid, Point
from ..lab.records import Record, Records
from ..lab.verify import saved

COMPARISON_HEAD = """# The papers' numbers beside ours

Where a table of a paper has a grid in this repository, its numbers stand here beside those of
our records: mean ± standard deviation over seeds. *At the end* is the PSNR of the last output, or
of a classifier the part of the test pictures that it recognises; *stopped* what a user gets,
*oracle* the best along the way, seen with the clean picture. *Code* is what the published programs
print, where they do. `lipkit sweep NAME` runs a grid, and goes on where it ended. A grid
opens to its table.

"""

REPEATED_HEAD = """## Can the records be repeated?

`lipkit records --verify` runs records that are drawn at random again, with today's code, and tells
for each number whether it came out as recorded; [how far it may be
apart](sweeps.md#can-a-record-be-believed) depends on the machine.

"""
NOT_REPEATED = """**Not known here:** no result of it is kept with this copy of the book.
`lipkit records --verify 10 --save` makes one and keeps it, and the next build shows it.

"""
GROUPS = {  # by the first letters of a grid's title
    "LIP-22": "Lottery image priors, 2022",
    "LIP-23": "Lottery image priors, 2023",
    "OES-24": "Optimal Eye Surgeon",
    "": "Grids of this book",
}


def comparison_page(book: Path) -> str:
    """Write the papers' tables beside our records as Markdown."""
    records = Records(book / "records")
    groups: dict[str, list[str]] = {title: [] for title in GROUPS.values()}
    waiting: dict[str, list[str]] = {title: [] for title in GROUPS.values()}
    for grid in (Grid.load(path) for path in sorted((book / "grids").glob("*.toml"))):
        title = GROUPS.get(grid.title[:6], GROUPS[""])
        found = [record for p in grid.points if (record := records.get(p.experiment))]
        if found:
            groups[title].append(_section(grid, records, found))
        else:
            waiting[title].append(
                f"- {grid.title}: grid `{grid.name}`, {grid.scale} scale, "
                f"0 of {len(grid.points)} recorded. {grid.about}\n"
            )
    parts = [COMPARISON_HEAD, _repeated(saved(book))]
    for title, sections in groups.items():
        if sections or waiting[title]:
            parts += [f"\n## {title}\n\n", "\n".join(sections), _waiting(waiting[title])]
    return "".join(parts)


def _section(grid: Grid, records: Records, found: list[Record]) -> str:
    """Write a grid as a block to open, with its table inside."""
    devices = ", ".join(sorted({record["device"] for record in found}))
    theirs = [name for name in ("paper", "code") if getattr(grid, name)]
    head = ["where", "method", *theirs, "at the end", "stopped", "oracle", "weights", "seeds"]
    state = f"{len(found)} of {len(grid.points)} recorded"
    lines = [f":::{{dropdown}} {grid.title}: {state}", ":class-container: lipkit-fold", ""]
    lines += [grid.about, "", f"Grid `{grid.name}`, {grid.scale} scale: {state} on {devices}.", ""]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(grid, records)]
    return "\n".join([*lines, ":::", ""])


def _waiting(lines: list[str]) -> str:
    """List grids without a record in one block to open; nothing if there are none."""
    if not lines:
        return ""
    title = f"Not yet run: {len(lines)} grid{'s' if len(lines) > 1 else ''}"
    return f"\n:::{{dropdown}} {title}\n:class-container: lipkit-fold\n\n{''.join(lines)}:::\n"


def _repeated(kept: dict[str, Any] | None) -> str:
    """Say what came of repeating records with `lipkit records --verify`, where that was kept."""
    if kept is None:
        return REPEATED_HEAD + NOT_REPEATED
    done = kept["repeated"]
    held = sum(one["verified"] for one in done)
    same = sum(one["recorded_on"] == one["repeated_on"] for one in done)
    also = f"; {kept['left_out']} were left out, as they take longer" if kept["left_out"] else ""
    lines = [
        REPEATED_HEAD,
        f"**{held} of {len(done)}** repeated records hold: drawn with seed {kept['seed']} among "
        f"those that take at most {kept['limit']}{also}. They were run again on "
        f"{kept['made'][:10]} with the code of commit `{kept['commit']}`, {same} of them on the "
        "kind of machine that recorded them.",
        "",
    ]
    if done:
        lines += [
            ":::{dropdown} Number by number",
            ":class-container: lipkit-fold",
            "",
            "| record | number | recorded | repeated | difference | allowed | |",
            "|---|---|---:|---:|---:|---:|---|",
            *(row for one in done for row in _repeat_rows(one)),
            ":::",
            "",
        ]
    return "\n".join(lines)


def _repeat_rows(one: dict[str, Any]) -> Iterator[str]:
    """Write a line for each number of a record that was repeated; the first names the record."""
    where = f"`{one['grid']}`, {one['arm']}: " if "grid" in one else ""
    name = f"{where}{one['what']}"
    for number, found in one["numbers"].items():
        keys = ("recorded", "repeated", "difference", "allowed")
        digits = ["" if found[key] is None else f"{found[key]:.6g}" for key in keys]
        verdict = "holds" if found["holds"] else "**differs**"
        yield f"| {name} | {number} | {' | '.join(digits)} | {verdict} |"
        name = ""  # once is enough
    if one["reason"] and not any(found["repeated"] for found in one["numbers"].values()):
        yield f"| | | | | | | failed: {' '.join(one['reason'].split()).replace('|', '/')} |"


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

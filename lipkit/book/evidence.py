"""Pages made from records: the claims with their verdicts, and the papers' tables beside ours."""

from __future__ import annotations

import html
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

from ..lab import papers
from ..lab.claims import (
    AGREEING,
    PLACES,
    SHARE,
    VERDICTS,
    Claim,
    Finding,
    Statement,
    grouped,
    ledger,
    place_without_seed,
)
from ..lab.grid import Grid, Point
from ..lab.records import Records

COLOURS = {
    "reproduced": "success", "partly": "warning", "not reproduced": "danger", "undecided": "info",
    "too little evidence": "muted", "not yet run": "light", "not tested": "light",
}  # fmt: skip
SIGNS = dict(zip(VERDICTS, "✓½✗?<…–", strict=True))  # a map read without its colours
PAPERS = {
    "lip2022,wu2023chasing": "Lottery image priors, in both papers",
    "lip2022": "Lottery image priors, in the paper of 2022 alone",
    "wu2023chasing": "Lottery image priors, in the paper of 2023 alone",
    "ghosh2024oes": "Optimal Eye Surgeon",
}
NUMBER_NAMES = {
    "oracle": "best PSNR", "stopped": "stopped PSNR", "last": "last PSNR", "noisy": "input's PSNR",
    "fall": "fall from the best PSNR to the last", "start": "PSNR before the first step",
    "rise": "count of rounds from the best to where losses rise", "loss": "last loss",
    "start_likeness": "likeness of the untrained output to the picture",
    "oracle_step": "step of the best PSNR", "oracle_y": "best PSNR of the luminance",
    "stopped_y": "stopped PSNR of the luminance", "kept": "number of kept weights",
    "odds": "mean probability of keeping a weight", "spread": "spread of the logits",
    "still": "number of steps at which the mean probability stands still",
}  # fmt: skip
CURVE_NAMES = {
    "low": "share of low frequencies",
    "high": "share of high frequencies",
    "psnr": "PSNR",
}

CLAIMS_HEAD = f"""# Claims and verdicts

Every claim of the three papers that can be put in a sentence, with a test that is data, and a
verdict computed from the [records](comparison.md) of this book. Nobody types a verdict. PSNR is in
dB. *Laptop scale* means small pictures and short fits, run in minutes: it says what a reader can
see for themselves, not what happens at the papers' size; each claim says how the settings differ.

A claim has one or more parts. A part that compares two arms is judged by their *differences*: one
for each place (a picture, strength or density), a mean over the seeds there. Its *noise* is half
the 95 % interval of their mean, by Student's t. A part **holds** if the whole interval is beyond
the threshold, **does not hold** if the whole of it is on the other side, and is **undecided**
otherwise, but where all of {AGREEING} or more places agree on the side: that decides. Fewer than
{PLACES} places are **too little evidence**, unless the claim itself is about one picture: then
each seed counts. Places that share a picture are not quite independent, so the
noise is rather too small. A part about one number (a loss near zero, a constant picture) has no
pairs and no noise: it holds if it is true at {SHARE:.0%} of the places. A claim is *reproduced* if
all its parts hold, *partly* if some do and others do not, are open, or are tested by nothing, and
*not reproduced* if none holds and at least one does not.

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
    papers_of: dict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        papers_of[claim.paper].append(claim)
    groups = {PAPERS.get(paper, paper): own for paper, own in papers_of.items()}
    parts = [CLAIMS_HEAD, _map(groups), "\n", _badges(claims)]
    for title, own in groups.items():
        parts += [f"\n## {title}\n\n", "\n".join(map(_claim, own))]
    return "".join(parts)


def _map(groups: dict[str, list[Claim]]) -> str:
    """Draw one square for each claim, by paper, and below them what the signs mean."""
    lines = ["```{raw} html", '<nav class="lipkit-map" aria-label="All verdicts">']
    for title, claims in groups.items():
        lines += [f"<p>{html.escape(title)}</p>", "<div>", *map(_square, claims), "</div>"]
    found = Counter(claim.verdict for claim in (c for own in groups.values() for c in own))
    legend = "\n".join(f"<span>{_sign(v)} {v}: {found[v]}</span>" for v in VERDICTS)
    return "\n".join([*lines, f"<p>{legend}</p>", "</nav>", "```", ""])


def _square(claim: Claim) -> str:
    title = html.escape(f"{claim.id}, {claim.verdict}: {claim.says}")
    return f'<a href="#{claim.id.lower()}" title="{title}">{_sign(claim.verdict)}</a>'


def _sign(verdict: str) -> str:
    return f'<b class="lipkit-{COLOURS[verdict]}">{html.escape(SIGNS[verdict])}</b>'


def _badges(claims: list[Claim]) -> str:
    found = Counter((claim.verdict, claim.scale) for claim in claims)
    order = sorted(found, key=lambda key: (VERDICTS.index(key[0]), key[1] != "paper"))
    parts = [_badge(v, f"{found[v, s]} {v}" + (f" at {s} scale" if s else "")) for v, s in order]
    return " ".join(parts) + "\n"


def _badge(verdict: str, text: str) -> str:
    return f"{{bdg-{COLOURS[verdict]}}}`{text}`"


def _claim(claim: Claim) -> str:
    lines = [
        f"({claim.id.lower()})=",
        "::::{div} lipkit-note",
        f"**{claim.id}** {_badge(claim.verdict, claim.verdict)}{_at_scale(claim)}",
        "",
        f"{claim.says} {{cite}}`{claim.paper}`, {claim.where}.",
        "",
    ]
    if claim.why_not:
        lines += [f"*Not tested.* {claim.why_not}", ""]
    if claim.untested:
        lines += [f"*Not tested:* {'; '.join(claim.untested)}.", ""]
    waiting: dict[str, dict[str, None]] = defaultdict(dict)  # of each scale, its grids once each
    for f in claim.findings:
        if f.verdict == "not yet run":
            waiting[f.scale][f"`{f.source}`"] = None
    rest = [
        f"Not yet run at {scale} scale: {', '.join(grids)}." for scale, grids in waiting.items()
    ]
    asked = [f for f in claim.findings if f.verdict != "not yet run"]
    if asked:
        found = Counter(f.verdict for f in asked if f.scale != "printed")
        parts = ", ".join(f"{number} {verdict}" for verdict, number in found.most_common())
        lines += [f":::{{dropdown}} Parts: {parts or 'only in print'}"]
        lines += ["| part | difference ± noise | places | verdict |", "|---|---|---|---|"]
        lines += [*map(_row, asked), "", *rest, ":::", ""]
    else:
        lines += [*rest, ""]
    return "\n".join([*lines, "::::", ""])


def _at_scale(claim: Claim) -> str:
    """Say at which scale the verdict was reached, and how that differs from the paper's."""
    if not claim.scale:
        return ""
    ours, theirs = claim.settings(claim.scale), claim.settings("paper")
    if not theirs or ours == theirs:
        return f" at {claim.scale} scale"
    return f" at {claim.scale} scale: {'; '.join(ours)}. In the paper: {'; '.join(theirs)}."


def _row(f: Finding) -> str:
    own = {"printed": "the paper's own table", "exact": "the functions themselves"}
    where = own.get(f.scale, f"`{f.source}`, {f.scale} scale")
    seeds = f" ({f.seeds} seeds each)" if f.seeds > 1 else ""
    some = f" of {f.planned}" if f.asked < f.planned else ""
    values = f"{_number(f.left)} beside {_number(f.right)}"
    counted = "counted: " if f.difference is None else ""
    if f.difference is not None:
        noise = f" ± {_number(f.noise)}" if f.noise is not None else ""
        values = f"{_number(f.difference)}{noise} ({values})"
    places = f"{f.asked}{some}{seeds}; true in {f.held}"
    return f"| {sentence(f.statement)} ({where}) | {counted}{values} | {places} | {f.verdict} |"


def sentence(statement: Statement) -> str:
    """Say a statement in words.

    >>> print(sentence(Statement("ticket.oracle", ">", "dense.oracle", -0.2)))
    The best PSNR of *ticket* is above that of *dense* less 0.2
    """
    left, plus = _words(statement.left), statement.plus
    right = _words(statement.right)
    name = left.rpartition(" of *")[0]
    if name and right.startswith(f"{name} of *"):
        right = "that" + right.removeprefix(name)
    left = left[0].upper() + left[1:] if left.startswith("the ") else left
    if statement.sign == "~":
        return f"{left} is within {plus:g} of {right}"
    more = f" {'plus' if plus > 0 else 'less'} {abs(plus):g}" if plus else ""
    return f"{left} is {'above' if statement.sign == '>' else 'below'} {right}{more}"


def _words(token: str | float) -> str:
    """Name what a token of a statement stands for."""
    if not isinstance(token, str):
        return f"{token:g}"
    arm, _, number = token.removeprefix("range ").partition(".")
    curve, _, step = number.partition("@")
    if number.startswith("layer/"):
        name = f"share of weights kept in `{number.removeprefix('layer/')}`"
    elif step:
        name = f"{CURVE_NAMES.get(curve, curve)} at step {step}"
    else:
        name = NUMBER_NAMES.get(number, number)
    if token.startswith("range "):
        name = f"range over the places of the {name}"
    return f"the {name} of *{arm}*" if name else f"*{arm}*"


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

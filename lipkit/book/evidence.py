"""The page of claims, made from the records: each with its verdict, and what that rests on."""

from __future__ import annotations

import html
from collections import Counter, defaultdict
from pathlib import Path

from ..lab.claims import (
    AGREEING,
    PLACES,
    SHARE,
    VERDICTS,
    Claim,
    Finding,
    Statement,
    ledger,
)

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
SHORT = {
    "lip2022": "Lottery image priors, 2022",
    "wu2023chasing": "Lottery image priors, 2023",
    "ghosh2024oes": "Optimal Eye Surgeon, 2024",
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

CLAIMS_HEAD = """# Claims and verdicts

Every claim of the three papers that can be put in a sentence, with a test that is data, and a
verdict computed from the [records](comparison.md) of this book. Nobody types a verdict. *Laptop
scale* means smaller pictures and shorter fits than the papers': it says what a reader can see for
themselves; each claim says how the settings differ. Open a claim to see what its verdict rests on.

"""

HOW = f"""
:::{{dropdown}} How a verdict is computed
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
*not reproduced* if none holds and at least one does not. PSNR is in dB.
:::

"""

STRENGTHS = {
    "few": f"a part with fewer than {PLACES} places",
    "some": f"{PLACES} to {AGREEING - 1} places",
    "many": f"{AGREEING} places or more for each part",
}


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
    parts = [CLAIMS_HEAD, _map(groups), "\n", _badges(claims), HOW, _filter(claims)]
    for title, own in groups.items():
        parts += [f"\n## {title}\n\n", "\n".join(map(_claim, own))]
    return "".join(parts)


def _map(groups: dict[str, list[Claim]]) -> str:
    """Draw one square for each claim, by paper, and below them what signs and tones mean."""
    lines = ["```{raw} html", '<nav class="lipkit-map" aria-label="All verdicts">']
    for title, claims in groups.items():
        lines += [f"<p>{html.escape(title)}</p>", "<div>", *map(_square, claims), "</div>"]
    found = Counter(claim.verdict for claim in (c for own in groups.values() for c in own))
    signs = "\n".join(f"<span>{_sign(v)} {v}: {found[v]}</span>" for v in VERDICTS)
    tones = "\n".join(
        f'<span><b class="lipkit-success lipkit-{name}"></b> {html.escape(meaning)}</span>'
        for name, meaning in STRENGTHS.items()
    )
    legend = f"<p>{signs}</p>\n<p>Stronger colour, more evidence:\n{tones}</p>"
    return "\n".join([*lines, legend, "</nav>", "```", ""])


def _square(claim: Claim) -> str:
    title = html.escape(f"{claim.id}, {claim.verdict}: {claim.says}")
    sign = _sign(claim.verdict, strength(claim))
    return f'<a href="#{claim.id.lower()}" title="{title}">{sign}</a>'


def _sign(verdict: str, tone: str = "many") -> str:
    return f'<b class="lipkit-{COLOURS[verdict]} lipkit-{tone}">{html.escape(SIGNS[verdict])}</b>'


def strength(claim: Claim) -> str:
    """Say how many places the weakest part of a verdict rests on: "few", "some" or "many".

    What the functions themselves say needs no places.

    >>> {strength(claim) for claim in ledger()} <= set(STRENGTHS)
    True
    """
    if not claim.scale:
        return "many" if any(f.scale == "exact" for f in claim.findings) else "few"
    least = min(f.asked for f in claim.findings if f.scale == claim.scale)
    return "few" if least < PLACES else "some" if least < AGREEING else "many"


def _filter(claims: list[Claim]) -> str:
    """Write the form that the page's script shows and obeys; without it all claims are there."""
    verdicts = {_class(v): v for v in VERDICTS if any(claim.verdict == v for claim in claims)}
    keys = dict.fromkeys(key for claim in claims for key in claim.paper.split(","))
    by = {f"lipkit-by-{key}": SHORT.get(key, key) for key in keys}
    return f"""```{{raw}} html
<form class="lipkit-filter" role="search" aria-label="Filter the claims" hidden>
<label>Verdict {_select("verdict", verdicts)}</label>
<label>Paper {_select("paper", by)}</label>
<label>Text <input type="search" name="text" placeholder="words of a claim"></label>
<button type="button">Open all</button>
<output aria-live="polite"></output>
</form>
```
"""


def _select(name: str, options: dict[str, str]) -> str:
    rows = "".join(
        f'<option value="{v}">{html.escape(text)}</option>' for v, text in options.items()
    )
    return f'<select name="{name}"><option value="">all</option>{rows}</select>'


def _class(verdict: str) -> str:
    return f"lipkit-is-{verdict.replace(' ', '-')}"


def _badges(claims: list[Claim]) -> str:
    found = Counter((claim.verdict, claim.scale) for claim in claims)
    order = sorted(found, key=lambda key: (VERDICTS.index(key[0]), key[1] != "paper"))
    parts = [_badge(v, f"{found[v, s]} {v}" + (f" at {s} scale" if s else "")) for v, s in order]
    return " ".join(parts) + "\n"


def _badge(verdict: str, text: str) -> str:
    return f"{{bdg-{COLOURS[verdict]}}}`{text}`"


def _claim(claim: Claim) -> str:
    """Write a claim as a block to open: its verdict and sentence outside, the evidence inside."""
    by = " ".join(f"lipkit-by-{key}" for key in claim.paper.split(","))
    lines = [
        f"({claim.id.lower()})=",
        f"::::{{dropdown}} {_badge(claim.verdict, claim.verdict)} **{claim.id}** {claim.says}",
        f":class-container: lipkit-claim {_class(claim.verdict)} {by}",
        "",
        f"{{cite}}`{claim.paper}`, {claim.where}.{_at_scale(claim)}",
        "",
    ]
    if claim.why_not:
        lines += [f"*Not tested.* {claim.why_not}", ""]
    if claim.untested:
        lines += [f"*Not tested:* {'; '.join(claim.untested)}.", ""]
    asked = [f for f in claim.findings if f.verdict != "not yet run"]
    if asked:
        lines += ["| part | difference ± noise | places | verdict |", "|---|---|---|---|"]
        lines += [*map(_row, asked), ""]
    return "\n".join([*lines, *_waiting(claim), "", "::::", ""])


def _waiting(claim: Claim) -> list[str]:
    """Name the grids that were not run, by scale."""
    grids: dict[str, dict[str, None]] = defaultdict(dict)  # of each scale, its grids once each
    for f in claim.findings:
        if f.verdict == "not yet run":
            grids[f.scale][f"`{f.source}`"] = None
    return [f"Not yet run at {scale} scale: {', '.join(own)}." for scale, own in grids.items()]


def _at_scale(claim: Claim) -> str:
    """Say at which scale the verdict was reached, and how that differs from the paper's."""
    if not claim.scale:
        return ""
    ours, theirs = claim.settings(claim.scale), claim.settings("paper")
    if not theirs or ours == theirs:
        return f" The verdict is of {claim.scale} scale."
    return (
        f" The verdict is of {claim.scale} scale: {'; '.join(ours)}. "
        f"In the paper: {'; '.join(theirs)}."
    )


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
    The best PSNR of *ticket* is no more than 0.2 dB below that of *dense*
    """
    left, plus = _words(statement.left), statement.plus
    right = _words(statement.right)
    unit = " dB" if "PSNR" in left else ""
    if not isinstance(statement.right, str):
        right += unit
    name = left.rpartition(" of *")[0]
    if name and right.startswith(f"{name} of *"):
        right = "that" + right.removeprefix(name)
    left = left[0].upper() + left[1:] if left.startswith("the ") else left
    size = f"{abs(plus):g}{unit}"
    if statement.sign == "~":
        return f"{left} is within {size} of {right}"
    above = statement.sign == ">"
    if not plus:
        return f"{left} is {'above' if above else 'below'} {right}"
    if (plus > 0) == above:
        return f"{left} is more than {size} {'above' if above else 'below'} {right}"
    return f"{left} is no more than {size} {'below' if above else 'above'} {right}"


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

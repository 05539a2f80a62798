"""A chapter's table of claims: what the papers say, and what the records of this book say to it."""

from __future__ import annotations

import re
from html import escape

from ..errors import InputError
from ..lab.claims import Claim, Finding, ledger
from .evidence import sentence

PAGE = "../book/claims.html"
SIGNS = {"holds": "✓", "does not hold": "✗", "undecided": "?", "too little evidence": "<"}


class Beside:
    """Claims with the verdicts of the ledger, shown as a table.

    >>> print(Beside(ledger()[:1]))  # doctest: +ELLIPSIS
    C-LIP-01: During the search ...
    """

    def __init__(self, claims: list[Claim]) -> None:
        self.claims = claims

    def __str__(self) -> str:
        return "\n".join(
            f"{claim.id}: {claim.says}\n  {_verdict(claim)}"
            + "".join(f"\n  {_part(finding)}" for finding in _parts(claim))
            for claim in self.claims
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(map(_row, self.claims))
        head = "<tr><th>the papers</th><th>the records of this book</th></tr>"
        return f'<table class="beside"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def beside(*ids: str) -> Beside:
    """Show claims by their ids beside what became of them: one source for chapters and ledger.

    >>> beside("C-LIP-06").claims[0].id
    'C-LIP-06'
    """
    known = {claim.id: claim for claim in ledger()}
    for wanted in ids:
        if wanted not in known:
            raise InputError(f"there is no claim {wanted!r}; they are {', '.join(known)}")
    return Beside([known[wanted] for wanted in ids])


def _row(claim: Claim) -> str:
    link = f'<a href="{PAGE}#{claim.id.lower()}">{claim.id}</a>'
    lines, setting = [], ""
    for finding in _parts(claim):
        if finding.setting != setting:
            setting = finding.setting
            lines.append(f"<br><small>{escape(setting)}</small>")
        part = re.sub(r"`(.+?)`", r"<code>\1</code>", escape(_part(finding)))
        part = re.sub(r"\*(.+?)\*", r"<i>\1</i>", part)
        lines.append(f"<br>{part}")
    parts = "".join(lines)
    return (
        f"<tr><td>{link}: {escape(claim.says)} <small>{escape(claim.where)}</small></td>"
        f"<td><b>{escape(_verdict(claim))}</b>{parts}</td></tr>"
    )


def _verdict(claim: Claim) -> str:
    scale = f", {claim.scale} scale" if claim.scale else ""
    untested = f"; not tested: {'; '.join(claim.untested)}" if claim.untested else ""
    why = f": {claim.why_not}" if claim.why_not else ""
    return f"{claim.verdict}{scale}{untested}{why}"


def _parts(claim: Claim) -> list[Finding]:
    """The parts at the scale of the verdict, as far as they were run."""
    scale = claim.scale or "exact"
    return [f for f in claim.findings if f.scale == scale and f.verdict in SIGNS]


def _part(finding: Finding) -> str:
    """Say one part with its numbers.

    A difference stands with its noise and the number of places.
    """
    places = f"{finding.asked} place{'s' if finding.asked != 1 else ''}"
    if finding.difference is None:
        numbers = f"{finding.left:.4g} beside {finding.right:.4g}, {places}"
    else:
        noise = "" if finding.noise is None else f" ± {finding.noise:.2g}"
        numbers = f"{finding.difference:+.2g}{noise}, {places}".replace("-", "−")
    return f"{SIGNS[finding.verdict]} {sentence(finding.statement)} ({numbers})"

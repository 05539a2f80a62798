"""The status page: what was executed to make this book, how long it took, what the checks said."""

from __future__ import annotations

from typing import Any

from . import bands
from .runs import Run

HEAD = """# Status

Every chapter of this copy of the book was executed before it was rendered. This page is written
by the build from what the chapters reported, on the machine that made it.

| Chapter | Profile | Seconds | Peak memory | Device | Checks |
|---|---|---:|---:|---|---|
"""

TAIL = """
*Seconds* are those of the chapter's cells, from its parameters to its last line. *Peak memory* is
the most that its process held at once, PyTorch itself included. *Checks* are the
chapter's equalities and laws, which must hold or the chapter stops, and its numeric bands; at the
smoke profile pictures are too small for most bands to mean anything, and such numbers are shown but
not judged.
"""

CALIBRATED = """
## What the bands rest on

A band says where a number fell when the chapter was run on other machines, real or imitated: with
noise of a rounding's size on what is measured, other threads, and other last bits of convolutions.
It needs {fewest} runs of the chapter as it is now; until then its numbers are shown and not judged.

| Chapter | Runs | Machines | Processors |
|---|---:|---:|---|
"""

BANDS = """
## Every band

| Chapter | Number on this machine | Band |
|---|---|---|
"""

MISSED = """
## Outside their bands on this machine

These numbers are marked on their pages too. A sentence of the text that rests on one of them may
not hold here; figures and tables show what was computed.

"""


def status_page(runs: list[Run]) -> str:
    """Write the Markdown of the status page."""
    records = {run.chapter.name: run.record() or {} for run in runs}
    rows = "".join(_row(run, records[run.chapter.name]) for run in runs)
    about_bands = _missed(runs) + _calibrated(runs, records) + _bands(records)
    return HEAD + rows + TAIL + about_bands + _versions(records)


def _link(name: str) -> str:
    return f"[](../notebooks/{name}.ipynb)"


def _row(run: Run, record: dict[str, Any]) -> str:
    link = _link(run.chapter.name)
    if run.failure is not None:
        return f"| {link} | **stopped:** {_cell(run.failure)} | | | | |\n"
    if not record:
        return f"| {link} | the chapter reported nothing | | | | |\n"
    cells = [
        link,
        record["profile"],
        f"{record['seconds']:.1f}",
        f"{record['peak_megabytes']} MB",
        record["device"],
        _verdict(record["checks"]),
    ]
    return "| " + " | ".join(cells) + " |\n"


def _missed(runs: list[Run]) -> str:
    """List the numbers outside their bands under a heading; nothing if there are none."""
    lines = [
        f"- {_link(run.chapter.name)}: {_cell(check)}\n" for run in runs for check in run.missed()
    ]
    return MISSED + "".join(lines) if lines else ""


def _calibrated(runs: list[Run], records: dict[str, dict[str, Any]]) -> str:
    """Say what the bands of each chapter rest on; of a smoke run, those of the laptop profile."""
    lines = []
    for run in runs:
        paper = records[run.chapter.name].get("profile") == "paper"
        known = bands.valid(profile="paper" if paper else "laptop")
        found = [one for one in known if one["chapter"] == run.chapter.name]
        machines = {one["machine"] for one in found}
        processors = sorted({one["processor"] for one in found})
        enough = str(len(found)) if len(found) >= bands.FEWEST else f"{len(found)}, too few yet"
        cells = [_link(run.chapter.name), enough, str(len(machines)), ", ".join(processors) or "–"]
        lines.append("| " + " | ".join(cells) + " |\n")
    return CALIBRATED.format(fewest=bands.FEWEST) + "".join(lines)


def _bands(records: dict[str, dict[str, Any]]) -> str:
    """Say of each band whether it was held, missed, or why it was not judged."""
    lines = []
    for chapter, record in records.items():
        for check in record.get("checks", []):
            if "value" in check:
                said = {True: "held", False: "**missed**"}.get(check["ok"]) or check["why"]
                text = _cell(f"{check['name']}: {check['detail']}")
                lines.append(f"| {_link(chapter)} | {text} | {said} |\n")
    return BANDS + "".join(lines) if lines else ""


def _cell(text: str) -> str:
    """Show a text as it is, as code: nothing in it is Markdown or ends a cell.

    >>> _cell("a | *b*")
    '`a / *b*`'
    """
    return "`" + " ".join(text.split()).replace("`", "'").replace("|", "/") + "`"


def _verdict(checks: list[dict[str, Any]]) -> str:
    """Say how many checks passed, were missed and were not judged.

    >>> _verdict([{"ok": True}, {"ok": True}, {"ok": None}])
    '2 passed, 1 not judged'
    """
    counts = {
        "passed": sum(check["ok"] is True for check in checks),
        "outside the band": sum(check["ok"] is False for check in checks),
        "not judged": sum(check["ok"] is None for check in checks),
    }
    return ", ".join(f"{n} {word}" for word, n in counts.items() if n) or "none"


def _versions(records: dict[str, dict[str, Any]]) -> str:
    used = {
        ", ".join(f"{name} {record['versions'][name]}" for name in ("lipkit", "torch", "Python"))
        for record in records.values()
        if record
    }
    return "".join(f"\nMade with {line}.\n" for line in sorted(used))

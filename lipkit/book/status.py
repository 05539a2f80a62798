"""The status page: what was executed to make this book, how long it took, what the checks said."""

from __future__ import annotations

from typing import Any

from .runs import Run

HEAD = """# Status

Every chapter of this copy of the book was executed before it was rendered. This page is written
by the build from what the chapters reported, on the machine that made it.

| Chapter | Profile | Seconds | Peak memory | Device | Checks |
|---|---|---:|---:|---|---|
"""

TAIL = """
*Seconds* are those of the chapter's cells, from its parameters to its last line. *Peak memory* is
the most that its process held at once, PyTorch itself included. *Checks* are the numeric bands of
the chapter's check cells; at the smoke profile pictures are too small for most bands to mean
anything, and such numbers are shown but not judged.
"""


def status_page(runs: list[Run]) -> str:
    """The Markdown of the status page."""
    records = {run.chapter.name: run.record() or {} for run in runs}
    rows = "".join(_row(name, record) for name, record in records.items())
    return HEAD + rows + TAIL + _versions(records)


def _row(name: str, record: dict[str, Any]) -> str:
    link = f"[](../notebooks/{name}.ipynb)"
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


def _verdict(checks: list[dict[str, Any]]) -> str:
    """In words: how many checks passed, how many were not judged.

    >>> _verdict([{"ok": True}, {"ok": True}, {"ok": None}])
    '2 passed, 1 not judged'
    """
    counts = {
        "passed": sum(check["ok"] is True for check in checks),
        "failed": sum(check["ok"] is False for check in checks),
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

"""Chapters as files: finding them, and reading what a run left in them.

A notebook is JSON, so nothing but the standard library is needed here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FileError, InputError
from .parameters import Parameter, declared

ERROR_NOTE = "papermill-error-cell-tag"  # cells in which papermill points at an error
ADDED_BY_PAPERMILL = {"injected-parameters", ERROR_NOTE}
RUN_RECORD = "lipkit_run"  # the output metadata in which `Chapter.finish` leaves its numbers


@dataclass(frozen=True)
class ChapterFile:
    """One chapter: its file and its place in the book.

    >>> ChapterFile(Path("notebooks/01_dip_basics.ipynb")).name
    '01_dip_basics'
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    def parameters(self) -> dict[str, Parameter]:
        """Read what the cell tagged `parameters` declares."""
        cells = [c for c in read(self.path)["cells"] if "parameters" in tags(c)]
        if len(cells) != 1:
            raise InputError(
                f"{self.path.name} has {len(cells)} cells tagged 'parameters': give it exactly one"
            )
        return declared(source(cells[0]))


def find_chapters(folder: Path, wanted: list[str] | None = None) -> list[ChapterFile]:
    """Find the chapters of a folder, all or those wanted by name, number or path."""
    known = [ChapterFile(path) for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))]
    if not wanted:
        if not known:
            raise FileError(f"no chapter found: {folder} has no file named like 01_name.ipynb")
        return known
    return [_find_one(known, word) for word in dict.fromkeys(wanted)]


def _find_one(known: list[ChapterFile], word: str) -> ChapterFile:
    for chapter in known:
        number = chapter.name.split("_")[0]
        if word in (chapter.name, number) or (word.isdigit() and int(word) == int(number)):
            return chapter
    path = Path(word)
    if path.suffix == ".ipynb" and path.is_file():
        return ChapterFile(path)
    names = ", ".join(chapter.name for chapter in known) or "none"
    raise InputError(f"no chapter {word!r}; there are: {names}")


def read(path: Path) -> dict[str, Any]:
    """Read a notebook as plain dicts; a `FileError` says what is wrong with a file."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["cells"]
    except OSError as problem:
        raise FileError(f"cannot read {path}: {problem.strerror or problem}") from problem
    except (ValueError, TypeError, KeyError) as problem:
        raise FileError(f"{path} is not a Jupyter notebook") from problem
    return notebook


def source(cell: dict[str, Any]) -> str:
    """Return the text of a cell, which a file may hold as one string or as lines."""
    return "".join(cell["source"])


def tags(cell: dict[str, Any]) -> set[str]:
    """Return the tags of a cell."""
    return set(cell.get("metadata", {}).get("tags", []))


def progress(notebook: dict[str, Any]) -> tuple[int, int]:
    """Count how far papermill has come in a notebook it is running: cells done, cells in all."""
    states = [c["metadata"].get("papermill", {}).get("status") for c in notebook["cells"]]
    return states.count("completed"), len(states)


def failure(notebook: dict[str, Any]) -> str | None:
    """Say in one sentence where and why a run failed; None if no cell raised anything."""
    cells = [c for c in notebook["cells"] if not tags(c) & ADDED_BY_PAPERMILL]
    for number, cell in enumerate(cells, start=1):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error" and "raises-exception" not in tags(cell):
                sentence = " ".join(f"{output['ename']}: {output['evalue']}".split())
                return f"cell {number}: {sentence}"
    return None


def stopped(notebook: dict[str, Any], why: str) -> dict[str, Any]:
    """Return a notebook whose run failed as a page: a box below its title says why.

    >>> first = {"cell_type": "markdown", "source": "# One\\n**Question.**"}
    >>> box, rest = stopped({"cells": [first]}, "cell 2: broken")["cells"]
    >>> box["source"].splitlines()[0], box["source"].splitlines()[-2], rest["source"]
    ('# One', '`cell 2: broken`', '**Question.**')
    """
    # papermill's own notes go: one of them would stand before the title
    cells = [cell for cell in notebook["cells"] if ERROR_NOTE not in tags(cell)]
    title = ""
    if cells and cells[0]["cell_type"] == "markdown":
        title, _, rest = source(cells[0]).partition("\n")
        cells[0] = cells[0] | {"source": rest}
    text = (
        f"{title}\n\n:::{{error}}\n**This chapter did not run to its end on this machine**: "
        "the cells after the error were not run.\n\n"
        f"`{' '.join(why.split()).replace('`', '')}`\n:::"
    )
    box = {"cell_type": "markdown", "id": "stopped", "metadata": {}, "source": text}
    return notebook | {"cells": [box, *cells]}


def run_record(notebook: dict[str, Any]) -> dict[str, Any] | None:
    """Find the numbers that `chapter.finish()` left in an executed notebook."""
    for cell in reversed(notebook["cells"]):
        for output in cell.get("outputs", []):
            if RUN_RECORD in output.get("metadata", {}):
                return output["metadata"][RUN_RECORD]
    return None

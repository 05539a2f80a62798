"""Outputs that every machine shares: nbval compares marked cells with them.

The chapters' sources carry no outputs, so nbval has nothing to compare with. What the cells tagged
`nbval-check-output` show at the smoke profile lies in `shared_outputs.json` beside this file. This
plugin of pytest puts it into the cells that nbval collects; the comparison is nbval's own.

`python -m tests.chapters.shared_outputs` executes the chapters that have such cells and writes the
file anew; look at what git says has changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lipkit import book
from lipkit.book import notebooks
from lipkit.formats import atomic

TAG = "nbval-check-output"
FILE = "tests/chapters/shared_outputs.json"
COMMAND = "python -m tests.chapters.shared_outputs"
NOTHING = f"no output of this cell is stored: {COMMAND} writes it"
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")  # their bytes are no machine's but one's

Outputs = dict[str, dict[str, list[dict[str, Any]]]]  # of a chapter's name and a cell's id


def read(root: Path) -> Outputs:
    """Read what is stored; nothing where there is no file."""
    path = root / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def marked(path: Path) -> list[dict[str, Any]]:
    """List the cells of a notebook that are marked."""
    return [cell for cell in notebooks.read(path)["cells"] if TAG in notebooks.tags(cell)]


def stored(output: dict[str, Any]) -> dict[str, Any]:
    """Return an output without what differs from run to run."""
    kept = {name: value for name, value in output.items() if name != "metadata"}
    if "execution_count" in kept:
        kept["execution_count"] = 1
    if "text" in kept:
        kept["text"] = "".join(kept["text"])
    if "data" in kept:
        forms = kept["data"].items()
        kept["data"] = {
            form: "".join(data) if isinstance(data, list) else data
            for form, data in forms
            if form not in PICTURES
        }
    return kept


def write(root: Path) -> list[str]:
    """Execute the chapters that have marked cells, store their outputs, and name the chapters."""
    found = notebooks.find_chapters(root / "notebooks")
    names = [chapter.name for chapter in found if marked(chapter.path)]
    outputs: Outputs = {}
    for run in book.run(names, profile="smoke", root=root) if names else []:
        cells = marked(run.path)
        outputs[run.chapter.name] = {c["id"]: [stored(o) for o in c["outputs"]] for c in cells}
    text = json.dumps(outputs, indent=1, ensure_ascii=False, sort_keys=True)
    atomic.write(root / FILE, f"{text}\n".encode())
    return names


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give nbval's item of a marked cell the output to compare with."""
    if type(item).__name__ != "IPyNbCell" or not item.options["check"]:
        return
    import nbformat  # comes with nbval

    of_chapter = read(item.config.rootpath).get(item.path.stem, {})
    nothing = [{"output_type": "stream", "name": "stdout", "text": NOTHING}]
    item.cell.outputs = nbformat.from_dict(of_chapter.get(item.cell.get("id"), nothing))
    item.cell.execution_count = 1  # nbval compares no cell that was never run


if __name__ == "__main__":
    for name in write(Path(__file__).resolve().parents[2]):
        print(name)

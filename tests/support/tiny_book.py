"""A book of one tiny chapter, for tests of the machinery that executes and renders."""

import hashlib
import json
from pathlib import Path

PARAMETERS = '# parameters\nprofile: str = "laptop"\nsigma: float = 0.1\nsize: int | None = None'
START = """import lipkit as lk
p = lk.chapter.start(globals(), smoke={"size": 8}, laptop={"size": 16}, paper={"size": 32})"""
END = 'p.check("size", p.size > 1, str(p.size), always=True)\np.finish()'


def _code(source: str, *tags: str) -> dict:
    cell = {"cell_type": "code", "execution_count": None, "outputs": [], "source": source}
    name = hashlib.sha256(source.encode()).hexdigest()[:8]
    return cell | {"metadata": {"tags": list(tags)}, "id": name}


def write_chapter(path: Path, *cells: str) -> None:
    """A notebook of these code cells, the first of them tagged as the parameters."""
    first, *rest = cells
    notebook = {
        "cells": [_code(first, "parameters"), *map(_code, rest)],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.write_text(json.dumps(notebook))


def write_book(root: Path) -> Path:
    """Chapter 01_tiny prints a number and needs no lipkit, so that it runs fast."""
    (root / "notebooks").mkdir()
    (root / "_config.yml").write_text("title: tiny\nhtml: {}\nlaunch_buttons: {a: b}\n")
    write_chapter(root / "notebooks" / "01_tiny.ipynb", PARAMETERS, "print(sigma)")
    return root

"""A book of one tiny chapter, for tests of the machinery that executes and renders."""

import hashlib
import json
from pathlib import Path

import yaml

PARAMETERS = '# parameters\nprofile: str = "laptop"\nsigma: float = 0.1\nsize: int | None = None'
START = """import lipkit as lk
p = lk.book.chapter.start(globals(), smoke={"size": 8}, laptop={"size": 16}, paper={"size": 32})"""
BAND = (
    "from lipkit.book import bands\n"
    "bands.find = lambda *_: bands.Band(-2, 2, 8)\n"
    'p.band("PSNR", 2.04)'
)
END = 'p.check("size", p.size > 1, str(p.size))\np.finish()'


def _code(source: str, *tags: str) -> dict:
    cell = {"cell_type": "code", "execution_count": None, "outputs": [], "source": source}
    name = hashlib.sha256(source.encode()).hexdigest()[:8]
    return cell | {"metadata": {"tags": list(tags)}, "id": name}


def _title(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": f"# {text}", "id": "title"}


def write_chapter(path: Path, *cells: str) -> None:
    """A notebook with a title and these code cells, the first of them tagged as the parameters."""
    first, *rest = cells
    notebook = {
        "cells": [_title(path.stem), _code(first, "parameters"), *map(_code, rest)],
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


def write_pages(root: Path, *chapters: str) -> None:
    """What makes a book of these chapters that can be rendered: a front page and a contents."""
    config = {
        "title": "tiny",
        "only_build_toc_files": True,
        "execute": {"execute_notebooks": "off"},
        "parse": {"myst_enable_extensions": ["colon_fence"]},
        "html": {},
    }
    (root / "_config.yml").write_text(yaml.safe_dump(config))
    files = [*(f"notebooks/{name}" for name in chapters), "book/status"]
    parts = [{"caption": "All", "chapters": [{"file": name} for name in files]}]
    toc = {"format": "jb-book", "root": "book/index", "parts": parts}
    (root / "book").mkdir()
    (root / "book" / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    (root / "book" / "index.md").write_text("# A tiny book\n")

"""Marked cells are compared with what is stored, by nbval; a difference is a failure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lipkit.book import notebooks
from tests.chapters import shared_outputs
from tests.support.tiny_book import END, PARAMETERS, START, write_chapter

ROOT = Path(__file__).resolve().parents[2]
SHOWS = "print(p.size, sigma)\n(p.size, p.size)"  # a stream and a result


@pytest.fixture
def book(tmp_path):
    """A book of one chapter with a marked cell, whose output is stored."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "tests" / "chapters").mkdir(parents=True)
    (tmp_path / "_config.yml").write_text("title: tiny\n")
    path = tmp_path / "notebooks" / "01_tiny.ipynb"
    write_chapter(path, PARAMETERS, START, SHOWS, END)
    notebook = json.loads(path.read_text())
    (cell,) = [cell for cell in notebook["cells"] if cell["source"] == SHOWS]
    cell["metadata"]["tags"] = [shared_outputs.TAG]
    path.write_text(json.dumps(notebook))
    assert shared_outputs.write(tmp_path) == ["01_tiny"]
    return tmp_path


def nbval(book: Path) -> tuple[int, str]:
    """Run nbval as `make test` does, over the book's own folder."""
    words = ["-m", "pytest", "--rootdir", str(book), "-c", "/dev/null", "-p", "no:cacheprovider"]
    words += ["-p", shared_outputs.__name__, "--nbval-lax", "--nbval-current-env", "--color=no"]
    command = [sys.executable, *words, str(book / "notebooks")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_a_marked_cell_is_compared_with_what_is_stored(book):
    path = book / shared_outputs.FILE
    first = path.read_text()
    assert "8 0.1" in first and "(8, 8)" in first, "as at the smoke profile"
    code, out = nbval(book)
    assert code == 0, out
    assert "4 passed" in out

    path.write_text(first.replace("8 0.1", "9 0.1"))
    code, out = nbval(book)
    assert code == 1
    assert "Cell outputs differ" in out and "9 0.1" in out
    assert "1 failed, 3 passed" in out

    path.write_text("{}")
    code, out = nbval(book)
    assert code == 1
    assert "1 failed, 3 passed" in out


def test_pictures_and_counts_are_not_stored():
    data = {"text/plain": ["<Fig", "ure>"], "image/png": "iVBOR"}
    output = {"output_type": "execute_result", "execution_count": 7, "metadata": {"a": 1}}
    assert shared_outputs.stored(output | {"data": data}) == {
        "output_type": "execute_result",
        "execution_count": 1,
        "data": {"text/plain": "<Figure>"},
    }


def test_every_marked_cell_has_its_output_and_no_other_has():
    chapters = notebooks.find_chapters(ROOT / "notebooks")
    marked = {chapter.name: shared_outputs.marked(chapter.path) for chapter in chapters}
    known = {name: {cell["id"] for cell in cells} for name, cells in marked.items() if cells}
    have = {name: set(cells) for name, cells in shared_outputs.read(ROOT).items()}
    assert have == known, f"{shared_outputs.COMMAND} writes them"

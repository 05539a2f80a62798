"""The house as CONTRIBUTING draws it: storeys, no circle, names that moved, a quick start."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lipkit as lk

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lipkit"
SAMPLES = {  # a name in each module that moved
    "chapter": "start",
    "claims": "ledger",
    "classify": "Classifier",
    "experiment": "Experiment",
    "grid": "Grid",
    "papers": "table",
    "plots": "curves",
    "records": "Records",
    "sweep": "run",
    "tables": "summary",
    "trial": "run",
    "widgets": "picture_slider",
}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = [*path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_the_linter_of_imports_is_happy_and_sees_every_folder():
    from importlinter.cli import lint_imports

    assert lint_imports(str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_an_import_that_looks_up_is_refused(tmp_path):
    """The contracts fail when broken: here by one import in the lowest room."""
    copy = tmp_path / "lipkit"
    for path in PACKAGE.rglob("*.py"):
        target = copy / path.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    with (copy / "metrics.py").open("a", encoding="utf-8") as file:
        file.write("\n\ndef late():\n    from .lab import records\n\n    return records\n")
    code = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports('pyproject.toml', no_cache=True))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout
    assert "lipkit.metrics -> lipkit.lab.records" in done.stdout


def test_contributing_draws_the_layers_that_the_linter_checks():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = settings["tool"]["importlinter"]["contracts"][0]
    drawn_elsewhere = {"__main__", "_version"}
    layers = [set(re.split(r" [|:] ", layer)) - drawn_elsewhere for layer in contract["layers"]]
    assert drawn_layers() == [layer for layer in layers if layer]


def drawn_layers() -> list[set[str]]:
    """The storeys of the picture; of the core, which begins a column of its own, its rooms."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = text.split("```")[1]
    drawn = []
    for line in picture.splitlines():
        storey = line[1:9].strip()
        rooms = re.split("  +", line[9:])[0]
        if storey in ("", "core") and rooms:
            drawn.append(set(rooms.split(" . ")))
        elif storey in ("cli", "book", "lab"):
            drawn.append({storey})
    return drawn


def test_contributing_names_files_that_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:book|lipkit|tests)/[\w/.-]+)`", text)
    assert len(named) > 30
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", SAMPLES)
def test_names_that_moved_are_still_there(name):
    assert hasattr(getattr(lk, name), SAMPLES[name])


def test_every_name_that_is_offered_exists():
    for door in (lk, lk.lab, lk.book):
        for name in door.__all__:
            assert getattr(door, name) is not None, name


def test_every_module_begins_with_a_sentence_and_can_be_loaded():
    for name, path in modules().items():
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert text or not path.read_text(encoding="utf-8"), f"{name} does not say what it is"
        if not name.endswith("__main__"):
            importlib.import_module(name)


def test_few_assignments_only_save_a_line():
    """`a, b = x, y` is for swaps; as a habit it hides what belongs to what."""
    parallel = total = 0
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign):
                total += 1
                parallel += isinstance(node.targets[0], ast.Tuple) and isinstance(
                    node.value, ast.Tuple
                )
    assert parallel <= 0.03 * total

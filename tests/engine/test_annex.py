"""The engine is a closed annex: what it may import, and from where others may import it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import lipkit

PACKAGE = Path(lipkit.__file__).parent
ALLOWED = {"engine", "models", "masks", "errors"}


def imports(path: Path) -> Iterator[list[str]]:
    """What a file of the package imports of the package: folders and file, from the root on."""
    folders = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*folders[: len(folders) - node.level + 1], *(node.module or "").split(".")]
            found = [part for part in base if part]
            yield from [found] if found else ([alias.name] for alias in node.names)
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("lipkit.") for alias in node.names), path


def test_the_engine_imports_nothing_above_it():
    for path in (PACKAGE / "engine").rglob("*.py"):
        for found in imports(path):
            assert found[0] in ALLOWED, f"{path} imports {'.'.join(found)}"


def test_others_import_from_the_face_of_the_engine_alone():
    for path in PACKAGE.rglob("*.py"):
        where = path.relative_to(PACKAGE).as_posix()
        if not where.startswith("engine/"):
            for found in imports(path):
                assert found[0] != "engine" or len(found) == 1, f"{where}: {'.'.join(found)}"

"""A run of a chapter: what its result depends on, where it is kept, and what it tells.

The executed notebook lies in a cache under a key of everything that can change the result, so that
nothing is executed twice. A run that failed has none; what ran of it lies beside.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import FileError
from ..formats import atomic
from ..workers import device_name
from . import machines, notebooks
from .notebooks import ChapterFile
from .parameters import checked


@dataclass
class Run:
    """One chapter with its parameters, and where its executed notebook is or will be."""

    chapter: ChapterFile
    parameters: dict[str, Any]  # those that differ from the chapter's own
    key: str
    path: Path  # in the cache
    cached: bool = False
    failure: str | None = None  # where and why it failed, in one sentence

    @property
    def part(self) -> Path:
        """Where papermill writes while it runs; after a failure, the cells that ran."""
        return self.path.with_suffix(".part.ipynb")

    @property
    def log(self) -> Path:
        """What papermill and the kernel say outside of cells."""
        return self.path.with_suffix(".log")

    def page(self) -> bytes:
        """Return the notebook that the book shows; of a failed run, as far as it came."""
        if self.failure is None:
            return self.path.read_bytes()
        try:
            notebook = notebooks.read(self.part)
        except FileError:  # papermill died before or while it wrote
            notebook = notebooks.read(self.chapter.path)
        return json.dumps(notebooks.stopped(notebook, self.failure)).encode()

    def record(self) -> dict[str, Any] | None:
        """Return what `chapter.finish()` noted: profile, seconds, device, versions, checks."""
        if self.failure is not None:
            return None
        return notebooks.run_record(notebooks.read(self.path))

    def missed(self) -> list[str]:
        """List the checks that were judged and missed: bands, as a broken law stops a run."""
        checks = (self.record() or {}).get("checks", [])
        return [f"{check['name']}: {check['detail']}" for check in checks if check["ok"] is False]


def failed(runs: Iterable[Run]) -> list[str]:
    """List the chapters that failed, each with the cell and the reason."""
    return [f"{run.chapter.name}, {run.failure}" for run in runs if run.failure is not None]


def missed(runs: Iterable[Run]) -> list[str]:
    """List the numbers that lie outside their bands, each with its chapter."""
    return [f"{run.chapter.name}, {check}" for run in runs for check in run.missed()]


def prepare(
    chapters: Iterable[ChapterFile], parameters: dict[str, Any], root: Path, cache: Path
) -> list[Run]:
    """Check the parameters of every chapter, before anything runs, and name the results."""
    inputs = inputs_digest(root)
    runs = []
    for chapter in chapters:
        known = chapter.parameters()
        given = checked(known, parameters, chapter.name)
        changed = {name: value for name, value in given.items() if value != known[name].value}
        key = _key(chapter, changed, inputs)
        path = cache / f"{chapter.name}-{key[:16]}.ipynb"
        runs.append(Run(chapter, changed, key, path, cached=path.is_file()))
    return runs


def copy_out(runs: list[Run], folder: Path) -> None:
    """Copy executed notebooks to `folder`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        atomic.write(folder / f"{run.chapter.name}.ipynb", run.path.read_bytes())


def digest(files: Iterable[Path], root: Path) -> str:
    """Return a sum over the names and contents of files.

    >>> len(digest([], Path(".")))
    64
    """
    total = hashlib.sha256()
    for path in sorted(files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()


def files_below(*folders: Path) -> list[Path]:
    """List every file below the folders, without what Python and editors leave there."""
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [
        path
        for path in found
        if not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
        and not path.name.endswith((".pyc", "~", ".swp"))
    ]


def inputs_digest(root: Path) -> str:
    """Sum up what every chapter depends on: the library, exact versions, recorded numbers."""
    package = Path(__file__).resolve().parents[1]
    own = digest(files_below(package), package.parent)
    recorded = files_below(root / "book" / "_data", root / "book" / "records")
    lock = [path for path in [root / "requirements.lock"] if path.is_file()]
    return own + digest([*recorded, *lock], root)


def _key(chapter: ChapterFile, parameters: dict[str, Any], inputs: str) -> str:
    cells = notebooks.read(chapter.path)["cells"]
    what = {
        "cells": [(c["cell_type"], notebooks.source(c), c.get("metadata", {})) for c in cells],
        "parameters": parameters,
        "inputs": inputs,
        "python": platform.python_version(),
        "torch": version("torch"),
        "device": device_name(),
        "imitated": machines.in_force(),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

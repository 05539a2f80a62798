"""Find out how far a chapter's numbers scatter: run it as on other machines, and keep the numbers.

`python -m lipkit.book.calibrate [CHAPTER ...]` executes chapters, by default all, once on each of
the machines that `lipkit.book.machines` imitates, and adds a line to `book/_data/bands.jsonl` for
each run. What is there already for a chapter's present source is not run again, so that the command
can be interrupted and called once more. It ends with 1 if a chapter failed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import Error
from ..lab.paths import find_root
from ..lab.records import append, commit
from ..workers import processor_name
from . import bands, machines, notebooks
from .notebooks import ChapterFile


def calibrate(
    chapters: Iterable[str] = (),
    numbers: Iterable[int] = machines.NUMBERS,
    profile: str = "laptop",
    root: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Run chapters on imitated machines, and return what failed, each in a line.

    >>> calibrate(numbers=[])
    []
    """
    root = find_root() if root is None else root
    path = root / "book" / "_data" / bands.FILE
    wanted = notebooks.find_chapters(root / "notebooks", list(chapters))
    failed = []
    for number in numbers:
        for chapter in wanted:
            about = {"chapter": chapter.name, "machine": number, "profile": profile}
            about["digest"] = bands.digest(chapter.path)
            if _is_there(about, path.parent):
                continue
            try:
                measured = _run(chapter, number, profile, root)
            except Error as problem:
                failed.append(f"{chapter.name}, machine {number}: {problem}")
                say(failed[-1])
                continue
            append(path, about | measured)
            say(f"{chapter.name}, machine {number}: {len(measured['numbers'])} numbers")
    return failed


def _is_there(about: dict[str, Any], folder: Path) -> bool:
    return any(about.items() <= run.items() for run in bands.runs(folder))


def _run(chapter: ChapterFile, number: int, profile: str, root: Path) -> dict[str, Any]:
    """Execute a chapter in a process of its own, on an imitated machine."""
    environment = machines.environment(number)
    with tempfile.TemporaryDirectory() as folder:
        command = ["run", chapter.name, "--profile", profile, "--out", folder, "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "lipkit", *command],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise Error(lines[-1] if lines else f"ended with {done.returncode}")
    (result,) = json.loads(done.stdout)
    checks = result["record"]["checks"]
    numbers = {check["name"]: check["value"] for check in checks if "value" in check}
    if endless := [name for name, value in numbers.items() if not math.isfinite(value)]:
        raise Error(f"{endless[0]} is no number")
    return {
        "processor": processor_name(),
        "threads": int(environment.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "commit": commit(),
        "seconds": result["record"]["seconds"],
        "numbers": numbers,
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help="as 01_dip_basics or 1")
    parser.add_argument("--profile", default="laptop", choices=["smoke", "laptop", "paper"])
    parser.add_argument("--machines", nargs="*", type=int, default=list(machines.NUMBERS))
    given = parser.parse_args()
    try:
        failed = calibrate(given.chapters, given.machines, given.profile)
    except Error as problem:
        parser.error(str(problem))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

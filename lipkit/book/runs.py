"""Execute chapters with papermill: several at a time, each only once for the same sources.

A run goes to a side folder and is moved into place only when it has succeeded. Its file is named
by a key of everything that can change the result, so that nothing is executed twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import FileError
from . import notebooks
from .notebooks import ChapterFile
from .parameters import Parameter, checked

if TYPE_CHECKING:
    import psutil

SAY_EVERY = 15.0  # seconds between two lines about the same chapter
STOP_WITHIN = 20.0  # seconds that an interrupted run has to end by itself
KEEP_RUNS = 6  # of each chapter in the cache


@dataclass
class Run:
    """One chapter with its parameters, and where its executed notebook is or will be."""

    chapter: ChapterFile
    parameters: dict[str, Any]
    key: str
    path: Path  # in the cache
    cached: bool = False
    failure: str | None = None  # where and why it failed, in one sentence

    @property
    def part(self) -> Path:
        """Where papermill writes while it runs; of a failed run, the cells that ran."""
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


@dataclass
class _Job:
    """A papermill process at work."""

    run: Run
    process: subprocess.Popen
    began: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        return time.monotonic() - self.began


def plan(
    chapters: Iterable[ChapterFile], parameters: dict[str, Any], root: Path, cache: Path
) -> list[Run]:
    """Check the parameters of every chapter, before anything runs, and name the results."""
    chapters = list(chapters)
    values = [_changed(c.parameters(), parameters, c.name) for c in chapters]
    inputs = _inputs_digest(root)
    runs = []
    for chapter, given in zip(chapters, values, strict=True):
        key = _key(chapter, given, inputs)
        path = cache / f"{chapter.name}-{key[:16]}.ipynb"
        runs.append(Run(chapter, given, key, path, cached=path.is_file()))
    return runs


def _changed(
    known: dict[str, Parameter], parameters: dict[str, Any], chapter: str
) -> dict[str, Any]:
    """The checked parameters that differ from the chapter's own: only those need injecting."""
    given = checked(known, parameters, chapter)
    return {name: value for name, value in given.items() if value != known[name].value}


def execute(runs: list[Run], jobs: int, say: Callable[[str], None]) -> None:
    """Execute what is not cached, `jobs` chapters at a time; note in each run if it failed."""
    todo = [run for run in runs if not run.cached]
    for run in runs:
        if run.cached:
            say(f"{run.chapter.name}: unchanged, the result of an earlier run is used")
    jobs = max(1, min(jobs, len(todo)))
    working: list[_Job] = []
    try:
        while todo or working:
            while todo and len(working) < jobs:
                working.append(_begin(todo.pop(0), jobs))
                say(f"{working[-1].run.chapter.name}: started")
            time.sleep(0.2)
            for job in [job for job in working if job.process.poll() is not None]:
                working.remove(job)
                _end(job, say)
            for job in working:
                _say_progress(job, say)
    finally:
        for job in working:  # we were interrupted
            _stop(job)


def failed(runs: Iterable[Run]) -> list[str]:
    """List the chapters that failed, each with the cell and the reason."""
    return [f"{run.chapter.name}, {run.failure}" for run in runs if run.failure is not None]


def missed(runs: Iterable[Run]) -> list[str]:
    """List the numbers that lie outside their bands, each with its chapter."""
    return [
        f"{run.chapter.name}, {check['name']}: {check['detail']}"
        for run in runs
        for check in missed_checks(run.record())
    ]


def missed_checks(record: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Choose the checks of a record that were judged and missed: bands, as a law stops a run."""
    return [check for check in (record or {}).get("checks", []) if check["ok"] is False]


def _begin(run: Run, jobs: int) -> _Job:
    import yaml  # comes with papermill

    run.path.parent.mkdir(parents=True, exist_ok=True)
    run.part.unlink(missing_ok=True)  # of an earlier run that failed
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in run.parameters.items()}
    command = [sys.executable, "-m", "papermill", str(run.chapter.path.resolve()), str(run.part)]
    command += ["--cwd", str(run.chapter.path.resolve().parent), "--kernel", "python3"]
    command += ["--language", "python", "--no-progress-bar"]
    command += ["--parameters_yaml", yaml.safe_dump(plain)] if plain else []
    with run.log.open("w") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=_environment(jobs),
            start_new_session=True,  # Ctrl-C comes to us, and from us, once
        )
    return _Job(run, process)


def _stop(job: _Job) -> None:
    """End papermill as Ctrl-C does, and after it what it has not taken along.

    A kernel that was only just being started can outlive its papermill for a while.
    """
    import psutil  # comes with ipykernel

    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(job.process.pid).children(recursive=True)
    job.process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        job.process.wait(timeout=STOP_WITHIN)
    job.process.kill()
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    last = time.monotonic() + STOP_WITHIN
    while time.monotonic() < last and any(map(_lives, family)):
        time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    """Whether it is still there: one that has ended and only waits to be reaped is not."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _environment(jobs: int) -> dict[str, str]:
    """The environment of a kernel: quiet bars, inline pictures, its share of the cores."""
    env = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    env.pop("LIPKIT_PROFILE", None)  # the profile is a parameter here, and part of the key
    env["TQDM_DISABLE"] = "1"
    env["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    if jobs > 1:  # threads of several chapters on the same cores slow each other down
        env["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    return env


def _end(job: _Job, say: Callable[[str], None]) -> None:
    """Move a finished run into place; of a failed one, note why."""
    run = job.run
    name = run.chapter.name
    if job.process.returncode == 0:
        os.replace(run.part, run.path)
        run.log.unlink(missing_ok=True)
        _prune(run)
        say(f"{name}: done in {job.seconds():.0f} s")
        return
    run.failure = _why(job)
    say(f"{name}: FAILED after {job.seconds():.0f} s, {run.failure}")
    say(f"{name}: the cells that ran are in {run.part}")


def _why(job: _Job) -> str:
    """Say in one sentence where and why a run failed."""
    with contextlib.suppress(FileError):
        if why := notebooks.failure(notebooks.read(job.run.part)):
            return why
    # papermill itself failed, or the kernel died
    lines = job.run.log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"papermill ended with code {job.process.returncode}"


def _say_progress(job: _Job, say: Callable[[str], None]) -> None:
    if time.monotonic() - job.said < SAY_EVERY:
        return
    job.said = time.monotonic()
    try:
        done, cells = notebooks.progress(notebooks.read(job.run.part))
    except FileError:  # not there yet, or just being written
        return
    say(f"{job.run.chapter.name}: {done} of {cells} cells after {job.seconds():.0f} s")


def _prune(run: Run) -> None:
    """Forget the oldest runs of this chapter."""
    kept = sorted(
        run.path.parent.glob(f"{run.chapter.name}-*[0-9a-f].ipynb"),
        key=lambda path: path.stat().st_mtime,
    )
    for path in kept[:-KEEP_RUNS]:
        path.unlink(missing_ok=True)


def copy_out(runs: list[Run], folder: Path) -> list[Path]:
    """Copy executed notebooks to `folder`, each moved into place when complete."""
    folder.mkdir(parents=True, exist_ok=True)
    placed = []
    for run in runs:
        target = folder / f"{run.chapter.name}.ipynb"
        part = target.with_suffix(".part")
        shutil.copyfile(run.path, part)
        os.replace(part, target)
        placed.append(target)
    return placed


def digest(files: Iterable[Path], root: Path) -> str:
    """A sum over the names and contents of files.

    >>> len(digest([], Path(".")))
    64
    """
    total = hashlib.sha256()
    for path in sorted(files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()


def files_below(*folders: Path) -> list[Path]:
    """Every file below the folders, without what Python and editors leave there."""
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [
        path
        for path in found
        if not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
        and not path.name.endswith((".pyc", "~", ".swp"))
    ]


def _inputs_digest(root: Path) -> str:
    """What every chapter depends on: the library, the exact versions, the recorded numbers."""
    package = Path(__file__).resolve().parents[1]
    own = digest(files_below(package), package.parent)
    recorded = files_below(root / "book" / "_data", root / "book" / "records")
    lock = [path for path in [root / "requirements.lock"] if path.is_file()]
    return own + digest([*recorded, *lock], root)


def _key(chapter: ChapterFile, values: dict[str, Any], inputs: str) -> str:
    cells = notebooks.read(chapter.path)["cells"]
    what = {
        "cells": [(c["cell_type"], notebooks.source(c), c.get("metadata", {})) for c in cells],
        "parameters": values,
        "inputs": inputs,
        "python": platform.python_version(),
        "torch": version("torch"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

"""Execute chapters with papermill, each in a process of its own, several at a time.

Papermill writes to a side file, which is moved into place only when the run has succeeded. However
this process ends, the chapters end with it: it stops them where it can, and on Linux the system
does where it cannot.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..errors import FileError
from . import notebooks
from .runs import Run

SAY_EVERY = 15.0  # seconds between two lines about the same chapter
STOP_WITHIN = 20.0  # seconds that an interrupted run has to end by itself
KEEP_RUNS = 6  # of each chapter in the cache
PR_SET_PDEATHSIG = 1  # of Linux


@dataclass
class Job:
    """A papermill process at work."""

    run: Run
    process: subprocess.Popen
    began: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        return time.monotonic() - self.began


def execute(runs: list[Run], jobs: int, say: Callable[[str], None]) -> None:
    """Execute what is not cached, `jobs` chapters at a time; note in each run if it failed."""
    todo = [run for run in runs if not run.cached]
    for run in runs:
        if run.cached:
            say(f"{run.chapter.name}: unchanged, the result of an earlier run is used")
    jobs = max(1, min(jobs, len(todo)))
    working: list[Job] = []
    with _ended_as_by_ctrl_c():
        try:
            while todo or working:
                while todo and len(working) < jobs:
                    working.append(_begin(todo.pop(0), jobs))
                    say(f"{working[-1].run.chapter.name}: started")
                time.sleep(0.2)
                for job in list(working):
                    if job.process.poll() is None:
                        _say_progress(job, say)
                    else:
                        working.remove(job)
                        _end(job, say)
        finally:
            for job in working:  # we were interrupted
                stop(job)


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Let a closed terminal, `timeout` or a scheduler end us as Ctrl-C does, chapters included."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may ask
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {name: signal.signal(name, interrupt) for name in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _end_with_parent() -> None:
    """Ask the system, where it can, to end this process when its parent is no more."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _begin(run: Run, jobs: int) -> Job:
    import yaml  # comes with papermill

    run.path.parent.mkdir(parents=True, exist_ok=True)
    run.part.unlink(missing_ok=True)  # of an earlier run that failed
    source = run.chapter.path.resolve()
    command = [sys.executable, "-m", "papermill", str(source), str(run.part)]
    command += ["--cwd", str(source.parent), "--kernel", "python3", "--language", "python"]
    command += ["--no-progress-bar"]
    if run.parameters:
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in run.parameters.items()}
        command += ["--parameters_yaml", yaml.safe_dump(plain)]
    with run.log.open("w") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=_environment(jobs),
            start_new_session=True,  # Ctrl-C comes to us, and from us, once
            preexec_fn=_end_with_parent,
        )
    return Job(run, process)


def _environment(jobs: int) -> dict[str, str]:
    """Return the environment of a kernel: quiet bars, inline pictures, its share of the cores."""
    # matplotlib's backend would lose the pictures; the profile is a parameter, and part of the key
    unwanted = ("MPLBACKEND", "LIPKIT_PROFILE")
    env = {name: value for name, value in os.environ.items() if name not in unwanted}
    env["TQDM_DISABLE"] = "1"
    env["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    if jobs > 1:  # threads of several chapters on the same cores slow each other down
        env["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    return env


def _say_progress(job: Job, say: Callable[[str], None]) -> None:
    if time.monotonic() - job.said < SAY_EVERY:
        return
    job.said = time.monotonic()
    with contextlib.suppress(FileError):  # not there yet, or just being written
        done, cells = notebooks.progress(notebooks.read(job.run.part))
        say(f"{job.run.chapter.name}: {done} of {cells} cells after {job.seconds():.0f} s")


def _end(job: Job, say: Callable[[str], None]) -> None:
    """Move a finished run into place; of a failed one, note why."""
    run = job.run
    name = run.chapter.name
    if job.process.returncode == 0:
        run.part.replace(run.path)
        run.log.unlink(missing_ok=True)
        forget_old(run)
        say(f"{name}: done in {job.seconds():.0f} s")
        return
    run.failure = _why(job)
    say(f"{name}: FAILED after {job.seconds():.0f} s, {run.failure}")
    say(f"{name}: the cells that ran are in {run.part}")


def _why(job: Job) -> str:
    """Say in one sentence where and why a run failed."""
    with contextlib.suppress(FileError):
        if why := notebooks.failure(notebooks.read(job.run.part)):
            return why
    # papermill itself failed, or the kernel died
    lines = job.run.log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"papermill ended with code {job.process.returncode}"


def forget_old(run: Run) -> None:
    """Remove the oldest runs of this chapter from the cache."""
    found = run.path.parent.glob(f"{run.chapter.name}-*[0-9a-f].ipynb")
    for path in sorted(found, key=lambda path: path.stat().st_mtime)[:-KEEP_RUNS]:
        path.unlink(missing_ok=True)


def stop(job: Job) -> None:
    """End papermill as Ctrl-C does, and after it what it has not taken along.

    A kernel that was only just being started can outlive its papermill for a while.
    """
    import psutil

    def lives(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):  # one that waits to be reaped has ended
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

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
    while any(map(lives, family)) and time.monotonic() < last:
        time.sleep(0.05)

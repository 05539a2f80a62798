"""Whatever ends a command that executes a chapter, the chapter ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.support.tiny_book import PARAMETERS, START, write_chapter

WAIT = "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(300)"


def wait_for(what, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGKILL"])
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed parent cannot be noticed")
def test_no_chapter_goes_on_alone(tmp_path, name):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_config.yml").write_text("title: tiny\n")
    write_chapter(tmp_path / "notebooks" / "01_waits.ipynb", PARAMETERS, START, WAIT)
    command = [sys.executable, "-m", "lipkit", "run", "1", "--jobs", "1"]
    started = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    noted = tmp_path / "notebooks" / "pid"
    assert wait_for(lambda: noted.exists() and noted.read_text(), 60), "the kernel has started"
    kernel = psutil.Process(int(noted.read_text()))
    papermill = kernel.parent()
    os.kill(started.pid, getattr(signal, name))
    # what can be heeded ends the command as Ctrl-C does, which stops its chapters itself
    assert started.wait(30) == (-signal.SIGKILL if name == "SIGKILL" else 130)
    assert wait_for(lambda: not alive(papermill) and not alive(kernel), 10)


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE

"""The command line: one line and exit code 2 for everything that is wrong with the input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lipkit import cli
from lipkit.cli import COMMANDS, main
from tests.support.tiny_book import PARAMETERS, write_book, write_chapter

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of one tiny chapter, and we are in its folder."""
    monkeypatch.chdir(tmp_path)
    return write_book(tmp_path)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    out, err = capsys.readouterr()
    return end.value.code, out, err


def test_help_lists_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for name, what in COMMANDS.items():
        assert name in out
        assert what in out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself_and_offers_json(capsys, name):
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    assert "--json" in out


def test_help_loads_no_command():
    look = "import sys, lipkit.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    look += "print([m for m in sys.modules if m.startswith('lipkit.cli.')])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["--nonsense"], "No such option"),
        (["run"], "Missing argument 'CHAPTER...'"),
        (["run", "99"], "no chapter '99'; there are: 01_tiny"),
        (["run", "missing.ipynb"], "no chapter 'missing.ipynb'"),
        (["run", "1", "--jobs", "none"], "Invalid value for '--jobs'"),
        (["run", "1", "--jobs", "0"], "jobs must be 1 or more"),
        (["run", "1", "-p", "sigma"], "requires 2 arguments"),
        (["run", "1", "-p", "sigmaa", "0.1"], "unknown parameter 'sigmaa' (did you mean 'sigma'?)"),
        (["run", "1", "-p", "sigma", "big"], "parameter 'sigma' must be float, not 'big'"),
        (["run", "1", "-p", "size", "64.5"], "parameter 'size' must be int | None, not 64.5"),
        (["run", "1", "-p", "sigma", "True"], "parameter 'sigma' must be float, not True"),
        (["run", "1", "--profile", "huge"], "is one of smoke, laptop, paper, not 'huge'"),
        (["book", "--profile", "huge"], "is one of smoke, laptop, paper, not 'huge'"),
        (["book", "--chapters", "99"], "no chapter '99'"),
        (["doctor", "now"], "Got unexpected extra argument (now)"),
    ],
)
def test_bad_input_is_one_line_and_code_2(capsys, book, arguments, sentence):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("lipkit: error: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_outside_a_book_the_sentence_says_where_to_go(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "book")
    assert code == 2
    assert "go to a clone of the book" in err
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_that_is_none(capsys, book):
    path = book / "text.ipynb"
    path.write_text("plain text")
    code, _, err = run(capsys, "run", str(path))
    assert code == 2
    assert "is not a Jupyter notebook" in err


def test_an_output_folder_that_cannot_be(capsys, book):
    (book / "file").write_text("in the way")
    code, _, err = run(capsys, "book", "--out", str(book / "file"))
    assert code == 2
    assert "is a file, not a folder" in err
    assert (book / "file").read_text() == "in the way"


def test_any_error_of_the_system_is_one_line(capsys, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied", "secret.txt")

    monkeypatch.setattr(cli.cli, "main", fail)
    code, _, err = run(capsys)
    assert (code, err) == (2, "lipkit: error: secret.txt: Permission denied\n")


def test_doctor_as_json(capsys):
    code, out, _ = run(capsys, "doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["versions"]["Python"] == sys.version.split()[0]
    assert found["cpu"]["cores"] == os.cpu_count()
    assert found["cache"]["writable"] is True


def test_doctor_says_what_is_missing(capsys, monkeypatch):
    from lipkit.cli import doctor

    monkeypatch.setattr(doctor, "_extras", lambda: {"mri": {"sigpy": None, "h5py": "3.0"}})
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    assert "missing sigpy: pip install 'lipkit[mri]'" in out
    assert "Nothing is missing" not in out


def test_doctor_counts_the_cache(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(bytes(2**20))
    monkeypatch.setenv("LIPKIT_DATA", str(tmp_path))
    _, out, _ = run(capsys, "doctor", "--json")
    cache = json.loads(out)["cache"]
    assert (cache["files"], cache["megabytes"]) == (1, 1.0)


def wait_for_kernels(pid: int) -> set[int]:
    """The kernels below a process, once there are any."""
    for _ in range(600):
        children = psutil.Process(pid).children(recursive=True)
        if kernels := {p.pid for p in children if "ipykernel_launcher" in " ".join(p.cmdline())}:
            return kernels
        time.sleep(0.1)
    raise AssertionError("no kernel was started")


def lives(pid: int) -> bool:
    """Whether there is such a process, and it does not only wait to be reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(os.name == "nt", reason="no POSIX signals")
def test_interrupt_ends_with_130_and_leaves_nothing(tmp_path):
    write_book(tmp_path)
    chapter = tmp_path / "notebooks" / "01_tiny.ipynb"
    write_chapter(chapter, PARAMETERS, "import time; time.sleep(60)")
    command = [sys.executable, "-m", "lipkit", "run", "1", "--out", "results"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert "started" in process.stderr.readline()
        kernels = wait_for_kernels(process.pid)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert "Traceback" not in rest
    assert not (tmp_path / "results").exists()
    assert not list((tmp_path / "_build" / "cache").glob("*[0-9a-f].ipynb"))
    assert not any(map(lives, kernels))

"""What odd arguments, a stranger's file and a full disk do: one sentence, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import lipkit as lk
from lipkit.cli import main
from lipkit.formats import atomic
from lipkit.lab import running, sweep
from lipkit.lab.grid import Grid
from lipkit.lab.records import Records

SMALL = ["-o", "levels", "2", "-o", "down", "8", "-o", "up", "8", "-o", "skip", "2"]
TINY = dict(image="coffee", size=16, steps=2, options={"levels": 2, "down": 4})


def lipkit(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return end.value.code, out, err


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lk.data.save(lk.testing.tiny_image((32, 40)), "a.png")
    return tmp_path


@pytest.mark.parametrize("name", ["size", "seed", "name", "self"])
def test_an_option_that_the_prior_itself_has_is_no_option(capsys, folder, name):
    code, _, err = lipkit(capsys, "restore", "a.png", "b.png", "--task", "denoise", "-o", name, 1)
    assert code == 2 and f"'{name}' is no option of a network" in err


@pytest.mark.parametrize("value", ["{[]: 1}", "-" * 100_000 + "1"])
def test_a_value_that_python_cannot_read_is_one_sentence(capsys, folder, value):
    options = ["--task", "denoise", "-o", "levels", value]
    code, _, err = lipkit(capsys, "restore", "a.png", "b.png", *options)
    assert code == 2 and len(err.splitlines()) == 1 and len(err) < 400


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipes_are_neither_replaced_nor_waited_for(capsys, folder):
    os.mkfifo("pipe")
    code, _, err = lipkit(
        capsys, "find", "a.png", "pipe", "--task", "denoise", "--method", "random", *SMALL
    )
    assert code == 2 and "pipe" in err and not os.path.isfile("pipe")
    with pytest.raises(lk.errors.FileError, match="device or a pipe"):
        atomic.write("pipe", b"")
    code, _, err = lipkit(capsys, "ticket", "show", "pipe")
    assert code == 2 and "is a device or a pipe; give the name of a file" in err


def test_a_link_stays_and_its_file_is_written(capsys, folder):
    (folder / "kept").mkdir()
    (folder / "kept" / "file.ticket").write_bytes(b"old")
    os.symlink("kept/file.ticket", "link.ticket")
    options = ["--task", "denoise", "--method", "random", *SMALL]
    code, _, _ = lipkit(capsys, "find", "a.png", "link.ticket", *options)
    assert code == 0 and os.path.islink("link.ticket")
    assert lk.Mask.load(folder / "kept" / "file.ticket").density < 1


def test_a_name_as_long_as_the_system_allows_can_be_written(tmp_path):
    path = tmp_path / ("n" * 255)
    atomic.write(path, b"whole")
    assert path.read_bytes() == b"whole" and len(list(tmp_path.iterdir())) == 1


def test_rounds_without_end_are_refused(capsys, folder):
    options = ["--task", "denoise", "--method", "imp", "--rate", "1e-9", *SMALL]
    code, _, err = lipkit(capsys, "find", "a.png", "b.ticket", *options)
    assert code == 2 and "give a higher rate" in err


@pytest.mark.parametrize("budget", ["nan", "inf", "-5", "0", "soon"])
def test_a_budget_is_a_time(capsys, budget):
    code, _, err = lipkit(capsys, "sweep", "first-light", f"--budget={budget}")
    assert code == 2 and "a time is written like 25m" in err


def test_a_folder_of_records_that_is_not_there_is_said(capsys, tmp_path):
    code, _, err = lipkit(capsys, "records", "--records", str(tmp_path / "nosuch"))
    assert code == 2 and "no folder" in err


def test_what_a_ticket_says_cannot_command_a_terminal(capsys, folder):
    prior = lk.Prior("dip", (32, 40), 3, levels=2, down=8, up=8)
    note = {"found": "x\nhere: its initial weights are drawn again bit for bit", "\x1b]0;t": "\x07"}
    lk.Ticket(lk.Mask.random(prior.net, 0.4), prior.recipe, note=note).save("a.ticket")
    code, out, _ = lipkit(capsys, "ticket", "show", "a.ticket")
    assert code == 0
    assert "\x1b" not in out and "\x07" not in out
    assert sum(line.startswith("here: ") for line in out.splitlines()) == 1


@pytest.mark.parametrize("problem", [lk.errors.StorageError("no space"), MemoryError("none left")])
def test_a_full_disk_is_no_result_of_an_experiment(monkeypatch, tmp_path, problem):
    def full(*_):
        raise problem

    grid = Grid.of("tiny", {"common": TINY, "arms": {"dense": {}}})
    monkeypatch.setattr(running, "_results", full)
    with pytest.raises(type(problem)):
        sweep.run(grid, Records(tmp_path), serial=True, masks=tmp_path, say=lambda line: None)
    monkeypatch.undo()
    quiet = dict(serial=True, masks=tmp_path, say=lambda line: None)
    assert sweep.run(grid, Records(tmp_path), **quiet).done == 1


def test_a_sweep_with_failed_experiments_ends_with_1_and_says_what_to_do(capsys, tmp_path):
    grid = tmp_path / "bad.toml"
    grid.write_text('[common]\nimage = "nosuch"\nsize = 16\n[arms]\ndense = {}\n')
    for _ in range(2):
        code, out, _ = lipkit(
            capsys, "sweep", str(grid), "--serial", "--records", str(tmp_path / "r")
        )
        assert code == 1 and "1 experiments of this grid failed: --retry-failed" in out


def test_a_log_of_training_that_was_cut_short_goes_on(tmp_path):
    from lipkit.gan.train import _Report

    class Training:
        step = 3

    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"step": 2}) + "\n" + json.dumps({"step": 3}) + '\n{"step": 50, "sc')
    _Report(Training, tmp_path, 1)._cut(3)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [2]


@pytest.mark.parametrize("address", ["garbage", "foo://x", "tcp://", "tls://127.0.0.1:1"])
def test_what_is_no_scheduler_is_one_sentence(address, tmp_path):
    grid = tmp_path / "tiny.toml"
    grid.write_text('[common]\nimage = "coffee"\nsize = 16\nsteps = 2\n[arms]\ndense = {}\n')
    command = [sys.executable, "-m", "lipkit", "sweep", grid, "--scheduler", address]
    command += ["--records", tmp_path / "r"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 2, done.stderr
    assert "there is no Dask scheduler at" in done.stderr and "Traceback" not in done.stderr

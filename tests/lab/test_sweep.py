"""Sweeps: what is run, in which order, what is kept, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter

import pytest
from distributed import LocalCluster

import lipkit as lk
from lipkit.cli import main
from lipkit.lab import cluster, records, running, sweep
from lipkit.lab.grid import Grid, names
from lipkit.lab.records import Records, commit

COMMON = dict(image="astronaut", size=24, options={"levels": 2, "down": 8, "up": 8}, steps=6)
ARMS = {
    "dense": {},
    "snip": {"method": "snip", "density": 0.3},
    "broken": {"method": "snip", "density": 0.00001},
}


def grid(**changes) -> Grid:
    return Grid.of("tiny", {"common": COMMON, "axes": {"seed": [0, 1]}, "arms": ARMS} | changes)


def quiet(found: Grid, folder, **options) -> sweep.Summary:
    options = dict(serial=True, masks=folder / "masks", say=lambda line: None) | options
    return sweep.run(found, Records(folder / "records"), **options)


def test_a_grid_is_every_combination_in_the_order_of_its_axes():
    axes = {"strength": [25, 12], "image": ["moon", {"image": "coffee", "size": 32}]}
    points = grid(axes=axes).points
    assert [(p.place["strength"], p.place["image"]) for p in points[::3]] == [
        (25, "moon"), (25, "coffee"), (12, "moon"), (12, "coffee"),
    ]  # fmt: skip
    assert [p.arm for p in points[:3]] == list(ARMS)
    assert [p.experiment.size for p in points[::3]] == [24, 32, 24, 32]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"arms": {}}, r"a grid needs \[arms\]"),
        ({"arms": {"a": {"metod": "imp"}}}, "arm 'a': there is no experiment field 'metod'"),
        ({"axes": {"seed": []}}, r"\[axes\] holds lists of values"),
        ({"scale": "huge"}, "scale is one of laptop, paper"),
        ({"axis": {}}, "a grid has title.*, not 'axis'"),
    ],
)
def test_a_wrong_grid_is_refused_in_a_sentence(changes, sentence):
    with pytest.raises(lk.InputError, match=sentence):
        grid(**changes)


def test_the_grids_of_the_book_are_sound():
    known = {*lk.data.names(), *lk.data.scans(), "digits", "cifar10", "faces", "celeba-hq"}
    assert len(names()) > 15
    for name in names():
        found = Grid.load(name)
        assert found.title and found.about
        for point in found.points:
            images = point.experiment.search().image
            images = [images] if isinstance(images, str) else images
            images = {i.removeprefix("shuffled:") for i in (point.experiment.image, *images)}
            assert images <= known, (name, point)
            size = point.experiment.size
            assert point.experiment.task != "sr" or size % point.experiment.strength == 0


def test_a_sweep_goes_on_where_it_ended_and_past_failures(tmp_path):
    said = []
    first = quiet(grid(), tmp_path, say=said.append)
    assert (first.done, first.failed, first.left) == (4, 2, 0)
    assert sum("failed: density 1e-05 keeps none" in line for line in said) == 2
    assert said[0] == "6 experiments to run, 0 recorded" and len(said) == 8
    again = quiet(grid(), tmp_path)
    assert (again.recorded, again.done, again.failed) == (6, 0, 0)
    assert quiet(grid(), tmp_path, retry_failed=True)[:3] == (4, 0, 2)
    wider = quiet(grid(axes={"seed": [0, 1, 2]}), tmp_path)
    assert (wider.recorded, wider.done, wider.failed) == (6, 2, 1)


def test_stale_records_are_made_again(tmp_path, monkeypatch):
    quiet(grid(), tmp_path)
    monkeypatch.setitem(lk.lab.experiment.VERSIONS, "snip", 2)
    assert quiet(grid(), tmp_path)[:3] == (2, 2, 2)  # the failures were those of the older snip


@pytest.mark.parametrize(
    ("commit", "sentence"),
    [
        (
            "838a76a472bc+changed",
            "differ from commit 838a76a472bc: .* decide nothing; commit first",
        ),
        (
            "sources-0a1b2c3d4e5f",
            "are in no git repository: .* decide nothing; run this in a clone",
        ),
    ],
)
def test_a_sweep_of_changed_sources_says_so_and_decides_nothing(
    tmp_path, monkeypatch, commit, sentence
):
    for module in (records, running, sweep):
        monkeypatch.setattr(module, "commit", lambda: commit)
    said = []
    quiet(grid(), tmp_path, say=said.append)
    assert len(re.findall(sentence, "\n".join(said))) == 1 and re.search(sentence, said[0])
    kept = Records(tmp_path / "records")
    assert Counter(map(records.state, kept.all)) == {"unclean": 4, "failed": 2}
    dense = grid().points[0].experiment
    assert kept.get(dense) is None and kept.get(dense, unclean=True)["commit"] == commit
    assert quiet(grid(), tmp_path, say=said.append)[:2] == (6, 0)  # again, it would be no better
    for module in (records, running, sweep):
        monkeypatch.setattr(module, "commit", lambda: "838a76a472bc")
    assert quiet(grid(), tmp_path)[:3] == (2, 4, 0)
    assert Records(tmp_path / "records").get(dense)["commit"] == "838a76a472bc"


def test_a_commit_is_named_with_what_differs_from_it(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    named = commit.__wrapped__  # not what this process has found before
    (tmp_path / "lab").mkdir()
    (tmp_path / "_version.py").write_text("1")
    monkeypatch.setattr(records, "__file__", str(tmp_path / "lab" / "records.py"))
    git("init")
    git("commit", "--allow-empty", "-m", "of another project")
    assert named().startswith("sources-")  # installed in a clone that does not hold it
    git("add", ".")
    git("commit", "-m", "of ours")
    assert git("rev-parse", "HEAD").startswith(named()) and len(named()) == 12
    (tmp_path / "_version.py").write_text("2")
    assert git("rev-parse", "HEAD")[:12] + "+changed" == named()


def test_a_budget_starts_only_what_fits(tmp_path):
    assert quiet(grid(), tmp_path, budget=0)[1:4] == (0, 0, 6)
    quiet(grid(), tmp_path)
    records_ = Records(tmp_path / "records")
    for record in records_.all:  # suppose that everything of this kind takes an hour
        record["seconds"] = 3600
    costly = grid(axes={"seed": [5]})
    done = sweep.run(costly, records_, serial=True, budget=60, masks=tmp_path, say=len)
    assert (done.done, done.left) == (0, 3)
    assert "60 min" in str(sweep.estimate(costly, records_))


def test_times_are_read_and_written():
    assert [sweep.seconds(t) for t in ("25m", "90s", "1h30m", "1.5h")] == [1500, 90, 5400, 5400]
    for text in ("25 minutes", "m", "", "-5m"):
        with pytest.raises(lk.InputError, match="25m, 90s or 1h30m"):
            sweep.seconds(text)


@pytest.fixture(scope="module")
def workers():
    """Two workers in this process that offer a GPU each, behind an address."""
    options = dict(n_workers=2, threads_per_worker=1, processes=False, protocol="tcp://")
    with LocalCluster(**options, resources={"GPU": 1}, dashboard_address=None) as made:
        yield made


def test_workers_give_the_same_records(workers, tmp_path):
    quiet(grid(), tmp_path / "serial")
    (tmp_path / "dask").mkdir()
    done = quiet(grid(), tmp_path / "dask", serial=False, scheduler=workers.scheduler_address)
    assert (done.done, done.failed, done.left) == (4, 2, 0)
    here, there = (
        {r["hash"]: r for r in Records(tmp_path / how / "records").all}
        for how in ("serial", "dask")
    )
    assert here.keys() == there.keys()
    for digest, record in here.items():
        for name, value in record.get("numbers", {}).items():
            assert there[digest]["numbers"][name] == pytest.approx(value, rel=1e-3), name


def test_a_worker_that_breaks_does_not_end_the_sweep(workers, tmp_path, monkeypatch):
    tries = []

    def broken(experiment, *_):
        tries.append(experiment)
        raise SystemError("the worker died")

    monkeypatch.setattr(running, "run", broken)
    two = grid(arms={"dense": {}})
    done = quiet(two, tmp_path, serial=False, scheduler=workers.scheduler_address)
    assert (done.done, done.failed) == (0, 2)
    assert len(tries) == 2 * (1 + cluster.RETRIES)
    assert "the worker died" in Records(tmp_path / "records").all[0]["reason"]


def test_without_a_scheduler_or_dask_a_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lipkit.lab.cluster", None)
    with pytest.raises(lk.Error, match="needs Dask: pip install.*--serial"):
        quiet(grid(), tmp_path, serial=False)


@pytest.fixture
def file(tmp_path):
    lines = ["[common]", 'image = "astronaut"', "size = 24", "steps = 40"]
    lines += ["options = {levels = 2, down = 8, up = 8}", "[axes]"]
    lines += [f"seed = {list(range(20))}", "[arms.dense]"]
    path = tmp_path / "twenty.toml"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("how", [["--serial"], ["--workers", "1"]])
def test_an_interrupted_sweep_keeps_what_is_finished(file, tmp_path, how):
    command = [sys.executable, "-m", "lipkit", "sweep", str(file), *how]
    command += ["--records", str(tmp_path / "records")]
    environment = os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    ) as process:  # fmt: skip
        shown = [process.stdout.readline()]
        while "  2/20" not in shown[-1]:
            shown.append(process.stdout.readline())
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: every process of the group
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    finished = sum("/20" in line for line in [*shown, *rest.splitlines()])
    assert 2 <= finished == len(Records(tmp_path / "records").all) < 20


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    out, err = capsys.readouterr()
    return end.value.code, out, err


def test_command_line(file, tmp_path, capsys):
    folder = str(tmp_path / "records")
    (tmp_path / "records").mkdir()
    code, out, _ = run(capsys, "sweep", str(file), "--dry-run", "--json", "--records", folder)
    assert code == 0 and json.loads(out)[0]["to run"] == "20"
    other = run(capsys, "sweep", "first-light", "--arm", "snip", "--dry-run", "--json")[1]
    assert [row["arm"] for row in json.loads(other)] == ["snip"]
    code, out, _ = run(capsys, "records", "--records", folder)
    assert (code, out.strip()) == (0, "no records")
    Records(folder).add(running.run(grid().points[0].experiment), "some")
    code, out, _ = run(capsys, "records", "--records", folder, "-w", "image", "astronaut")
    assert code == 0 and "1 done" in out and "astronaut" in out
    table = tmp_path / "all.csv"
    assert run(capsys, "records", "--records", folder, "--csv", str(table))[0] == 0
    assert "stopped" in table.read_text().splitlines()[0]
    assert json.loads(run(capsys, "records", "--records", folder, "--json")[1])[0]["status"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sweep", "no-such-grid"], "no-such-grid.toml: No such file or directory; the book's"),
        (["sweep", "first-light", "--arm", "snipp"], "no arm 'snipp'; it has dense, ticket"),
        (["sweep", "first-light", "--serial", "--workers", "2"], "--serial uses this process"),
        (["sweep", "first-light", "--serial", "--budget", "soon"], "25m, 90s or 1h30m"),
        (["sweep", __file__, "--dry-run"], "is no TOML file"),
        (["records", "--csv", "a.txt"], "must end in .csv"),
        (["records", "--records", __file__], "is a file; records are kept in a folder"),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(records, "records_folder", lambda: tmp_path / "records")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "") and sentence in err and err.count("\n") == 1


def test_costs_are_those_of_experiments_alike():
    costs, found = sweep.Costs([], "cpu"), grid().points[0].experiment
    record = running.run(found) | {"seconds": 3.0}
    costs.learn(record)
    longer = grid(common=COMMON | {"steps": 60}).points[0].experiment
    larger = grid(common=COMMON | {"size": 32}).points[0].experiment
    assert [costs.of(e) for e in (found, longer, larger)] == [3, pytest.approx(30), None]
    costs.learn(record | {"device": "another"})
    assert costs.of(found) == 3

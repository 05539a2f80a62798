"""Records repeated: an honest one holds, one with a digit changed is caught."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from lipkit.cli import main
from lipkit.errors import FileError
from lipkit.lab import running, sweep, verify
from lipkit.lab.grid import Grid
from lipkit.lab.records import Records, seal

COMMON = dict(image="astronaut", size=24, options={"levels": 2, "down": 8, "up": 8}, steps=6)
HOW = {"method": "imp", "density": 0.5, "find": {"steps": 4, "rate": 0.3}}
ARMS = {"dense": {}, "ticket": HOW, "shuffled": HOW | {"control": "shuffled"}}


@pytest.fixture
def folder(tmp_path):
    """Records of three arms with two seeds each."""
    grid = Grid.of("tiny", {"common": COMMON, "axes": {"seed": [0, 1]}, "arms": ARMS})
    sweep.run(grid, Records(tmp_path / "records"), serial=True, say=lambda line: None)
    return tmp_path / "records"


def change(folder, line: int = 0, **fields) -> None:
    """Change a record by hand, and seal it anew."""
    path = folder / "tiny.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[line]) | fields
    record["numbers"] |= fields.get("numbers", {})
    lines[line] = json.dumps(record | {"seal": seal(record)}, sort_keys=True)
    path.write_text("\n".join(lines) + "\n")


def run(capsys, folder, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["records", "--records", str(folder), *arguments])
    out, err = capsys.readouterr()
    return end.value.code, out, err


def numbers(folder, line: int = 0) -> dict:
    return Records(folder).all[line]["numbers"]


def test_honest_records_hold_to_every_digit(folder, capsys):
    code, out, err = run(capsys, folder, "--verify", "10")
    assert code == 0 and "6 of 6 repeated records hold" in out and "6/6" in err
    code, out, _ = run(capsys, folder, "--verify", "2", "--seed", "3", "--json")
    found = json.loads(out)["repeated"]
    assert code == 0 and len(found) == 2 and all(one["verified"] for one in found)
    compared = [number for one in found for number in one["numbers"].values()]
    assert all(number["difference"] == number["allowed"] == 0 for number in compared)
    again = json.loads(run(capsys, folder, "--verify", "2", "--seed", "3", "--json")[1])
    assert [one["hash"] for one in again["repeated"]] == [one["hash"] for one in found]


def test_one_digit_changed_is_caught(folder, capsys):
    last = numbers(folder)["last"]
    change(folder, numbers=numbers(folder) | {"last": float(f"{last + 0.001:.6g}")})
    code, out, err = run(capsys, folder, "--verify", "6")
    assert code == 1 and "5 of 6 repeated records hold" in out and err.count("DIFFERS") == 1
    (line,) = [line for line in out.splitlines() if line.endswith("differs")]
    assert line.split()[:2] == ["last", f"{last + 0.001:.6g}"]


def test_another_processor_may_differ_by_the_spread_over_seeds(folder):
    def repeated(**fields) -> verify.Repeat:
        change(folder, **fields)
        kept = Records(folder)
        return next(verify.repeat([kept.all[0]], kept))

    first = numbers(folder)
    other = {"processor": "another", "numbers": first | {"last": first["last"] + 0.2}}
    one = repeated(**other)
    spread = abs(first["last"] + 0.2 - numbers(folder, 3)["last"])  # of the two seeds
    assert one.spreads["last"] == pytest.approx(spread) and not one.same_machine
    assert one.allowed("last") == pytest.approx(max(3 * spread, 0.3)) and one.verified
    change(folder, 3, status="failed")  # now there is one seed
    assert repeated(**other).allowed("last") == 1
    assert repeated(numbers=first | {"last": first["last"] + 0.99}).verified
    assert not repeated(numbers=first | {"last": first["last"] + 1.01}).verified
    assert not repeated(numbers=first | {"last": None}).verified


def test_a_record_is_repeated_with_its_own_threads_and_a_gpu_is_another_machine(folder):
    threads = torch.get_num_threads()
    change(folder, threads=threads + 1)
    kept = Records(folder)
    one = next(verify.repeat([kept.all[0]], kept))
    assert one.again["threads"] == threads + 1 and torch.get_num_threads() == threads
    assert one.same_machine and one.allowed("last") == 0
    on_gpu = {"device": "a GPU"}
    other = replace(one, record=one.record | on_gpu, again=one.again | on_gpu)
    assert not other.same_machine
    alike = replace(other, spreads={"last": 0.002})  # two seeds that happen to agree
    assert alike.allowed("last") == pytest.approx(0.3)


def test_what_takes_too_long_is_left_out(folder, capsys):
    kept = Records(folder)
    change(folder, 1, search_seconds=3600, seconds=3601)  # the shuffled arm has that mask as well
    code, out, err = run(capsys, folder, "--verify", "6", "--limit", "1h", "--json")
    hashes = {kept.all[1]["hash"], kept.all[2]["hash"]}
    assert code == 0 and set(json.loads(out)["left_out"]) == hashes
    assert "2 records are left out, as they take more than 1h: 2 denoise dip imp" in err


def test_an_interrupt_shows_what_was_done_and_a_failure_is_none(folder, capsys, monkeypatch):
    ended = []

    def once(experiment):
        if ended:
            raise KeyboardInterrupt
        ended.append(experiment)
        return running.failure(experiment, ValueError("no memory"))

    monkeypatch.setattr(verify.running, "run", once)
    code, out, _ = run(capsys, folder, "--verify", "6", "--save")
    assert verify.saved(folder.parent) is None  # a part of those drawn would be a choice
    assert code == 130 and "0 of 1 repeated records hold" in out
    assert "failed: ValueError: no memory" in out


def test_bad_input_is_one_sentence(folder, capsys):
    code, _, err = run(capsys, folder, "--verify", "1", "--csv", "a.csv")
    assert code == 2 and "leave out --csv" in err
    code, out, err = run(capsys, folder, "--verify", "1", "--limit", "0.00001s")
    assert (code, out) == (2, "")
    assert "none of these 6 records is done, of a commit, and takes at most 0.00001s" in err
    code, _, err = run(capsys, folder, "--save")
    assert code == 2 and "--save keeps what --verify has repeated" in err


def test_what_was_repeated_is_kept_for_the_book(folder, capsys):
    """Sorted, with the grid and the arm, and as it came out: also where one differs."""
    (folder.parent / "grids").mkdir()
    arms = "".join(f"{name} = {{method = 'imp', density = 0.5, find = {{steps = 4, rate = 0.3}}"
                   f"{control}}}\n" for name, control in
                   (("ticket", ""), ("shuffled", ", control = 'shuffled'")))  # fmt: skip
    (folder.parent / "grids" / "tiny.toml").write_text(
        "[common]\nimage = 'astronaut'\nsize = 24\nsteps = 6\n"
        "options = {levels = 2, down = 8, up = 8}\n"
        f"[axes]\nseed = [0, 1]\n[arms]\ndense = {{}}\n{arms}"
    )
    change(folder, numbers=numbers(folder) | {"last": numbers(folder)["last"] + 5})
    assert verify.saved(folder.parent) is None
    code, _, err = run(capsys, folder, "--verify", "6", "--save", "--seed", "4")
    assert code == 1 and str(folder.parent / verify.SAVED) in err
    kept = verify.saved(folder.parent)
    assert (kept["seed"], kept["limit"], kept["left_out"]) == (4, "2m", 0)
    assert kept["commit"] == "0123456789ab"
    found = [(one["grid"], one["arm"], one["verified"]) for one in kept["repeated"]]
    pairs = [("tiny", arm, ok) for arm in ("dense", "shuffled", "ticket") for ok in (True, True)]
    assert sorted(found) == sorted([("tiny", "dense", False), *pairs[1:]])
    assert [one[:2] for one in found] == sorted(one[:2] for one in found)
    moved = next(one for one in kept["repeated"] if not one["verified"])["numbers"]["last"]
    assert moved["difference"] == pytest.approx(-5) and moved["allowed"] == 0
    (folder.parent / verify.SAVED).write_text("{")
    with pytest.raises(FileError, match="--verify 10 --save` writes it anew"):
        verify.saved(folder.parent)


def test_records_of_changed_sources_are_not_drawn(folder):
    change(folder, commit="0123456789ab+changed")  # of the first record
    kept = Records(folder)
    assert not kept.counts(kept.all[0])
    drawn, _ = verify.draw(kept, kept.all, 10)
    assert len(drawn) == 5 and kept.all[0] not in drawn

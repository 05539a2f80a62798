"""Bands: made from runs on imitated machines, of the chapter's present code alone."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

import lipkit as lk
from lipkit.book import bands, calibrate, notebooks
from lipkit.book.status import _bands
from tests.support.tiny_book import PARAMETERS, START, write_chapter

END = 'p.band("tiny: gain", 1.25)\np.finish()'


@pytest.fixture
def book(tmp_path):
    """A book of one chapter, with a place for its bands."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "book" / "_data").mkdir(parents=True)
    (tmp_path / "_config.yml").write_text("title: tiny\n")
    (tmp_path / "book" / "_data" / "papers.yml").write_text("{}\n")
    write_chapter(tmp_path / "notebooks" / "01_tiny.ipynb", PARAMETERS, START, END)
    return tmp_path


def executed(values):
    """A stand-in for processes that execute the chapter: what they print, one after the other."""
    values = iter(values)
    seen = []

    def run(command, cwd, env, **_):
        seen.append((command, env))
        value = next(values)
        if value is None:
            return SimpleNamespace(returncode=1, stdout="", stderr="lipkit: error: it broke\n")
        checks = [{"name": "a law", "ok": True}, {"name": "tiny: gain", "value": value, "ok": None}]
        result = {"record": {"seconds": 3.5, "checks": checks}}
        return SimpleNamespace(returncode=0, stdout=json.dumps([result]), stderr="")

    run.seen = seen
    return run


def lines(book):
    return bands.runs(book / "book" / "_data")


def test_chapters_run_once_on_each_machine_and_failures_are_named(book, monkeypatch):
    run = executed([1.0, None, 1.2, 1.1])
    monkeypatch.setattr(calibrate, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(calibrate, "commit", lambda: "0123456789ab")
    said = []
    failed = calibrate.calibrate(numbers=[1, 2, 3], root=book, say=said.append)
    assert failed == ["01_tiny, machine 2: lipkit: error: it broke"] and failed[0] in said
    assert [(r["machine"], r["numbers"]) for r in lines(book)] == [
        (1, {"tiny: gain": 1.0}),
        (3, {"tiny: gain": 1.2}),
    ]
    assert {r["commit"] for r in lines(book)} == {"0123456789ab"}
    assert [env["LIPKIT_PERTURB"] for _, env in run.seen] == ["1", "2", "3"]
    # again: only what is missing
    assert calibrate.calibrate(numbers=[1, 2, 3], root=book, say=said.append) == []
    assert [r["machine"] for r in lines(book)] == [1, 3, 2]


def test_a_band_needs_six_runs_of_the_chapters_present_code(book, monkeypatch):
    monkeypatch.chdir(book)
    run = executed([1.0, 1.1, 1.2, 1.0, 1.1, 1.2])
    monkeypatch.setattr(calibrate, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(calibrate, "commit", lambda: "0123456789ab")
    calibrate.calibrate(numbers=range(1, 6), root=book, say=str)
    assert bands.find("tiny: gain") is None and bands.count("tiny: gain") == 5
    calibrate.calibrate(numbers=[6], root=book, say=str)
    band = bands.find("tiny: gain")
    assert band.low < 1.0 < 1.2 < band.high < 2 and band.runs == 6
    assert bands.find("tiny: gain", "paper") is None, "another size, another number"
    # a comment or a word of text changes nothing, a number does
    path = book / "notebooks" / "01_tiny.ipynb"
    before = bands.digest(path)
    write_chapter(path, PARAMETERS, START, f"# a comment\n{END}")
    assert bands.digest(path) == before and bands.valid(book / "book" / "_data")
    write_chapter(path, PARAMETERS, START, END.replace("1.25", "1.5"))
    assert bands.digest(path) != before and bands.valid(book / "book" / "_data") == []


def test_what_is_no_number_is_a_failure(book, monkeypatch):
    monkeypatch.setattr(calibrate, "subprocess", SimpleNamespace(run=executed([float("nan")])))
    failed = calibrate.calibrate(numbers=[1], root=book, say=str)
    assert failed == ["01_tiny, machine 1: tiny: gain is no number"]
    assert lines(book) == []


def test_nothing_but_the_bands_is_left_beside_them(book, monkeypatch):
    """What lies there is part of what a chapter's result depends on."""
    before = {path.name for path in (book / "book" / "_data").iterdir()}
    monkeypatch.setattr(calibrate, "subprocess", SimpleNamespace(run=executed([1.0])))
    calibrate.calibrate(numbers=[1], root=book, say=str)
    after = {path.name for path in (book / "book" / "_data").iterdir()}
    assert after - before == {bands.FILE}


def test_the_status_page_says_of_each_band_how_it_stands():
    checks = [
        {"name": "a law", "ok": True, "detail": "0"},
        {"name": "gain", "ok": True, "value": 1.0, "detail": "1 dB, band 0 to 2 of 6 runs"},
        {"name": "loss", "ok": False, "value": 3.0, "detail": "3 dB, band 0 to 2 of 6 runs"},
        {"name": "new", "ok": None, "value": 5.0, "detail": "5 dB", "why": "not calibrated yet"},
    ]
    table = _bands({"01_tiny": {"checks": checks}}).split("|---|---|---|\n")[1]
    link = "[](../notebooks/01_tiny.ipynb)"
    assert table.splitlines() == [
        f"| {link} | `gain: 1 dB, band 0 to 2 of 6 runs` | held |",
        f"| {link} | `loss: 3 dB, band 0 to 2 of 6 runs` | **missed** |",
        f"| {link} | `new: 5 dB` | not calibrated yet |",
    ]


def test_far_from_any_book_there_are_no_bands(monkeypatch):
    def nowhere():
        raise lk.FileError("no book found")

    monkeypatch.setattr(bands, "data_folder", nowhere)
    assert bands.runs() == bands.valid() == []
    assert bands.find("gain") is None and bands.count("gain") == 0


def test_a_damaged_file_is_named(book):
    (book / "book" / "_data" / bands.FILE).write_text("{\n")
    with pytest.raises(lk.FileError, match=r"bands.jsonl is damaged"):
        bands.runs(book / "book" / "_data")


def test_the_books_bands_have_names_of_their_own():
    seen = {}
    for chapter in notebooks.find_chapters(lk.lab.paths.find_root() / "notebooks"):
        for run in bands.runs():
            if run["chapter"] == chapter.name:
                for name in run["numbers"]:
                    assert seen.setdefault(name, chapter.name) == chapter.name

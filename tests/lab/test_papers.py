"""The papers' tables: as many rows as printed, and the means that follow from them."""

from __future__ import annotations

from statistics import fmean

import pytest

import lipkit as lk
from lipkit.lab import papers, paths
from lipkit.lab.paths import data_folder

ROWS = {
    "lip22-1": 4, "lip22-2": 2, "lip22-3": 3, "lip22-4": 2, "lip22-fig2": 10, "lip23-1": 4,
    "lip23-2": 6, "lip23-3": 2, "lip23-4": 2, "lip23-5": 9, "oes24-1": 6, "oes24-2": 14,
    "oes24-3": 9, "oes24-4": 22, "oes24-5": 10, "oes24-6": 18, "oes24-7": 14, "oes24-8": 14,
    "oes24-9": 3, "oes24-10": 5, "oes24-demo": 5, "oes24-layers": 25,
}  # fmt: skip


def means(name: str, columns, first: int | None = None) -> list[float]:
    return [fmean(row[column] for row in papers.rows(name)[:first]) for column in columns]


def near(expected: list[float]):
    """Equal but for the last printed digit: a mean may end in half a unit of it."""
    return pytest.approx(expected, abs=0.0051)


def test_every_table_is_there_whole():
    assert {name: len(papers.rows(name)) for name in papers.names()} == ROWS
    for name in ROWS:
        shown = papers.table(name)
        assert len(shown.rows) == ROWS[name] and len(shown.columns) == len(set(shown.columns))
        entry = papers.about(name)
        assert all(entry[key] for key in ("caption", "source", "where", "unit", "columns"))
        bibliography = (data_folder().parent / "references.bib").read_text()
        assert f"{{{entry['source']}," in bibliography


def test_set14_means_and_wins():
    methods = ("dense", "GP-DIP", "decoder", "sparse")
    expected = {
        25: [21.90, 23.23, 25.60, 26.00],
        12: [27.71, 29.68, 29.38, 30.14],
        17: [24.72, 26.62, 27.69, 28.25],
    }
    wins = {}
    for sigma, values in expected.items():
        assert means("oes24-2", [f"{m} {sigma}" for m in methods]) == near(values)
        rows = papers.rows("oes24-2")
        wins[sigma] = sum(
            all(row[f"sparse {sigma}"] >= row[f"{m} {sigma}"] for m in methods) for row in rows
        )
    assert wins == {25: 12, 12: 9, 17: 11}  # the tie on Face at 12 counted as a win
    assert papers.rows("oes24-2")[5]["dense 12 ±"] == 0.20


def test_means_of_the_other_tables():
    columns = ("GraSP", "SynFlow", "magnitude", "random", "IMP 14 x 20 %", "IMP 3 x 80 %", "OES")
    set14 = [21.88, 22.51, 12.64, 11.61, 24.75, 25.01, 26.00]
    assert means("oes24-4", columns, first=14) == near(set14)
    assert means("oes24-4", columns) == near([22.03, 22.39, 12.72, 11.55, 25.41, 25.51, 26.78])
    rows = papers.rows("oes24-4")
    gradual = [row["IMP 14 x 20 %"] > row["IMP 3 x 80 %"] for row in rows]
    assert (sum(gradual), sum(gradual[:14])) == (12, 6)
    gains = [
        fmean(r[f"OES {s}"] - r[f"IMP {s}"] for r in papers.rows("oes24-5")) for s in (25, 12, 17)
    ]
    assert gains == near([0.84, 1.08, 0.80])
    columns = ("dense", "decoder", "sparse, noisy", "sparse, incomplete")
    assert means("oes24-7", columns) == near([27.72, 28.18, 28.38, 28.24])


def test_values_that_other_tables_repeat():
    assert papers.rows("lip23-1") == papers.rows("lip22-1")
    sparse = {row["image"]: row["sparse 25"] for row in papers.rows("oes24-2")}
    sparse |= {row["image"]: row["sparse"] for row in papers.rows("oes24-3")}
    shared = [row for row in papers.rows("oes24-4") if row["image"] in sparse]
    assert all(row["OES"] == sparse[row["image"]] for row in shared) and len(shared) == 22
    layers = papers.rows("oes24-layers")
    parts = [row for row in layers if row["layer"].startswith(("encoder", "decoder", "conv", "BN"))]
    total = layers[-1]
    assert total["layer"] == "all parameters"
    for column in list(total)[2:]:
        assert sum(row[column] for row in parts) == total[column]
        assert sum(row[column] for row in layers[:12]) == parts[0][column]


def test_found_from_anywhere_in_a_clone(monkeypatch, tmp_path):
    root = data_folder().parents[1]
    for place in (root / "notebooks", tmp_path):  # outside: the clone that lipkit lies in
        monkeypatch.chdir(place)
        assert data_folder() == root / "book" / "_data"


def test_without_a_clone_a_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "lipkit" / "lab" / "paths.py"))
    with pytest.raises(lk.FileError, match="tables are part of the book.*clone of the book"):
        papers.names()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_config.yml").touch()
    with pytest.raises(lk.FileError, match="no .*papers.yml; get a whole clone"):
        papers.table("lip23-4")


def test_an_unknown_table_names_the_nearest():
    with pytest.raises(lk.InputError, match="no table 'lip23_4'; did you mean 'lip23-4'"):
        papers.table("lip23_4")

"""Tables of results: comparing networks over seeds."""

from __future__ import annotations

import threading

import pytest

import lipkit as lk

CLEAN, OP = lk.testing.tiny_image(), lk.physics.Denoise(sigma=0.1)


def run(name: str, seed: int) -> lk.Fit:
    y = OP.measure(CLEAN, seed=seed)
    steps = {"short": 1, "long": 3}[name]
    prior = lk.testing.tiny_prior(seed=seed)
    return lk.fit(prior, OP, y, steps=steps, reference=CLEAN, every=1, progress=False)


def test_compare_gives_each_name_with_each_seed_its_fit_and_its_row() -> None:
    rows, fits = lk.tables.compare(run, iter(["short", "long"]), range(2), CLEAN)
    assert list(fits) == [("short", 0), ("short", 1), ("long", 0), ("long", 1)]
    for ((name, seed), fit), row in zip(fits.items(), rows, strict=True):
        alone = run(name, seed)
        assert row["network"] == name
        assert row[lk.tables.ORACLE] == alone.history["psnr"].max() == fit.history["psnr"].max()
    assert rows[0][lk.tables.STOPPED] != rows[1][lk.tables.STOPPED]


@pytest.mark.parametrize("by", ["fit", "reference"])
def test_the_column_of_names_may_be_called_anything(by: str) -> None:
    rows, _ = lk.tables.compare(run, ["short"], [0], CLEAN, by=by)
    assert rows[0][by] == "short"


def test_a_run_that_fails_ends_the_comparison_with_its_own_error() -> None:
    started, lock = [], threading.Lock()

    def broken(name: str, seed: int) -> lk.Fit:
        with lock:
            started.append(seed)
        raise lk.InputError(f"no {name}")

    with pytest.raises(lk.InputError, match="no dense"):
        lk.tables.compare(broken, ["dense"], range(100), CLEAN)
    assert len(started) < 100

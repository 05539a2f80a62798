"""Tables of results: comparing networks over seeds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest

import lipkit as lk
from lipkit.workers import parallel

CLEAN, OP = lk.testing.tiny_image(), lk.physics.Denoise(sigma=0.1)


def run(name: str, seed: int) -> lk.Fit:
    y = OP.measure(CLEAN, seed=seed)
    steps = {"short": 1, "long": 3}[name]
    prior = lk.testing.tiny_prior(seed=seed)
    return lk.fit(prior, OP, y, steps=steps, reference=CLEAN, every=1, progress=False)


def on_one_thread(function: Callable[[], lk.Fit]) -> lk.Fit:
    """As the fits beside each other are made: two threads round otherwise than one."""
    (found,) = parallel(lambda _: function(), [0])
    return found


def test_run_all_gives_each_name_with_each_seed_its_fit_and_its_row() -> None:
    rows, fits = lk.lab.tables.run_all(run, iter(["short", "long"]), range(2), CLEAN)
    assert list(fits) == [("short", 0), ("short", 1), ("long", 0), ("long", 1)]
    for ((name, seed), fit), row in zip(fits.items(), rows, strict=True):
        alone = on_one_thread(partial(run, name, seed))
        assert row["network"] == name
        assert row[lk.lab.tables.ORACLE] == alone.history["psnr"].max() == fit.history["psnr"].max()
    assert rows[0][lk.lab.tables.STOPPED] != rows[1][lk.lab.tables.STOPPED]


@pytest.mark.parametrize("by", ["fit", "reference"])
def test_the_column_of_names_may_be_called_anything(by: str) -> None:
    rows, _ = lk.lab.tables.run_all(run, ["short"], [0], CLEAN, by=by)
    assert rows[0][by] == "short"


def test_a_run_that_fails_ends_the_comparison_with_its_own_error() -> None:
    started, lock = [], threading.Lock()

    def broken(name: str, seed: int) -> lk.Fit:
        with lock:
            started.append(seed)
        raise lk.InputError(f"no {name}")

    with pytest.raises(lk.InputError, match="no dense"):
        lk.lab.tables.run_all(broken, ["dense"], range(100), CLEAN)
    assert len(started) < 100


def test_arms_are_run_with_every_seed_and_an_arms_own_arguments_hold() -> None:
    def shared(seed: int) -> dict:
        y = OP.measure(CLEAN, seed=seed)
        prior = lk.testing.tiny_prior(seed=seed)
        return dict(prior=prior, op=OP, y=y, steps=3, every=1, reference=CLEAN, progress=False)

    arms = {"short": dict(steps=1), "long": {}, "other": lambda seed: dict(lr=0.1 / (1 + seed))}
    fits = lk.lab.run_arms(arms, range(2), shared)
    assert list(fits) == [(name, seed) for name in arms for seed in (0, 1)]
    rows, theirs = lk.lab.tables.run_all(run, ["short", "long"], range(2), CLEAN)
    for job, fit in theirs.items():
        assert (fits[job].image == fit.image).all()  # the same as by hand, to the bit
    without = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    for row, same in zip(lk.lab.tables.rows(fits, CLEAN), without, strict=False):
        assert {k: v for k, v in row.items() if k != "seconds"} == same
    other = on_one_thread(partial(lk.fit, lr=0.05, **shared(1)))
    assert (fits["other", 1].image == other.image).all()


def test_arms_may_be_searches_or_anything_else_that_is_called() -> None:
    found = lk.lab.run_arms(
        {"sparse": dict(density=0.3), "denser": dict(density=0.6)},
        seeds=[3],
        shared=lambda seed: dict(prior=lk.testing.tiny_prior(), seed=seed),
        run=lk.find.random,
        label="searches",
    )
    assert found["sparse", 3] == lk.find.random(lk.testing.tiny_prior(), density=0.3, seed=3)
    assert found["denser", 3].density > found["sparse", 3].density

"""The one loop, on the smallest work there is."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from lipkit.fitting import loop


class Sum(loop.Work):
    """Adds random numbers, which a resumed sum must not draw again."""

    kind = "sum"

    def __init__(self, steps: int = 9, press_at: int | None = None, twice: bool = False) -> None:
        self.signature = {"seed": "0"}
        self.steps = steps
        self.press_at = press_at
        self.twice = twice
        self.total = {"total": torch.zeros(1)}
        self.random = torch.Generator().manual_seed(0)

    def advance(self) -> float:
        for _ in range(1 + self.twice if self.step + 1 == self.press_at else 0):
            os.kill(os.getpid(), signal.SIGINT)
        self.total["total"] = self.total["total"] + torch.rand(1, generator=self.random)
        self.step += 1
        return float(self.total["total"])

    def parts(self):
        return {"sum": self.total, "random": self.random}


def result(work: Sum) -> float:
    return float(work.total["total"])


def test_all_steps_are_done_and_seen():
    work = Sum()
    seen = []
    end = loop.run(work, progress=False, seen=seen.append)
    assert end == ("all 9 steps are done", False)
    assert len(seen) == 9 and seen[-1] == result(work)
    assert work.seconds > 0


def test_a_work_that_ends_early_says_why():
    work = Sum()

    def seen(_):
        work.reason = "enough" if work.step == 4 else ""

    assert loop.run(work, progress=False, seen=seen) == ("enough", False)
    assert work.step == 4


def test_interrupted_and_resumed_is_the_same(tmp_path):
    whole = Sum()
    loop.run(whole, progress=False)
    path = tmp_path / "sum"
    half = Sum(press_at=4)
    end = loop.run(half, path, progress=False)
    assert end == ("interrupted at step 4 of 9", True)
    resumed = Sum()
    assert not loop.run(resumed, path, progress=False).interrupted
    assert result(resumed) == result(whole) and resumed.seconds > half.seconds
    longer = Sum(12)
    assert loop.run(longer, path, progress=False).reason == "all 12 steps are done"
    alone = Sum(12)
    loop.run(alone, progress=False)
    assert result(longer) == result(alone)


def test_before_the_first_step_an_interrupt_goes_its_way(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        loop.run(Sum(press_at=1, twice=True), tmp_path / "sum", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_second_ctrl_c_saves_nothing(tmp_path):
    path = tmp_path / "sum"
    work = Sum(press_at=4, twice=True)
    assert loop.run(work, path, progress=False) == ("interrupted at step 3 of 9", True)
    assert not path.exists()


def test_it_saves_now_and_then(tmp_path, monkeypatch):
    path = tmp_path / "sum"
    work = Sum()
    there = []
    loop.run(work, path, progress=False, seen=lambda _: there.append(path.exists()))
    assert not any(there)  # thirty seconds are not over
    path.unlink()
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    loop.run(Sum(), path, progress=False, seen=lambda _: there.append(path.exists()))
    assert there[9:] == [False] + 8 * [True]


def test_it_stops_when_the_time_is_over_and_goes_on_later(tmp_path):
    path = tmp_path / "sum"
    end = loop.run(Sum(), path, progress=False, minutes=0)
    assert end == ("the 0 minutes are over", False)
    work = Sum()
    assert loop.run(work, path, progress=False, minutes=10).reason == "all 9 steps are done"
    assert work.step == 9

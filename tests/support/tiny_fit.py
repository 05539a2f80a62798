"""Small fits for the tests of the training loop."""

from __future__ import annotations

import os
import signal

import numpy as np
import torch

import lipkit as lk
from lipkit.testing import tiny_image, tiny_prior

CLEAN = tiny_image()
OP = lk.physics.Denoise(0.1)
Y = OP.measure(CLEAN)
MASK = lk.Mask.random(tiny_prior().net, density=0.4, seed=1)

# every part of the loop that has a state of its own
EVERYTHING = dict(
    input_noise=0.03, langevin=0.005, weight_decay=1e-4, average=0.9, backtrack=5.0, seed=5
)


def quick(prior=None, op=OP, y=Y, **options) -> lk.Fit:
    options = dict(steps=12, every=1, progress=False) | options
    return lk.fit(tiny_prior() if prior is None else prior, op, y, **options)


def outputs(**options) -> list[torch.Tensor]:
    """The picture after every step, as a callback sees it."""
    seen: list[torch.Tensor] = []
    quick(callback=lambda s: seen.append(s.image), **options)
    return seen


def assert_same_fit(a: lk.Fit, b: lk.Fit, but: tuple[str, ...] = ()) -> None:
    assert torch.equal(a.image, b.image)
    assert (a.steps, a.reason) == (b.steps, b.reason)
    for name in set(a.history) - set(but):
        np.testing.assert_array_equal(a.history[name], b.history[name], err_msg=name)
    for (name, mine), theirs in zip(
        a.net.state_dict().items(), b.net.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name
    if "best" not in but:
        assert (a.best is None) == (b.best is None)
        assert a.best is None or torch.equal(a.best, b.best)


class Garbage(lk.physics.Denoise):
    """Measures nonsense at one call, as a fit that blew up would show."""

    def __init__(self, at: int, scale: float = 100.0):
        super().__init__(0.1)
        self.at, self.scale, self.calls = at, scale, 0

    def A(self, x):
        self.calls += 1
        return self.scale * x if self.calls == self.at else x


class PressesCtrlC(lk.physics.Denoise):
    """Interrupts its own process in the middle of one step, so many times."""

    def __init__(self, at: int, times: int = 1):
        super().__init__(0.1)
        self.at, self.times, self.calls = at, times, 0

    def A(self, x):
        self.calls += 1
        for _ in range(self.times if self.calls == self.at else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return x

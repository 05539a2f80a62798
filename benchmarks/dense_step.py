"""What one step of `lipkit.fit` costs beside the plainest loop for the same network.

Both fit the dense `dip` network to a noisy picture with Adam; `lipkit.fit` also measures PSNR and
SSIM against the clean picture every 50 steps.

    python benchmarks/dense_step.py
"""

from __future__ import annotations

import copy
import sys

import torch
from side_by_side import Row, main, take_turns

import lipkit as lk

STEPS = {64: 25, 128: 8, 256: 2}  # a block; lipkit.fit measures at least once in each
CASES = [dict(threads=t, size=s) for t in (1, 2) for s in STEPS]


def plain_loop(prior: lk.Prior, y: torch.Tensor, steps: int) -> None:
    """The loop that everybody writes first."""
    net, z = copy.deepcopy(prior.net), prior.z
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(net(z), y[None])
        loss.backward()
        optimizer.step()


def measure(threads: int, size: int) -> Row:
    """One size and number of threads."""
    clean = lk.testing.tiny_image((size, size))
    op = lk.physics.Denoise(0.1)
    y = op.measure(clean)
    prior = lk.Prior("dip", size)
    runs = {
        "plain": lambda n: plain_loop(prior, y, n),
        "lipkit": lambda n: lk.fit(prior, op, y, steps=n, reference=clean, progress=False),
    }
    return take_turns(runs, STEPS[size])


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, CASES))

"""What one step of `lipkit.fit` costs beside the plainest loop for the same network.

Both fit a dense network to a noisy picture with Adam; `lipkit.fit` also measures PSNR and SSIM
against the clean picture every 50 steps. "bf16" is `lipkit.fit` with `precision="bf16"`.

    python benchmarks/dense_step.py
"""

from __future__ import annotations

import copy
import sys

import torch
from side_by_side import Row, main, take_turns

import lipkit as lk

# a block; lipkit.fit starts anew and measures at least once in each
STEPS = {"dip": {64: 25, 128: 8, 256: 6}, "oes": {64: 50, 128: 20, 256: 8}}
LEVELS = {64: 4, 128: 5, 256: 6}  # of `oes`: so many that it need not crop
CASES = [dict(threads=t, net=n, size=s) for t in (1, 2) for n in STEPS for s in STEPS[n]]


def plain_loop(prior: lk.Prior, y: torch.Tensor, steps: int) -> None:
    """The loop that everybody writes first."""
    net, z = copy.deepcopy(prior.net), prior.z
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(net(z), y[None])
        loss.backward()
        optimizer.step()


def measure(threads: int, net: str, size: int) -> Row:
    """One network, size and number of threads."""
    clean = lk.testing.tiny_image((size, size))
    op = lk.physics.Denoise(0.1)
    y = op.measure(clean)
    prior = lk.Prior(net, size, **({"levels": LEVELS[size]} if net == "oes" else {}))

    def ours(steps: int, precision: str = "auto") -> None:
        lk.fit(prior, op, y, steps=steps, reference=clean, precision=precision, progress=False)

    runs = {
        "plain": lambda n: plain_loop(prior, y, n),
        "lipkit": ours,
        "bf16": lambda n: ours(n, "bf16"),
    }
    return take_turns(runs, STEPS[net][size])


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, CASES))

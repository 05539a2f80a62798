"""What the sparse step costs beside the dense one, by density: where sparsity stops to pay.

"plain" is the dense step with masked gradients, "dense" the fastest dense one in single precision
(channels_last, pooling before the convolutions, fused Adam), "sparse" the sparse one; forward,
backward and Adam each. Masks are uniform with a whole last layer; "bare" ones are uniform there
too; "learned" ones have the layer counts of a published mask. `part` is the part of the
multiply-adds that is kept, `gflops` counts 6 operations for each of those.

    python benchmarks/sparse_step.py
"""

from __future__ import annotations

import copy
import sys

import torch
from fit import LEVELS, make_mask
from side_by_side import Row, main, take_turns

import lipkit as lk
from lipkit.engine import boxed, cost, sparse_network

STEPS = {"128": 12, "256": 12, "384x256": 4, "512": 2}  # a block
DENSITIES = ("3 %", "5 %", "10 %", "20 %", "30 %", "50 %")
CASES = [
    *(dict(threads=2, net="oes", size="256", mask=m) for m in DENSITIES),
    *(dict(threads=2, net="oes", size="256", mask=m) for m in ("bare 3 %", "bare 5 %", "learned")),
    *(dict(threads=2, net="oes", size=s, mask="5 %") for s in ("128", "384x256", "512")),
    *(dict(threads=1, net="oes", size="256", mask=m) for m in ("3 %", "5 %", "10 %", "learned")),
    *(dict(threads=2, net="dip", size=s, mask="10 %") for s in ("128", "256")),
    *(dict(threads=2, net="dip", size="128", mask=m) for m in ("30 %", "50 %", "80 %")),
]


def training(net: torch.nn.Module, z: torch.Tensor, y: torch.Tensor, pairs=(), fused=True):
    """Steps of Adam on the squared error."""
    adam = torch.optim.Adam(net.parameters(), lr=0.01, fused=fused)

    def run(steps: int) -> None:
        for _ in range(steps):
            adam.zero_grad()
            torch.nn.functional.mse_loss(net(z), y).backward()
            for p, m in pairs:
                p.grad.mul_(m)
            adam.step()

    return run


def measure(threads: int, net: str, size: str, mask: str) -> Row:
    """One network, picture size and mask."""
    sides = tuple(int(side) for side in size.split("x"))
    levels = {"levels": LEVELS.get(size, 6)} if net == "oes" else {}
    prior = lk.Prior(net, sides if len(sides) > 1 else sides * 2, **levels)
    y = lk.testing.tiny_image(prior.size)[None]
    if mask.startswith("bare"):
        mask = lk.Mask.random(prior.net, float(mask.split()[1]) / 100)
    else:
        mask = make_mask(prior.net, mask)
    mask.apply(prior.net)
    plain = copy.deepcopy(prior.net)
    dense = boxed(copy.deepcopy(prior.net)).to(memory_format=torch.channels_last)
    sparse = sparse_network(prior.net, mask)
    last = prior.z.contiguous(memory_format=torch.channels_last)
    runs = {
        "plain": training(plain, prior.z, y, mask.pairs(plain), fused=False),
        "dense": training(dense, last, y, mask.pairs(dense)),
        "sparse": training(sparse, prior.z, y),
    }
    row = take_turns(runs, STEPS[size] if net == "oes" else 2)
    price = cost(prior.net, prior.z, mask)
    gflops = round(6 * price.kept / 1e6 / row["sparse_ms"], 1)
    speedup = round(1 / row["sparse_ratio"], 2)
    return {"part": round(price.density, 4)} | row | {"speedup": speedup, "gflops": gflops}


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, CASES))

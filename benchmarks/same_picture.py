"""Whether the sparse step leads to the picture that the plain loop leads to: PSNR beside PSNR.

Both fit the same masked network (5 %, with the densities of learned masks in its layers) to the
same noisy picture. They differ by rounding, which a fit amplifies; what counts is the picture at
the end, single output ("last") and running average ("mean"). "other" is the plain loop on two
threads, which sums in another order: how far two plain fits end from each other. The sparse fit is
done twice, and `same_bits` says whether to the same bits.

    python benchmarks/same_picture.py --force
"""

from __future__ import annotations

import sys

import torch
from side_by_side import Row, main

import lipkit as lk

PICTURES = ("astronaut", "coffee", "rocket")
STEPS = 1500
CASES = [dict(threads=1, net="oes", size=128, seed=seed) for seed in range(len(PICTURES))]


def measure(threads: int, net: str, size: int, seed: int) -> Row:
    """One picture and seed."""
    clean, op = lk.data.image(PICTURES[seed], size), lk.physics.Denoise(25 / 255)
    y, prior = op.measure(clean, seed=seed), lk.Prior(net, size, seed, levels=4)
    mask = lk.find.universal(prior, density=0.05, seed=seed)
    runs = {}
    for name, way, team in (
        ("plain", "plain", threads), ("sparse", "auto", threads), ("again", "auto", threads),
        ("other", "plain", 2),
    ):  # fmt: skip
        torch.set_num_threads(team)
        runs[name] = lk.fit(
            prior, op, y, mask=mask, steps=STEPS, seed=seed, average=0.99, reference=clean,
            engine=way, progress=False,
        )  # fmt: skip
    row: Row = {"steps": STEPS, "picture": PICTURES[seed], "engine": runs["sparse"].engine}
    for kind, column in (("last", "psnr_raw"), ("mean", "psnr")):
        ends = {
            name: float(runs[name].history[column][-1]) for name in ("plain", "sparse", "other")
        }
        row |= {f"{name}_{kind}": round(value, 3) for name, value in ends.items()}
        row |= {f"{n}_gap_{kind}": round(ends[n] - ends["plain"], 3) for n in ("sparse", "other")}
    row |= {f"{name}_s": round(runs[name].seconds, 1) for name in ("plain", "sparse")}
    return row | {"same_bits": torch.equal(runs["sparse"].image, runs["again"].image)}


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, CASES))

"""Whether the sparse step leads to the picture that the plain loop leads to: PSNR beside PSNR.

Both fit the same masked network (5 %, with the densities of learned masks in its layers) to the
same noisy picture. They differ by rounding, which a fit amplifies; what counts is the picture at
the end, single output ("last") and running average ("mean"). The sparse fit is done twice, and
`same_bits` says whether to the same bits.

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
    runs = {
        name: lk.fit(
            prior, op, y, mask=mask, steps=STEPS, seed=seed, average=0.99, reference=clean,
            engine=engine, progress=False,
        )
        for name, engine in (("plain", "plain"), ("sparse", "auto"), ("again", "auto"))
    }  # fmt: skip
    row: Row = {"steps": STEPS, "picture": PICTURES[seed], "engine": runs["sparse"].engine}
    for kind, column in (("last", "psnr_raw"), ("mean", "psnr")):
        plain, sparse = (float(runs[name].history[column][-1]) for name in ("plain", "sparse"))
        row |= {f"plain_{kind}": round(plain, 3), f"sparse_{kind}": round(sparse, 3)}
        row[f"gap_{kind}"] = round(sparse - plain, 3)
    row |= {f"{name}_s": round(runs[name].seconds, 1) for name in ("plain", "sparse")}
    return row | {"same_bits": torch.equal(runs["sparse"].image, runs["again"].image)}


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, CASES))

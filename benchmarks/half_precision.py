"""What bfloat16 does to the pictures of dense fits: PSNR beside that in single precision.

For each network, task and seed (with a picture of its own) the same fit in both. PSNR is that of
the running average of the outputs, at its best ("oracle") and at the end ("last"). Fits that
differ by rounding alone drift apart as well; what counts is the mean of several.

    python benchmarks/half_precision.py --force
"""

from __future__ import annotations

import sys

from side_by_side import Row, main

import lipkit as lk

PICTURES = ("astronaut", "coffee", "rocket")
STEPS = {"oes": 800, "dip": 600, "deep-decoder": 1500}
CASES = [
    dict(threads=1, net=net, size=64, task=task, seed=seed)
    for task in ("denoise", "inpaint")
    for net in STEPS
    for seed in range(len(PICTURES))
]


def measure(threads: int, net: str, size: int, task: str, seed: int) -> Row:
    """The same fit in both precisions."""
    clean = lk.data.image(PICTURES[seed], size)
    denoise = lk.physics.Denoise(25 / 255)
    inpaint = lk.physics.Inpaint.random((3, size, size), 0.5, seed=seed)
    op = {"denoise": denoise, "inpaint": inpaint}[task]
    y = op.measure(clean, seed=seed)
    row: Row = {"steps": STEPS[net]}
    for precision in ("fp32", "bf16"):
        prior = lk.Prior(net, size, seed, **({"levels": 4} if net == "oes" else {}))
        psnr = lk.fit(
            prior, op, y, steps=STEPS[net], seed=seed, precision=precision, average=0.99,
            reference=clean, every=10, progress=False,
        ).history["psnr"]  # fmt: skip
        row |= {f"{precision}_oracle": psnr.max().round(3), f"{precision}_last": psnr[-1].round(3)}
    for value in ("oracle", "last"):
        row[f"{value}_gain"] = round(float(row[f"bf16_{value}"] - row[f"fp32_{value}"]), 3)
    return row


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, CASES))

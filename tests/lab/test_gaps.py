"""Who is ahead, and the classical rows that stand in every table."""

from __future__ import annotations

import pytest
import torch

import lipkit as lk
from lipkit.lab import classical

CLEAN = lk.data.image("astronaut", size=48)


@pytest.mark.parametrize(
    ("values", "verdict", "words"),
    [
        ([1.1, 1.3, 1.2], "ahead", "a is 1.2 dB ahead of b (1.1, 1.3, 1.2)"),
        ([-1.1, -1.3, -1.2], "behind", "a is 1.2 dB behind b (-1.1, -1.3, -1.2)"),
        ([0.2, 2.9, 1.3], "level", "a is ahead of b each time, but by how much is open"),
        ([-0.2, 2.9, 1.3], "level", "a and b cannot be told apart (-0.2, 2.9, 1.3 dB)"),
        ([5.0], "level", "a is 5.0 dB ahead of b in this one run"),
        ([5.0, 5.1], "level", "a is ahead of b each time, but by how much is open (5.0, 5.1 dB)"),
        ([1.0] * 5 + [1.1], "ahead", "a is 1.0 dB ahead of b (1.0 to 1.1)"),
    ],
)
def test_a_sentence_claims_no_more_than_the_numbers(values, verdict, words) -> None:
    gap = lk.lab.Gap(values)
    assert gap.verdict == verdict
    assert gap.says("a", "b").startswith(words)


def test_only_rows_that_pair_are_compared() -> None:
    rows = [{"way": "a", "x": 1.0}, {"way": "a", "x": 2.0}, {"way": "b", "x": 0.5}]
    with pytest.raises(lk.errors.InputError, match="'a' has 2 rows and 'b' 1"):
        lk.lab.gap(rows, "way", "a", "b", "x")
    with pytest.raises(lk.errors.InputError, match="'c' has 0 rows"):
        lk.lab.gap(rows, "way", "c", "c", "x")


def test_classical_denoising_is_better_than_nothing_and_its_oracle_no_worse() -> None:
    op = lk.physics.Denoise(25 / 255)
    nothing, tv, means = classical.rows(op, [op.measure(CLEAN)], CLEAN)
    for row in (tv, means):
        assert row["oracle (dB)"] >= row["stopped (dB)"] > nothing["stopped (dB)"] + 1
    poisson = lk.physics.Denoise(noise=lk.physics.Poisson(peak=30))
    nothing, tv, _ = classical.rows(poisson, [poisson.measure(CLEAN)], CLEAN)
    assert tv["stopped (dB)"] > nothing["stopped (dB)"] + 1


def test_biharmonic_keeps_what_was_seen_and_bicubic_the_size() -> None:
    for per_channel in (False, True):
        op = lk.physics.Inpaint.random(CLEAN.shape, density=0.5, per_channel=per_channel)
        y = op.measure(CLEAN)
        filled = classical.restored(op, y)["biharmonic"]
        seen = op.mask.expand_as(CLEAN) == 1
        assert torch.allclose(filled[seen], CLEAN[seen], atol=1e-5)
        assert lk.metrics.psnr(filled, CLEAN) > lk.metrics.psnr(y, CLEAN) + 5
    enlarge = lk.physics.SuperResolution(4)
    assert classical.restored(enlarge, enlarge.measure(CLEAN))["bicubic"].shape == CLEAN.shape


def test_an_operator_without_a_classical_method_is_said() -> None:
    op = lk.physics.CompressedSensing(CLEAN.shape, m=10, corrupted=0)
    with pytest.raises(lk.errors.InputError, match="no classical method for CompressedSensing"):
        classical.rows(op, [], CLEAN)

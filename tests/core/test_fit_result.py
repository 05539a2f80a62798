"""What a fit gives back: histories, pictures, reasons, and an error when it diverged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import lipkit as lk
from lipkit.testing import tiny_image, tiny_prior
from tests.support.tiny_fit import CLEAN, OP, Garbage, Y, outputs, quick

ROOT = Path(__file__).resolve().parents[2]

# --- what comes back ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "every", "want"),
    [(25, 10, [10, 20, 25]), (20, 10, [10, 20]), (3, 50, [3]), (3, 1, [1, 2, 3])],
)
def test_history_has_a_row_every_so_many_steps_and_the_last(steps, every, want):
    seen = []
    fit = quick(steps=steps, every=every, callback=lambda s: seen.append((s.step, s.loss)))
    assert fit.history["step"].tolist() == want == [step for step, _ in seen]
    assert fit.history["loss"].tolist() == [loss for _, loss in seen]
    assert fit.steps == steps and fit.reason == f"all {steps} steps are done"
    assert fit.history["step"].dtype == np.int64
    assert {len(v) for v in fit.history.values()} == {len(want)}


def test_history_holds_the_metrics_of_the_estimate_and_best_is_the_best_of_them():
    options = dict(steps=30, reference=CLEAN, lr=0.05)
    raw = outputs(**options)
    seen: list = []
    fit = quick(average=0.8, callback=seen.append, **options)
    psnr = [lk.metrics.psnr(s.image, CLEAN) for s in seen]
    np.testing.assert_allclose(fit.history["psnr"], psnr, rtol=1e-5)
    np.testing.assert_allclose([s.psnr for s in seen], psnr, rtol=1e-5)
    ssim = [lk.metrics.ssim(s.image, CLEAN) for s in seen]
    np.testing.assert_allclose(fit.history["ssim"], ssim, rtol=1e-4)
    raw_psnr = [lk.metrics.psnr(x, CLEAN) for x in raw]
    np.testing.assert_allclose(fit.history["psnr_raw"], raw_psnr, rtol=1e-5)
    assert torch.equal(fit.best, seen[int(np.argmax(psnr))].image)


def test_what_a_callback_keeps_does_not_change_afterwards():
    for average in (None, 0.9, lk.PosteriorMean(2, 1)):
        kept: list[torch.Tensor] = []
        copies: list[torch.Tensor] = []

        def keep(s, kept=kept, copies=copies):
            kept.append(s.image)
            copies.append(s.image.clone())

        quick(average=average, callback=keep)
        assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_a_callback_can_stop_the_fit():
    fit = quick(steps=30, callback=lambda s: s.step == 5)
    assert fit.steps == 5 and fit.reason == "the callback asked to stop at step 5"
    assert torch.equal(fit.image, quick(steps=5).image)


@pytest.mark.parametrize("rule", [lk.stop.WMV(3, 4), lk.stop.EMV(0.3, 4, 2)])
def test_a_stop_rule_ends_the_fit_and_gives_the_picture_it_picked(rule):
    options = dict(steps=200, lr=0.3, langevin=0.1)
    raw = outputs(**options)
    state, step = rule.init(raw[0]), 0
    while not state["done"]:
        state = rule.update(state, step + 1, raw[step])
        step += 1
    fit = quick(stop=rule, every=1000, **options)
    best = int(state["best_step"])
    assert fit.steps == step < 200 and fit.reason == rule.reason(step, best)
    assert fit.history["step"].tolist() == [step]
    torch.testing.assert_close(fit.image, state["image"])
    if isinstance(rule, lk.stop.WMV):
        assert torch.equal(fit.image, raw[best - 1])


def test_a_rule_that_never_fires_still_picks():
    rule = lk.stop.WMV(window=3, patience=1000)
    fit = quick(stop=rule, lr=0.3, langevin=0.1, steps=40)
    assert fit.reason == "all 40 steps are done"
    assert not torch.equal(fit.image, quick(lr=0.3, langevin=0.1, steps=40).image)


def test_max_steps_ends_the_fit():
    fit = quick(stop=lk.stop.MaxSteps(7))
    assert fit.steps == 7 and fit.reason == "the 7 steps of MaxSteps are done"
    assert torch.equal(fit.image, quick(steps=7).image)


@pytest.mark.parametrize(
    ("progress", "variable", "shown"), [(True, "", True), (False, "", False), (True, "1", False)]
)
def test_progress_is_shown_unless_switched_off_by_argument_or_environment(
    progress, variable, shown
):
    code = f"from tests.support import tiny_fit; tiny_fit.quick(progress={progress})"
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = os.environ | {"TQDM_DISABLE": variable, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "" and ("/12" in done.stderr) == shown
    assert shown or done.stderr == ""


def test_a_fit_says_what_it_is():
    text = repr(quick())
    assert text.startswith("Fit(3x16x16, 12 steps in ") and "all 12 steps are done" in text


# --- operators and sizes ------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", [False, True])
def test_any_size_any_channels_with_or_without_a_batch_axis(channels, batch):
    clean = tiny_image((18, 27), channels)
    prior = tiny_prior((18, 27), channels=channels)
    y = clean[None] if batch else clean
    fit = quick(prior, OP, y, reference=y, steps=30)
    assert fit.image.shape == fit.best.shape == (channels, 18, 27)
    assert fit.history["psnr"][-1] > fit.history["psnr"][0]
    assert torch.equal(fit.image, quick(prior, OP, clean, steps=30).image)


def test_a_picture_too_small_for_ssim_is_measured_without_it():
    clean = tiny_image((8, 9))
    fit = quick(tiny_prior((8, 9)), OP, clean, reference=clean)
    assert np.isnan(fit.history["ssim"]).all() and np.isfinite(fit.history["psnr"]).all()


@pytest.mark.parametrize(
    "op",
    [
        lk.physics.Inpaint.random((3, 16, 16), 0.5),
        lk.physics.SuperResolution(2),
        lk.physics.SuperResolution(4, source="pil"),
    ],
)
def test_every_operator_can_be_fitted(op):
    fit = quick(op=op, y=op.measure(CLEAN), steps=60, every=20)
    assert fit.image.shape == CLEAN.shape
    assert fit.history["loss"][-1] < 0.5 * fit.history["loss"][0]


class Fourier:
    """An operator of somebody else: complex measurements, and nothing but `A`."""

    def A(self, x):
        return torch.fft.fft2(x, norm="ortho")


def test_anything_with_A_is_an_operator_complex_ones_too():
    """A unitary operator leaves the loss as it is: Parseval."""
    fit = quick(op=Fourier(), y=Fourier().A(Y), steps=5)
    np.testing.assert_allclose(fit.history["loss"], quick(steps=5).history["loss"], rtol=1e-3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_fit_works_where_gradients_are_switched_off(mode):
    op, prior = lk.physics.SuperResolution(2), tiny_prior()
    want = quick(prior, op, op.A(CLEAN)).image
    lk.physics.pictures.reduction_matrix.cache_clear()
    with mode():
        assert torch.equal(quick(prior, op, op.A(CLEAN), reference=CLEAN).image, want)


# --- divergence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 4, 100])
def test_divergence_is_an_error_with_advice(every):
    with pytest.raises(
        lk.Error, match=r"the loss is nan at step \d+: the fit diverged; try a smaller"
    ):
        quick(lr=1e30, steps=12, every=every)


@pytest.mark.parametrize(
    "ending",
    [{"steps": 6}, {"callback": lambda s: s.step == 6}, {"stop": lk.stop.MaxSteps(6)}],
    ids=["steps", "callback", "rule"],
)
def test_divergence_in_the_last_row_is_not_overlooked(ending):
    with pytest.raises(lk.Error, match="the loss is inf at step 6: the fit diverged"):
        quick(op=Garbage(at=6, scale=float("inf")), **({"steps": 12} | ending))

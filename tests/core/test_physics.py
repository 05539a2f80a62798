"""Operators: linear, with a true adjoint, equal to the published ones; noise with the right law."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipkit as lk
from lipkit.physics import (
    Denoise,
    Gaussian,
    Inpaint,
    Operator,
    Poisson,
    SaltAndPepper,
    SuperResolution,
    lanczos_taps,
)
from lipkit.testing import check_adjoint, check_linear, tiny_image

GOLDEN = json.loads((Path(__file__).parents[1] / "golden.json").read_text())["downsampler"]
CLEAN = tiny_image((64, 64))

FILE_MASK = torch.ones(16, 24)
FILE_MASK[4:9, 3:20] = 0
OPERATORS = {
    "denoise": Denoise(0.1),
    "inpaint file": Inpaint(FILE_MASK),
    "inpaint shared": Inpaint.random((3, 16, 24), density=0.3, seed=1),
    "inpaint per channel": Inpaint.random((3, 16, 24), density=0.3, per_channel=True, seed=1),
    **{
        f"{kernel} x{factor}": SuperResolution(factor, kernel)
        for factor in (2, 4, 8)
        for kernel in ("lanczos2", "lanczos3")
    },
}


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Without the noise of an imitated machine: these tests say what is measured exactly."""
    monkeypatch.delenv("LIPKIT_PERTURB", raising=False)


# --- laws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_every_operator_is_linear_with_a_true_adjoint(name, batch):
    check_linear(OPERATORS[name], (*batch, 3, 16, 24))
    check_adjoint(OPERATORS[name], (*batch, 3, 16, 24))


@settings(max_examples=40, deadline=None)
@given(
    factor=st.sampled_from([2, 4, 8]),
    kernel=st.sampled_from(["lanczos2", "lanczos3"]),
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    channels=st.integers(1, 3),
)
def test_super_resolution_law(factor, kernel, rows, columns, channels):
    op = SuperResolution(factor, kernel)
    shape = (channels, rows * factor, columns * factor)
    check_linear(op, shape)
    check_adjoint(op, shape)
    flat = torch.full(shape, 0.4, dtype=torch.float64)
    want = torch.full((channels, rows, columns), 0.4, dtype=torch.float64)
    torch.testing.assert_close(op.A(flat), want)  # also at the border


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.integers(1, 4),
    density=st.floats(0.05, 0.95),
    per_channel=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_inpainting_law(height, width, channels, density, per_channel, seed):
    shape = (channels, height, width)
    op = Inpaint.random(shape, density, per_channel, seed)
    check_linear(op, shape)
    check_adjoint(op, shape)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(op.A(op.A(x)), op.A(x))  # a projection
    assert torch.equal(op.mask, Inpaint.random(shape, density, per_channel, seed).mask)


class WrongAdjoint(SuperResolution):
    def A_adjoint(self, y):
        return super().A_adjoint(y).flip(-1)


class WrongShape(SuperResolution):
    def A_adjoint(self, y):
        return y


class Affine(Denoise):
    def A(self, x):
        return x + 1


class Square(Denoise):
    def A(self, x):
        return x * x


class NotFinite(Denoise):
    def A(self, x):
        return x * float("nan")


@pytest.mark.parametrize("op", [WrongAdjoint(2), WrongShape(2), Affine(), NotFinite()])
def test_check_adjoint_catches(op):
    with pytest.raises(lk.Error, match=f"{type(op).__name__}.A_adjoint"):
        check_adjoint(op, (3, 16, 16))


@pytest.mark.parametrize("op", [Affine(), Square(), NotFinite()])
def test_check_linear_catches(op):
    with pytest.raises(lk.Error, match=f"{type(op).__name__}.A is not linear"):
        check_linear(op, (3, 16, 16))


# --- super-resolution ---------------------------------------------------------------------------


def test_lanczos_kernel_is_the_published_one():
    kernel = np.outer(lanczos_taps(4), lanczos_taps(4))
    np.testing.assert_allclose(kernel, GOLDEN["lanczos2_x4"]["kernel"], rtol=1e-9, atol=0)


def test_downsampling_is_the_published_one():
    want = GOLDEN["lanczos2_x4"]
    i = torch.arange(3 * 64 * 64, dtype=torch.float64)
    x = (0.5 + 0.5 * torch.sin(1.3 * i + 0.01 * i * i)).reshape(1, 3, 64, 64)
    out = SuperResolution(4).A(x)
    assert list(out.shape) == want["out"]
    flat = out.flatten()
    picked = flat[[j * (flat.numel() - 1) // 15 for j in range(16)]]
    samples = torch.tensor(want["samples"], dtype=torch.float64)
    torch.testing.assert_close(picked, samples, rtol=1e-9, atol=0)
    assert float(out.mean()) == pytest.approx(want["mean"], rel=1e-9)
    assert float(out.std()) == pytest.approx(want["std"], rel=1e-9)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("lobes", [2, 3])
def test_downsampling_is_a_strided_convolution_of_the_replicated_picture(factor, lobes):
    taps = torch.from_numpy(lanczos_taps(factor, lobes))
    assert len(taps) == 2 * lobes * factor
    x = CLEAN.double()[:, None]
    reach = (len(taps) - factor) // 2
    padded = torch.nn.functional.pad(x, (reach,) * 4, mode="replicate")
    want = torch.nn.functional.conv2d(padded, torch.outer(taps, taps)[None, None], stride=factor)
    have = SuperResolution(factor, f"lanczos{lobes}").A(CLEAN.double())
    torch.testing.assert_close(have, want[:, 0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_pil_data_are_near_the_operator_but_not_equal(factor):
    ours = SuperResolution(factor).measure(CLEAN)
    papers = SuperResolution(factor, source="pil").measure(CLEAN)
    assert papers.shape == ours.shape and papers.dtype == ours.dtype
    assert not torch.equal(papers, ours)
    # a picture with an edge: the two kernels differ by a little, not by a shift
    assert 25 < lk.metrics.psnr(papers, ours) < 60
    assert lk.metrics.psnr(papers, ours) > lk.metrics.psnr(papers.roll(1, -1), ours) + 6


def test_pil_data_are_what_pillow_makes():
    from PIL import Image

    plane = Image.fromarray(CLEAN[1].numpy()).resize((16, 16), Image.Resampling.LANCZOS)
    papers = SuperResolution(4, source="pil").measure(CLEAN)
    assert np.array_equal(papers[1].numpy(), np.asarray(plane))


# --- noise --------------------------------------------------------------------------------------

NOISES = [Gaussian(0.1), Gaussian(0.1, clip=False), Poisson(30), SaltAndPepper(0.2)]


def grey(value: float) -> torch.Tensor:
    return torch.full((3, 256, 256), value)


@pytest.mark.parametrize("noise", NOISES, ids=repr)
@pytest.mark.parametrize("name", ["denoise", "inpaint shared", "lanczos2 x2"])
def test_measuring_is_repeatable_by_seed_and_touches_no_global_state(noise, name):
    op = {
        "denoise": Denoise(noise=noise),
        "inpaint shared": Inpaint.random((3, 64, 64), noise=noise),
        "lanczos2 x2": SuperResolution(2, noise=noise),
    }[name]
    before = torch.get_rng_state()
    first, again, other = (op.measure(CLEAN, seed=s) for s in (4, 4, 5))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(op(CLEAN, seed=4), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, op.A(CLEAN))
    if not (isinstance(noise, Gaussian) and not noise.clip):
        assert first.min() >= 0 and first.max() <= 1


@pytest.mark.parametrize("sigma", [0.0, 12 / 255, 0.1])
def test_gaussian_noise_has_its_deviation(sigma):
    error = Denoise(noise=Gaussian(sigma, clip=False)).measure(grey(0.5)) - 0.5
    assert float(error.std()) == pytest.approx(sigma, rel=0.01)
    assert float(error.mean()) == pytest.approx(0, abs=0.01 * sigma + 1e-9)
    channels = torch.corrcoef(error.flatten(1))
    assert sigma == 0 or float(channels[0, 1].abs()) < 0.02  # drawn for each channel anew


def test_gaussian_noise_is_clipped_by_default():
    assert (Denoise(0.1).measure(grey(0.0)) >= 0).all()
    assert (Denoise(noise=Gaussian(0.1, clip=False)).measure(grey(0.0)) < 0).any()


@pytest.mark.parametrize("level", [0.1, 0.5])
@pytest.mark.parametrize("peak", [10, 100])
def test_poisson_noise_has_the_mean_and_variance_of_photon_counts(level, peak):
    counts = peak * Denoise(noise=Poisson(peak, clip=False)).measure(grey(level))
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-4)
    assert float(counts.mean()) == pytest.approx(level * peak, rel=0.01)
    assert float(counts.var()) == pytest.approx(level * peak, rel=0.02)


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.5, 1.0])
def test_salt_and_pepper_hits_that_fraction_half_black_half_white(amount):
    noisy = Denoise(noise=SaltAndPepper(amount)).measure(grey(0.5))
    assert torch.equal(noisy[0], noisy[1]) and torch.equal(noisy[0], noisy[2])
    for value in (0, 1):
        assert float((noisy == value).float().mean()) == pytest.approx(amount / 2, abs=0.006)
    assert float((noisy == 0.5).float().mean()) == pytest.approx(1 - amount, abs=0.006)


@pytest.mark.parametrize("per_channel", [False, True])
def test_random_inpainting_keeps_that_fraction(per_channel):
    op = Inpaint.random((3, 256, 256), density=0.3, per_channel=per_channel, seed=2)
    assert float(op.mask.mean()) == pytest.approx(0.3, abs=0.01)
    assert op.mask.shape[0] == (3 if per_channel else 1)
    assert not torch.equal(op.mask, Inpaint.random((3, 256, 256), 0.3, per_channel, seed=3).mask)
    lost_whole = float((op.A(grey(1)).sum(0) == 0).float().mean())
    assert lost_whole == pytest.approx(0.7**3 if per_channel else 0.7, abs=0.01)


@pytest.mark.parametrize("mask", [FILE_MASK, FILE_MASK.bool(), FILE_MASK.numpy(), FILE_MASK[None]])
def test_a_mask_may_be_boolean_float_or_numpy(mask):
    x = torch.rand(3, 16, 24)
    assert torch.equal(Inpaint(mask).measure(x), x * FILE_MASK)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_keep_the_type(name, dtype):
    x = torch.rand(3, 16, 24, dtype=dtype)
    assert OPERATORS[name].A(x).dtype == dtype
    assert OPERATORS[name].measure(x).dtype == dtype


@pytest.mark.parametrize("name", OPERATORS)
def test_a_picture_measured_in_inference_mode_can_be_fitted_afterwards(name):
    """Nothing an operator remembers from one call may spoil the gradients of a later one."""
    op = OPERATORS[name]
    lk.physics.pictures.reduction_matrix.cache_clear()
    with torch.inference_mode():
        op.measure(torch.rand(3, 16, 24, dtype=torch.float64))
    x = torch.rand(3, 16, 24, dtype=torch.float64, requires_grad=True)
    op.A(x).square().sum().backward()
    assert x.grad is not None


def test_the_base_class_asks_for_its_methods():
    class Half(Operator):
        def A(self, x):
            return x

    with pytest.raises(TypeError, match="A_adjoint"):
        Half()

"""Metrics against scikit-image and against formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import lipkit as lk


def pair(shape: tuple[int, ...], dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    smooth = lk.testing.tiny_image(shape[-2:], channels=shape[-3]).to(dtype)
    noise = torch.randn(shape, generator=generator, dtype=dtype)
    return (smooth + 0.1 * noise).clamp(0, 1), smooth


SHAPES = [(3, 32, 32), (1, 40, 23), (2, 11, 64)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_psnr_is_that_of_scikit_image(shape, data_range):
    image, reference = (data_range * x for x in pair(shape))
    want = peak_signal_noise_ratio(reference.numpy(), image.numpy(), data_range=data_range)
    assert lk.metrics.psnr(image, reference, data_range) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_ssim_is_that_of_scikit_image(shape, data_range):
    image, reference = (data_range * x for x in pair(shape))
    want = structural_similarity(
        reference.numpy(), image.numpy(), channel_axis=0, data_range=data_range,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert lk.metrics.ssim(image, reference, data_range) == pytest.approx(want, abs=1e-12)
    single = lk.metrics.ssim(image.float(), reference.float(), data_range)
    assert single == pytest.approx(want, abs=1e-4)


def test_metrics_know_equal_and_opposite_pictures():
    image, _ = pair((3, 16, 16))
    assert lk.metrics.psnr(image, image) == float("inf")
    assert lk.metrics.ssim(image, image) == pytest.approx(1, abs=1e-12)
    assert lk.metrics.ssim(image, 1 - image) < 0


@pytest.mark.parametrize("metric", [lk.metrics.psnr, lk.metrics.ssim, lk.metrics.psnr_y])
def test_metrics_of_one_picture_do_not_mind_a_batch_axis(metric):
    image, reference = pair((3, 32, 32))
    assert metric(image[None], reference) == pytest.approx(metric(image, reference), rel=1e-12)


def test_ssim_and_psnr_of_a_batch_against_one_reference():
    image, reference = pair((3, 32, 32))
    batch = torch.stack([image, image])
    for metric in (lk.metrics.psnr, lk.metrics.ssim):
        assert metric(batch, reference) == pytest.approx(metric(image, reference), rel=1e-9)


@pytest.mark.parametrize("border", [0, 4])
def test_psnr_y_written_out(border):
    image, reference = pair((3, 20, 24))

    def y_of(picture: torch.Tensor) -> np.ndarray:  # MATLAB's rgb2ycbcr, on the scale of 0 to 255
        r, g, b = picture.numpy()
        y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
        return y[border : y.shape[0] - border, border : y.shape[1] - border]

    mse = np.mean((y_of(image) - y_of(reference)) ** 2)
    want = 10 * np.log10(255**2 / mse)
    assert lk.metrics.psnr_y(image, reference, border) == pytest.approx(want, abs=1e-4)


def test_noise_psnr_is_the_psnr_of_that_noise():
    reference = torch.full((3, 256, 256), 0.5)
    noisy = reference + 0.1 * torch.randn(
        reference.shape, generator=torch.Generator().manual_seed(0)
    )
    assert lk.metrics.psnr(noisy, reference) == pytest.approx(lk.metrics.noise_psnr(0.1), abs=0.05)


@pytest.mark.parametrize("shape", [(16, 128, 128), (16, 96, 128)])
def test_spectrum_of_white_noise_is_flat_and_equals_its_variance(shape):
    noise = 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    frequency, power = lk.metrics.radial_spectrum(noise, bins=8)
    torch.testing.assert_close(frequency, (torch.arange(8) + 0.5) / 16)
    torch.testing.assert_close(power, torch.full((8,), 0.09), rtol=0.1, atol=0)


@pytest.mark.parametrize(("cycles", "axis"), [(8, "x"), (8, "y"), (24, "x"), (24, "y")])
def test_spectrum_of_a_sinusoid_peaks_at_its_frequency(cycles, axis):
    side, bins = 64, 16
    t = torch.arange(side, dtype=torch.float64) / side
    wave = torch.sin(2 * torch.pi * cycles * t)
    picture = (wave[None, :] if axis == "x" else wave[:, None]).expand(side, side)[None]
    frequency, power = lk.metrics.radial_spectrum(picture, bins)
    peak = int(power.argmax())
    assert abs(float(frequency[peak]) - cycles / side) <= 0.5 / (2 * bins) + 1e-9
    others = torch.cat([power[:peak], power[peak + 1 :]])
    assert float(others.max()) < 1e-9 * float(power[peak])


def test_bands_are_shares_of_the_reference_and_ignore_what_is_foreign_to_it():
    t = torch.arange(32) / 32
    slow, fast = (torch.sin(2 * torch.pi * c * t).expand(3, 32, 32) for c in (3, 12))
    other = torch.cos(2 * torch.pi * 5 * t)[:, None].expand(3, 32, 32)
    mixed = 0.3 * slow + 0.7 * fast + other + 0.5
    assert lk.metrics.bands(mixed, slow + fast) == pytest.approx((0.3, 0.7), abs=1e-5)


def test_spectrum_keeps_the_energy():
    """Parseval: power summed over the rings is the energy at frequencies below 0.5."""
    side, bins = 64, 8
    x = torch.randn(1, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    f = torch.fft.fftfreq(side, dtype=torch.float64)
    radius = torch.hypot(f[:, None], f[None, :])
    kept = torch.fft.ifft2(torch.fft.fft2(x) * (radius < 0.5)).real
    rings = [int(((radius * 2 * bins).long() == i).sum()) for i in range(bins)]
    _, power = lk.metrics.radial_spectrum(x, bins)
    total = float((power * torch.tensor(rings, dtype=torch.float64)).sum())
    assert total == pytest.approx(float(kept.square().sum()), rel=1e-9)

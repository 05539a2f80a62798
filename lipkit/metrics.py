"""How close two pictures are: pure functions of tensors [..., C, H, W] in [0, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import InputError


def psnr(image: Tensor, reference: Tensor, data_range: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio in dB.

    >>> round(psnr(torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.1)), 6)
    20.0
    """
    return float(psnr_tensor(image, reference, data_range).detach())


def psnr_tensor(image: Tensor, reference: Tensor, data_range: float = 1.0) -> Tensor:
    """Return the PSNR as a tensor on the device: no waiting inside a loop.

    >>> psnr_tensor(torch.zeros(3, 8, 8), torch.ones(3, 8, 8))
    tensor(0.)
    """
    _check_pair(image, reference)
    return 10 * torch.log10(data_range**2 / (image - reference).square().mean())


def psnr_y(image: Tensor, reference: Tensor, border: int = 4) -> float:
    """Return the PSNR of the luma (BT.601, 16-235) without a border, as for super-resolution.

    >>> round(psnr_y(torch.zeros(3, 16, 16), torch.full((3, 16, 16), 0.1)), 3)
    21.322
    """
    _check_pair(image, reference)
    if image.shape[-3] != 3:
        raise InputError(f"psnr_y needs 3 colour channels, got {image.shape[-3]}")
    h, w = image.shape[-2:]
    if border < 0 or 2 * border >= min(h, w):
        raise InputError(f"border={border} leaves nothing of a picture of {h}x{w}")
    inner = (..., slice(border, h - border), slice(border, w - border))
    return psnr(luma(image)[inner] * (219 / 255), luma(reference)[inner] * (219 / 255))


def luma(image: Tensor) -> Tensor:
    """Return the weighted sum of red, green and blue (BT.601).

    >>> luma(torch.ones(3, 2, 2)).shape
    torch.Size([1, 2, 2])
    """
    weights = image.new_tensor([0.299, 0.587, 0.114])
    return (image * weights[:, None, None]).sum(-3, keepdim=True)


def ssim(image: Tensor, reference: Tensor, data_range: float = 1.0) -> float:
    """Return the structural similarity of Wang et al. 2004 (Gaussian window of 11, sigma 1.5).

    >>> ssim(torch.ones(3, 16, 16), torch.ones(3, 16, 16))
    1.0
    """
    return float(ssim_tensor(image, reference, data_range).detach())


def ssim_tensor(image: Tensor, reference: Tensor, data_range: float = 1.0) -> Tensor:
    """Return the SSIM as a tensor on the device, averaged where the window is inside.

    >>> ssim_tensor(torch.ones(3, 16, 16), torch.ones(3, 16, 16))
    tensor(1.)
    """
    _check_pair(image, reference)
    size = 11
    sigma = 1.5
    if min(image.shape[-2:]) < size:
        raise InputError(f"ssim needs at least {size}x{size} pixels, got {tuple(image.shape[-2:])}")
    x = torch.arange(size, dtype=image.dtype, device=image.device) - size // 2
    g = torch.exp(-0.5 * (x / sigma) ** 2)
    g = g / g.sum()
    pair = torch.broadcast_tensors(image, reference)
    a, b = (t.reshape(1, -1, *t.shape[-2:]) for t in pair)
    moments = torch.cat([a, b, a * a, b * b, a * b], dim=1)
    # as channels, which lie last in memory: for pictures of one each PyTorch takes ten times longer
    moments = moments.contiguous(memory_format=torch.channels_last)
    c = moments.shape[1]
    across = g.expand(c, 1, 1, -1)
    down = g[:, None].expand(c, 1, -1, -1)
    moments = F.conv2d(F.conv2d(moments, across, groups=c), down, groups=c)
    ma, mb, aa, bb, ab = moments.chunk(5, dim=1)
    c1 = (0.01 * data_range) ** 2
    c2 = (0.03 * data_range) ** 2
    top = (2 * ma * mb + c1) * (2 * (ab - ma * mb) + c2)
    return (top / ((ma**2 + mb**2 + c1) * (aa - ma**2 + bb - mb**2 + c2))).mean()


def radial_spectrum(image: Tensor, bins: int = 32) -> tuple[Tensor, Tensor]:
    """Return spectral power by spatial frequency (cycles per pixel, up to 0.5), over all channels.

    >>> f, power = radial_spectrum(torch.rand(3, 32, 32), bins=8)
    >>> f.shape, power.shape
    (torch.Size([8]), torch.Size([8]))
    """
    h, w = image.shape[-2:]
    if bins < 1 or bins > min(h, w) // 2:
        raise InputError(f"bins must be between 1 and {min(h, w) // 2} for {h}x{w}, got {bins}")
    power = torch.fft.fft2(image.double(), norm="ortho").abs().square()
    power = power.reshape(-1, h, w).mean(0).flatten()
    fy = torch.fft.fftfreq(h)
    fx = torch.fft.fftfreq(w)
    radius = torch.hypot(fy[:, None], fx[None, :]).flatten().to(image.device)
    ring = (radius * 2 * bins).long().clamp_max(bins)  # the corners beyond 0.5 fall into the last
    total = power.new_zeros(bins + 1).index_add_(0, ring, power)
    count = power.new_zeros(bins + 1).index_add_(0, ring, torch.ones_like(power))
    centres = (torch.arange(bins) + 0.5) / (2 * bins)
    return centres, (total / count.clamp_min(1))[:bins].to(image.dtype)


def bands(image: Tensor, reference: Tensor) -> tuple[float, float]:
    """Return how much of the reference's low and high frequencies the image has: 1 is all.

    Split at half of the highest frequency; the mean is left out. Whatever the image has beside the
    reference, such as noise of its own, does not count.

    >>> x = torch.rand(3, 32, 32)
    >>> [round(share, 6) for share in bands(x / 2, x)]
    [0.5, 0.5]
    """
    _check_pair(image, reference)
    theirs = torch.fft.fft2(reference.double())
    common = (torch.fft.fft2(image.double()) * theirs.conj()).real
    power = theirs.abs().square()
    fy, fx = (torch.fft.fftfreq(side, device=image.device) for side in image.shape[-2:])
    radius = torch.hypot(fy[:, None], fx)
    halves = ((radius > 0) & (radius < 0.25), radius >= 0.25)
    low, high = (float(common[..., half].sum() / power[..., half].sum()) for half in halves)
    return low, high


def noise_psnr(sigma: float) -> float:
    """Return the PSNR of white noise of this standard deviation, before any clipping.

    >>> round(noise_psnr(25 / 255), 2)
    20.17
    """
    if not sigma > 0:
        raise InputError(f"sigma is a standard deviation and must be above 0, got {sigma!r}")
    return -20 * math.log10(sigma)


def _check_pair(image: Tensor, reference: Tensor) -> None:
    for picture in (image, reference):
        if not isinstance(picture, Tensor) or not picture.is_floating_point():
            kind = picture.dtype if isinstance(picture, Tensor) else type(picture).__name__
            raise InputError(f"a picture must be a floating-point tensor [C, H, W], got {kind}")
    if image.shape[-3:] != reference.shape[-3:]:
        raise InputError(
            f"the two pictures differ in shape: {tuple(image.shape)} and {tuple(reference.shape)}; "
            "crop or resize one of them"
        )

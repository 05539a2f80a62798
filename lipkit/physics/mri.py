"""Magnetic resonance imaging with several receiver coils, on a Cartesian grid.

A complex picture is two channels, real and imaginary part: [2, H, W] or [N, 2, H, W]. K-space is
a complex tensor [coils, H, W], its lowest frequency in the middle.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from ..errors import Error, InputError, check_choice, check_whole, is_number, is_whole
from .base import Operator, moved
from .noise import ComplexGaussian

PATTERNS = ("equispaced", "random", "poisson")
_CALIBRATION = 0.32  # of all samples: 8 % of k-space at 4x and 4 % at 8x, as in fastMRI


class MRI(Operator):
    """y_c = M F (S_c x): coil sensitivity, centred orthonormal Fourier transform, sampling.

    Args:
        maps: complex sensitivities [coils, H, W], scaled here so that the sum of `|S_c|^2` is 1
            wherever they are not all zero. That place is `op.support` [1, H, W]; elsewhere nothing
            can be known.
        sampling: 1 where k-space is measured and 0 elsewhere, [H, W] or [W] for whole lines;
            `sampling_mask` makes one.
        sigma: standard deviation of the noise that `measure` adds to the real and to the
            imaginary part of each sample, and so of the noise in each channel of the picture.

    >>> op = MRI(torch.ones(4, 16, 16), sampling_mask((16, 16), acceleration=4), sigma=0.01)
    >>> op.measure(torch.rand(2, 16, 16)).shape
    torch.Size([4, 16, 16])
    """

    def __init__(
        self, maps: Tensor | np.ndarray, sampling: Tensor | np.ndarray, sigma: float = 0.0
    ) -> None:
        self.maps = _checked_maps(maps)
        self.sampling = _checked_sampling(sampling, tuple(self.maps.shape[-2:]))
        self.support = self.maps.abs().sum(0, keepdim=True).gt(0).float().cpu()  # [1, H, W]
        self.noise = ComplexGaussian(sigma) if sigma else None

    def A(self, x: Tensor) -> Tensor:
        if x.ndim not in (3, 4) or x.shape[-3] != 2 or x.shape[-2:] != self.maps.shape[-2:]:
            want = (2, *self.maps.shape[-2:])
            raise InputError(
                f"the coil maps are for complex pictures {want} (real and imaginary part), "
                f"got {tuple(x.shape)}"
            )
        maps, sampling = self._like(x)
        return fft(maps * to_complex(x)) * sampling

    def A_adjoint(self, y: Tensor) -> Tensor:
        if y.shape[-3:] != self.maps.shape or not y.is_complex():
            raise InputError(
                f"the coil maps are for complex k-space {tuple(self.maps.shape)}, "
                f"got {y.dtype} {tuple(y.shape)}"
            )
        maps, sampling = self._like(y.real)
        return to_channels((ifft(y * sampling) * maps.conj()).sum(-3, keepdim=True))

    def measure(self, x: Tensor, seed: int = 0) -> Tensor:
        y = super().measure(x, seed)
        return y * self._like(y.real)[1]  # no noise where nothing is measured

    __call__ = measure

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps and sampling on the device and in the precision of `x`; moved only once."""
        self.maps = moved(self.maps, x.device, x.dtype.to_complex())
        self.sampling = moved(self.sampling, x.device, x.dtype)
        return self.maps, self.sampling


def sampling_mask(
    shape: tuple[int, int],
    acceleration: float = 4,
    pattern: str = "random",
    calibration: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Choose which samples of k-space [H, W] are measured: 1 / acceleration, with a full centre.

    Args:
        pattern: "equispaced" or "random" lines (columns), or "poisson" for single samples in a
            Poisson disc (needs sigpy).
        calibration: width of the fully measured centre; by default it takes a third of the samples.

    >>> mask = sampling_mask((64, 64), acceleration=4)
    >>> float(mask.mean()), float(mask[:, 30:35].mean())
    (0.25, 1.0)
    """
    check_choice("pattern", pattern, PATTERNS)
    if not is_number(acceleration) or acceleration < 1:
        raise InputError(f"acceleration must be a number of at least 1, got {acceleration!r}")
    if len(shape) != 2 or not all(is_whole(s, least=8) for s in shape):
        raise InputError(f"shape must be (height, width), each at least 8, got {shape!r}")
    if calibration is not None:
        check_whole("calibration", calibration)
    if acceleration == 1:
        return torch.ones(shape)
    if pattern == "poisson":
        return _poisson_disc(shape, acceleration, calibration, seed)
    return _lines(shape[1], acceleration, pattern, calibration, seed).expand(shape).contiguous()


def to_complex(x: Tensor) -> Tensor:
    """Turn channels [..., 2, H, W] into a complex picture [..., 1, H, W].

    >>> to_complex(torch.ones(2, 8, 8))[0, 0, 0]
    tensor(1.+1.j)
    """
    return torch.complex(x[..., 0:1, :, :], x[..., 1:2, :, :])


def to_channels(z: Tensor) -> Tensor:
    """Turn a complex picture [..., 1, H, W] into channels [..., 2, H, W].

    >>> to_channels(torch.ones(1, 8, 8, dtype=torch.complex64)).shape
    torch.Size([2, 8, 8])
    """
    return torch.cat([z.real, z.imag], dim=-3)


def fft(z: Tensor) -> Tensor:
    """Apply the centred orthonormal Fourier transform to the last two dimensions.

    >>> float(fft(torch.ones(4, 4)).abs()[2, 2])
    4.0
    """
    z = torch.fft.ifftshift(z, dim=(-2, -1))
    return torch.fft.fftshift(torch.fft.fft2(z, norm="ortho"), dim=(-2, -1))


def ifft(z: Tensor) -> Tensor:
    """Apply the inverse of `fft`.

    >>> z = torch.rand(5, 4)
    >>> torch.allclose(ifft(fft(z)).real, z, atol=1e-6)
    True
    """
    z = torch.fft.ifftshift(z, dim=(-2, -1))
    return torch.fft.fftshift(torch.fft.ifft2(z, norm="ortho"), dim=(-2, -1))


def needed(module: str) -> ModuleType:
    """Load a module that only MRI needs, or say in a sentence how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Error(
            f"{error.name} is not installed, and this needs it; it comes with lipkit's MRI extra: "
            "pip install 'lipkit[mri]'"
        ) from None


def _checked_maps(maps: Tensor | np.ndarray) -> Tensor:
    known = isinstance(maps, (Tensor, np.ndarray))
    if not known or maps.ndim != 3 or 0 in maps.shape:
        got = f"shape {tuple(maps.shape)}" if known else f"a {type(maps).__name__}"
        raise InputError(f"coil maps are a complex tensor [coils, H, W], got {got}")
    maps = torch.as_tensor(maps)
    maps = maps.to(torch.complex128 if maps.dtype.itemsize > 8 else torch.complex64)
    total = maps.abs().square().sum(0).sqrt()
    if not bool(torch.isfinite(total).all()) or not bool(total.any()):
        raise InputError("the coil maps must be finite and not all zero")
    return maps / torch.where(total > 0, total, 1)


def _checked_sampling(sampling: Tensor | np.ndarray, size: tuple[int, int]) -> Tensor:
    known = isinstance(sampling, (Tensor, np.ndarray))
    if not known or tuple(sampling.shape) not in (size, size[1:]):
        got = f"shape {tuple(sampling.shape)}" if known else f"a {type(sampling).__name__}"
        raise InputError(
            f"the sampling must be of the coil maps' size {size}, or {size[1:]} for whole lines, "
            f"got {got}"
        )
    sampling = torch.as_tensor(sampling)
    if sampling.is_complex() or not bool(((sampling == 0) | (sampling == 1)).all()):
        raise InputError("the sampling holds only 0 (not measured) and 1 (measured)")
    if not bool(sampling.any()):
        raise InputError("the sampling measures nothing: it is 0 everywhere")
    return sampling.float().expand(size).contiguous()


def _lines(
    width: int, acceleration: float, pattern: str, calibration: int | None, seed: int
) -> Tensor:
    """Choose exactly width / acceleration lines: those of the centre, the rest spread out."""
    count = round(width / acceleration)
    if count < 1:
        raise InputError(f"an acceleration of {acceleration:g} leaves none of {width} lines")
    centre = max(1, round(_CALIBRATION * count)) if calibration is None else calibration
    if centre > count:
        raise InputError(
            f"{centre} calibration lines are more than the {count} of {width} that an "
            f"acceleration of {acceleration:g} leaves; ask for fewer"
        )
    start = width // 2 - centre // 2
    others = torch.cat([torch.arange(start), torch.arange(start + centre, width)])
    rest = count - centre
    generator = torch.Generator().manual_seed(seed)
    if pattern == "random":
        picked = torch.randperm(len(others), generator=generator)[:rest]
    else:  # evenly, from a random first line
        step = len(others) / max(rest, 1)
        first = torch.rand((), generator=generator) * step
        picked = (first + step * torch.arange(rest)).long().clamp_max(len(others) - 1)
    line = torch.zeros(width)
    line[start : start + centre] = 1
    line[others[picked]] = 1
    return line


def _poisson_disc(
    shape: tuple[int, int], acceleration: float, calibration: int | None, seed: int
) -> Tensor:
    poisson = needed("sigpy.mri").poisson
    if calibration is None:
        calibration = round((_CALIBRATION / acceleration * shape[0] * shape[1]) ** 0.5)
    for attempt in range(8):  # from some seeds its search does not get going
        try:
            mask = poisson(
                shape, acceleration, (calibration,) * 2, np.float32,
                seed=seed + 10_007 * attempt, tol=0.02 * acceleration,
            )  # fmt: skip
        except ValueError:
            continue
        return torch.from_numpy(mask)
    raise InputError(
        f"no Poisson disc of {shape[0]}x{shape[1]} has acceleration {acceleration:g} with a "
        f"centre of {calibration}; try a smaller calibration or another acceleration"
    )

"""Operators on ordinary pictures: noise, missing pixels, fewer pixels."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, is_number, is_whole
from .base import Operator, checked_shape, moved
from .noise import Gaussian, Noise


class Denoise(Operator):
    """The picture itself plus noise.

    >>> import lipkit as lk
    >>> Denoise(sigma=25 / 255).measure(torch.zeros(3, 8, 8), seed=0).shape
    torch.Size([3, 8, 8])
    >>> noisy = Denoise(noise=lk.physics.Poisson(peak=30)).measure(torch.rand(3, 8, 8))
    """

    def __init__(self, sigma: float = 25 / 255, noise: Noise | None = None) -> None:
        self.noise = Gaussian(sigma) if noise is None else noise

    def A(self, x: Tensor) -> Tensor:
        return x

    def A_adjoint(self, y: Tensor) -> Tensor:
        return y


class Inpaint(Operator):
    """Pixels where `mask` is 0 are lost (set to 0), the others are kept.

    The mask is [H, W] or [1, H, W] for all channels, or [C, H, W] for each its own.

    >>> op = Inpaint.random((3, 8, 8), density=0.5, seed=0)
    >>> op.A(torch.ones(3, 8, 8)).mean() < 1
    tensor(True)
    """

    def __init__(self, mask: Tensor | np.ndarray, noise: Noise | None = None) -> None:
        known = isinstance(mask, (Tensor, np.ndarray))
        if not known or mask.ndim not in (2, 3) or 0 in mask.shape:
            got = f"shape {tuple(mask.shape)}" if known else f"a {type(mask).__name__}"
            raise InputError(f"an inpainting mask is a tensor [H, W] or [C, H, W], got {got}")
        mask = torch.as_tensor(mask)
        if mask.is_complex() or not bool(((mask == 0) | (mask == 1)).all()):
            raise InputError(
                "an inpainting mask holds only 0 (lost) and 1 (kept); "
                "lipkit.data.mask reads and thresholds one from a picture"
            )
        self.mask = mask.float() if mask.ndim == 3 else mask.float()[None]
        self.noise = noise

    @classmethod
    def random(
        cls,
        shape: tuple[int, int, int],
        density: float = 0.5,
        per_channel: bool = False,
        seed: int = 0,
        noise: Noise | None = None,
    ) -> Inpaint:
        """Keep each pixel, or with `per_channel` each value, with probability `density`.

        >>> Inpaint.random((3, 8, 8), density=0.5, per_channel=True).mask.shape
        torch.Size([3, 8, 8])
        """
        if not is_number(density) or not 0 < density < 1:
            raise InputError(
                f"density is the fraction of pixels kept, between 0 and 1, got {density!r}"
            )
        channels, height, width = checked_shape(shape)
        generator = torch.Generator().manual_seed(seed)
        shape = (channels if per_channel else 1, height, width)
        return cls(torch.rand(shape, generator=generator) < density, noise)

    def A(self, x: Tensor) -> Tensor:
        mask = self.mask
        if mask.shape[-2:] != x.shape[-2:] or mask.shape[0] not in (1, x.shape[-3]):
            raise InputError(
                f"the inpainting mask is {tuple(mask.shape)}, the picture {tuple(x.shape[-3:])}; "
                "they must agree in height and width, and in channels unless the mask has one"
            )
        self.mask = moved(mask, x.device, x.dtype)  # once, not at every step
        return x * self.mask

    A_adjoint = A


class SuperResolution(Operator):
    """Lanczos downsampling by 2, 4 or 8, exactly as the published deep image prior does it.

    `source="pil"` measures with Pillow's antialiased Lanczos-3, as the papers made their data:
    the data then do not quite fit the model, and the noise-free fit has a floor.

    >>> SuperResolution(4).A(torch.rand(3, 64, 48)).shape
    torch.Size([3, 16, 12])
    """

    def __init__(
        self,
        factor: int,
        kernel: str = "lanczos2",
        source: str = "operator",
        noise: Noise | None = None,
    ) -> None:
        if not is_whole(factor) or factor not in (2, 4, 8):
            raise InputError(f"factor must be 2, 4 or 8, got {factor!r}")
        if kernel not in ("lanczos2", "lanczos3"):
            raise InputError(f"kernel must be lanczos2 or lanczos3, got {kernel!r}")
        if source not in ("operator", "pil"):
            raise InputError(f"source must be operator or pil, got {source!r}")
        self.factor = factor
        self.kernel = kernel
        self.source = source
        self.noise = noise

    def A(self, x: Tensor) -> Tensor:
        height, width = self._checked_sides(x)
        return self._rows(height, x) @ x @ self._rows(width, x).mT

    def A_adjoint(self, y: Tensor) -> Tensor:
        height, width = (self.factor * s for s in y.shape[-2:])
        return self._rows(height, y).mT @ y @ self._rows(width, y)

    def _clean(self, x: Tensor) -> Tensor:
        self._checked_sides(x)
        return self.A(x) if self.source == "operator" else _pil_reduce(x, self.factor)

    def _checked_sides(self, x: Tensor) -> tuple[int, int]:
        height, width = x.shape[-2:]
        if height % self.factor or width % self.factor:
            raise InputError(
                f"a picture of {height}x{width} cannot be reduced by {self.factor}; "
                f"crop its sides to multiples of {self.factor}"
            )
        return height, width

    def _rows(self, side: int, like: Tensor) -> Tensor:
        return reduction_matrix(side, self.factor, int(self.kernel[-1]), like.dtype, like.device)


@functools.lru_cache(maxsize=16)
def reduction_matrix(
    side: int, factor: int, lobes: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the one-dimensional downsampling as a matrix [side / factor, side].

    The two-dimensional kernel is a product of two of these, and a matrix gives the adjoint with
    the replicated border for free.
    """
    taps = lanczos_taps(factor, lobes)
    reach = (len(taps) - factor) // 2
    matrix = np.zeros((side // factor, side))
    for row in range(side // factor):
        columns = np.clip(row * factor - reach + np.arange(len(taps)), 0, side - 1)
        np.add.at(matrix[row], columns, taps)  # repeated columns are the replicated border
    with torch.inference_mode(False):  # it is kept, and a later call may need gradients
        return torch.tensor(matrix, dtype=dtype, device=device)


def lanczos_taps(factor: int, lobes: int = 2) -> np.ndarray:
    """Return the normalized half-pixel Lanczos kernel: `2 * lobes * factor` values.

    >>> lanczos_taps(4).round(5)[:8].tolist()
    [-0.00107, -0.00975, -0.02038, -0.01488, 0.02459, 0.09866, 0.18312, 0.23971]
    """
    length = 2 * lobes * factor
    t = (np.arange(length) + 0.5 - length / 2) / factor
    taps = np.sinc(t) * np.sinc(t / lobes)
    return taps / taps.sum()


def _pil_reduce(x: Tensor, factor: int) -> Tensor:
    from PIL import Image  # late: loading it takes its time

    height, width = (s // factor for s in x.shape[-2:])
    planes = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS))
        for plane in x.reshape(-1, *x.shape[-2:]).float().cpu().numpy()
    ]
    return torch.from_numpy(np.stack(planes)).reshape(*x.shape[:-2], height, width).to(x)

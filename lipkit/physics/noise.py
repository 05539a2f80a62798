"""Noise of a measurement: frozen values, called with a clean one and a generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError, is_number


@dataclass(frozen=True)
class Gaussian:
    """White noise of standard deviation `sigma` on the [0, 1] scale, clipped to it by default.

    >>> Gaussian(0.1)(torch.zeros(1, 2, 2), torch.Generator().manual_seed(0)).shape
    torch.Size([1, 2, 2])
    """

    sigma: float
    clip: bool = True

    def __post_init__(self) -> None:
        if not is_number(self.sigma) or self.sigma < 0:
            raise InputError(
                f"sigma is a standard deviation on the [0, 1] scale (25/255 is usual) and must be "
                f"at least 0, got {self.sigma!r}"
            )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        noisy = x + self.sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return noisy.clamp(0, 1) if self.clip else noisy


@dataclass(frozen=True)
class ComplexGaussian:
    """White noise of standard deviation `sigma` in the real and in the imaginary part.

    >>> y = torch.zeros(1, 2, 2, dtype=torch.complex64)
    >>> ComplexGaussian(0.1)(y, torch.Generator().manual_seed(0)).shape
    torch.Size([1, 2, 2])
    """

    sigma: float

    def __post_init__(self) -> None:
        if not is_number(self.sigma, least=0):
            raise InputError(
                f"sigma is a standard deviation and must be at least 0, got {self.sigma!r}"
            )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(*x.shape, 2, generator=generator, dtype=x.real.dtype)
        return x + self.sigma * torch.view_as_complex(noise)


@dataclass(frozen=True)
class Poisson:
    """Photon noise: counts of mean `peak` at full white, scaled back to [0, 1].

    >>> Poisson(peak=30)(torch.full((1, 2, 2), 0.5), torch.Generator().manual_seed(0)).shape
    torch.Size([1, 2, 2])
    """

    peak: float
    clip: bool = True

    def __post_init__(self) -> None:
        if not is_number(self.peak) or self.peak <= 0:
            raise InputError(f"peak is a photon count and must be above 0, got {self.peak!r}")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        noisy = torch.poisson(x.clamp_min(0) * self.peak, generator=generator) / self.peak
        return noisy.clamp(0, 1) if self.clip else noisy


@dataclass(frozen=True)
class SaltAndPepper:
    """A fraction `amount` of the pixels turned black or white, all channels of a pixel together.

    >>> SaltAndPepper(1.0)(torch.full((3, 2, 2), 0.5), torch.Generator().manual_seed(0)).unique()
    tensor([0., 1.])
    """

    amount: float

    def __post_init__(self) -> None:
        if not is_number(self.amount) or not 0 <= self.amount <= 1:
            raise InputError(f"amount is a fraction of the pixels, 0 to 1, got {self.amount!r}")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        hit = torch.rand(x.shape[-2:], generator=generator) < self.amount
        white = torch.rand(x.shape[-2:], generator=generator) < 0.5
        return torch.where(hit, white.to(x.dtype), x)


Noise = Gaussian | ComplexGaussian | Poisson | SaltAndPepper

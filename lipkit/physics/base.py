"""What every forward operator has: `A`, its adjoint, and a noisy measurement."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..errors import InputError, is_whole
from .noise import Noise
from .perturb import perturbed


class Operator(ABC):
    """A linear operator with optional noise; subclasses give `A` and `A_adjoint`."""

    noise: Noise | None = None

    @abstractmethod
    def A(self, x: Tensor) -> Tensor:
        """Return the clean measurement of a picture."""

    @abstractmethod
    def A_adjoint(self, y: Tensor) -> Tensor:
        """Apply the adjoint: <A(x), y> = <x, A_adjoint(y)>."""

    def measure(self, x: Tensor, seed: int = 0) -> Tensor:
        """Return a noisy measurement; the same seed gives the same noise on every device."""
        if not isinstance(x, Tensor) or not (x.is_floating_point() or x.is_complex()):
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"the picture to measure must be a floating-point tensor in [0, 1], got {kind}; "
                "lipkit.data.image makes one from a file or an array"
            )
        y = self._clean(x)
        if self.noise is not None:
            generator = torch.Generator().manual_seed(seed)
            y = self.noise(y.cpu(), generator).to(y)
        return perturbed(y)

    def _clean(self, x: Tensor) -> Tensor:
        return self.A(x)

    __call__ = measure


def moved(kept: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Move what an operator keeps to where a picture is; it may be kept there.

    >>> moved(torch.ones(2), torch.device("cpu"), torch.float64).dtype
    torch.float64
    """
    if kept.device == device and kept.dtype == dtype:
        return kept
    with torch.inference_mode(False):  # a later call may need gradients
        return kept.to(device, dtype)


def checked_shape(shape: tuple[int, int, int]) -> torch.Size:
    """Return the shape of a picture, or refuse it.

    >>> checked_shape((3, 8, 8))
    torch.Size([3, 8, 8])
    """
    if len(shape) != 3 or not all(is_whole(side, least=1) for side in shape):
        raise InputError(f"shape must be (channels, height, width), got {shape!r}")
    return torch.Size(shape)

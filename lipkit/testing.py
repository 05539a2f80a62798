"""Checks for operators of your own, and tiny things to test with."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import Error
from .prior import Prior


def check_linear(op, shape: tuple[int, ...], seed: int = 0, tolerance: float = 1e-9) -> None:
    """Raise unless A(ax + by) = aA(x) + bA(y), in float64.

    >>> import lipkit as lk
    >>> check_linear(lk.physics.SuperResolution(2), (3, 16, 16))
    """
    x, y = _pictures(shape, seed)
    a = 0.7
    b = -1.3
    want = a * op.A(x) + b * op.A(y)
    error = _relative(op.A(a * x + b * y) - want, want)
    if not error <= tolerance:
        raise Error(
            f"{type(op).__name__}.A is not linear: A(ax + by) and aA(x) + bA(y) differ by "
            f"{error:.2g} (relative), allowed {tolerance:.2g}"
        )


def check_adjoint(op, shape: tuple[int, ...], seed: int = 0, tolerance: float = 1e-9) -> None:
    """Raise unless <A(x), y> = <x, A_adjoint(y)>, in float64; of complex data the real part.

    >>> import lipkit as lk
    >>> check_adjoint(lk.physics.Denoise(0.1), (3, 16, 16))
    """
    x, _ = _pictures(shape, seed)
    measured = op.A(x)
    y = torch.randn(
        measured.shape, dtype=measured.dtype, generator=torch.Generator().manual_seed(seed + 1)
    )
    back = op.A_adjoint(y)
    if back.shape != x.shape:
        raise Error(
            f"{type(op).__name__}.A_adjoint returns shape {tuple(back.shape)} "
            f"for pictures of {tuple(x.shape)}"
        )
    left = torch.vdot(y.flatten(), measured.flatten()).real
    right = torch.vdot(back.flatten(), x.flatten()).real
    scale = float(measured.norm() * y.norm()) or 1.0
    error = float((left - right).abs()) / scale
    if not error <= tolerance:
        raise Error(
            f"{type(op).__name__}.A_adjoint is not the adjoint of A: <A(x), y> and "
            f"<x, A_adjoint(y)> differ by {error:.2g} (relative), allowed {tolerance:.2g}"
        )


def tiny_prior(size: tuple[int, int] = (16, 16), seed: int = 0, channels: int = 3) -> Prior:
    """Make a prior with an hourglass of two levels, which takes milliseconds a step.

    >>> tiny_prior()().shape
    torch.Size([1, 3, 16, 16])
    """
    small = dict(levels=2, down=8, up=8, skip=2, in_channels=4)
    return Prior("dip", size, seed, **small, out_channels=channels)


def tiny_image(size: tuple[int, int] = (16, 16), channels: int = 3) -> Tensor:
    """Draw a smooth picture with an edge.

    >>> tiny_image().shape
    torch.Size([3, 16, 16])
    """
    y, x = torch.meshgrid(*(torch.linspace(0, 1, s) for s in size), indexing="ij")
    planes = [0.5 + 0.4 * torch.sin(3 * x + c) * torch.cos(2 * y - c) for c in range(channels)]
    return torch.stack([torch.where(x + y > 1, p, 1 - p) for p in planes])


def _pictures(shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, *shape, dtype=torch.float64, generator=generator))


def _relative(difference: Tensor, scale: Tensor) -> float:
    return float(difference.norm() / scale.norm().clamp_min(1e-300))

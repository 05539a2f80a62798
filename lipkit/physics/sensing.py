"""Compressed sensing: a few random sums of all pixel values, some of them corrupted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError, is_number, is_whole
from .base import Operator, checked_shape, moved
from .noise import Gaussian


@dataclass(frozen=True)
class StudentT2:
    """Noise of scale `sigma` with tails so heavy (two degrees of freedom) that it has no variance.

    >>> StudentT2(0.1)(torch.zeros(4), torch.Generator().manual_seed(0)).shape
    torch.Size([4])
    """

    sigma: float

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x + self.sigma * _student(x.shape, 2, generator).to(x)


class CompressedSensing(Operator):
    """`m` numbers for a picture of `shape`; the last `corrupted` of them tell nothing about it.

    `corruption="ones"` is the experiment of the sparse GAN prior: normal rows scaled by the number
    of clean ones, normal noise, and rows of ones that answer 10,000 whatever the picture.
    `corruption="heavy"` is that of robust compressed sensing: rows and noise with heavy tails, and
    constant rows that answer 1. Both were stated for pictures with values from -1 to 1; ours go
    from 0 to 1, so every residual, `sigma` and the answers included, is half of the published one.

    The matrix (786 MB at 1000 x 196,608) exists once: nothing here or in `lipkit.gan` copies it.

    >>> op = CompressedSensing((3, 8, 8), m=50, corrupted=5)
    >>> y = op.measure(torch.rand(3, 8, 8))
    >>> y.shape, y[-1]
    (torch.Size([50]), tensor(5096.))
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        m: int = 1000,
        corrupted: int = 20,
        seed: int = 0,
        corruption: str = "ones",
        sigma: float = 0.005,
    ) -> None:
        self.shape = checked_shape(shape)
        if not is_whole(m, least=1) or not is_whole(corrupted) or corrupted >= m:
            raise InputError(
                "m and corrupted are whole numbers of measurements, corrupted the smaller one; "
                f"got m={m!r}, corrupted={corrupted!r}"
            )
        if corruption not in ("ones", "heavy"):
            raise InputError(f"corruption must be ones or heavy, got {corruption!r}")
        if not is_number(sigma, least=0):
            raise InputError(f"sigma is a standard deviation of at least 0, got {sigma!r}")
        self.m = m
        self.corrupted = corrupted
        self.corruption = corruption
        heavy = corruption == "heavy"
        self.noise = StudentT2(sigma) if heavy else Gaussian(sigma, clip=False)
        values = self.shape.numel()
        clean = m - corrupted
        self._constant = corrupted**-0.5 if heavy and corrupted else 1.0
        self.answer = ((1 if heavy else 10_000) + self._constant * values) / 2
        generator = torch.Generator().manual_seed(seed)
        self.matrix = torch.empty(m, values)
        if heavy:
            for row in self.matrix[:clean]:  # one at a time: what it takes is no second matrix
                row.copy_(_student((values,), 4, generator)).mul_(values**-0.5)
        else:
            self.matrix[:clean].normal_(generator=generator).mul_(clean**-0.5)
        self.matrix[clean:] = self._constant

    def A(self, x: Tensor) -> Tensor:
        if x.shape[-3:] != self.shape:
            raise InputError(
                f"the operator measures pictures {tuple(self.shape)}, got {tuple(x.shape)}; "
                "build it for the shape of the picture"
            )
        return F.linear(x.flatten(-3), self._matrix_like(x))

    def A_adjoint(self, y: Tensor) -> Tensor:
        return (y @ self._matrix_like(y)).unflatten(-1, self.shape)

    def measure(self, x: Tensor, seed: int = 0) -> Tensor:
        """Return noisy sums, then the answers of the corrupted rows; one picture or a batch."""
        y = super().measure(x, seed)
        y[..., self.m - self.corrupted :] = self.answer
        return y

    def _matrix_like(self, x: Tensor) -> Tensor:
        self.matrix = moved(self.matrix, x.device, x.dtype)  # there are never two of it
        return self.matrix


def _student(shape: tuple[int, ...], freedom: int, generator: torch.Generator) -> Tensor:
    """Draw Student's t of an even number of degrees: chi-square is a sum of logarithms."""
    normal = torch.randn(shape, generator=generator)
    chi = torch.zeros(shape)
    for _ in range(freedom // 2):
        chi -= 2 * (1 - torch.rand(shape, generator=generator)).log()
    return normal / (chi / freedom).sqrt()

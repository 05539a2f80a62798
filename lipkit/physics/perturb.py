"""Imitate the rounding of another machine: noise on what is measured, if the environment asks.

Another processor, or another number of threads, rounds otherwise. A network that is trained for
long amplifies that, and ends elsewhere. With LIPKIT_PERTURB=K in the environment what an operator
measures is off by noise about eight times as large as one rounding, so that this machine shows what
others would. `lipkit.book.machines` adds the rest: variables that change the last bits of
convolutions, and the threads.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ..errors import InputError

VARIABLE = "LIPKIT_PERTURB"
NOISE = 1e-6  # standard deviation in single precision; in double it is as many roundings
MOST = 999_999
_SEEDS = 7_000_000  # far from the seeds of priors and measurements, whose draws differ then


def number() -> int | None:
    """Return the K of LIPKIT_PERTURB, or None where the measurements are left alone.

    >>> number() is None or number() >= 1
    True
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST):
        raise InputError(
            f"the environment variable {VARIABLE} must be a whole number from 1 to {MOST:,}, "
            f"got {text!r}; unset it to compute without noise"
        )
    return int(text)


def perturbed(y: Tensor) -> Tensor:
    """Return a measurement as another machine would have it; itself, if nobody asked for that.

    The noise depends on K and on the place in the tensor alone: equal measurements stay equal.

    >>> y = torch.zeros(3)
    >>> torch.equal(perturbed(y), perturbed(y)), bool(perturbed(y).abs().max() < 1e-5)
    (True, True)
    """
    k = number()
    if k is None:
        return y
    parts = torch.view_as_real(y.resolve_conj()) if y.is_complex() else y
    generator = torch.Generator().manual_seed(_SEEDS + k)
    noise = torch.randn(parts.shape, generator=generator, dtype=torch.float64)
    roundings = NOISE / torch.finfo(torch.float32).eps
    size = roundings * min(torch.finfo(parts.dtype).eps, torch.finfo(torch.float32).eps)
    moved = (parts + (size * noise).to(parts)).detach()
    return torch.view_as_complex(moved) if y.is_complex() else moved

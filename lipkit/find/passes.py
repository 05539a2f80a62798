"""What a mask search does with all logits at every step, in PyTorch, on any device.

Where there is a compiler for the processor `best_for` gives `lipkit.engine._passes` instead, which
has the same functions and does the same in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

from .relaxed import kl_slope, relax_

CHUNK = 2**16  # numbers that stay in the cache from one line to the next


def best_for(theta: Tensor) -> ModuleType:
    """The module to take the passes from, for vectors like this one."""
    import sys

    if theta.device.type == "cpu" and theta.dtype == torch.float32:
        try:
            from ..engine import _passes
        except ImportError:  # no numba, or one at odds with the other libraries
            pass
        else:
            return _passes
    return sys.modules[__name__]


def relax_masks(
    mask: Tensor, logits: Tensor, temperature: float, theta: Tensor, weight: Tensor
) -> None:
    """Turn the noise in `mask` into a relaxed mask, and make the weight theta * mask.

    >>> mask, weight = torch.zeros(2), torch.empty(2)
    >>> relax_masks(mask, torch.tensor([0.0, 2.0]), 0.2, torch.tensor([1.0, 3.0]), weight)
    >>> mask, weight
    (tensor([0.5000, 1.0000]), tensor([0.5000, 2.9999]))
    """
    for m, v, t, w in chunks(mask, logits, theta, weight):
        torch.mul(t, relax_(m, v, temperature), out=w)


def collect_gradient(
    slope: Tensor, weight: Tensor, mask: Tensor, scale: float, grad: Tensor
) -> None:
    """Add the gradient of the logits to `grad`, from that of the weights, which becomes zero."""
    for s, w, m, g in chunks(slope, weight, mask, grad):
        # weight = theta * mask, mask = sigmoid((logits + noise) / temperature)
        g.addcmul_(s.mul_(w), 1 - m, value=scale)
        s.zero_()


def pull_down(logits: Tensor, p0: Tensor, lam: float | Tensor, grad: Tensor) -> Tensor:
    """Add `lam` times the gradient of the divergence to `grad`; the sum of the probabilities."""
    kept = logits.new_zeros(())
    for v, target, g in chunks(logits, p0, grad):
        p = v.sigmoid()
        slope = torch.addcmul(p, p, p, value=-1)  # dp / dv
        g.addcmul_(slope.mul_(lam), kl_slope(p, target))
        kept += p.sum()
    return kept


def chunks(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Vectors in pieces small enough for a processor's cache."""
    size = vectors[0].numel() if vectors[0].is_cuda else CHUNK
    return zip(*(v.split(size) for v in vectors), strict=True)

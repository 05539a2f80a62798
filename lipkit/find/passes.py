"""What a mask search does with all logits at every step, in PyTorch, on any device.

Where there is a compiler for the processor `best_for` gives `lipkit.engine._passes` instead, which
has the same functions and does the same in a fraction of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

from .relaxed import Key, kl_slope, logistic_noise, relax_

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam
FARTHEST = 20.0  # logits: odds beyond are as good as certain, and their products underflow
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


def draw_mask(
    logits: Tensor,
    temperature: float,
    key: Key,
    theta: Tensor,
    weight: Tensor,
    lever: Tensor,
    share: float = 1.0,
) -> None:
    """Make `weight` theta times a relaxed mask, and `lever` its derivative in the logits.

    `share` is how much this draw counts among several.

    >>> weight, lever = torch.empty(2), torch.empty(2)
    >>> draw_mask(torch.tensor([-9.0, 9.0]), 0.2, (0, 1), torch.tensor([1.0, 3.0]), weight, lever)
    >>> weight, lever
    (tensor([0., 3.]), tensor([0., 0.]))
    """
    first = 0
    for v, t, w, lv in chunks(logits, theta, weight, lever):
        mask = relax_(logistic_noise(lv, key, first), v, temperature)
        torch.mul(t, mask, out=w)
        # mask = sigmoid((logits + noise) / temperature)
        torch.mul(w, mask.neg_().add_(1), out=lv).mul_(share / temperature)
        first += v.numel()


def descend(
    logits: Tensor,
    slope: Tensor,
    lever: Tensor,
    moments: tuple[Tensor, Tensor],
    pull: tuple[Tensor, float | Tensor],
    rate: float,
    step: int,
    more: Tensor | None = None,
) -> Tensor:
    """Step number `step` of Adam, within `FARTHEST`; the sum of the probabilities before it.

    The gradient is `slope`, that of the weights, which becomes zero, times `lever`; that of the
    divergence, where `pull` is the p0 of each weight and how strongly it counts; and `more`.

    >>> logits, slope, lever = torch.zeros(2), torch.tensor([1.0, -2.0]), torch.ones(2)
    >>> moments, pull = (torch.zeros(2), torch.zeros(2)), (torch.tensor([0.1, 0.1]), 0.0)
    >>> descend(logits, slope, lever, moments, pull, rate=0.1, step=1)
    tensor(1.)
    >>> logits, slope
    (tensor([-0.1000,  0.1000]), tensor([0., 0.]))
    """
    (p0, lam), (stride, edge) = pull, adam_numbers(rate, step)
    kept = logits.new_zeros(())
    vectors = (logits, slope, lever, *moments, p0, *(() if more is None else (more,)))
    for v, g, lv, m, s, target, *rest in chunks(*vectors):
        p = v.sigmoid()
        kept += p.sum()
        g.mul_(lv)
        change = torch.addcmul(p, p, p, value=-1)  # dp / dv
        g.addcmul_(change.mul_(lam), kl_slope(p, target))
        for summand in rest:
            g.add_(summand)
        m.lerp_(g, 1 - BETAS[0])
        s.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
        v.addcdiv_(m, s.sqrt().add_(edge), value=-stride).clamp_(-FARTHEST, FARTHEST)
        g.zero_()
    return kept


def adam_numbers(rate: float, step: int) -> tuple[float, float]:
    """Adam's step is the first number times m / (sqrt(s) + the second), m and s as they are."""
    started, squares = (1 - beta**step for beta in BETAS)
    return rate * math.sqrt(squares) / started, EPSILON * math.sqrt(squares)


def chunks(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Vectors in pieces small enough for a processor's cache."""
    size = vectors[0].numel() if vectors[0].is_cuda else CHUNK
    return zip(*(v.split(size) for v in vectors), strict=True)

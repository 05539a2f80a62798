"""What a mask search does with all logits at every step, in PyTorch, on any device.

Symbols are those of the equation of the search: a weight w = theta * m of the network, where the
relaxed mask m is drawn at the temperature T from the logit v, is kept with probability p =
sigmoid(v); the divergence of p from p0 counts lam times.
`lipkit.engine.relaxed_masks` does the same in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..masks.relaxed import BETAS, FARTHEST, Key, adam_numbers, kl_slope, logistic_noise, relax_

CHUNK = 2**16  # numbers that stay in the cache from one line to the next


class Passes(NamedTuple):
    """The two passes over all logits that a step makes."""

    draw_mask: Callable[..., None]
    descend: Callable[..., Tensor | float]


def best_for(theta: Tensor) -> Passes:
    """Return the compiled passes where there are some for vectors like this one."""
    if theta.device.type == "cpu" and theta.dtype == torch.float32:
        try:
            from ..engine import relaxed_masks  # late: a compiler takes a second to load
        except ImportError:  # no numba, or one at odds with the other libraries
            pass
        else:
            return Passes(relaxed_masks.draw_mask, relaxed_masks.descend)
    return Passes(draw_mask, descend)


def draw_mask(
    v: Tensor,
    temperature: float,
    key: Key,
    theta: Tensor,
    w: Tensor,
    dw_dv: Tensor,
    fraction: float = 1.0,
) -> None:
    """Make w theta times a relaxed mask, and `dw_dv` its derivative times a `fraction`.

    The fraction is how much this draw counts among several.

    >>> w, dw_dv = torch.empty(2), torch.empty(2)
    >>> draw_mask(torch.tensor([-9.0, 9.0]), 0.2, (0, 1), torch.tensor([1.0, 3.0]), w, dw_dv)
    >>> w, dw_dv
    (tensor([0., 3.]), tensor([0., 0.]))
    """
    first = 0
    for v_, theta_, w_, dw_dv_ in chunks(v, theta, w, dw_dv):
        m = relax_(logistic_noise(dw_dv_, key, first), v_, temperature)
        torch.mul(theta_, m, out=w_)
        # m = sigmoid((v + noise) / temperature)
        torch.mul(w_, m.neg_().add_(1), out=dw_dv_).mul_(fraction / temperature)
        first += v_.numel()


def descend(
    v: Tensor,
    dloss_dw: Tensor,
    dw_dv: Tensor,
    moments: tuple[Tensor, Tensor],
    p0: Tensor,
    lam: float | Tensor,
    rate: float,
    step: int,
    more: Tensor | None = None,
) -> Tensor:
    """Take step number `step` of Adam, within `FARTHEST`; return the sum of the p before it.

    The gradient is `dloss_dw`, which becomes zero, times `dw_dv`; that of the divergence, lam
    times; and `more`.

    >>> v, dloss_dw, dw_dv = torch.zeros(2), torch.tensor([1.0, -2.0]), torch.ones(2)
    >>> moments, p0 = (torch.zeros(2), torch.zeros(2)), torch.tensor([0.1, 0.1])
    >>> descend(v, dloss_dw, dw_dv, moments, p0, lam=0.0, rate=0.1, step=1)
    tensor(1.)
    >>> v, dloss_dw
    (tensor([-0.1000,  0.1000]), tensor([0., 0.]))
    """
    rate, epsilon = adam_numbers(rate, step)
    kept = v.new_zeros(())
    vectors = (v, dloss_dw, dw_dv, *moments, p0, *(() if more is None else (more,)))
    for v_, grad, dw_dv_, first, second, p0_, *rest in chunks(*vectors):
        p = v_.sigmoid()
        kept += p.sum()
        grad.mul_(dw_dv_)
        dp_dv = torch.addcmul(p, p, p, value=-1)
        grad.addcmul_(dp_dv.mul_(lam), kl_slope(p, p0_))
        for summand in rest:
            grad.add_(summand)
        first.lerp_(grad, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
        v_.addcdiv_(first, second.sqrt().add_(epsilon), value=-rate).clamp_(-FARTHEST, FARTHEST)
        grad.zero_()
    return kept


def chunks(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut vectors in pieces small enough for a processor's cache."""
    size = vectors[0].numel() if vectors[0].is_cuda else CHUNK
    return zip(*(v.split(size) for v in vectors), strict=True)

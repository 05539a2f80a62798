"""Random masks with gradients: what a mask is drawn from, and what pulls its odds down.

A weight is kept with probability p = sigmoid(v). A relaxed draw is sigmoid((v + noise) / T) with
logistic noise: equal in law to the usual pair of Gumbel draws, since the difference of two of them
is logistic, at half the random numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import threshold_

TINY = 1e-6  # inside the logarithms of the divergence, as published
_EDGE = 2.0**-24  # the outermost uniform numbers that float32 keeps apart from 0 and 1


def logistic_noise(out: Tensor, generator: torch.Generator) -> Tensor:
    """Fill `out` with standard logistic noise.

    >>> logistic_noise(torch.empty(2), torch.Generator().manual_seed(0)).shape
    torch.Size([2])
    """
    return out.uniform_(generator=generator).logit_(eps=_EDGE)


def relax_(noise: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Turn noise into a relaxed mask, in place: nearly 0 or 1 where the temperature is low.

    >>> relax_(torch.zeros(2), torch.tensor([0.0, 2.0]), temperature=0.2)
    tensor([0.5000, 1.0000])
    """
    return threshold_(noise.add_(logits).div_(temperature).sigmoid_(), least(noise.dtype), 0.0)


def least(kind: torch.dtype) -> float:
    """A relaxed mask below is zero: another of its layer's weights would not feel the difference.

    Left as they are, tiny weights multiply to numbers too small to be normal, layer after layer,
    and a processor is many times slower on those.
    """
    return 2 * torch.finfo(kind).eps


def kl(p: Tensor, p0: Tensor | float) -> Tensor:
    """Divergence of keeping with probability p from keeping with p0, summed over the weights.

    >>> kl(torch.tensor([0.05, 0.5]), 0.05).round(decimals=3)
    tensor(0.8300)
    """
    q, q0 = 1 - p, 1 - p0
    return (p * ((p + TINY) / p0).log() + q * ((q + TINY) / q0).log()).sum()


def kl_slope(p: Tensor, p0: Tensor | float) -> Tensor:
    """The derivative of `kl` in p.

    >>> kl_slope(torch.tensor([0.05, 0.5]), 0.05).round(decimals=3)
    tensor([0.0000, 2.9440])
    """
    # log((p + TINY) / (q + TINY)) + p / (p + TINY) - q / (q + TINY) - log(p0 / (1 - p0)), in few
    # passes: with TINY as it is, the first is a logit, and the next two have one denominator
    spread = torch.addcmul(p, p, p, value=-1).add_(TINY * (1 + TINY))
    out = ((p + TINY) / (1 + 2 * TINY)).logit_()
    out.addcdiv_(p.sub(0.5), spread, value=2 * TINY)
    return out.sub_(torch.as_tensor(p0, dtype=p.dtype, device=p.device).logit())


def l1(p: Tensor, p0: Tensor | float) -> Tensor:
    """The sum of the probabilities, whatever p0.

    >>> l1(torch.tensor([0.25, 0.5]), 0.05)
    tensor(0.7500)
    """
    return p.sum()


def centred(p: Tensor, p0: Tensor | float) -> Tensor:
    """How far the expected number of kept weights is from the one wanted.

    >>> centred(torch.tensor([0.25, 0.5]), 0.5)
    tensor(0.2500)
    """
    return (p - p0).sum().abs()


PENALTIES = {"kl": kl, "l1": l1, "centred": centred, "none": None}

"""Random masks with gradients: what a mask is drawn from, and what pulls its odds down.

A weight is kept with probability p = sigmoid(v). A relaxed draw is sigmoid((v + noise) / T) with
logistic noise: equal in law to the usual pair of Gumbel draws, since the difference of two of them
is logistic, at half the random numbers.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import threshold_

TINY = 1e-6  # inside the logarithms of the divergence, as published
MIXING = (0x7FEB352D, 0x846CA68B)  # odd factors that spread a number's bits over all of them
_BITS = 2**32 - 1
BETAS = (0.9, 0.999)  # of Adam
EPSILON = 1e-8
FARTHEST = 20.0  # logits: odds beyond are as good as certain, and their products underflow

Key = tuple[int, int]  # of all noise of one draw


def key_of(seed: int, draw: int) -> Key:
    """The key of a search's draw number so and so.

    >>> key_of(0, 1) != key_of(0, 2) != key_of(1, 1)
    True
    """
    first, second = np.random.SeedSequence((seed, draw)).generate_state(2)
    return int(first), int(second)


def logistic_noise(out: Tensor, key: Key, first: int = 0) -> Tensor:
    """Fill `out` with standard logistic noise, the part from number `first` on.

    Each number follows from the key and its place alone, so that pieces can be filled in any
    order, by any number of threads and on any device, and a search needs no state to go on.

    >>> whole = logistic_noise(torch.empty(5), key_of(seed=0, draw=0))
    >>> torch.equal(whole[3:], logistic_noise(torch.empty(2), key_of(seed=0, draw=0), first=3))
    True
    """
    bits = torch.arange(first, first + out.numel(), device=out.device).view_as(out)
    for word in key:
        bits = _mixed(bits ^ word)
    # the middles of 2^23 parts of the interval: neither they nor their distances to 1 are rounded
    return out.copy_(bits >> 9).mul_(2.0**-23).add_(2.0**-24).logit_()


def _mixed(bits: Tensor) -> Tensor:
    """A permutation of the numbers of 32 bits, in which each bit depends on all."""
    bits = ((bits ^ (bits >> 16)) * MIXING[0]) & _BITS
    bits = ((bits ^ (bits >> 15)) * MIXING[1]) & _BITS
    return bits ^ (bits >> 16)


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


def adam_numbers(rate: float, step: int) -> tuple[float, float]:
    """Return the rate and the epsilon of a step of Adam that takes its two moments as they are.

    The step is the first number times m / (sqrt(s) + the second).

    >>> adam_numbers(rate=0.1, step=1)[0] == 0.1 * (1 - 0.999) ** 0.5 / (1 - 0.9)
    True
    """
    started, squares = (1 - beta**step for beta in BETAS)
    return rate * math.sqrt(squares) / started, EPSILON * math.sqrt(squares)


def kl(p: Tensor, p0: Tensor | float) -> Tensor:
    """Divergence of keeping with probability p from keeping with p0, summed over the weights.

    >>> kl(torch.tensor([0.05, 0.5]), 0.05).round(decimals=3)
    tensor(0.8300)
    """
    q = 1 - p
    q0 = 1 - p0
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

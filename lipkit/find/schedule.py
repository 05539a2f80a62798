"""How many weights every pruning leaves, which ones, and when the losses say stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from torch import nn

from ..errors import InputError, is_number
from ..masks import Mask, checked_density, count, covered

Exempt = str | Iterable[str] | Callable[[str], bool]

#: The two convolutions that see the code itself; the published code of LIP never prunes them.
FIRST_CONVS = ("skip0.conv.weight", "down0a.conv.weight")
MOST_ROUNDS = 1000  # each trains a network
TENTH = 0.1  # a last round of less than this part of a whole one is joined to the one before


def densities(rate: float = 0.2, rounds: int = 16) -> list[float]:
    """Return the density after each pruning that removes `rate` of what is left.

    >>> [round(d, 4) for d in densities(0.2, rounds=4)]
    [0.8, 0.64, 0.512, 0.4096]
    """
    rate = checked_rate(rate)
    return [(1 - rate) ** i for i in range(1, rounds + 1)]


def rounds_to(density: float, rate: float = 0.2) -> int:
    """Return how many prunings lead to a density; the last takes what remains to be taken.

    5.49 % is not quite 0.8^13: a fourteenth training for the sake of a few weights would be waste,
    so that the thirteenth pruning takes them along.

    >>> rounds_to(0.05), rounds_to(0.8), rounds_to(0.0549)
    (14, 1, 13)
    """
    whole = math.log(checked_density(density)) / math.log1p(-checked_rate(rate))
    if whole > MOST_ROUNDS:
        raise InputError(
            f"rate {rate} takes {whole:,.0f} rounds to density {density}, and {MOST_ROUNDS:,} are "
            "the most; give a higher rate"
        )
    return max(1, math.ceil(whole - TENTH))


def checked_rate(rate: float) -> float:
    """Return the rate as a float, or a clear error.

    >>> checked_rate(0.2)
    0.2
    """
    if not is_number(rate) or not 0 < rate < 1:
        raise InputError(f"rate is the fraction removed in a round, between 0 and 1, got {rate!r}")
    return float(rate)


def keep_counts(
    start: Mask, exempt: Sequence[str], density: float, rate: float, rounds: int | None
) -> list[int]:
    """Return how many weights are kept after each pruning, those of exempt layers included.

    >>> from lipkit.testing import tiny_prior
    >>> keep_counts(Mask.full(tiny_prior().net), (), density=0.5, rate=0.2, rounds=None)
    [2905, 2324, 1859, 1816]
    """
    spared = sum(layer.kept for n, layer in start.per_layer().items() if n in exempt)
    prunable = start.kept - spared
    if rounds is None:
        target = count(density, start.total) - spared
        if not 0 < target < prunable:
            raise InputError(
                f"density {density} keeps {target + spared:,} weights, but it must keep fewer than "
                f"the {start.kept:,} at the start and more than the {spared:,} that are exempt"
            )
        kept = [count(d, prunable) for d in densities(rate, rounds_to(target / prunable, rate) - 1)]
        # few weights and a low rate: a round that would remove none is left out
        kept = [k for k in dict.fromkeys(kept) if target < k < prunable] + [target]
    else:
        kept = [count(d, prunable) for d in densities(rate, rounds)]
        falling = all(a > b for a, b in zip([prunable, *kept], kept, strict=False))
        if not falling or kept[-1] == 0:
            raise InputError(
                f"{rounds} rounds at rate {rate} are too many for {prunable:,} weights: "
                "each must remove at least one and leave one; ask for fewer rounds"
            )
    return [spared + k for k in kept]


def prune(net: nn.Module, mask: Mask, kept: int, exempt: Sequence[str]) -> Mask:
    """Keep the weights of largest magnitude, `kept` of them with those of exempt layers.

    >>> from lipkit.testing import tiny_prior
    >>> net = tiny_prior().net
    >>> prune(net, Mask.full(net), kept=900, exempt=())
    Mask(900 of 3,632 weights kept, density 24.8 %, 11 layers)
    """
    weights = dict(net.named_parameters())
    prunable = Mask({n: mask[n] for n in mask.names if n not in exempt})
    spared = mask.kept - prunable.kept
    scores = {n: weights[n].detach().abs() for n in prunable.names}
    largest = Mask.top(scores, (kept - spared) / prunable.total, within=prunable)
    return Mask({n: mask[n] if n in exempt else largest[n] for n in mask.names})


def exempt_names(exempt: Exempt, net: nn.Module, scope: str) -> tuple[str, ...]:
    """Return the names that `exempt` means, in the order of the network.

    >>> from lipkit.testing import tiny_prior
    >>> exempt_names(lambda name: name.startswith("head"), tiny_prior().net, "conv")
    ('head.weight',)
    """
    names = [n for n, _ in covered(net, scope)]
    if callable(exempt):
        return tuple(n for n in names if exempt(n))
    asked = {exempt} if isinstance(exempt, str) else set(exempt)
    unknown = sorted(asked - set(names))
    if unknown:
        raise InputError(
            f"exempt names {unknown[0]!r}, which is not among the {len(names)} layers pruned "
            f"here ({', '.join(names[:3])}, ...); Mask.full(prior.net).names lists them"
        )
    return tuple(n for n in names if n in asked)


def rising_run(losses: Sequence[float], patience: int | None) -> tuple[int, int] | None:
    """Return first and last round of the run of rising losses at the end, if it is `patience` long.

    >>> rising_run([3.0, 2.0, 2.1, 2.2], patience=2), rising_run([3.0, 2.0, 2.1, 2.2], patience=3)
    ((2, 3), None)
    """
    last = len(losses) - 1
    before = last
    while before > 0 and losses[before] > losses[before - 1]:
        before -= 1
    if patience is None or last - before < patience:
        return None
    return before + 1, last

"""How a fit is computed: plainly, in a cheaper order, on a smaller network, or sparsely.

`lk.fit` chooses by itself, and `Fit.engine` says what it chose. Whatever that is, it trains the
same weights along the same path, up to rounding. The parts can be used by themselves too.

On a GPU channels are left out and pooling comes first; there is no sparse step, but the whole of
a step is launched at once, as a graph. Whether single precision means TF32 there is PyTorch's
setting, `torch.backends.cudnn.allow_tf32`, on by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..masks import Mask
from ..models import Hourglass
from ..prior import Prior
from .compact import Compact, compact
from .cost import Cost, cost
from .dense import boxed

__all__ = ("Compact", "Cost", "boxed", "compact", "cost", "sparse_network")

DENSE_FROM = 0.6  # from this part of the multiply-adds on, dense convolutions are as fast ...
NARROW = 190  # ... unless an hourglass has fewer of them for each output: torch does those slowly
EVEN = 16  # dense convolutions of so many channels, or a multiple, are the faster ones
SMALL = 4e7  # multiply-adds a step: below, a fit takes seconds either way, and is left as it is


def __getattr__(name: str):
    if name != "sparse_network":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .sparse import sparse_network  # loaded when used: `import lipkit` is to stay fast

    return sparse_network


class Engine(NamedTuple):
    """What is trained in the place of a prior's network, and how its weights come home."""

    kind: str  # "plain", "dense", "compact" or "sparse"
    about: str  # a sentence for people
    full: nn.Module
    pairs: list[tuple[nn.Parameter, Tensor]]  # parameters trained, and their masks as numbers
    half: bool  # whether the network runs in bfloat16
    ways_home: tuple[Callable[[], None], ...]

    def finish(self, prior: Prior) -> nn.Module:
        """Put the full network, with the trained weights, back into the prior."""
        for write_back in self.ways_home:
            write_back()
        prior.net = self.full
        if self.ways_home:
            _renew_statistics(prior)
        return self.full


class _Choice(NamedTuple):
    kind: str
    about: str
    net: nn.Module
    mask: Mask | None = None  # to be applied to the gradients of `net`
    ways_home: tuple[Callable[[], None], ...] = ()


def install(
    prior: Prior,
    mask: Mask | None,
    engine: str = "auto",
    precision: str = "auto",
    langevin: bool = False,
) -> Engine:
    """Put what is to be trained in the place of the prior's network, masked already.

    >>> import lipkit as lk
    >>> install(lk.testing.tiny_prior(), None).about
    'dense: the network is small'
    """
    full, half = prior.net, precision == "bf16"
    if engine == "plain":
        choice = _Choice("plain", "plain: asked for", full, mask)
    elif cost(full, prior.z, mask or Mask.full(full)).multiply_adds < SMALL:
        choice = _Choice("dense", "dense: the network is small", full, mask)
    elif langevin:
        choice = _Choice("dense", "dense: Langevin noise is for all weights", boxed(full), mask)
    elif mask is None:
        choice = _unmasked(prior, precision)
    else:
        choice = _masked(prior, mask, precision)
    prior.net = choice.net
    prior.to(memory_format=torch.channels_last)  # the faster layout, on CPU and GPU
    pairs = [] if choice.mask is None else choice.mask.pairs(choice.net)
    return Engine(choice.kind, choice.about, full, pairs, half, choice.ways_home)


def _unmasked(prior: Prior, precision: str) -> _Choice:
    """All weights, in the sparse step where the network is narrow enough."""
    reason = _why_not_sparse(prior, prior.net, Mask.full(prior.net), precision)
    if reason:
        return _Choice("dense", f"dense: {reason}", boxed(prior.net))
    from .sparse import sparse_network

    net = sparse_network(prior.net, Mask.full(prior.net))
    about = f"sparse step for all {len(net.values):,} weights: the network is narrow"
    return _Choice("sparse", about, net, None, (net.write_back,))


def _masked(prior: Prior, mask: Mask, precision: str) -> _Choice:
    """The smallest and sparsest that there is."""
    small = compact(prior.net, mask)
    if small is None:
        kind = type(prior.net).__name__
        return _Choice("dense", f"dense: a {kind} cannot be made smaller", boxed(prior.net), mask)
    reason = _why_not_sparse(prior, small.net, small.mask, precision)
    if not reason:
        from .sparse import sparse_network

        net, (kept, channels) = sparse_network(small.net, small.mask), small.channels
        about = f"sparse step for {len(net.values):,} weights on {kept} of {channels} channels"
        return _Choice("sparse", about, net, None, (net.write_back, small.write_back))
    small = compact(prior.net, mask, EVEN)
    kept, channels = small.channels
    if kept == channels:
        return _Choice("dense", f"dense: {reason}", boxed(prior.net), mask)
    about = f"dense, on {kept} of {channels} channels: {reason}"
    return _Choice("compact", about, boxed(small.net), small.mask, (small.write_back,))


def _why_not_sparse(prior: Prior, net: nn.Module, mask: Mask, precision: str) -> str:
    """Why the sparse step does not apply or does not pay; empty if it does."""
    if prior.z.device.type != "cpu" or prior.z.dtype != torch.float32:
        return "the sparse step is for single precision on a CPU"
    if precision == "bf16":
        return "in bfloat16, as asked for"
    if len(prior.z) > 1:
        return "several codes take turns"
    price = cost(net, prior.z, mask)
    narrow = isinstance(net, Hourglass) and price.kept < NARROW * price.outputs
    if price.density >= DENSE_FROM and not narrow:
        return f"{100 * price.density:.0f} % of the multiply-adds are to be done"
    from .sparse import why_not

    return why_not(net, mask)


@torch.no_grad()
def _renew_statistics(prior: Prior) -> None:
    """Set the running statistics of the norms, which a smaller network does not keep."""
    norms = [m for m in prior.net.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0
    prior()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum

"""Choose how a fit is computed, and bring the trained weights home."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..masks import Mask
from ..models import Hourglass
from . import sparse
from .cost import cost
from .dense import boxed
from .drop_channels import drop_channels

DENSE_FROM = 0.6  # from this part of the multiply-adds on, dense convolutions are as fast ...
NARROW = 190  # ... unless an hourglass has fewer of them for each output: torch does those slowly
EVEN = 16  # dense convolutions of so many channels, or a multiple, are the faster ones
SMALL = 4e7  # multiply-adds a step: below, a fit takes seconds either way, and is left as it is


@dataclass(frozen=True)
class Engine:
    """What is trained in the place of a network, and how the trained weights come home."""

    kind: str  # "plain", "dense", "compact" or "sparse"
    about: str  # a sentence for people
    net: nn.Module  # to be trained
    full: nn.Module  # the network in whose place it is
    z: Tensor
    pairs: list[tuple[nn.Parameter, Tensor]]  # parameters of `net` and their masks as numbers
    half: bool  # whether the network runs in bfloat16
    ways_home: tuple[Callable[[], None], ...]

    def finish(self) -> nn.Module:
        """Put the trained weights into the full network, and return it."""
        for write_back in self.ways_home:
            write_back()
        if self.ways_home:
            _renew_statistics(self.full, self.z)
        return self.full


@dataclass(frozen=True)
class _Choice:
    kind: str
    about: str
    net: nn.Module
    mask: Mask | None = None  # to be applied to the gradients of `net`
    ways_home: tuple[Callable[[], None], ...] = ()


def install(
    net: nn.Module,
    z: Tensor,
    mask: Mask | None,
    engine: str = "auto",
    precision: str = "auto",
    langevin: bool = False,
) -> Engine:
    """Choose what to train in the place of a network, which is masked already.

    Both share weights or get them from each other; only `Engine.finish` leaves them in `net`.

    >>> import lipkit as lk
    >>> prior = lk.testing.tiny_prior()
    >>> install(prior.net, prior.z, None).about
    'dense: the network is small'
    """
    if engine == "plain":
        choice = _Choice("plain", "plain: asked for", net, mask)
    elif not hasattr(net, "links"):
        choice = _Choice("plain", "plain: a network of your own", net, mask)
    elif cost(net, z, mask or Mask.full(net)).multiply_adds < SMALL:
        choice = _Choice("dense", "dense: the network is small", net, mask)
    elif langevin:
        choice = _Choice("dense", "dense: Langevin noise is for all weights", boxed(net), mask)
    elif mask is None:
        choice = _unmasked(net, z, precision)
    else:
        choice = _masked(net, z, mask, precision)
    choice.net.to(memory_format=torch.channels_last)  # the faster layout, on CPU and GPU
    return Engine(
        kind=choice.kind,
        about=choice.about,
        net=choice.net,
        full=net,
        z=z,
        pairs=[] if choice.mask is None else choice.mask.pairs(choice.net),
        half=precision == "bf16",
        ways_home=choice.ways_home,
    )


def _unmasked(net: nn.Module, z: Tensor, precision: str) -> _Choice:
    """Train all weights, in the sparse step where the network is narrow enough."""
    full = Mask.full(net)
    reason = why_not_sparse(net, z, full, precision)
    if reason:
        return _Choice("dense", f"dense: {reason}", boxed(net))
    trained = sparse.sparse_network(net, full)
    about = f"sparse step for all {len(trained.values):,} weights: the network is narrow"
    return _Choice("sparse", about, trained, ways_home=(trained.write_back,))


def _masked(net: nn.Module, z: Tensor, mask: Mask, precision: str) -> _Choice:
    """Train the smallest and sparsest network that there is."""
    small = drop_channels(net, mask)
    kept, channels = small.channels
    reason = why_not_sparse(small.net, z, small.mask, precision)
    if not reason:
        trained = sparse.sparse_network(small.net, small.mask)
        about = f"sparse step for {len(trained.values):,} weights on {kept} of {channels} channels"
        # its values go to the small network, and from there to the full one
        return _Choice("sparse", about, trained, ways_home=(trained.write_back, small.write_back))
    small = drop_channels(net, mask, EVEN)
    kept, channels = small.channels
    if kept == channels:
        return _Choice("dense", f"dense: {reason}", boxed(net), mask)
    about = f"dense, on {kept} of {channels} channels: {reason}"
    return _Choice("compact", about, boxed(small.net), small.mask, (small.write_back,))


def why_not_sparse(net: nn.Module, z: Tensor, mask: Mask, precision: str) -> str:
    """Say why the sparse step does not apply or does not pay; "" if it does."""
    if z.device.type != "cpu" or z.dtype != torch.float32:
        return "the sparse step is for single precision on a CPU"
    if precision == "bf16":
        return "in bfloat16, as asked for"
    if len(z) > 1:
        return "several codes take turns"
    price = cost(net, z, mask)
    narrow = isinstance(net, Hourglass) and price.kept < NARROW * price.outputs
    if price.density >= DENSE_FROM and not narrow:
        return f"{100 * price.density:.0f} % of the multiply-adds are to be done"
    return sparse.why_not(net, mask)


@torch.no_grad()
def _renew_statistics(net: nn.Module, z: Tensor) -> None:
    """Set the running statistics of the norms, which a smaller network does not keep."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    net(z)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum

"""What a network does, read from its links: convolutions, and chains of cheap steps between.

A chain starts at a convolution (or at the code) and ends at those that read it. Everything in it
works channel by channel, so that a chain can be computed for one channel at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from ...errors import Error
from ...masks import Mask
from ...models import links
from ...models.hourglass import LEAK, Block
from ...models.links import Double, Link
from ..influence import influential, links_of, open_paths
from .opcodes import ACTIVATIONS, SLOPES


class NotSupported(Error):
    """The network is not one that the sparse step can compute."""


@dataclass(frozen=True)
class Norm:
    """Batch norm with activation; without a name only the activation."""

    name: str  # of the module, "" for none
    first: int  # the module's channel that belongs to the chain's channel 0
    activation: str  # "none", "leaky", "relu"


@dataclass(frozen=True)
class Crop:
    """To the smallest of the pictures that a convolution reads, around the centre."""

    conv: str


@dataclass(frozen=True)
class Write:
    """Hand the picture to a convolution."""

    conv: str
    first: int  # the convolution's input channel that belongs to the chain's channel 0


@dataclass(frozen=True)
class Out:
    """Hand the picture out."""

    sigmoid: bool


Op = Norm | Double | Crop | Write | Out


@dataclass
class Conv:
    """A convolution and the weights it keeps."""

    name: str
    module: nn.Conv2d
    keep: np.ndarray  # [out, in, k, k], True for weights that are kept and have an effect
    pool: str = ""

    @property
    def kernel(self) -> int:
        return self.module.kernel_size[0]


@dataclass
class Chain:
    """What happens to the channels of a convolution, or of the code."""

    source: str  # the convolution's name, "" for the code
    alive: np.ndarray  # channels that are used
    ops: list[Op] = field(default_factory=list)

    @property
    def channels(self) -> int:
        return self.alive.size


@dataclass
class NetworkGraph:
    """Convolutions and chains in the order of computation."""

    net: nn.Module
    convs: dict[str, Conv]
    chains: dict[str, Chain]

    def parts_of(self, conv: str) -> list[tuple[Chain, Write]]:
        """The chains that write the input of a convolution."""
        return [
            (chain, op)
            for chain in self.chains.values()
            for op in chain.ops
            if isinstance(op, Write) and op.conv == conv
        ]

    def norms(self) -> list[str]:
        """Names of all batch norms."""
        ops = (op for chain in self.chains.values() for op in chain.ops)
        return list(dict.fromkeys(op.name for op in ops if isinstance(op, Norm) and op.name))


def read_network(net: nn.Module, mask: Mask) -> NetworkGraph:
    """Read what a masked network does.

    >>> import lipkit as lk
    >>> net = lk.models.build("oes", levels=1)
    >>> list(read_network(net, Mask.full(net)).convs)
    ['down0a.conv', 'down0b.conv', 'up0a.conv', 'head']
    """
    known = links_of(net)
    if known is None:
        raise NotSupported(f"{type(net).__name__} networks have no sparse step")
    convs = {link.conv: _read_conv(net, link, mask) for link in known}
    _leave_out(net, known, mask, convs)
    graph = NetworkGraph(net, convs, _read_chains(net, known, convs))
    _check(graph)
    return graph


def _read_conv(net: nn.Module, link: Link, mask: Mask) -> Conv:
    block = net.get_submodule(link.module)
    if not isinstance(block, (Block, nn.Conv2d)):
        kind = type(block).__name__
        raise NotSupported(f"{link.module!r} is a {kind}, not a block of an hourglass")
    module = net.get_submodule(link.conv)
    weight = f"{link.conv}.weight"
    shape = tuple(module.weight.shape)
    keep = mask[weight].numpy() if weight in mask.names else np.ones(shape, bool)
    if keep.shape != shape:
        raise NotSupported(f"the mask of {weight!r} belongs to another network")
    return Conv(link.conv, module, keep, link.pool)


def _leave_out(net: nn.Module, known: list[Link], mask: Mask, convs: dict[str, Conv]) -> None:
    """Leave out weights without influence: from or to channels that have none.

    Exact; and needed, because a norm blows the rounding of a channel without variance up.
    """
    paths = open_paths(net, known, mask)
    useful = influential(known, paths)
    for name, conv in convs.items():
        lead_on = paths[name] & useful[name][:, None]
        conv.keep = conv.keep & lead_on.numpy()[:, :, None, None]


def _read_chains(net: nn.Module, known: list[Link], convs: dict[str, Conv]) -> dict[str, Chain]:
    """The chain behind the code, and the one behind each convolution."""
    chains = {"": Chain("", np.zeros(convs[known[0].conv].module.in_channels, bool))}
    for link in known:
        _end_chains(link, chains, convs[link.conv])
        # the channels in use are marked by those that read them
        chain = Chain(link.conv, np.zeros(convs[link.conv].module.out_channels, bool))
        for step in link.behind:
            norm = isinstance(step, links.Norm)
            chain.ops.append(Norm(step.module, 0, step.activation) if norm else step)
        chains[link.conv] = chain
    last = chains[known[-1].conv]
    last.ops.append(Out(net.sigmoid))
    last.alive[:] = True
    return chains


def _end_chains(link: Link, chains: dict[str, Chain], conv: Conv) -> None:
    """Lead the chains that a convolution reads to it."""
    parts = [chains[name] for name in link.reads or ("",)]
    used = conv.keep.any(axis=(0, 2, 3))
    first = 0
    for chain in parts:
        if link.doubled and chain is parts[-1]:
            chain.ops.append(Double(link.doubled))
        if len(parts) > 1:
            chain.ops.append(Crop(link.conv))
        if link.joined_norm:
            chain.ops.append(Norm(link.joined_norm, first, "none"))
        chain.ops.append(Write(link.conv, first))
        chain.alive |= used[first : first + chain.channels]
        first += chain.channels


def _check(graph: NetworkGraph) -> None:
    """Refuse what the modules could be but the kernels do not compute."""
    for conv in graph.convs.values():
        m = conv.module
        k = conv.kernel
        odd = m.kernel_size != (k, k) or k % 2 == 0 or m.padding != (k // 2, k // 2)
        strides = ((1, 1),) if conv.pool else ((1, 1), (2, 2))
        if odd or m.groups != 1 or m.dilation != (1, 1) or m.stride not in strides:
            raise NotSupported(f"the convolution {conv.name!r} is of a kind without a sparse step")
        if m.padding_mode not in ("zeros", "reflect") or conv.pool not in ("", "avg", "max"):
            raise NotSupported(f"the padding or pooling of {conv.name!r} has no sparse step")
        if m.weight.is_cuda or m.weight.dtype != torch.float32:
            raise NotSupported("the sparse step is for single precision on a CPU")
        fed = sum(chain.channels for chain, _ in graph.parts_of(conv.name))
        if fed != m.in_channels:
            raise NotSupported(f"{conv.name!r} reads {m.in_channels} channels but gets {fed}")
    for name in graph.norms():
        norm = graph.net.get_submodule(name)
        if type(norm) is not nn.BatchNorm2d or norm.eps != 1e-5 or not norm.affine:
            raise NotSupported(f"{name!r} is not a batch norm with the usual settings")
    assert SLOPES[ACTIVATIONS["leaky"]] == LEAK

"""What a network does, read from its modules: convolutions, and chains of cheap steps between.

A chain starts at a convolution (or at the code) and ends at those that read it. Everything in it
works channel by channel, so that a chain can be computed for one channel at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import nn

from ..errors import Error
from ..masks import Mask
from ..models import DeepDecoder, Hourglass
from ..models.hourglass import LEAK, Block


class NotSupported(Error):
    """The network is not one that the sparse step can compute."""


@dataclass(frozen=True)
class Norm:
    """Batch norm with activation; without a name only the activation."""

    name: str  # of the module, "" for none
    first: int  # the module's channel that belongs to the chain's channel 0
    activation: str  # "none", "leaky", "relu"


@dataclass(frozen=True)
class Double:
    mode: str  # "nearest" or "bilinear"


@dataclass(frozen=True)
class Crop:
    """To the smaller of the sizes at hand, around the centre."""

    level: int


@dataclass(frozen=True)
class Write:
    conv: str
    first: int  # the convolution's input channel that belongs to the chain's channel 0


@dataclass(frozen=True)
class Out:
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
    source: str  # the convolution's name, "" for the code
    channels: int
    ops: list[Op] = field(default_factory=list)
    alive: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # channels that are used


@dataclass
class Plan:
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


def read_plan(net: nn.Module, mask: Mask) -> Plan:
    """The plan of a masked network.

    >>> import lipkit as lk
    >>> net = lk.models.build("oes", levels=1)
    >>> list(read_plan(net, Mask.full(net)).convs)
    ['down0a.conv', 'down0b.conv', 'up0a.conv', 'head']
    """
    reader = _Reader(net, mask)
    if type(net) is Hourglass:
        reader.hourglass()
    elif type(net) is DeepDecoder:
        reader.decoder()
    else:
        raise NotSupported(f"{type(net).__name__} networks have no sparse step")
    plan = Plan(net, reader.convs, reader.chains)
    _check(plan)
    _drop_constants(plan)
    _mark_alive(plan)
    return plan


class _Reader:
    """Walks through a network in the order of its forward pass."""

    def __init__(self, net: nn.Module, mask: Mask) -> None:
        self.net, self.mask = net, mask
        self.convs: dict[str, Conv] = {}
        self.chains: dict[str, Chain] = {}

    def conv(self, name: str, module: nn.Conv2d, pool: str = "") -> Chain:
        """Register a convolution; the chain that starts at it."""
        weight = f"{name}.weight"
        kept = weight in self.mask.names
        keep = self.mask[weight].numpy() if kept else np.ones(tuple(module.weight.shape), bool)
        if keep.shape != tuple(module.weight.shape):
            raise NotSupported(f"the mask of {weight!r} belongs to another network")
        self.convs[name] = Conv(name, module, keep, pool)
        self.chains[name] = Chain(name, module.out_channels)
        return self.chains[name]

    def block(self, name: str) -> Chain:
        block = self.net._modules[name]
        if not isinstance(block, Block):
            raise NotSupported(f"{name!r} is a {type(block).__name__}, not a block of an hourglass")
        chain = self.conv(f"{name}.conv", block.conv, block.pool)
        chain.ops.append(Norm(f"{name}.norm", 0, "leaky"))
        return chain

    def start(self, module: nn.Conv2d) -> Chain:
        self.chains[""] = Chain("", module.in_channels)
        return self.chains[""]

    def hourglass(self) -> None:
        net, modules = self.net, self.net._modules
        chain, skips = self.start(modules["down0a"].conv), {}
        for i in range(net.levels):
            if f"skip{i}" in modules:
                chain.ops.append(Write(f"skip{i}.conv", 0))
                skips[i] = self.block(f"skip{i}")
            for part in ("a", "b"):
                chain.ops.append(Write(f"down{i}{part}.conv", 0))
                chain = self.block(f"down{i}{part}")
        for i in reversed(range(net.levels)):
            first = skips[i].channels if i in skips else 0
            chain.ops.append(Double(net.upsample))
            for part, start in ((chain, first), (skips.get(i), 0)):
                if part is not None:
                    crop = [Crop(i)] if i in skips else []
                    part.ops += [*crop, Norm(f"norm{i}", start, "none")]
                    part.ops.append(Write(f"up{i}a.conv", start))
            chain = self.block(f"up{i}a")
            if f"up{i}b" in modules:
                chain.ops.append(Write(f"up{i}b.conv", 0))
                chain = self.block(f"up{i}b")
        self.end(chain)

    def decoder(self) -> None:
        net = self.net
        chain = self.start(net.conv0)
        for i in range(net.levels + 1):
            if not net.upsample_first and i > 0:
                chain.ops.append(Double("bilinear"))
            chain.ops.append(Write(f"conv{i}", 0))
            chain = self.conv(f"conv{i}", net._modules[f"conv{i}"])
            if net.upsample_first and i < net.levels:
                chain.ops.append(Double("bilinear"))
            chain.ops += [Norm("", 0, "relu"), Norm(f"norm{i}", 0, "none")]
        self.end(chain)

    def end(self, chain: Chain) -> None:
        chain.ops.append(Write("head", 0))
        self.conv("head", self.net.head).ops.append(Out(self.net.sigmoid))


def _check(plan: Plan) -> None:
    """Refuse what the modules could be but the kernels do not compute."""
    for conv in plan.convs.values():
        m, k = conv.module, conv.kernel
        odd = m.kernel_size != (k, k) or k % 2 == 0 or m.padding != (k // 2, k // 2)
        stride = m.stride if not conv.pool else (2, 2) if m.stride == (1, 1) else (0, 0)
        if odd or m.groups != 1 or m.dilation != (1, 1) or stride not in ((1, 1), (2, 2)):
            raise NotSupported(f"the convolution {conv.name!r} is of a kind without a sparse step")
        if m.padding_mode not in ("zeros", "reflect") or conv.pool not in ("", "avg", "max"):
            raise NotSupported(f"the padding or pooling of {conv.name!r} has no sparse step")
        if m.weight.is_cuda or m.weight.dtype.itemsize != 4:
            raise NotSupported("the sparse step is for single precision on a CPU")
        fed = sum(chain.channels for chain, _ in plan.parts_of(conv.name))
        if fed != m.in_channels:
            raise NotSupported(f"{conv.name!r} reads {m.in_channels} channels but gets {fed}")
    for name in plan.norms():
        norm = plan.net.get_submodule(name)
        if type(norm) is not nn.BatchNorm2d or norm.eps != 1e-5 or not norm.affine:
            raise NotSupported(f"{name!r} is not a batch norm with the usual settings")
    assert LEAK == 0.2  # as the kernels have it


def _drop_constants(plan: Plan) -> None:
    """Leave out weights that read a constant channel, where a norm takes away what they add.

    Exact; and needed, because a norm blows the rounding of a channel without variance up.
    """
    for conv in plan.convs.values():
        ops = plan.chains[conv.name].ops
        even = conv.module.padding_mode == "reflect" or conv.kernel == 1
        if not (even and isinstance(ops[0], Norm) and ops[0].name):
            continue
        for chain, op in plan.parts_of(conv.name):
            if chain.source:  # a channel without weights is constant
                constant = ~plan.convs[chain.source].keep.any(axis=(1, 2, 3))
                conv.keep[:, op.first : op.first + chain.channels][:, constant] = False


def _mark_alive(plan: Plan) -> None:
    """Leave out, exactly, the channels that nobody reads, from the output backwards."""
    for chain in reversed(plan.chains.values()):
        alive = np.zeros(chain.channels, bool)
        for op in chain.ops:
            if isinstance(op, Out):
                alive[:] = True
            elif isinstance(op, Write):
                keep = plan.convs[op.conv].keep
                alive |= keep[:, op.first : op.first + chain.channels].any(axis=(0, 2, 3))
        chain.alive = alive
        if chain.source:
            conv = plan.convs[chain.source]
            conv.keep = conv.keep & alive[:, None, None, None]

"""Exact compaction: a masked network without the channels that its picture does not depend on.

A channel has no influence if no kept weight leads from it to the picture, or if it is constant,
for want of kept weights into it, wherever it is read by a convolution that takes constants to
constants (no padding, or padding by reflection) with a batch norm right behind, which takes them
away. Without such channels outputs and gradients of the others stay what they were, up to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..masks import Mask
from ..models import DeepDecoder, Hourglass


@dataclass(frozen=True)
class Link:
    """A convolution, the ones whose outputs it reads (none: the code), and the norms around it."""

    conv: str
    reads: tuple[str, ...]
    joined_norm: str = ""  # of its inputs, joined
    norm: str = ""  # of its output
    takes_constants_away: bool = False


@dataclass(frozen=True)
class Compact:
    """A smaller network, its mask, and where its weights lie in the full network."""

    net: nn.Module
    mask: Mask
    full: nn.Module
    places: dict[str, tuple[Tensor, ...]]  # of each parameter, the indices along its first axes
    channels: tuple[int, int]  # outputs of convolutions: kept, and before

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the weights into the full network; what has no influence keeps its value there."""
        full = dict(self.full.named_parameters())
        for name, small in self.net.named_parameters():
            full[name][_grid(self.places[name])] = small

    def positions(self) -> Tensor:
        """For each weight, in `parameters()` order, its place in the full parameter vector."""
        start, parts = 0, []
        for name, p in self.full.named_parameters():
            numbers = torch.arange(start, start + p.numel()).reshape(p.shape)
            parts.append(numbers[_grid(self.places[name])].flatten())
            start += p.numel()
        return torch.cat(parts)


def compact(net: nn.Module, mask: Mask, multiple: int = 1) -> Compact | None:
    """The network without the channels that have no influence; None for unknown networks.

    Every layer keeps at least one channel, so that it remains one, and as many without influence
    as make a `multiple`: dense convolutions like certain numbers.

    >>> from lipkit.models import build
    >>> net = build("oes", levels=2)
    >>> small = compact(net, Mask.random(net, density=0.02))
    >>> small.channels, small.net.down1b.conv.weight.shape
    ((88, 147), torch.Size([16, 32, 5, 5]))
    """
    links = _links(net)
    if links is None:
        return None
    mask.pairs(net)  # refuses the mask of another network
    kept = {n: _rounded(k, multiple) for n, k in _influential(net, links, mask).items()}
    places = _places(net, links, kept)
    small = copy.deepcopy(net)
    for module_name, module in small.named_modules():
        own = {
            leaf: places[f"{module_name}.{leaf}"] for leaf, _ in module.named_parameters("", False)
        }
        if own:
            _shrink(module, own)
    on_it = Mask({name: mask[name][_grid(places[name])] for name in mask.names})
    count = sum(int(k.sum()) for k in kept.values()), sum(k.numel() for k in kept.values())
    return Compact(small, on_it, net, places, count)


# --- how the networks hang together --------------------------------------------------------------


def _links(net: nn.Module) -> list[Link] | None:
    """All convolutions, each after the ones it reads."""
    known: dict[type, Callable[..., Iterator[Link]]] = {
        Hourglass: _hourglass_links,
        DeepDecoder: _decoder_links,
    }
    follow = known.get(type(net))
    return None if follow is None else list(follow(net))


def _hourglass_links(net: Hourglass) -> Iterator[Link]:
    def block(name: str, *reads: str, joined_norm: str = "") -> Link:
        conv = net.get_submodule(f"{name}.conv")
        even = conv.kernel_size == (1, 1) or conv.padding_mode == "reflect"
        return Link(f"{name}.conv", reads, joined_norm, f"{name}.norm", even)

    x: tuple[str, ...] = ()
    for i in range(net.levels):
        if net.skip_channels[i]:
            yield block(f"skip{i}", *x)
        yield block(f"down{i}a", *x)
        yield block(f"down{i}b", f"down{i}a.conv")
        x = (f"down{i}b.conv",)
    for i in reversed(range(net.levels)):
        beside = (f"skip{i}.conv",) if net.skip_channels[i] else ()
        yield block(f"up{i}a", *beside, *x, joined_norm=f"norm{i}")
        x = (f"up{i}a.conv",)
        if hasattr(net, f"up{i}b"):
            yield block(f"up{i}b", *x)
            x = (f"up{i}b.conv",)
    yield Link("head", x)


def _decoder_links(net: DeepDecoder) -> Iterator[Link]:
    # a ReLU stands between each convolution and its norm: constants count, as biases do
    x: tuple[str, ...] = ()
    for i in range(net.levels + 1):
        yield Link(f"conv{i}", x, norm=f"norm{i}")
        x = (f"conv{i}",)
    yield Link("head", x)


# --- which channels count ------------------------------------------------------------------------


def _influential(net: nn.Module, links: list[Link], mask: Mask) -> dict[str, Tensor]:
    """For each convolution, the output channels to keep."""
    paths = _paths(net, links, mask)
    useful = {link.conv: torch.zeros(len(paths[link.conv]), dtype=torch.bool) for link in links}
    useful[links[-1].conv][:] = True
    for link in reversed(links):
        read = paths[link.conv][useful[link.conv]].any(0)
        if link.reads:
            sizes = [len(useful[name]) for name in link.reads]
            for name, part in zip(link.reads, read.split(sizes), strict=True):
                useful[name] |= part
    return useful


def _rounded(channels: Tensor, multiple: int) -> Tensor:
    """With the first few of the others, so that they are a multiple, or all; at least one."""
    wanted = -(-max(1, int(channels.sum())) // multiple) * multiple
    order = channels.int().argsort(descending=True, stable=True)
    chosen = torch.zeros_like(channels)
    chosen[order[:wanted]] = True
    return chosen


def _paths(net: nn.Module, links: list[Link], mask: Mask) -> dict[str, Tensor]:
    """For each convolution, whether anything goes [to an output channel, from an input channel]."""
    parameters, covered = dict(net.named_parameters()), set(mask.names)

    def kept(name: str) -> Tensor:
        everything = torch.ones(parameters[name].shape, dtype=torch.bool)
        return mask[name] if name in covered else everything

    paths, constant, zero = {}, {}, {}  # the latter two of each convolution's output channels
    for link in links:
        reach = kept(f"{link.conv}.weight").flatten(2).any(2)
        nothing = torch.zeros(0 if link.reads else reach.shape[1], dtype=torch.bool)
        flat = torch.cat([nothing, *(constant[name] for name in link.reads)])
        empty = torch.cat([nothing, *(zero[name] for name in link.reads)])
        if link.joined_norm:
            flat = flat | ~kept(f"{link.joined_norm}.weight")
            empty = flat & ~kept(f"{link.joined_norm}.bias")
        open_ = reach & ~(flat if link.takes_constants_away else empty)
        if link.norm:
            # without padding by zeros a constant stays one
            even = link.takes_constants_away or _pointwise(net.get_submodule(link.conv))
            varies = (reach & ~(flat if even else empty)).any(1)
            varies &= kept(f"{link.norm}.weight")
            constant[link.conv] = ~varies
            zero[link.conv] = ~varies & ~kept(f"{link.norm}.bias")
            open_ = open_ & kept(f"{link.norm}.weight")[:, None]
        paths[link.conv] = open_
    return paths


def _pointwise(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1)


# --- the smaller network -------------------------------------------------------------------------


def _places(
    net: nn.Module, links: list[Link], kept: dict[str, Tensor]
) -> dict[str, tuple[Tensor, ...]]:
    """For each parameter, the indices that stay along its first axes."""
    places = {}
    for link in links:
        conv = net.get_submodule(link.conv)
        out = kept[link.conv].nonzero()[:, 0]
        joined = [kept[name] for name in link.reads] or [torch.ones(conv.in_channels).bool()]
        read = torch.cat(joined).nonzero()[:, 0]
        places |= {f"{link.conv}.weight": (out, read), f"{link.conv}.bias": (out,)}
        places |= {f"{link.norm}.{leaf}": (out,) for leaf in ("weight", "bias")}
        places |= {f"{link.joined_norm}.{leaf}": (read,) for leaf in ("weight", "bias")}
    return {name: places[name] for name, _ in net.named_parameters()}


def _shrink(module: nn.Module, places: dict[str, tuple[Tensor, ...]]) -> None:
    """Cut a convolution or a norm down to some of its channels, in place."""
    for leaf, place in places.items():
        setattr(module, leaf, nn.Parameter(getattr(module, leaf).detach()[_grid(place)].clone()))
    if isinstance(module, nn.Conv2d):
        module.out_channels, module.in_channels = module.weight.shape[:2]
    else:
        module.num_features = len(module.weight)
        module.track_running_stats = False  # they are never read
        module.running_mean = module.running_var = module.num_batches_tracked = None


def _grid(places: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Index tensors that choose every combination."""
    return torch.meshgrid(*places, indexing="ij")

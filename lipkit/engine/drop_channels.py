"""A masked network without the channels that its picture does not depend on."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..masks import Mask
from ..models.links import Link
from .influence import influential, links_of, open_paths


@dataclass(frozen=True)
class Smaller:
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
        start = 0
        parts = []
        for name, p in self.full.named_parameters():
            numbers = torch.arange(start, start + p.numel()).reshape(p.shape)
            parts.append(numbers[_grid(self.places[name])].flatten())
            start += p.numel()
        return torch.cat(parts)


def drop_channels(net: nn.Module, mask: Mask, multiple: int = 1) -> Smaller | None:
    """Return the network without the channels that have no influence; None for unknown networks.

    Every layer keeps at least one channel, so that it remains one, and as many without influence
    as make a `multiple`: dense convolutions like certain numbers.

    >>> from lipkit.models import build
    >>> net = build("oes", levels=2)
    >>> small = drop_channels(net, Mask.random(net, density=0.02))
    >>> small.channels, small.net.down1b.conv.weight.shape
    ((88, 147), torch.Size([16, 32, 5, 5]))
    """
    links = links_of(net)
    if links is None:
        return None
    mask.pairs(net)  # refuses the mask of another network
    useful = influential(links, open_paths(net, links, mask))
    kept = {name: _rounded(channels, multiple) for name, channels in useful.items()}
    places = _places(net, links, kept)
    small = copy.deepcopy(net)
    for module_name, module in small.named_modules():
        own = {
            leaf: places[f"{module_name}.{leaf}"] for leaf, _ in module.named_parameters("", False)
        }
        if own:
            _shrink(module, own)
    on_it = Mask({name: mask[name][_grid(places[name])] for name in mask.names})
    left = sum(int(channels.sum()) for channels in kept.values())
    before = sum(channels.numel() for channels in kept.values())
    return Smaller(small, on_it, net, places, (left, before))


def _rounded(channels: Tensor, multiple: int) -> Tensor:
    """With the first few of the others, so that they are a multiple, or all; at least one."""
    wanted = -(-max(1, int(channels.sum())) // multiple) * multiple
    order = channels.int().argsort(descending=True, stable=True)
    chosen = torch.zeros_like(channels)
    chosen[order[:wanted]] = True
    return chosen


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

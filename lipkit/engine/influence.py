"""Which channels of a masked network have an influence on its picture.

A channel has none if no kept weight leads from it to the picture, or if it is constant, for want
of kept weights into it, wherever it is read by a convolution that takes constants to constants (no
padding, or padding by reflection) with a batch norm right behind, which takes them away. Without
such channels outputs and gradients of the others stay what they were, up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..masks import Mask
from ..models import DeepDecoder, Hourglass
from ..models.links import Link, Norm


def links_of(net: nn.Module) -> list[Link] | None:
    """How a network hangs together; None where we do not know."""
    return net.links() if type(net) in (Hourglass, DeepDecoder) else None


def influential(links: list[Link], paths: dict[str, Tensor]) -> dict[str, Tensor]:
    """For each convolution, which of its outputs have an influence, from the last one backwards."""
    useful = {name: torch.zeros(len(path), dtype=torch.bool) for name, path in paths.items()}
    useful[links[-1].conv][:] = True
    for link in reversed(links):
        read = paths[link.conv][useful[link.conv]].any(0)
        if link.reads:
            sizes = [len(useful[name]) for name in link.reads]
            for name, part in zip(link.reads, read.split(sizes), strict=True):
                useful[name] |= part
    return useful


def open_paths(net: nn.Module, links: list[Link], mask: Mask) -> dict[str, Tensor]:
    """For each convolution, whether anything goes [to an output channel, from an input channel]."""
    parameters = dict(net.named_parameters())
    covered = set(mask.names)

    def kept(name: str) -> Tensor:
        everything = torch.ones(parameters[name].shape, dtype=torch.bool)
        return mask[name] if name in covered else everything

    paths: dict[str, Tensor] = {}
    constant: dict[str, Tensor] = {}  # of each convolution's outputs, behind the norm
    zero: dict[str, Tensor] = {}
    for link in links:
        reach = kept(f"{link.conv}.weight").flatten(2).any(2)
        of_code = torch.zeros(0 if link.reads else reach.shape[1], dtype=torch.bool)
        flat = torch.cat([of_code, *(constant[name] for name in link.reads)])
        empty = torch.cat([of_code, *(zero[name] for name in link.reads)])
        if link.joined_norm:
            flat = flat | ~kept(f"{link.joined_norm}.weight")
            empty = flat & ~kept(f"{link.joined_norm}.bias")
        even = _takes_constants_to_constants(net.get_submodule(link.conv))
        passed = reach & ~(flat if even else empty)  # what its outputs vary with
        paths[link.conv] = passed if _norm_is_right_behind(link) else reach & ~empty
        if link.norm:
            varies = passed.any(1) & kept(f"{link.norm}.weight")
            constant[link.conv] = ~varies
            zero[link.conv] = ~varies & ~kept(f"{link.norm}.bias")
            paths[link.conv] &= kept(f"{link.norm}.weight")[:, None]
    return paths


def _takes_constants_to_constants(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) or conv.padding_mode == "reflect"


def _norm_is_right_behind(link: Link) -> bool:
    """Behind a ReLU or a doubling it is not: there constants count, as biases do."""
    first = link.behind[0] if link.behind else None
    return isinstance(first, Norm) and bool(first.module)

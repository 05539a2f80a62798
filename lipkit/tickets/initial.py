"""The initial weights that a recipe stands for: drawn again, and told apart from others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import models
from ..errors import InputError, is_whole
from ..formats.maskfile import MAX_WEIGHTS
from ..masks import Mask
from ..prior import OWN, Recipe, checked_size

_CODE_OPTIONS = ("code", "code_scale")  # of a recipe; the rest are the network's
_MAX_OPTION = 4096
_PROBES = 4  # initial weights kept of each parameter
_ROUNDING = 1e-6  # by which weights of one seed may differ between processors


class Fingerprint(NamedTuple):
    """What tells the initial weights of two networks apart."""

    sha256: str
    probe: Tensor  # a few weights of each parameter, to tell rounding from another draw

    def close_to(self, other: Fingerprint) -> bool:
        """Tell whether the weights may be the same but for rounding, as on another processor."""
        mine = self.probe
        theirs = other.probe
        return mine.shape == theirs.shape and bool(((mine - theirs).abs() <= _ROUNDING).all())


def fingerprint(net: nn.Module) -> Fingerprint:
    """Hash the parameters of a network, in order, as float32."""
    return fingerprint_of(net.parameters())


def fingerprint_of(tensors: Iterable[Tensor]) -> Fingerprint:
    """Hash tensors, in order, as float32."""
    sha256 = hashlib.sha256()
    probes = []
    for tensor in tensors:
        values = tensor.detach().cpu().float().flatten()
        sha256.update(values.numpy().tobytes())
        probes.append(values[:: -(-values.numel() // _PROBES)])
    return Fingerprint(sha256.hexdigest(), torch.cat(probes))


def initial_net(recipe: Recipe) -> nn.Module:
    """Draw the network alone: a prior draws it before its code, so no size comes into it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        return models.build(recipe.name, **network_options(recipe))


def skeleton(recipe: Recipe) -> nn.Module:
    """Build names and shapes of the network, without memory for its weights."""
    with torch.device("meta"):
        return models.build(recipe.name, **network_options(recipe))


def network_options(recipe: Recipe) -> dict[str, Any]:
    """Return the options of a recipe that its network takes."""
    return {k: v for k, v in recipe.options.items() if k not in _CODE_OPTIONS}


def check_fits(mask: Mask, recipe: Recipe) -> None:
    """Refuse a recipe that is none, is beyond all measure, or is of another network."""
    checked_size(recipe.size)
    if not is_whole(recipe.seed) or recipe.seed >= 2**63:
        raise InputError(
            f"the seed of a recipe is a whole number of at least 0, got {recipe.seed!r}"
        )
    for name, value in network_options(recipe).items():
        values = value if isinstance(value, tuple) else (value,)
        if len(values) > 64 or any(isinstance(v, int) and v > _MAX_OPTION for v in values):
            raise InputError(f"the network option {name!r} is beyond all measure")
    if recipe.name == OWN:
        return  # it is compared with the network, once that is given
    net = skeleton(recipe)
    total = sum(p.numel() for p in net.parameters())
    if total > MAX_WEIGHTS:
        raise InputError(f"the network has {total:,} weights, more than a ticket can be for")
    mask.pairs(net)


def kept_values(net: nn.Module, mask: Mask) -> Tensor:
    """Return all that is left of the parameters under a mask, in order, as one vector."""
    return torch.cat([p.detach()[keep].cpu().float() for p, keep in _kept(net, mask)])


@torch.no_grad()
def put_kept_values(net: nn.Module, mask: Mask, values: Tensor) -> None:
    """Put the values of `kept_values` back; what the mask prunes stays as it is."""
    pairs = _kept(net, mask)
    counts = [int(keep.sum()) for _, keep in pairs]
    if values.numel() != sum(counts) or not values.isfinite().all():
        raise InputError(
            f"the stored weights are not the {sum(counts):,} finite numbers that the mask leaves"
        )
    for (parameter, keep), part in zip(pairs, values.split(counts), strict=True):
        parameter[keep] = part


def _kept(net: nn.Module, mask: Mask) -> list[tuple[nn.Parameter, Tensor]]:
    """Pair every parameter with what is kept of it: all, if the mask does not cover it."""
    masks = {id(p): m.bool() for p, m in mask.pairs(net)}
    return [(p, masks.get(id(p), torch.ones_like(p, dtype=torch.bool))) for p in net.parameters()]

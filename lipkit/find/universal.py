"""A mask without any search: how densely each layer is kept, as searches on pictures found it.

The profile was made by `{n: profile(learned(n, *how)) for n, how in LEARNED_ON.items()}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from statistics import fmean

import torch

from .. import data
from ..errors import InputError
from ..masks import Mask, checked_density, covered
from ..physics import Denoise
from ..prior import Prior
from .oes import auto_density, oes

PROFILE = "universal.json"
PICTURES = ("astronaut", "coffee", "chelsea", "rocket")
LEARNED_ON = {  # levels: side of the pictures, and which
    2: (64, PICTURES), 3: (64, PICTURES), 4: (128, PICTURES[:3]),
    5: (128, PICTURES[:1]), 6: (128, PICTURES[:1]),
}  # fmt: skip


def universal(
    prior: Prior, op=None, y=None, density: float | str = "auto", *, seed: int = 0
) -> Mask:
    """Keep random weights, but in every layer as many as masks learned on pictures keep there.

    The profile that comes with the package is the mean of masks that `oes(scope="conv")` learned
    on bundled pictures: for each layer the odds of keeping a weight, relative to all weights. It
    hardly differs from picture to picture. Other densities shift all odds by one factor.

    `op` and `y` are not looked at; they are here so that all methods are called alike.

    >>> import lipkit as lk
    >>> universal(lk.Prior("oes", 64, levels=3))
    Mask(2,457 of 271,152 weights kept, density 0.906 %, 10 layers)
    """
    if prior.recipe.name != "oes":
        raise InputError(
            f"the universal mask is for the network 'oes', not for {prior.recipe.name!r}; "
            "learn one with lipkit.find.oes"
        )
    levels = str(prior.net.levels)
    if levels not in profiles():
        known = ", ".join(profiles())
        raise InputError(f"there are universal masks for {known} levels, not for {levels}")
    density = auto_density(prior, "conv") if density == "auto" else checked_density(density)
    draw = torch.Generator().manual_seed(seed)
    layers = profiles()[levels]
    # logistic noise above a threshold has just these odds, whatever the threshold
    scores = {
        name: layers[name] + torch.rand(p.shape, generator=draw).logit(eps=2.0**-24)
        for name, p in covered(prior.net, "conv")
    }
    return Mask.top(scores, density)


def profile(masks: Sequence[Mask]) -> dict[str, float]:
    """Return what these masks have in common: their mean in each layer, as `universal` wants it.

    >>> import lipkit as lk
    >>> whole = lk.Mask.random(lk.testing.tiny_prior().net, density=0.5)
    >>> max(abs(v) for v in profile([whole]).values()) < 1
    True
    """
    parts = [(m.per_layer(), m) for m in masks]
    odds = {
        name: [_log_odds(layers[name].kept, layers[name].total) - _log_odds(m.kept, m.total)
               for layers, m in parts]
        for name in masks[0].names
    }  # fmt: skip
    return {name: round(fmean(values), 3) for name, values in odds.items()}


def learned(levels: int, size: int, pictures: Sequence[str], steps: int = 1000) -> list[Mask]:
    """Learn masks on noisy pictures, to take a profile of.

    >>> learned(2, 16, ["coffee"], steps=2)
    [Mask(153 of 71,472 weights kept, density 0.214 %, 7 layers)]
    """
    op = Denoise(25 / 255)
    prior = Prior("oes", size, levels=levels)
    ys = [op.measure(data.image(name, size=size)) for name in pictures]
    return [oes(prior, op, y, "auto", scope="conv", steps=steps) for y in ys]


def _log_odds(kept: int, total: int) -> float:
    return math.log((kept + 0.5) / (total - kept + 0.5))


@cache
def profiles() -> dict[str, dict[str, float]]:
    """By levels and layer: the logarithm of the odds of keeping a weight, relative to all."""
    return json.loads(files(__package__).joinpath(PROFILE).read_text(encoding="utf-8"))

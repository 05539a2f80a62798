"""Masks from the initial weights alone, before any training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InputError, check_whole
from ..masks import Mask, checked_density, count, covered
from ..prior import Prior
from .scores import check_prior, grasp_scores, snip_scores, synflow_scores

REMOVED_PER_ROUND = 0.2  # of what is left, in the published random pruning


def random(
    prior: Prior,
    op=None,
    y: Tensor | None = None,
    density: float = 0.05,
    *,
    scope: str = "conv",
    variant: str = "paper",
    per_layer: bool = False,
    seed: int = 0,
) -> Mask:
    """Keep weights drawn uniformly; `op` and `y` play no role.

    Published, scope "conv": rounds that remove 20 % twice over, since every convolution was listed
    twice, so that each leaves about 64 %; as many as reach the density, hence a density of about
    0.64^i. Published, scope "all": one draw among the parameters that are not zero.

    >>> import lipkit as lk
    >>> lk.find.random(lk.testing.tiny_prior(), density=0.25, seed=1)
    Mask(908 of 3,632 weights kept, density 25 %, 11 layers)
    """
    check_prior(prior, variant)
    draw = torch.Generator().manual_seed(seed)
    if variant == "published" and scope == "conv":
        _refuse_per_layer("random", per_layer)
        return _twice_drawn(prior, density, draw)
    scores = {n: torch.rand(p.shape, generator=draw) for n, p in covered(prior.net, scope)}
    if variant == "published":
        _refuse_per_layer("random", per_layer)
        return _top_of_nonzero(prior, scores, density)
    return Mask.top(scores, density, per_layer=per_layer)


def magnitude(
    prior: Prior,
    op=None,
    y: Tensor | None = None,
    density: float = 0.05,
    *,
    scope: str = "conv",
    variant: str = "paper",
    per_layer: bool = False,
    seed: int = 0,
) -> Mask:
    """Keep the largest `|w|`; `op`, `y` and `seed` play no role.

    Published: parameters that are zero from the start (the shifts of batch norm, which scope "all"
    covers) count as pruned already, and the density is that of the others.

    >>> import lipkit as lk
    >>> lk.find.magnitude(lk.testing.tiny_prior(), density=0.25)
    Mask(908 of 3,632 weights kept, density 25 %, 11 layers)
    """
    check_prior(prior, variant)
    scores = {n: p.detach().abs() for n, p in covered(prior.net, scope)}
    if variant == "published":
        _refuse_per_layer("magnitude", per_layer)
        return _top_of_nonzero(prior, scores, density)
    return Mask.top(scores, density, per_layer=per_layer)


def snip(
    prior: Prior,
    op,
    y: Tensor,
    density: float = 0.05,
    *,
    scope: str = "conv",
    variant: str = "paper",
    per_layer: bool = False,
    seed: int = 0,
) -> Mask:
    """Keep, as SNIP (Lee et al. 2019) does, the largest `|g w|` at once; `seed` plays no role.

    Published: the largest `|g|`, whatever the weight (there over scope "all"). The scripts' own
    setting is the fraction kept, as `density` is here, though they call it the fraction pruned.

    >>> import lipkit as lk
    >>> lk.find.snip(lk.testing.tiny_prior(), lk.physics.Denoise(), lk.testing.tiny_image(), 0.25)
    Mask(908 of 3,632 weights kept, density 25 %, 11 layers)
    """
    checked_density(density)
    scores = snip_scores(prior, op, y, scope=scope, variant=variant)
    return Mask.top(scores, density, per_layer=per_layer)


def grasp(
    prior: Prior,
    op,
    y: Tensor,
    density: float = 0.05,
    *,
    scope: str = "conv",
    variant: str = "paper",
    per_layer: bool = False,
    seed: int = 0,
) -> Mask:
    """Keep, as GraSP (Wang et al. 2020) does, the largest w (H g) at once; `seed` plays no role.

    Published: the lowest g + H w, or within layers the largest `|g| / |g + H w|` (there over scope
    "all").

    >>> import lipkit as lk
    >>> lk.find.grasp(lk.testing.tiny_prior(), lk.physics.Denoise(), lk.testing.tiny_image(), 0.25)
    Mask(908 of 3,632 weights kept, density 25 %, 11 layers)
    """
    checked_density(density)
    scores = grasp_scores(prior, op, y, scope=scope, variant=variant, per_layer=per_layer)
    return Mask.top(scores, density, per_layer=per_layer)


def synflow(
    prior: Prior,
    op=None,
    y: Tensor | None = None,
    density: float = 0.05,
    *,
    scope: str = "conv",
    variant: str = "paper",
    per_layer: bool = False,
    seed: int = 0,
    rounds: int = 100,
) -> Mask:
    """Keep the largest flows, anew after each of `rounds` prunings (SynFlow, Tanaka et al. 2020).

    After round t the density is density^(t / rounds), and pruned stays pruned; `op`, `y` and `seed`
    play no role. Published: the largest `|dR/dw|` at once (there over scope "all"), with signs,
    sigmoid, batch norm and the prior's own code left as they are.

    >>> import lipkit as lk
    >>> lk.find.synflow(lk.testing.tiny_prior(), density=0.25, rounds=10)
    Mask(908 of 3,632 weights kept, density 25 %, 11 layers)
    """
    density = checked_density(density)
    check_whole("rounds", rounds, least=1)
    check_prior(prior, variant)
    if variant == "published":
        return Mask.top(
            synflow_scores(prior, scope=scope, variant=variant), density, per_layer=per_layer
        )
    mask = Mask.full(prior.net, scope)
    if per_layer:  # a layer too small for this density is refused now, not after some rounds
        Mask.top({n: mask[n] for n in mask.names}, density, per_layer=True)
    for t in range(1, rounds + 1):
        scores = synflow_scores(prior, scope=scope, variant=variant, mask=mask)
        mask = Mask.top(scores, density ** (t / rounds), within=mask, per_layer=per_layer)
    return mask


def _twice_drawn(prior: Prior, density: float, draw: torch.Generator) -> Mask:
    """Rounds of pruning in which each weight lies in the urn twice and survives if never drawn."""
    left = (1 - REMOVED_PER_ROUND) ** 2
    rounds = math.ceil(math.log(checked_density(density)) / math.log(left) - 1e-9)
    keep = Mask.full(prior.net).flat()
    for _ in range(rounds):
        alive = keep.nonzero().flatten()
        urn = torch.randperm(2 * len(alive), generator=draw)
        drawn = urn[: round(REMOVED_PER_ROUND * len(urn))]
        keep[alive[drawn % len(alive)]] = False
    mask = Mask.from_flat(keep, like=prior.net)
    mask.warn_if_collapsed()
    return mask


def _top_of_nonzero(prior: Prior, scores: dict[str, Tensor], density: float) -> Mask:
    """Start as published: whatever is zero is pruned, and densities count the rest."""
    parameters = dict(prior.net.named_parameters())
    start = Mask({n: parameters[n].detach() != 0 for n in scores})
    kept = count(checked_density(density), start.kept)
    return Mask.top(scores, kept / start.total, within=start)


def _refuse_per_layer(method: str, per_layer: bool) -> None:
    if per_layer:
        raise InputError(
            f"per_layer is not offered for the published variant of {method}; "
            "use variant='paper', or rank all layers together"
        )

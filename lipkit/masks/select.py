"""Which weights can be pruned, and the exact choice of the best of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..errors import InputError, check_choice

SCOPES = ("conv", "all")


def covered(net: nn.Module, scope: str) -> list[tuple[str, nn.Parameter]]:
    """List the parameters in a scope: the weights of convolutions ("conv") or every one ("all").

    >>> from lipkit.models import build
    >>> [name for name, _ in covered(build("deep-decoder", levels=1, width=2), "conv")]
    ['conv0.weight', 'conv1.weight', 'head.weight']
    """
    check_choice("scope", scope, SCOPES)
    return [(n, p) for n, p in net.named_parameters() if scope == "all" or p.ndim > 1]


def checked_density(density: float) -> float:
    """Return the density as a float, or refuse it.

    >>> checked_density(0.05)
    0.05
    """
    number = isinstance(density, (int, float)) and not isinstance(density, bool)
    if not number or not 0 < density <= 1:
        raise InputError(
            "density is the fraction of weights kept and must be above 0 and at most 1 "
            f"(0.05 keeps 5 %), got {density!r}"
        )
    return float(density)


def count(density: float, total: int) -> int:
    """Return how many of `total` weights a density keeps: rounded down, as published.

    >>> count(0.05, 3_008_867), count(0.29, 100)
    (150443, 29)
    """
    return int(density * total + 1e-6)  # the small term undoes 0.29 * 100 = 28.999...


def unflatten(vector: Tensor, like: nn.Module) -> dict[str, Tensor]:
    """Split a flat mask over all parameters of `like`, or over its convolution weights only."""
    vector = torch.as_tensor(vector).flatten()
    if vector.dtype != torch.bool:
        if not bool(((vector == 0) | (vector == 1)).all()):
            raise InputError("a flat mask holds only 0 and 1")
        vector = vector.bool()
    lengths = {}
    for scope in SCOPES:
        parameters = covered(like, scope)
        lengths[scope] = sum(p.numel() for _, p in parameters)
        if vector.numel() == lengths[scope]:
            parts = vector.split([p.numel() for _, p in parameters])
            pairs = zip(parameters, parts, strict=True)
            return {n: part.reshape(p.shape) for (n, p), part in pairs}
    raise InputError(
        f"a flat mask for this network has {lengths['all']:,} entries (all parameters) or "
        f"{lengths['conv']:,} (convolution weights), got {vector.numel():,}; "
        "is it for another network or number of levels?"
    )


def top_of(
    group: Iterable[str],
    scores: Mapping[str, Tensor],
    allowed: Mapping[str, Tensor],
    density: float,
) -> dict[str, Tensor]:
    """Keep the highest scores of a group of layers among the weights allowed, ties in order."""
    group = list(group)
    flat = torch.cat([scores[n].detach().flatten().cpu().double() for n in group])
    open_ = torch.cat([allowed[n].flatten().cpu() for n in group])
    keep_count = count(density, flat.numel())
    if keep_count == 0:
        raise InputError(
            f"density {density} keeps none of {flat.numel():,} weights; use a higher one"
        )
    if keep_count > int(open_.sum()):
        raise InputError(
            f"density {density} would keep {keep_count:,} weights, but only {int(open_.sum()):,} "
            "are left unpruned; pruned weights never come back"
        )
    candidates = flat[open_]
    threshold = candidates.kthvalue(candidates.numel() - keep_count + 1).values
    chosen = open_ & (flat > threshold)
    # the first of the scores at the threshold: the count is exact and the choice repeatable
    ties = (open_ & (flat == threshold)).nonzero()[: keep_count - int(chosen.sum())]
    chosen[ties] = True
    parts = chosen.split([scores[n].numel() for n in group])
    return {n: part.reshape(scores[n].shape) for n, part in zip(group, parts, strict=True)}

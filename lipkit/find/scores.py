"""Scores of weights at initialisation: the numbers that the methods rank, highest kept first.

Each function returns one tensor for each covered parameter, works on a copy of the prior, and has
two variants: "paper", the method as its authors defined it, and "published", what the scripts
behind published comparisons on image priors compute instead.

Batch norm normalises by the picture itself, as in every fit of a prior. Reference code for
classifiers scores with running averages, but at initialisation those are still 0 and 1: that
would be another function than the one to be fitted. SynFlow alone does without normalisation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..engine import forward_and_loss
from ..errors import check_choice
from ..fitting import settings
from ..masks import Mask, covered
from ..prior import Prior

VARIANTS = ("paper", "published")
Scores = dict[str, Tensor]


def snip_scores(
    prior: Prior, op, y: Tensor, *, scope: str = "conv", variant: str = "paper"
) -> Scores:
    """Score by SNIP, `|g w|`: how the loss moves when a weight begins to vanish; published `|g|`.

    Here g is the gradient of the mean squared error of `op.A(prior())` to `y`.

    >>> import lipkit as lk
    >>> scores = snip_scores(lk.testing.tiny_prior(), lk.physics.Denoise(), lk.testing.tiny_image())
    >>> scores["head.weight"].shape
    torch.Size([3, 8, 1, 1])
    """
    _check_data(prior, op, y, variant)
    model, weights = _copy(prior, scope)
    gradients = _gradients(_loss(model, op, y), weights)
    if variant == "published":
        return {n: g.abs() for n, g in gradients.items()}
    return {n: (g * weights[n]).detach().abs() for n, g in gradients.items()}


def grasp_scores(
    prior: Prior,
    op,
    y: Tensor,
    *,
    scope: str = "conv",
    variant: str = "paper",
    per_layer: bool = False,
) -> Scores:
    """Score by GraSP, w (H g): how the squared gradient shrinks when a weight begins to vanish.

    It is -S of the original, which removes the largest S = -w (H g); g and the Hessian H are those
    of the covered weights. Published: the product is that of g with w, not with a fixed g, hence
    g + H w; its lowest are kept, or within layers (`per_layer`) the highest `|g| / |g + H w|`.

    >>> import lipkit as lk
    >>> prior, y = lk.testing.tiny_prior(), lk.testing.tiny_image()
    >>> grasp_scores(prior, lk.physics.Denoise(), y)["down0a.conv.weight"].shape
    torch.Size([8, 4, 3, 3])
    """
    _check_data(prior, op, y, variant)
    model, weights = _copy(prior, scope)
    first = _gradients(_loss(model, op, y), weights, create_graph=True)
    if variant == "paper":
        product = sum((g.detach() * g).sum() for g in first.values())
        return {n: (hg * weights[n]).detach() for n, hg in _gradients(product, weights).items()}
    product = sum((g * weights[n]).sum() for n, g in first.items())
    second = _gradients(product, weights)
    if per_layer:
        return {n: g.detach().abs() / (second[n].abs() + 1e-10) for n, g in first.items()}
    return {n: -s for n, s in second.items()}


def synflow_scores(
    prior: Prior, *, scope: str = "conv", variant: str = "paper", mask: Mask | None = None
) -> Scores:
    """Score by SynFlow, `|w| dR/d|w|`: the part of all paths that a weight carries.

    R is the sum of the outputs for an input of ones, with every weight made positive, without
    sigmoid, and with batch norm reduced to its gain; all in float64, for R is a product over
    layers. Biases and shifts are left out and score 0: batch norm cancels nearly all of them, yet
    their flow would bypass the layers before them, which could then be pruned empty. `mask`
    removes weights first. Published: `|dR/dw|` of the network as it is, for its own code.

    >>> import lipkit as lk
    >>> scores = synflow_scores(lk.testing.tiny_prior())
    >>> scores["head.weight"].dtype, bool((scores["head.weight"] > 0).all())
    (torch.float64, True)
    """
    check_prior(prior, variant)
    model, weights = _copy(prior, scope)
    if mask is not None:
        mask.apply(model.net)
    if variant == "published":
        return {n: g.abs() for n, g in _gradients(model().sum(), weights).items()}
    _make_positive_and_linear(model)
    flow = model.net(_ones_code(model)).sum()
    return {n: (g * weights[n]).detach() for n, g in _gradients(flow, weights).items()}


def check_prior(prior: Prior, variant: str) -> None:
    """Refuse what is not a prior, and variants other than "paper" and "published".

    >>> import lipkit as lk
    >>> check_prior(lk.testing.tiny_prior(), "paper")
    """
    settings.check_prior(prior)
    check_choice("variant", variant, VARIANTS)


def _check_data(prior: Prior, op, y: Tensor, variant: str) -> None:
    check_choice("variant", variant, VARIANTS)
    settings.check_parts(prior, op, y)


def _copy(prior: Prior, scope: str) -> tuple[Prior, dict[str, nn.Parameter]]:
    model = prior.clone().requires_grad_(True)
    return model, dict(covered(model.net, scope))


def _loss(model: Prior, op, y: Tensor) -> Tensor:
    """Return the loss that a fit starts from."""
    _, _, loss = forward_and_loss(model, model.z, op, y.to(model.z.device))
    return loss


def _gradients(
    value: Tensor, weights: dict[str, nn.Parameter], create_graph: bool = False
) -> Scores:
    found = torch.autograd.grad(
        value, list(weights.values()), create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(weights, found, strict=True))


@torch.no_grad()
def _make_positive_and_linear(model: Prior) -> None:
    """Make a network in which ReLUs pass everything and no signs cancel."""
    model.double()
    for name, parameter in model.net.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.abs_()
    for module in model.net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()  # mean 0, variance 1
            module.eval()
            module.eps = 0.0
    if hasattr(model.net, "sigmoid"):
        model.net.sigmoid = False


def _ones_code(model: Prior) -> Tensor:
    """Return ones, as few as the network takes where their number only scales all scores alike.

    Where borders are mirrored, a constant picture stays constant from layer to layer.
    """
    zero_borders = any(
        isinstance(m, nn.Conv2d) and m.padding_mode == "zeros" and any(m.padding)
        for m in model.net.modules()
    )
    if zero_borders or not hasattr(model.net, "output_side"):
        return torch.ones_like(model.z)
    side = next(s for s in range(1, max(model.net_size) + 1) if model.net.output_side(s) == s)
    side = model.net.input_side(side)
    return model.z.new_ones(1, model.z.shape[1], side, side)

"""Iterative magnitude pruning on several images at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError, check_choice
from ..fitting.settings import check_parts
from ..physics import Denoise
from ..prior import Prior
from .imp import imp
from .latents import PerImage, image_codes
from .rounds import Imp


def imp_multi(
    prior: Prior,
    ops,
    ys: Sequence[Tensor],
    *,
    codes: str = "shared",
    reference_targets: Sequence[Tensor] | None = None,
    seed: int = 0,
    **options,
) -> Imp:
    """Do `imp` with one network for several images: the loss is the mean of theirs.

    Args:
        ops: an operator for each measurement in `ys`, or one for all.
        codes: "shared", as published, gives every image the same code and hence the same output.
            For equal operators that is `imp` on the mean of the measurements: the gradients are
            the same, the losses differ by the variance of the measurements around their mean.
            "per_image" gives each its own (see `image_codes`).
        reference_targets: train on these clean pictures instead, as published.
        options: those of `imp`, but for `reference`: what a mask is worth is seen by fitting
            single images with it.

    >>> import lipkit as lk
    >>> op, clean = lk.physics.Denoise(sigma=0.1), lk.testing.tiny_image()
    >>> ys = [op.measure(clean, seed=0), op.measure(1 - clean, seed=1)]
    >>> prior = lk.testing.tiny_prior()
    >>> imp_multi(prior, op, ys, codes="per_image", density=0.8, steps=5)
    Imp(1 rounds, density 80 %: density 80 % is reached)
    """
    check_choice("codes", codes, ("shared", "per_image"))
    for name in ("reference", "reference_target"):
        if name in options:
            raise InputError(f"imp_multi takes no {name}; it has reference_targets, a list")
    if reference_targets is not None:
        ops = Denoise(0.0)
        ys = reference_targets
    joint, y = joined(prior, ops, ys)
    if codes == "shared":
        return imp(prior, joint, y, seed=seed, **options)
    each = PerImage(prior, image_codes(prior, len(y), seed))
    found = imp(each, joint, y, seed=seed, **options)
    start = prior.clone()
    start.net.load_state_dict(found.start.net.state_dict())
    return replace(found, start=start)


class Joint:
    """Several operators as one, which measures one picture for all or a picture for each.

    >>> import lipkit as lk
    >>> Joint([lk.physics.Denoise(), lk.physics.Denoise()]).A(torch.rand(1, 3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(self, ops: Sequence) -> None:
        self.ops = list(ops)

    def A(self, x: Tensor) -> Tensor:
        pictures = x.expand(len(self.ops), *x.shape[1:]).split(1)
        return torch.cat([op.A(one) for op, one in zip(self.ops, pictures, strict=True)])


def joined(prior: Prior, ops, ys: Sequence[Tensor]) -> tuple[Joint, Tensor]:
    """Join several measurements to one: operators side by side, measurements stacked.

    >>> import lipkit as lk
    >>> op = lk.physics.Denoise()
    >>> joined(lk.testing.tiny_prior(), op, [torch.rand(3, 16, 16)] * 2)[1].shape
    torch.Size([2, 3, 16, 16])
    """
    ys = list(ys)
    if not ys:
        raise InputError("imp_multi needs at least one measurement, got none")
    ops = list(ops) if isinstance(ops, (list, tuple)) else [ops] * len(ys)
    if len(ops) != len(ys):
        raise InputError(
            f"there are {len(ops)} operators for {len(ys)} measurements; give as many, or one"
        )
    for op, y in zip(ops, ys, strict=True):
        check_parts(prior, op, y)
    shapes = [tuple(y.shape) for y in ys]
    other = next((s for s in shapes if s != shapes[0]), None)
    if other is not None:
        raise InputError(
            f"the measurements have different shapes, {shapes[0]} and {other}; "
            "crop or resize the pictures to one size"
        )
    return Joint(ops), torch.stack(ys)

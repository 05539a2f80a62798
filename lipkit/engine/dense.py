"""The dense step: the same network in a cheaper order, and what every step computes with it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import check_shapes
from ..models.hourglass import LEAK, Block


class Boxed(nn.Module):
    """A block whose convolution is followed by 2x2 average pooling, at a quarter of its cost.

    The mean of four outputs of a convolution is one output for the mean of its four inputs: pad,
    average by a 2x2 box, convolve with stride 2. It shares the weights of the block.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.conv = block.conv
        self.norm = block.norm

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        reach, _ = conv.padding
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        x = F.pad(x, (reach,) * 4, mode=mode) if reach else x
        x = F.conv2d(F.avg_pool2d(x, 2, stride=1), conv.weight, conv.bias, stride=2)
        return F.leaky_relu(self.norm(x), LEAK)


def boxed(net: nn.Module) -> nn.Module:
    """Return the network with `Boxed` blocks where it pools by averages, of the same weights.

    >>> from lipkit.models import build
    >>> net, z = build("oes", levels=2), torch.rand(1, 32, 17, 22)
    >>> torch.allclose(boxed(net)(z), net(z), atol=1e-4)
    True
    """
    pooled = {n for n, m in net.named_children() if isinstance(m, Block) and m.pool == "avg"}
    twin = copy.copy(net)
    twin._modules = {n: Boxed(m) if n in pooled else m for n, m in net.named_children()}
    return twin if pooled else net


def forward_and_loss(
    picture_of: Callable[[Tensor], Tensor],
    z: Tensor,
    op,
    y: Tensor,
    reference: Tensor | None = None,
    half: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the picture of a code, what the operator measures of it, and how far that is from y.

    The distance is the mean squared error, of complex measurements the mean squared modulus.
    `picture_of` is a prior or another network; `half`: it runs in bfloat16.

    >>> import lipkit as lk
    >>> prior, y = lk.testing.tiny_prior(), torch.zeros(3, 16, 16)
    >>> x, predicted, loss = forward_and_loss(prior, prior.z, lk.physics.Denoise(), y)
    >>> torch.equal(x, predicted), bool(loss == x.square().mean())
    (True, True)
    """
    with torch.autocast(z.device.type, dtype=torch.bfloat16) if half else nullcontext():
        x = picture_of(z)
    x = x.float() if x.dtype == torch.bfloat16 else x
    predicted = op.A(x)
    check_shapes(x, predicted, y, reference)
    error = predicted - y
    squares = error.abs().square() if error.is_complex() else error.square()
    return x, predicted, squares.mean()

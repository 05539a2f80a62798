"""A network whose constant channels are constant to the last bit, on every processor.

Behind a hole in a mask, channels are constant in theory and constant up to rounding in practice: a
convolution may add the same numbers in another order near the border than in the middle, and on
some processors it does. A batch norm of a channel without variance multiplies by 1 / sqrt(1e-5),
316; a few norms in a row make a signal of the rounding. The plain network is then the one that is
wrong, and by how much depends on the processor. What a smaller network computes is therefore
compared with the plain one under `exact_constants`, where nothing is there to be amplified.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def exact_constants(net: nn.Module) -> Iterator[nn.Module]:
    """Flatten what is constant up to rounding, behind every convolution of the network."""
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    hooks = [conv.register_forward_hook(_flatten) for conv in convolutions]
    try:
        yield net
    finally:
        for hook in hooks:
            hook.remove()


def _flatten(_conv: nn.Conv2d, _given: tuple, x: Tensor) -> Tensor:
    """The mean in the place of every channel that varies by half the digits' worth at most."""
    flat, half_the_digits = x.detach(), torch.finfo(x.dtype).eps ** 0.5
    spread = flat.amax((0, 2, 3)) - flat.amin((0, 2, 3))
    constant = spread <= half_the_digits * flat.abs().amax((0, 2, 3))
    mean = x.mean((0, 2, 3), keepdim=True)
    return torch.where(constant[:, None, None], mean.expand_as(x), x)

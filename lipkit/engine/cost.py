"""What a network costs: the multiply-adds of its convolutions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..masks import Mask


class Cost(NamedTuple):
    """Of one forward pass over one code, without pooling first or other savings."""

    multiply_adds: int
    kept: int  # those of the weights that a mask keeps
    outputs: int  # of all convolutions

    @property
    def density(self) -> float:
        """The cost-weighted density of the mask."""
        return self.kept / self.multiply_adds


def cost(net: nn.Module, z: Tensor, mask: Mask | None = None) -> Cost:
    """Count the multiply-adds of a network for a code, and those of the kept weights alone.

    >>> import lipkit as lk
    >>> prior = lk.Prior("deep-decoder", (16, 16), levels=1, width=8, upsample_first=False)
    >>> mask = lk.Mask({"conv0.weight": torch.zeros(8, 8, 1, 1, dtype=torch.bool)})
    >>> cost(prior.net, prior.z, mask)
    Cost(multiply_adds=26624, kept=22528, outputs=3328)
    """
    pixels = _pixels(net, z)
    weights = {name: net.get_parameter(name) for name in pixels}
    kept = {name: w.numel() for name, w in weights.items()}
    if mask is not None:
        kept |= {n: layer.kept for n, layer in mask.per_layer().items() if n in kept}
    return Cost(
        sum(weights[name].numel() * n for name, n in pixels.items()),
        sum(kept[name] * n for name, n in pixels.items()),
        sum(len(weights[name]) * n for name, n in pixels.items()),
    )


@torch.no_grad()
def _pixels(net: nn.Module, z: Tensor) -> dict[str, int]:
    """How many outputs a channel of each convolution has, by the name of its weights."""
    sizes: dict[str, int] = {}
    hooks = [
        module.register_forward_hook(
            lambda _, __, x, name=name: sizes.update({f"{name}.weight": x[0, 0].numel()})
        )
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    training = net.training
    net.eval()(z[:1])  # which leaves the running statistics alone
    net.train(training)
    for hook in hooks:
        hook.remove()
    return sizes

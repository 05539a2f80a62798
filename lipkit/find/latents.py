"""Codes beside the prior's own: a new one for each round, or one for each image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..prior import OWN, Prior


def fresh_code(prior: Prior, seed: int) -> Tensor:
    """Draw another code of the prior's kind and scale.

    >>> import lipkit as lk
    >>> prior = lk.testing.tiny_prior()
    >>> fresh_code(prior, seed=1).shape == prior.z.shape
    True
    """
    recipe = prior.recipe
    if recipe.code == "meshgrid":
        raise InputError("the code of this prior is a fixed grid: there is no other one to draw")
    if recipe.name == OWN:
        raise InputError("the code of this prior is your own: there is no law to draw others from")
    # far from the seeds that people give to priors, whose codes these must not repeat
    generator = torch.Generator().manual_seed(1_000_000 * (recipe.seed + 1) + seed)
    draw = torch.rand if recipe.code == "uniform" else torch.randn
    z = draw(prior.z.shape, generator=generator) * recipe.code_scale
    return z.to(prior.z)


def image_codes(prior: Prior, images: int, seed: int = 0) -> Tensor:
    """Return the codes of `imp_multi(codes="per_image")`: the prior's own, then fresh ones.

    >>> import lipkit as lk
    >>> prior = lk.testing.tiny_prior()
    >>> image_codes(prior, 3).shape, prior.z.shape
    (torch.Size([3, 4, 16, 16]), torch.Size([1, 4, 16, 16]))
    """
    fresh = [fresh_code(prior, seed + i) for i in range(1, images)]
    return torch.cat([prior.z, *fresh])


class PerImage(Prior):
    """A prior with several codes, which makes as many pictures, one after the other.

    In one batch, batch norm would mix them; later each is fitted alone.

    >>> import lipkit as lk
    >>> prior = lk.testing.tiny_prior()
    >>> PerImage(prior, image_codes(prior, 3))().shape
    torch.Size([3, 3, 16, 16])
    """

    def __init__(self, prior: Prior, codes: Tensor) -> None:
        nn.Module.__init__(self)  # nothing is to be built anew
        self.net = prior.clone().net
        self.recipe = prior.recipe
        self.size = prior.size
        self.net_size = prior.net_size
        self.register_buffer("z", codes)

    def forward(self, z: Tensor | None = None) -> Tensor:
        """Make a picture for each code."""
        codes = self.z if z is None else z
        return torch.cat([self.crop(self.net(one)) for one in codes.split(1)])

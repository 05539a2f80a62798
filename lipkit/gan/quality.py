"""How far generated pictures are from real ones, without a pretrained network to judge them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.faces import paint_faces, reduced
from ..errors import InputError
from ..models import Generator

_PATCH = 7
HELD_OUT = 512  # faces to judge by, of a seed that nothing is trained on


def sliced_wasserstein(
    real: Tensor, fake: Tensor, patches: int = 32, directions: int = 128, seed: int = 0
) -> dict[int, float]:
    """Measure how far patches are at each level of a Laplacian pyramid, times 1000.

    Patches of 7 x 7 pixels, scaled by the spread of the real ones in each channel, are projected on
    random directions, where the distance of two sorted samples is exact. `{64: ..., 32: ...,
    16: ...}`: the finest level tells of texture, the coarsest of layout and colour. Two samples of
    real pictures give the floor.

    >>> x = torch.rand(8, 3, 16, 16)
    >>> sliced_wasserstein(x, x)
    {16: 0.0}
    """
    if real.shape != fake.shape or real.ndim != 4 or min(real.shape[2:]) < 16:
        raise InputError(
            "needs two batches [N, C, H, W] of one shape, sides of at least 16; "
            f"got {tuple(real.shape)} and {tuple(fake.shape)}"
        )
    levels = zip(_pyramid(real.float()), _pyramid(fake.float()), strict=True)
    return {a.shape[-1]: _distance(a, b, patches, directions, seed) for a, b in levels}


@torch.no_grad()
def judge(generator: Generator, seed: int = 1) -> dict[str, dict[int, float]]:
    """Measure how far samples are from procedural faces never trained on.

    And its `floor`: the same distance between faces and faces.

    >>> sorted(judge(Generator(4, 4, (4, 4))))
    ['distance_to_faces', 'floor']
    """
    z = torch.randn(HELD_OUT, generator.latent, generator=torch.Generator().manual_seed(seed))
    made = torch.cat([generator(part) for part in z.to(generator.start.weight).split(128)])
    return against_faces(((made + 1) / 2).clamp(0, 1), generator.side, seed)


def against_faces(made: Tensor, side: int, seed: int) -> dict[str, dict[int, float]]:
    """Measure how far pictures are from faces painted at `side` pixels, and faces from faces."""

    held_out = paint_faces(2 * len(made), side, seed, made.device)
    real, other = (reduced(held_out, made.shape[-1]).float() / 255).chunk(2)
    return {
        "distance_to_faces": sliced_wasserstein(real, made),
        "floor": sliced_wasserstein(real, other),
    }


def _pyramid(x: Tensor) -> list[Tensor]:
    """Return details at each side down to 16, where the rest stays whole."""
    levels = []
    while min(x.shape[2:]) >= 32:
        small = F.avg_pool2d(x, 2)
        levels.append(x - F.interpolate(small, scale_factor=2, mode="bilinear"))
        x = small
    return [*levels, x]


def _distance(a: Tensor, b: Tensor, patches: int, directions: int, seed: int) -> float:
    random = torch.Generator()
    a, b = (_cut(x, patches, random.manual_seed(seed)) for x in (a, b))
    mean = a.mean((0, 2, 3), keepdim=True)
    spread = a.std((0, 2, 3), keepdim=True) + 1e-8
    a, b = (((x - mean) / spread).flatten(1) for x in (a, b))
    axes = torch.randn(a.shape[1], directions, generator=random).to(a)
    axes = axes / axes.norm(dim=0)
    return float(1000 * ((a @ axes).sort(0).values - (b @ axes).sort(0).values).abs().mean())


def _cut(x: Tensor, patches: int, random: torch.Generator) -> Tensor:
    """Cut patches at random places, as many from every picture: [N * patches, C, 7, 7]."""
    n, _, height, width = x.shape
    top = torch.randint(height - _PATCH + 1, (n, patches, 1, 1), generator=random)
    left = torch.randint(width - _PATCH + 1, (n, patches, 1, 1), generator=random)
    steps = torch.arange(_PATCH)
    picture = torch.arange(n).view(n, 1, 1, 1)
    rows = top + steps.view(-1, 1)
    columns = left + steps
    cut = x[picture, :, rows, columns]  # [N, patches, 7, 7, C]
    return cut.flatten(0, 1).movedim(-1, 1)

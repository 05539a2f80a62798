"""What no network is needed for: the measurement as it is, and classical restorations.

They stand in every table of results, so that a reader sees what the networks are worth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..errors import InputError
from ..metrics import psnr
from ..physics import Denoise, Gaussian, Inpaint, SuperResolution
from .tables import ORACLE, STOPPED, Cell

INPUT = "the input as it is"
# Settings in units of sigma, the first for use, all of them for the oracle. The first ones lost
# least to the best, over pictures of 64 to 256 pixels and noise of 15 to 50.
WEIGHTS = (0.6, 0.25, 0.3, 0.4, 0.5, 0.75, 0.95, 1.2)  # of total variation
WIDTHS = (0.6, 0.4, 0.8, 1.0)  # of non-local means


def rows(
    op: Denoise | Inpaint | SuperResolution,
    ys: Iterable[Tensor],
    reference: Tensor,
    by: str = "network",
) -> list[dict[str, Cell]]:
    """Make rows of `lipkit.lab.tables` for the measurements `ys`, one for each seed.

    For denoising there is the input as it is, and total variation and non-local means, each
    *stopped* with a setting that the noise level alone decides and as an *oracle* with the best.
    For inpainting there is the biharmonic fill, for enlarging the bicubic.

    >>> import lipkit as lk
    >>> clean, op = lk.testing.tiny_image(), lk.physics.Denoise(sigma=0.1)
    >>> [row["network"] for row in rows(op, [op.measure(clean)], clean)]
    ['the input as it is', 'total variation', 'non-local means']
    """
    methods = _methods(op)
    return [_row(by, name, method, y, reference) for name, method in methods.items() for y in ys]


def restored(op: Denoise | Inpaint | SuperResolution, y: Tensor) -> dict[str, Tensor]:
    """Return the pictures of `rows` for one measurement, by the settings that need no reference.

    >>> import lipkit as lk
    >>> op = lk.physics.SuperResolution(2)
    >>> restored(op, op.measure(lk.testing.tiny_image()))["bicubic"].shape == (3, 16, 16)
    True
    """
    return {name: method(y)[0] for name, method in _methods(op).items()}


Method = Callable[[Tensor], list[Tensor]]  # the picture to take first, then others to choose from


def _methods(op: Denoise | Inpaint | SuperResolution) -> dict[str, Method]:
    if isinstance(op, Denoise):
        return {
            INPUT: lambda y: [y],
            "total variation": lambda y: _total_variation(y, _sigma(op, y)),
            "non-local means": lambda y: _nonlocal_means(y, _sigma(op, y)),
        }
    if isinstance(op, Inpaint):
        return {"biharmonic": lambda y: [_biharmonic(y, op.mask)]}
    if isinstance(op, SuperResolution):
        return {"bicubic": lambda y: [_bicubic(y, op.factor)]}
    raise InputError(
        f"no classical method for {type(op).__name__}; there are some for Denoise, Inpaint and "
        "SuperResolution"
    )


def _row(by: str, name: str, method: Method, y: Tensor, reference: Tensor) -> dict[str, Cell]:
    began = time.perf_counter()
    pictures = method(y)
    seconds = (time.perf_counter() - began) / len(pictures)
    found = [psnr(picture, reference) for picture in pictures]
    row = {by: name, STOPPED: found[0], ORACLE: max(found), "seconds": seconds}
    return row | {"steps": None, "weights": None}


def _sigma(op: Denoise, y: Tensor) -> float:
    """Return the noise level that is known, or else estimate it."""
    if isinstance(op.noise, Gaussian):
        return op.noise.sigma
    from skimage.restoration import estimate_sigma

    return float(estimate_sigma(_array(y), average_sigmas=True, channel_axis=-1))


def _total_variation(y: Tensor, sigma: float) -> list[Tensor]:
    from skimage.restoration import denoise_tv_chambolle  # late: it loads much

    array = _array(y)
    return [
        _tensor(denoise_tv_chambolle(array, weight=weight * sigma, channel_axis=-1))
        for weight in WEIGHTS
    ]


def _nonlocal_means(y: Tensor, sigma: float) -> list[Tensor]:
    from skimage.restoration import denoise_nl_means

    array = _array(y)
    how = dict(sigma=sigma, patch_size=5, patch_distance=6, channel_axis=-1)
    return [_tensor(denoise_nl_means(array, h=width * sigma, **how)) for width in WIDTHS]


def _biharmonic(y: Tensor, mask: Tensor) -> Tensor:
    from skimage.restoration import inpaint_biharmonic

    holes = mask.expand_as(y) == 0  # which may differ from colour to colour
    filled = [
        inpaint_biharmonic(colour.double().numpy(), hole.numpy())
        for colour, hole in zip(y, holes, strict=True)
    ]
    return torch.stack([torch.from_numpy(colour).float() for colour in filled])


def _bicubic(y: Tensor, factor: int) -> Tensor:
    resize = torch.nn.functional.interpolate
    return resize(y[None], scale_factor=factor, mode="bicubic")[0].clamp(0, 1)


def _array(picture: Tensor):
    return picture.movedim(0, -1).double().numpy()


def _tensor(array) -> Tensor:
    return torch.from_numpy(array).movedim(-1, 0).float()

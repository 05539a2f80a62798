"""Coil maps from the centre of k-space, and the magnitude of a complex picture."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, check_picture
from .mri import needed

LEAST_CALIBRATION = 12  # samples a side; ESPIRiT's kernels are 6 wide


def espirit(kspace: Tensor, calibration: int = 24, crop: float = 0.95) -> Tensor:
    """Find coil maps [coils, H, W] from the fully measured centre of k-space (ESPIRiT, in sigpy).

    The maps are zero where nothing was found to measure: outside the object.

    Args:
        calibration: width of the centre in samples.
        crop: how clearly a place must be seen, from 0 (all is object) to 1.

    >>> import lipkit as lk
    >>> scan = lk.data.scan("slice-1", size=48)
    >>> lk.mri.espirit(scan.kspace).shape
    torch.Size([8, 48, 48])
    """
    check_picture("k-space", kspace)
    if kspace.ndim != 3 or not kspace.is_complex():
        raise InputError(
            f"k-space must be complex [coils, H, W], got {kspace.dtype} {tuple(kspace.shape)}"
        )
    if not LEAST_CALIBRATION <= calibration <= min(kspace.shape[1:]):
        raise InputError(
            f"the fully measured centre of k-space is {calibration} samples wide, and coil maps "
            f"take {LEAST_CALIBRATION} or more of {min(kspace.shape[1:])}; give the maps instead"
        )
    app = needed("sigpy.mri.app").EspiritCalib(
        kspace.numpy(), calib_width=calibration, crop=crop, show_pbar=False
    )
    with np.errstate(invalid="ignore", divide="ignore"):  # where no coil receives anything
        maps = np.nan_to_num(app.run())
    if not maps.any():
        raise InputError("ESPIRiT finds no object in this k-space; is its centre in the middle?")
    return torch.from_numpy(np.ascontiguousarray(maps))


def magnitude(image: Tensor) -> Tensor:
    """Return the absolute value of a complex picture: [..., 2, H, W] to [..., 1, H, W].

    >>> float(magnitude(torch.ones(2, 8, 8))[0, 0, 0])
    1.4142135381698608
    """
    if image.shape[-3] != 2:
        raise InputError(
            "a complex picture has two channels, real and imaginary, "
            f"got shape {tuple(image.shape)}"
        )
    return image.square().sum(-3, keepdim=True).sqrt()

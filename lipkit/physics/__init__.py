"""Forward operators: what a camera or scanner does to a picture.

Every operator has `A`, its adjoint `A_adjoint`, and `measure`, which applies `A` and adds noise.
Pictures are [C, H, W] or [N, C, H, W]; a complex one has two channels, real and imaginary part.
The names are those of deepinv, whose operators therefore work wherever ours do; `lipkit.testing`
checks the laws for operators of your own.
"""

from __future__ import annotations

from .base import Operator
from .mri import MRI, sampling_mask
from .noise import ComplexGaussian, Gaussian, Noise, Poisson, SaltAndPepper
from .pictures import Denoise, Inpaint, SuperResolution, lanczos_taps
from .sensing import CompressedSensing

__all__ = [
    "MRI",
    "ComplexGaussian",
    "CompressedSensing",
    "Denoise",
    "Gaussian",
    "Inpaint",
    "Noise",
    "Operator",
    "Poisson",
    "SaltAndPepper",
    "SuperResolution",
    "lanczos_taps",
    "sampling_mask",
]

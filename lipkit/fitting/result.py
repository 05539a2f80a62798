"""What a fit shows on its way and gives in the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True)
class Snapshot:
    """What a callback sees: return True from it to stop the fit."""

    step: int
    loss: float
    image: Tensor
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Fit:
    """The result of a fit.

    `image` is what a user gets: the stop rule's choice, else the average, else the last output.
    `best` is the oracle's: the output of highest PSNR to the reference among those measured, or
    None without a reference. `history` holds the arrays step, loss, psnr, ssim (of the estimate)
    and psnr_raw (of the single output). `engine` says how the steps were computed.
    """

    image: Tensor
    best: Tensor | None
    history: dict[str, np.ndarray]
    steps: int
    reason: str
    seconds: float
    net: nn.Module
    interrupted: bool = False
    engine: str = ""

    def __repr__(self) -> str:
        c, h, w = self.image.shape
        return f"Fit({c}x{h}x{w}, {self.steps} steps in {self.seconds:.1f} s: {self.reason})"

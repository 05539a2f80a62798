"""Reconstruction from multi-coil k-space: coil maps, methods without a network, scores.

The methods are functions of an operator `lipkit.physics.MRI` and its measurement. They give a
complex picture as two channels [2, H, W], as a fit does. Their strengths are meant for data scaled
as `lipkit.data.scan` does, to a picture of maximum 1, with noise of 0.01 a sample: there they gave
the highest PSNR of "slice-1" at four- and eightfold acceleration. More noise asks for
proportionally more.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import metrics
from .data.scans import Scan
from .errors import InputError, is_number
from .fitting import Snapshot
from .physics.coils import espirit, magnitude
from .physics.mri import MRI, needed, sampling_mask, to_channels
from .testing import tiny_image

__all__ = [
    "METHODS",
    "STRENGTHS",
    "Watch",
    "cg_sense",
    "espirit",
    "hold_out",
    "judged",
    "l1_wavelet",
    "magnitude",
    "psnr",
    "scores",
    "total_variation",
    "zero_filled",
]

STRENGTHS = {"cg": 0.005, "l1": 0.001, "tv": 0.001}


def zero_filled(op: MRI, y: Tensor) -> Tensor:
    """Apply the adjoint: samples that were not measured are taken as zero.

    >>> op, y = _tiny()
    >>> zero_filled(op, y).shape
    torch.Size([2, 32, 32])
    """
    return op.A_adjoint(y)


def cg_sense(op: MRI, y: Tensor, strength: float = STRENGTHS["cg"], iterations: int = 30) -> Tensor:
    """Minimize least squares with a little ridge, by conjugate gradients (SENSE).

    >>> cg_sense(*_tiny()).shape
    torch.Size([2, 32, 32])
    """
    return _solved("SenseRecon", op, y, strength, iterations)


def l1_wavelet(
    op: MRI, y: Tensor, strength: float = STRENGTHS["l1"], iterations: int = 100
) -> Tensor:
    """Ask for few Daubechies-4 wavelet coefficients: compressed sensing, Lustig et al. 2007.

    >>> l1_wavelet(*_tiny()).shape
    torch.Size([2, 32, 32])
    """
    # the operator's norm is 1, so is the step; sigpy would estimate it from random numbers
    return _solved("L1WaveletRecon", op, y, strength, iterations, alpha=1)


def total_variation(
    op: MRI, y: Tensor, strength: float = STRENGTHS["tv"], iterations: int = 150
) -> Tensor:
    """Ask for few edges: total variation, after Block et al. 2007.

    >>> total_variation(*_tiny()).shape
    torch.Size([2, 32, 32])
    """
    # squared norms: 1 of the operator, 8 of the differences; in this ratio 100 iterations suffice
    return _solved("TotalVariationRecon", op, y, strength, iterations, sigma=1 / 80, tau=80 / 9)


# by the names of the command line and of the book's tables
METHODS = {
    "zero-filled": zero_filled,
    "cg": cg_sense,
    "l1": l1_wavelet,
    "tv": total_variation,
}


def psnr(image: Tensor, target: Tensor) -> float:
    """Return the PSNR in dB of the magnitudes; the range is the target's, as in fastMRI.

    >>> round(psnr(torch.full((2, 8, 8), 0.9), torch.ones(2, 8, 8)), 3)
    20.0
    """
    pair = magnitude(image), magnitude(target)
    return metrics.psnr(*pair, data_range=float(pair[1].max()))


def scores(image: Tensor, target: Tensor) -> dict[str, float]:
    """Return PSNR, SSIM and NMSE of the magnitudes as fastMRI defines them.

    >>> scores(torch.ones(2, 16, 16), torch.ones(2, 16, 16))["ssim"]
    1.0
    """
    from skimage.metrics import structural_similarity  # late: loading it takes its time

    found, wanted = (magnitude(x)[0].double().cpu().numpy() for x in (image, target))
    return {
        "psnr": psnr(image, target),
        "ssim": float(structural_similarity(wanted, found, data_range=wanted.max())),
        "nmse": float(((found - wanted) ** 2).sum() / (wanted**2).sum()),
    }


def hold_out(
    op: MRI, y: Tensor, share: float = 0.1, seed: int = 0
) -> tuple[MRI, Tensor, Callable[[Tensor], float]]:
    """Set some samples aside to judge a picture by, where there is none to compare it with.

    Returns the operator and the measurement without them, and a function that tells how well a
    picture predicts them: their power over that of the error, in dB. The centre of k-space, a
    sixteenth of each side, is never set aside: it holds nearly all of the power.

    >>> op, y = _tiny()
    >>> op, y, score = hold_out(op, y)
    >>> score(cg_sense(op, y)) > score(zero_filled(op, y)) > 0
    True
    """
    if not is_number(share) or not 0 < share < 1:
        raise InputError(f"share is the fraction to set aside, between 0 and 1, got {share!r}")
    height, width = op.sampling.shape
    draw = torch.rand(height, width, generator=torch.Generator().manual_seed(seed))
    draw[height // 2 - height // 32 : height // 2 + height // 32 + 1,
         width // 2 - width // 32 : width // 2 + width // 32 + 1] = 1  # fmt: skip
    aside = op.sampling.cpu() * (draw < share)
    if not bool(aside.any()):
        raise InputError(f"share={share:g} of so few samples sets none aside; take more")
    kept = MRI(op.maps, op.sampling.cpu() - aside)
    return kept, y * kept.sampling.to(y.device), _prediction(op.maps, aside, y)


def _prediction(maps: Tensor, aside: Tensor, y: Tensor) -> Callable[[Tensor], float]:
    """Return a function: how well a picture predicts samples that were set aside, in dB."""
    judge = MRI(maps.cpu(), aside)
    wanted = y.cpu() * aside

    def score(image: Tensor) -> float:
        error = judge.A(image.cpu()) - wanted
        return float(20 * torch.log10(wanted.norm() / error.norm()))

    return score


def judged(
    scan: Scan, sampling: Tensor | None = None
) -> tuple[MRI, Tensor, Callable[[Tensor], float]]:
    """Return operator and measurement of a scan, and a function that scores pictures, in dB.

    Only `sampling` counts as measured. If the scan has a target, the score is the PSNR where the
    object is. If it was undersampled in the scanner, the score tells how well a picture predicts
    the samples that were measured and do not count; without `sampling` those of `hold_out`.

    >>> import lipkit as lk
    >>> scan = lk.data.scan("slice-1", size=32)
    >>> op, y, score = judged(scan, lk.physics.sampling_mask((32, 32)))
    >>> score(scan.target)
    inf
    """
    if scan.target is None and sampling is None:
        return hold_out(*scan.undersampled())
    op, y = scan.undersampled(sampling)
    if scan.target is None:
        aside = scan.sampling - op.sampling
        if not bool(aside.any()):
            raise InputError("the sampling takes all that was measured: none is left to judge by")
        return op, y, _prediction(op.maps, aside, scan.kspace)
    return op, y, lambda image: psnr(image.cpu() * op.support, scan.target)


class Watch:
    """A callback for `fit` that follows a score of the picture.

    `steps` and `values` are the curve, `best` is the picture at its top: the oracle's choice, if
    the score knows the target. It changes nothing.

    >>> op, y = _tiny()
    >>> op, y, score = hold_out(op, y)
    >>> from lipkit import Prior, fit
    >>> prior = Prior("deep-decoder", 32, levels=2, width=8, out_channels=2, sigmoid=False)
    >>> watch = Watch(score)
    >>> found = fit(prior, op, y, steps=4, every=2, callback=watch)
    >>> watch.steps, watch.values[-1] == score(found.image)
    ([2, 4], True)
    """

    def __init__(self, score: Callable[[Tensor], float]) -> None:
        self.score = score
        self.steps: list[int] = []
        self.values: list[float] = []
        self.best: Tensor | None = None

    def __call__(self, snapshot: Snapshot) -> None:
        found = self.score(snapshot.image)
        if self.best is None or found > max(self.values):
            self.best = snapshot.image
        self.steps.append(snapshot.step)
        self.values.append(found)


def _solved(name: str, op: MRI, y: Tensor, strength: float, iterations: int, **how) -> Tensor:
    """Run a reconstruction of sigpy, on the CPU in single precision."""
    app = needed("sigpy.mri.app")
    if tuple(y.shape) != tuple(op.maps.shape):
        raise InputError(
            f"the k-space has shape {tuple(y.shape)}, the coil maps {tuple(op.maps.shape)}; "
            "they must agree"
        )
    maps, sampling = (t.cpu().numpy() for t in (op.maps, op.sampling))
    solver = getattr(app, name)(
        y.cpu().numpy(), maps, lamda=strength, weights=sampling,
        max_iter=iterations, show_pbar=False, **how,
    )  # fmt: skip
    return to_channels(torch.from_numpy(solver.run())[None]) * op.support


def _tiny() -> tuple[MRI, Tensor]:
    """Make a small problem for the examples above."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    maps = torch.stack([2 + x, 2 - x, 2 + 1j * y, 2 - 1j * y])
    op = MRI(maps, sampling_mask((32, 32)))
    return op, op.measure(tiny_image((32, 32), channels=2))

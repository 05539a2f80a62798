"""`lipkit mri`: a picture from the k-space of several coils."""

from __future__ import annotations

import gzip
import io
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from .. import data, mri, physics
from ..data.decode import open_npy
from ..data.scans import Scan
from ..errors import FileError, InputError
from ..fitting import Fit, fit
from ..formats.atomic import write
from ..physics.mri import needed
from ..prior import Recipe
from ..tickets import Ticket
from .estimate import announce
from .task import Problem, check_output, chosen_device, device_option, json_option, seed_option

CLASSICAL = ("zero-filled", "cg", "l1", "tv")
METHODS = (*CLASSICAL, "dip", "deep-decoder", "ticket")
ENDINGS = (".npy", ".nii", ".nii.gz", ".png")


@click.command()
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT")
@click.option("--method", type=click.Choice(METHODS), default="dip", show_default=True)
@click.option("--acceleration", type=click.FloatRange(1), help="leave out all but 1/N of k-space")
@click.option("--pattern", type=click.Choice(["equispaced", "random", "poisson"]))
@click.option("--sampling", help="instead: .npy or picture of k-space, 1 or white where measured")
@click.option("--maps", help="complex coil maps, .npy [coils, H, W]  [default: by ESPIRiT]")
@click.option("--ticket", help="method ticket: a sparse network with two output channels")
@click.option("--slice", "index", type=click.IntRange(0), help="of a volume  [default: middle]")
@click.option("--size", type=click.IntRange(16), help="pixels of the longer side, if fewer")
@click.option("--steps", type=click.IntRange(1), default=2000, show_default=True, help="of a fit")
@seed_option
@device_option
@json_option
@click.pass_context
def command(context: click.Context, source: str, out: str, as_json: bool, **options: Any) -> None:
    """Reconstruct IN and write the picture as OUT (.npy complex; .nii, .nii.gz, .png magnitude).

    \b
    lipkit mri kspace.npy brain.png --method l1
    lipkit mri file_brain_AXT2.h5 brain.nii.gz --acceleration 4 --json
    lipkit mri slice-1 slice.png --acceleration 8 --method tv

    IN is complex k-space (.npy, [coils, H, W]), a multi-coil file in the layout of fastMRI (.h5),
    the name of a scan (slice-1, brain-8ch, ...), or a picture or volume of magnitudes, which
    simulated coils then measure. OUT has a maximum of about 1. Where all of k-space is known,
    PSNR, SSIM and NMSE compare with the picture that it gives.
    """
    wanted = _Request(**options)
    path = wanted.check(source, out)
    maps = None if wanted.maps is None else _array(wanted.maps)
    scan = data.scan(source, wanted.size, index=wanted.index, maps=maps)
    op, y = _measured(scan, wanted)
    began = time.perf_counter()
    told = {}
    if wanted.method in CLASSICAL:
        image = mri.METHODS[wanted.method](op, y)
    else:
        result = _fitted(wanted, op, y)
        if result.interrupted:
            click.echo(f"{result.reason}; nothing is written", err=True)
            context.exit(130)
        image = result.image * op.support
        told = {"steps": result.steps, "reason": result.reason}
    _write(image, path)
    report = {
        "out": str(path),
        "scan": scan.name,
        "method": wanted.method,
        "coils": y.shape[0],
        "size": list(y.shape[1:]),
        "acceleration": round(op.sampling.numel() / float(op.sampling.sum()), 2),
        **told,
        "seconds": round(time.perf_counter() - began, 2),
    }
    if scan.target is not None:
        found = mri.scores(image, scan.target)
        report |= {name: round(value, 4) for name, value in found.items()}
    click.echo(json.dumps(report) if as_json else _sentence(report))


@dataclass(frozen=True)
class _Request:
    """The options of the command line."""

    method: str
    acceleration: float | None
    pattern: str | None
    sampling: str | None
    maps: str | None
    ticket: str | None
    index: int | None
    size: int | None
    steps: int
    seed: int
    device: str

    def check(self, source: str, out: str) -> Path:
        """Refuse what cannot be before anything is read; return where the picture goes."""
        if (self.method == "ticket") != (self.ticket is not None):
            raise click.UsageError("--method ticket and --ticket FILE belong together")
        if self.sampling and self.acceleration:
            raise click.UsageError("--sampling says it all: leave out --acceleration")
        if self.pattern and not self.acceleration:
            raise click.UsageError("--pattern is for --acceleration")
        if not Path(out).suffix or not out.lower().endswith(ENDINGS):
            raise click.UsageError(f"OUT must end in .npy, .nii, .nii.gz or .png, got {out!r}")
        return check_output(out, "OUT", (source, self.sampling, self.maps, self.ticket))


def _measured(scan: Scan, wanted: _Request) -> tuple[physics.MRI, Tensor]:
    """Take all of the scan, or as much as an acceleration or a sampling leaves."""
    if wanted.sampling is not None:
        is_array = wanted.sampling.endswith(".npy")
        mask = _array(wanted.sampling) if is_array else data.mask(wanted.sampling)[0]
        return scan.undersampled(torch.as_tensor(mask))
    if wanted.acceleration is None:
        return scan.undersampled()
    if scan.target is None:
        raise InputError(
            f"{scan.name} is undersampled already: {100 * float(scan.sampling.mean()):.0f} % of "
            "k-space is measured; leave out --acceleration"
        )
    size = tuple(scan.sampling.shape)
    pattern = wanted.pattern or "equispaced"
    sampling = physics.sampling_mask(size, wanted.acceleration, pattern, seed=wanted.seed)
    return scan.undersampled(sampling)


def _fitted(wanted: _Request, op: physics.MRI, y: Tensor) -> Fit:
    """Fit an untrained network, dense or sparse."""
    size = tuple(y.shape[1:])
    device = chosen_device(wanted.device)
    ticket = _ticket(wanted.ticket) if wanted.method == "ticket" else None
    if ticket is None:
        options = {"out_channels": 2, "sigmoid": False}
        recipe = Recipe(wanted.method, size, wanted.seed, options)
    else:
        recipe = replace(ticket.recipe, size=size)
    announce(Problem("mri", y, op, size), recipe, wanted.steps, 1, device)
    prior = ticket.prior(size) if ticket else recipe.prior()
    mask = ticket.mask if ticket else None
    return fit(prior.to(device), op, y, steps=wanted.steps, mask=mask, seed=wanted.seed)


def _ticket(file: str) -> Ticket:
    found = Ticket.load(file)
    made = found.recipe.options
    if made.get("out_channels") != 2 or made.get("sigmoid", True):
        raise InputError(
            f"the network of {file} makes no complex pictures: a ticket for MRI is found with "
            "Prior(..., out_channels=2, sigmoid=False)"
        )
    return found


def _array(file: str) -> np.ndarray:
    if not Path(file).is_file():
        raise FileError(f"there is no file {file!r}")
    array = np.array(open_npy(Path(file)))
    if array.dtype.kind not in "buifc":
        raise FileError(f"{file} holds {array.dtype}; expected numbers")
    return array


def _write(image: Tensor, path: Path) -> None:
    """Write the complex picture as .npy, its magnitude as picture or NIfTI."""
    ending = path.suffix.lower()
    if ending == ".png":
        data.save(mri.magnitude(image), path)
    elif ending == ".npy":
        content = io.BytesIO()
        np.save(content, torch.complex(*image).numpy())
        write(path, content.getvalue())
    else:  # as it is read: x to the right, y to the nose
        plane = np.rot90(mri.magnitude(image)[0].numpy(), -1)[..., None]
        content = needed("nibabel").Nifti1Image(plane, np.eye(4)).to_bytes()
        write(path, gzip.compress(content, mtime=0) if ending == ".gz" else content)


def _sentence(report: dict[str, Any]) -> str:
    text = f"{report['out']}: {report['method']} at {report['acceleration']:g}x"
    text += f" in {report['seconds']:.1f} s"
    if "psnr" in report:
        text += f"; PSNR {report['psnr']:.2f} dB, SSIM {report['ssim']:.3f}"
    return text + (f"; {report['reason']}" if "reason" in report else "")

"""`lipkit mri`: a picture from the k-space of several coils."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .estimate import announce
from .task import Problem, check_output, chosen_device, device_option, json_option, seed_option

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.scans import Scan
    from ..physics import MRI
    from ..tickets import Ticket

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
def command(
    context: click.Context,
    source: str,
    out: str,
    method: str,
    index: int | None,
    size: int | None,
    as_json: bool,
    **options: Any,
) -> None:
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
    from .. import data, mri

    path = _check(method, source, out, options)
    maps = None if options["maps"] is None else _array(options["maps"])
    scan = data.scan(source, size, index=index, maps=maps)
    op, y = _measured(scan, options)
    began = time.perf_counter()
    if method in CLASSICAL:
        image, told = mri.METHODS[method](op, y), {}
    else:
        result = _fitted(method, op, y, options)
        if result.interrupted:
            click.echo(f"{result.reason}; nothing is written", err=True)
            context.exit(130)
        image = result.image * op.support
        told = {"steps": result.steps, "reason": result.reason}
    _write(image, path)
    report = {
        "out": str(path),
        "scan": scan.name,
        "method": method,
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


def _check(method: str, source: str, out: str, options: dict[str, Any]) -> Path:
    """Refuse what cannot be before anything is read; return where the picture goes."""
    if (method == "ticket") != (options["ticket"] is not None):
        raise click.UsageError("--method ticket and --ticket FILE belong together")
    if options["sampling"] and options["acceleration"]:
        raise click.UsageError("--sampling says it all: leave out --acceleration")
    if options["pattern"] and not options["acceleration"]:
        raise click.UsageError("--pattern is for --acceleration")
    if not Path(out).suffix or not out.lower().endswith(ENDINGS):
        raise click.UsageError(f"OUT must end in .npy, .nii, .nii.gz or .png, got {out!r}")
    inputs = (source, options["sampling"], options["maps"], options["ticket"])
    return check_output(out, "OUT", inputs)


def _measured(scan: Scan, options: dict[str, Any]) -> tuple[MRI, Tensor]:
    """What is taken of the scan: all, or as much as an acceleration or a sampling leaves."""
    import torch

    from .. import data, physics
    from ..errors import InputError

    if options["sampling"] is not None:
        file = options["sampling"]
        mask = _array(file) if file.endswith(".npy") else data.mask(file)[0]
        return scan.undersampled(torch.as_tensor(mask))
    if options["acceleration"] is None:
        return scan.undersampled()
    if scan.target is None:
        raise InputError(
            f"{scan.name} is undersampled already: {100 * float(scan.sampling.mean()):.0f} % of "
            "k-space is measured; leave out --acceleration"
        )
    size = tuple(scan.sampling.shape)
    pattern = options["pattern"] or "equispaced"
    how = (options["acceleration"], pattern)
    return scan.undersampled(physics.sampling_mask(size, *how, seed=options["seed"]))


def _fitted(method: str, op: MRI, y: Tensor, options: dict[str, Any]):
    """A fit of an untrained network, dense or sparse."""
    from ..fitting import fit
    from ..prior import Recipe

    size, device = tuple(y.shape[1:]), chosen_device(options["device"])
    recipe = Recipe(method, size, options["seed"], {"out_channels": 2, "sigmoid": False})
    ticket = _ticket(options["ticket"]) if method == "ticket" else None
    network = recipe if ticket is None else replace(ticket.recipe, size=size)
    announce(Problem("mri", y, op, size), network, options["steps"], 1, device)
    prior, mask = (recipe.prior(), None) if ticket is None else (ticket.prior(size), ticket.mask)
    return fit(prior.to(device), op, y, steps=options["steps"], mask=mask, seed=options["seed"])


def _ticket(file: str) -> Ticket:
    from ..errors import InputError
    from ..tickets import Ticket

    found = Ticket.load(file)
    made = found.recipe.options
    if made.get("out_channels") != 2 or made.get("sigmoid", True):
        raise InputError(
            f"the network of {file} makes no complex pictures: a ticket for MRI is found with "
            "Prior(..., out_channels=2, sigmoid=False)"
        )
    return found


def _array(file: str):
    import numpy as np

    from ..data.decode import open_npy
    from ..errors import FileError

    if not os.path.isfile(file):
        raise FileError(f"there is no file {file!r}")
    array = np.array(open_npy(Path(file)))
    if array.dtype.kind not in "buifc":
        raise FileError(f"{file} holds {array.dtype}; expected numbers")
    return array


def _write(image: Tensor, path: Path) -> None:
    """The complex picture as .npy, its magnitude as picture or NIfTI; complete or not at all."""
    import numpy as np
    import torch

    from .. import data, mri
    from ..errors import FileError
    from ..physics.mri import needed

    if path.suffix.lower() == ".png":
        data.save(mri.magnitude(image), path)
        return
    endings = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix
    partial = path.with_name(f".{path.name}.{os.getpid()}{endings}")  # the ending decides the form
    try:
        if path.suffix.lower() == ".npy":
            np.save(partial, torch.complex(*image).numpy())
        else:  # as it is read: x to the right, y to the nose
            plane = np.rot90(mri.magnitude(image)[0].numpy(), -1)[..., None]
            nibabel = needed("nibabel")
            nibabel.save(nibabel.Nifti1Image(plane, np.eye(4)), partial)
        partial.replace(path)
    except OSError as problem:
        why = problem.strerror or problem
        raise FileError(f"{path} cannot be written ({why}); check folder and permissions") from None
    finally:
        partial.unlink(missing_ok=True)


def _sentence(report: dict[str, Any]) -> str:
    text = f"{report['out']}: {report['method']} at {report['acceleration']:g}x"
    text += f" in {report['seconds']:.1f} s"
    if "psnr" in report:
        text += f"; PSNR {report['psnr']:.2f} dB, SSIM {report['ssim']:.3f}"
    return text + (f"; {report['reason']}" if "reason" in report else "")

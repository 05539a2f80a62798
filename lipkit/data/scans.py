"""Scans of magnetic resonance imaging: k-space of several coils, by name or from a file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import FileError, InputError, check_whole, is_number, is_whole
from ..physics.coils import espirit, magnitude
from ..physics.mri import MRI, to_channels
from . import images, kspace, registry

_SLICES = {"slice-1": 80, "slice-2": 62, "slice-3": 98, "slice-4": 116}  # millimetres from below
_FETCHED = {"brain-8ch": "mri/brain_8ch_ksp.npy"}
_SOURCES = (str, os.PathLike, np.ndarray, Tensor)


@dataclass(frozen=True, eq=False, repr=False)
class Scan:
    """K-space and what is known about it; scaled so that the picture's maximum is 1.

    Attributes:
        name: what it was asked for by.
        kspace: complex [coils, H, W], zero where nothing was measured.
        maps: complex coil sensitivities [coils, H, W], zero outside the object.
        mask: [1, H, W], 1 where the object is.
        sampling: [H, W], 1 where k-space was measured.
        target: the picture [2, H, W] that all of k-space gives (of a simulated scan, the picture
            it was made from); None if lines were left out in the scanner.
    """

    name: str
    kspace: Tensor
    maps: Tensor
    mask: Tensor
    sampling: Tensor
    target: Tensor | None

    def undersampled(self, sampling: Tensor | None = None) -> tuple[MRI, Tensor]:
        """Return operator and measurement, if only `sampling` of this scan had been measured.

        >>> import lipkit as lk
        >>> scan = lk.data.scan("slice-1", size=64)
        >>> op, y = scan.undersampled(lk.physics.sampling_mask((64, 64), acceleration=4))
        >>> y.shape, float(op.sampling.mean())
        (torch.Size([8, 64, 64]), 0.25)
        """
        op = MRI(self.maps, self.sampling if sampling is None else sampling)
        op.sampling = op.sampling * self.sampling
        if not bool(op.sampling.any()):
            raise InputError("the sampling picks nothing of what this scan has measured")
        return op, self.kspace * op.sampling

    def __repr__(self) -> str:
        coils, height, width = self.kspace.shape
        kind = "undersampled" if self.target is None else "fully sampled"
        return f"Scan({self.name!r}, {coils} coils, {height}x{width}, {kind})"


def scans() -> dict[str, str]:
    """List every name that `scan` takes, with a sentence on what it is.

    >>> list(scans())
    ['slice-1', 'slice-2', 'slice-3', 'slice-4', 'phantom', 'brain-8ch']
    """
    template = "simulated coils around a slice of the ICBM 152 average brain"
    described = {name: f"{template} (z = {z} mm from below)." for name, z in _SLICES.items()}
    described["phantom"] = "simulated coils around the Shepp-Logan phantom."
    return described | {
        name: f"a measured brain, eight coils. {registry.names()[key]}"
        for name, key in _FETCHED.items()
    }


def scan(
    source: str | os.PathLike | np.ndarray | Tensor | None = None,
    size: int | None = None,
    *,
    index: int | None = None,
    maps: Tensor | np.ndarray | None = None,
    sampling: Tensor | np.ndarray | None = None,
    coils: int = 8,
    sigma: float = 0.01,
    seed: int = 0,
) -> Scan:
    """Return a scan by name, from a file, or simulated from a picture of absolute values.

    Args:
        source: a name from `scans`; a fastMRI file (.h5, multi-coil); .npy with complex k-space
            [coils, H, W]; or, to be measured by simulated coils, any picture or a volume of
            magnitudes (.nii, .nii.gz, .npy).
        size: pixels of the longer side; measured k-space is cut to its centre.
        index: the slice of a volume, by default the middle one.
        maps: coil maps of measured k-space; by default ESPIRiT finds them from its centre.
        sampling: which samples of measured k-space count; by default those that are not zero.
        coils: number of simulated coils.
        sigma: noise of a simulated scan, in the real and in the imaginary part of each sample.
        seed: for that noise.

    >>> scan("slice-1", size=64)
    Scan('slice-1', 8 coils, 64x64, fully sampled)
    """
    if size is not None:
        check_whole("size", size, least=kspace.MIN_SIDE)
    if source is None:
        source = "slice-1"
    if not isinstance(source, _SOURCES):
        raise InputError(f"a scan is a name, a path or an array, not {type(source).__name__}")
    name, loaded, lines = _load(source, index)
    if loaded.is_complex():
        lines = sampling if sampling is not None else lines
        return _measured(name, _cut(loaded, size), _cut_sampling(lines, loaded, size), maps)
    if maps is not None or sampling is not None:
        raise InputError(f"{name} is a picture, measured by simulated coils: it takes no maps")
    return _simulated(name, _shrunk(loaded, size), coils, sigma, seed)


def _load(source, index: int | None) -> tuple[str, Tensor, np.ndarray | None]:
    """Name, k-space [coils, H, W] or magnitudes [H, W], and the lines that a file says it has."""
    if isinstance(source, (np.ndarray, Tensor)):
        array = torch.as_tensor(source).detach().cpu()
        if array.is_complex():
            data = kspace.checked(array.numpy(), Path("the array"))
            return "array", torch.from_numpy(data), None
        return "array", images.image(source, gray=True)[0], None
    if source in _SLICES:
        return source, _bundled(source), None
    path = registry.find(_FETCHED[source]) if source in _FETCHED else Path(source)
    name = source if source in _FETCHED else path.name
    ending = path.suffix.lower()
    if ending in (".h5", ".hdf5", ".npy", ".nii") or path.name.lower().endswith(".nii.gz"):
        if not path.is_file():
            raise FileError(f"There is no file {str(path)!r}.")
        if ending in (".h5", ".hdf5") or kspace.is_complex_npy(path):
            data, lines = kspace.read_kspace(path, index)
            return name, torch.from_numpy(data), lines
        return name, torch.from_numpy(kspace.read_magnitude(path, index).copy()), None
    try:
        return name, images.image(source, gray=True)[0], None
    except FileError:
        if path.exists():
            raise
        raise FileError(
            f"There is no file and no scan called {str(source)!r}; "
            f"the scans are: {', '.join((*_SLICES, 'phantom', *_FETCHED))}."
        ) from None


def _bundled(name: str) -> Tensor:
    """Read a slice that comes along, scaled to a maximum of 1; brain.txt says whose it is."""
    with np.load(Path(__file__).with_name("brain.npz"), allow_pickle=False) as file:
        plane = file[name].astype(np.float32)
    return torch.from_numpy(plane / plane.max())


def _measured(name: str, data: Tensor, sampling: Tensor, maps) -> Scan:
    """Find coil maps, scale and, if nothing was left out, the picture."""
    data = data * sampling
    if maps is None:
        maps = espirit(data, _centre_width(sampling))
    if tuple(maps.shape) != tuple(data.shape):
        raise InputError(
            f"the coil maps have shape {tuple(maps.shape)}, the k-space {tuple(data.shape)}; "
            "they must agree"
        )
    op = MRI(maps, sampling)
    picture = op.A_adjoint(data)
    scale = float(magnitude(picture).max())
    if scale == 0:
        raise InputError(f"{name} has no signal where the coil maps are not zero")
    target = None if _has_gaps(sampling) else picture / scale
    return Scan(name, data / scale, op.maps, op.support, sampling, target)


def _simulated(name: str, plane: Tensor, coils: int, sigma: float, seed: int) -> Scan:
    """Measure a picture by `coils` around it, with a smooth phase and noise."""
    if not is_whole(coils, least=2) or coils > kspace.MAX_COILS:
        raise InputError(
            f"coils must be a whole number from 2 to {kspace.MAX_COILS}, got {coils!r}"
        )
    if not is_number(sigma, least=0):
        raise InputError(f"sigma must be a number of at least 0, got {sigma!r}")
    height, width = plane.shape
    mask = _object(plane)
    z = (plane / plane.max() * mask) * torch.exp(1j * _smooth_phase(height, width))
    op = MRI(_birdcage(coils, height, width) * mask, torch.ones(height, width), sigma)
    target = to_channels(z[None])
    return Scan(name, op.measure(target, seed), op.maps, op.support, op.sampling, target)


def _birdcage(coils: int, height: int, width: int) -> Tensor:
    """Place coils on a circle 1.5 times as wide as the picture, each falling off with distance."""
    angle = torch.arange(coils)[:, None, None] * (2 * math.pi / coils)
    y = (torch.arange(height)[:, None] - height / 2) / (height / 2) - 1.5 * torch.sin(angle)
    x = (torch.arange(width)[None, :] - width / 2) / (width / 2) - 1.5 * torch.cos(angle)
    return torch.polar(1 / torch.hypot(x, y), torch.atan2(x, -y) - angle)


def _smooth_phase(height: int, width: int) -> Tensor:
    """Return radians: a ramp and a few slow waves, as inhomogeneous fields leave them."""
    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)[None, :]
    return 0.8 * x - 0.5 * y + 0.7 * torch.cos(2.1 * x + 1.3 * y) + 0.5 * torch.sin(2.6 * x * y)


def _object(plane: Tensor) -> Tensor:
    """Find where a picture is not dark, with a rim and without holes."""
    from scipy import ndimage  # late: loading it takes its time

    lit = ndimage.binary_dilation((plane > 0.05 * plane.max()).numpy(), iterations=2)
    return torch.from_numpy(ndimage.binary_fill_holes(lit)).float()


def _has_gaps(sampling: Tensor) -> bool:
    """Tell whether lines or samples are missing between those that were measured.

    Outside of them is padding, and the corners are often left out by a scanner on purpose.
    """
    rows, columns = (sampling.amax(d).nonzero()[:, 0] for d in (1, 0))
    inner = sampling[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    y, x = (torch.linspace(-1, 1, side) for side in inner.shape)
    missing = inner[y[:, None] ** 2 + x**2 <= 1] == 0
    lines = (inner.amax(0) == 0).any() or (inner.amax(1) == 0).any()
    return bool(lines) or float(missing.float().mean()) > 0.02


def _centre_width(sampling: Tensor, most: int = 24) -> int:
    """Return the side of the largest fully measured square in the centre, for coil maps."""
    most = min(most, *sampling.shape)
    full = (n for n in range(most, 0, -1) if bool(kspace.central(sampling, (n, n)).all()))
    return next(full, 0)


def _cut(data: Tensor, size: int | None) -> Tensor:
    """Cut off the high frequencies of k-space: the same field of view in fewer pixels."""
    if size is None or size >= max(data.shape[-2:]):
        return data
    return kspace.central(data, _sides(data, size)).contiguous()


def _cut_sampling(lines, data: Tensor, size: int | None) -> Tensor:
    """Cut the sampling [H, W] that was given, or all that is not zero, as k-space is cut."""
    if lines is None:
        return (_cut(data, size).abs().sum(0) > 0).float()
    shape = tuple(data.shape[-2:])
    lines = torch.as_tensor(lines).float()
    if tuple(lines.shape) not in (shape, shape[1:]):
        raise InputError(
            f"the sampling has shape {tuple(lines.shape)}, the k-space {shape}; they must agree "
            f"(or {shape[1:]} for whole lines)"
        )
    return _cut((lines.expand(shape) > 0).float(), size)


def _shrunk(plane: Tensor, size: int | None) -> Tensor:
    if size is None or size >= max(plane.shape):
        return plane
    return images.image(plane[None], size=_sides(plane, size))[0]


def _sides(data: Tensor, size: int) -> tuple[int, int]:
    longer = max(data.shape[-2:])
    return tuple(max(kspace.MIN_SIDE, round(side * size / longer)) for side in data.shape[-2:])

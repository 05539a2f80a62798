"""Raw measurements of a scanner, and magnitude volumes, from files: each refusal one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FileError, InputError, is_whole
from ..physics.mri import needed
from .decode import complete, extremes, open_npy

MIN_SIDE = 16
MAX_SIDE = 2048
MAX_COILS = 128
MAX_HEADER = 2**20  # bytes of text in a file of fastMRI


def read_kspace(path: Path, index: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Read k-space [coils, H, W] of one slice, and which lines [W] were measured if it says so."""
    if path.suffix.lower() in (".h5", ".hdf5"):
        return _read_fastmri(path, index)
    return checked(_npy_slice(path, 3, index), path), None


def read_magnitude(path: Path, index: int | None) -> np.ndarray:
    """Read one slice [H, W] of a volume of absolute values, scaled to a maximum of 1."""
    is_npy = path.suffix.lower() == ".npy"
    plane = _npy_slice(path, 2, index) if is_npy else _nifti_plane(path, index)
    if plane.ndim != 2 or plane.dtype.kind not in "buif":
        raise FileError(
            f"{path.name} holds {plane.dtype} of shape {plane.shape}; expected k-space (complex "
            "[coils, H, W]) or real magnitudes [H, W] or [slices, H, W]."
        )
    _check_sides(*plane.shape, path)
    plane = np.asarray(plane, dtype=np.float32)
    low, high = extremes(plane, path.name)
    if low < 0 or high == 0:
        what = "negative values" if low < 0 else "only zeros"
        raise FileError(f"{path.name} holds {what}; absolute values of an image are expected.")
    return plane / high


def _npy_slice(path: Path, axes: int, index: int | None) -> np.ndarray:
    """Open a .npy file of one slice, which has so many axes, or choose one of several."""
    array = open_npy(path)
    if array.ndim == axes + 1:
        return array[_slice(array.shape[0], index, path)]
    if index is not None:
        raise InputError(f"{path.name} has no slices to choose from")
    return array


def is_complex_npy(path: Path) -> bool:
    """Tell whether a .npy file holds k-space rather than a picture."""
    return path.suffix.lower() == ".npy" and open_npy(path).dtype.kind == "c"


def _read_fastmri(path: Path, index: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the layout of fastMRI: kspace [slices, coils, H, W], and what is known about it."""
    h5py = needed("h5py")
    with complete(path.name, "HDF5 file"), h5py.File(path, "r") as file:
        data = file.get("kspace")
        if not isinstance(data, h5py.Dataset):
            there = ", ".join(sorted(file)) or "nothing"
            raise FileError(
                f"{path.name} has no data set 'kspace' (it has {there}); expected a "
                "multi-coil file in the layout of fastMRI."
            )
        if data.ndim == 3:
            raise FileError(
                f"{path.name} is single-coil (k-space {data.shape}: slices, height, width); "
                "expected a multi-coil file, [slices, coils, height, width]."
            )
        if data.ndim != 4:
            raise FileError(
                f"{path.name} holds k-space of shape {data.shape}; expected "
                "[slices, coils, height, width]."
            )
        number = _slice(data.shape[0], index, path)
        _check_sides(*data.shape[2:], path, data.shape[1])
        kspace = checked(np.asarray(data[number]), path)
        lines = _measured_lines(file, kspace.shape[-1], path)
        size = _picture_size(file)
    return _without_oversampling(kspace, size, lines), lines


def _measured_lines(file: Any, width: int, path: Path) -> np.ndarray | None:
    """Read which lines were measured, if the file says so."""
    if "mask" not in file:
        return None
    mask = file["mask"]
    if mask.size != width:  # before it is read: it may claim any size
        raise FileError(f"{path.name} has a mask of {mask.size} lines for k-space of {width}.")
    lines = np.asarray(mask).ravel()
    if not (np.isin(lines, (0, 1)).all() and lines.any()):
        raise FileError(f"{path.name} has a mask that does not say 0 or 1 of each line.")
    return lines


def _picture_size(file: Any) -> tuple[int, int] | None:
    """Return the size of the picture that the scanner would show: smaller than it measures."""
    if "reconstruction_rss" in file and file["reconstruction_rss"].ndim == 3:
        return tuple(file["reconstruction_rss"].shape[1:])
    if "ismrmrd_header" not in file or file["ismrmrd_header"].nbytes > MAX_HEADER:
        return None
    header = file["ismrmrd_header"][()]
    text = header.decode(errors="replace") if isinstance(header, bytes) else str(header)
    # x is the direction of reading out
    found = re.search(r"<reconSpace>\s*<matrixSize>\s*<x>(\d+)</x>\s*<y>(\d+)</y>", text)
    return (int(found[1]), int(found[2])) if found else None


def _without_oversampling(
    kspace: np.ndarray, size: tuple[int, int] | None, lines: np.ndarray | None
) -> np.ndarray:
    """Cut the field of view to the picture, as far as it was fully measured.

    Along a line k-space is always complete; across the lines only if none were left out.
    """
    height, width = kspace.shape[1:]
    if size is None or not (0 < size[0] <= height and 0 < size[1] <= width):
        return kspace
    keep = (size[0], size[1] if lines is None else width)
    axes = (-2, -1)
    picture = np.fft.ifft2(np.fft.ifftshift(kspace, axes), norm="ortho")
    picture = central(np.fft.fftshift(picture, axes), keep)
    back = np.fft.fft2(np.fft.ifftshift(picture, axes), norm="ortho")
    return np.fft.fftshift(back, axes).astype(np.complex64)


def central(array: Any, size: tuple[int, int]) -> Any:
    """Cut out the middle of the last two axes; the centre of k-space, n // 2, stays the centre.

    >>> central(np.arange(9)[None], (1, 5))[0].tolist()
    [2, 3, 4, 5, 6]
    """
    top, left = (have // 2 - want // 2 for have, want in zip(array.shape[-2:], size, strict=True))
    return array[..., top : top + size[0], left : left + size[1]]


def _nifti_plane(path: Path, index: int | None) -> np.ndarray:
    """Read an axial slice seen from the feet, nose up."""
    nibabel = needed("nibabel")
    with complete(path.name, "NIfTI file"):
        volume = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_filename(path))
        shape = volume.shape
        if len(shape) < 3:
            return np.rot90(np.asarray(volume.dataobj))
        if max(shape[:2]) > MAX_SIDE:
            _check_sides(*shape[:2], path)
        where = (slice(None), slice(None), _slice(shape[2], index, path))
        return np.rot90(np.asarray(volume.dataobj[(*where, *(0,) * (len(shape) - 3))]))


def _slice(count: int, index: int | None, path: Path) -> int:
    """Return the number of the slice, by default the middle one."""
    if count == 0:
        raise FileError(f"{path.name} holds no slices.")
    if index is None:
        return count // 2
    if not is_whole(index) or index >= count:
        raise InputError(f"{path.name} has the slices 0 to {count - 1}, got index={index!r}")
    return index


def checked(kspace: np.ndarray, path: Path) -> np.ndarray:
    """Return k-space in single precision, its largest number 1, whose square cannot overflow."""
    if kspace.ndim == 2 or (kspace.ndim == 3 and len(kspace) == 1):
        raise FileError(
            f"{path.name} is single-coil ({kspace.shape}); expected k-space [coils, height, width] "
            "of two coils or more."
        )
    if kspace.ndim != 3 or kspace.dtype.kind != "c":
        raise FileError(
            f"{path.name} holds {kspace.dtype} of shape {kspace.shape}; expected complex k-space "
            "[coils, height, width]."
        )
    _check_sides(*kspace.shape[1:], path, kspace.shape[0])
    if not np.isfinite(kspace).all():
        raise FileError(f"{path.name} holds NaN or infinite values; replace them first.")
    if not kspace.any():
        raise FileError(f"{path.name} holds only zeros: no signal was measured.")
    return (kspace / np.abs(kspace).max()).astype(np.complex64)


def _check_sides(height: int, width: int, path: Path, coils: int = 1) -> None:
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_SIDE or coils > MAX_COILS:
        raise FileError(
            f"{path.name} is {height} × {width} with {coils} coils; from {MIN_SIDE} to {MAX_SIDE} "
            f"a side and at most {MAX_COILS} coils are taken (axes: coils, height, width)."
        )

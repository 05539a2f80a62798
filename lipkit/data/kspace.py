"""Raw measurements of a scanner, and magnitude volumes, from files: each refusal one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import is_whole
from ..errors import FileError, InputError
from ..physics.mri import needed
from .decode import first_line, open_npy

MIN_SIDE, MAX_SIDE, MAX_COILS = 16, 2048, 128


def read_kspace(path: Path, index: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """K-space [coils, H, W] of one slice, and which lines [W] were measured if the file says so."""
    if path.suffix.lower() in (".h5", ".hdf5"):
        return _read_fastmri(path, index)
    array = open_npy(path)
    if array.ndim == 4:
        array = array[_slice(array.shape[0], index, path)]
    elif index is not None:
        raise InputError(f"{path.name} has no slices to choose from")
    return checked(array, path), None


def read_magnitude(path: Path, index: int | None) -> np.ndarray:
    """One slice [H, W] of a volume of absolute values, scaled to a maximum of 1."""
    if path.suffix.lower() == ".npy":
        volume = open_npy(path)
        plane = volume
        if volume.ndim == 3:
            plane = volume[_slice(volume.shape[0], index, path)]
        elif index is not None:
            raise InputError(f"{path.name} has no slices to choose from")
    else:
        plane = _nifti_plane(path, index)
    if plane.ndim != 2 or plane.dtype.kind not in "buif":
        raise FileError(
            f"{path.name} holds {plane.dtype} of shape {plane.shape}; expected k-space (complex "
            "[coils, H, W]) or real magnitudes [H, W] or [slices, H, W]."
        )
    _check_sides(*plane.shape, path)
    plane = np.asarray(plane, dtype=np.float32)
    low, high = float(plane.min()), float(plane.max())
    if not np.isfinite(low + high):
        raise FileError(f"{path.name} holds NaN or infinite values; replace them first.")
    if low < 0 or high == 0:
        what = "negative values" if low < 0 else "only zeros"
        raise FileError(f"{path.name} holds {what}; absolute values of an image are expected.")
    return plane / high


def is_complex_npy(path: Path) -> bool:
    """Whether a .npy file holds k-space rather than a picture."""
    return path.suffix.lower() == ".npy" and open_npy(path).dtype.kind == "c"


def _read_fastmri(path: Path, index: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """The layout of fastMRI: kspace [slices, coils, H, W], reconstruction_rss, ismrmrd_header."""
    h5py = needed("h5py")
    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get("kspace"), h5py.Dataset):
                there = ", ".join(sorted(file)) or "nothing"
                raise FileError(
                    f"{path.name} has no data set 'kspace' (it has {there}); expected a "
                    "multi-coil file in the layout of fastMRI."
                )
            data = file["kspace"]
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
            kspace = np.asarray(data[number])
            lines = np.asarray(file["mask"]).ravel() if "mask" in file else None
            size = _picture_size(file)
    except FileError:
        raise
    except Exception as error:  # h5py raises errors of every kind on a damaged file
        raise FileError(
            f"{path.name} is not a complete HDF5 file ({first_line(error)}); get a complete copy."
        ) from error
    kspace = checked(kspace, path)
    if lines is not None and lines.shape != kspace.shape[-1:]:
        raise FileError(
            f"{path.name} has a mask of {len(lines)} lines for k-space of {kspace.shape[-1]}."
        )
    if lines is not None and not (np.isin(lines, (0, 1)).all() and lines.any()):
        raise FileError(f"{path.name} has a mask that does not say 0 or 1 of each line.")
    return _without_oversampling(kspace, size, lines), lines


def _picture_size(file: Any) -> tuple[int, int] | None:
    """The size of the picture that the scanner would show: smaller than what it measures."""
    if "reconstruction_rss" in file and file["reconstruction_rss"].ndim == 3:
        return tuple(file["reconstruction_rss"].shape[1:])
    if "ismrmrd_header" not in file:
        return None
    header = file["ismrmrd_header"][()]
    text = header.decode(errors="replace") if isinstance(header, bytes) else str(header)
    found = re.search(
        r"<reconSpace>\s*<matrixSize>\s*<x>(\d+)</x>\s*<y>(\d+)</y>", text
    )  # x is the direction of reading out
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
    """The middle of the last two dimensions; the centre of k-space, n // 2, stays the centre.

    >>> central(np.arange(9)[None], (1, 5))[0].tolist()
    [2, 3, 4, 5, 6]
    """
    top, left = (have // 2 - want // 2 for have, want in zip(array.shape[-2:], size, strict=True))
    return array[..., top : top + size[0], left : left + size[1]]


def _nifti_plane(path: Path, index: int | None) -> np.ndarray:
    """An axial slice seen from the feet, nose up."""
    nibabel = needed("nibabel")
    try:
        volume = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_filename(path))
        shape = volume.shape
        if len(shape) < 3:
            return np.rot90(np.asarray(volume.dataobj))
        if max(shape[:2]) > MAX_SIDE:
            _check_sides(*shape[:2], path)
        where = (slice(None), slice(None), _slice(shape[2], index, path))
        return np.rot90(np.asarray(volume.dataobj[(*where, *(0,) * (len(shape) - 3))]))
    except (FileError, InputError):
        raise
    except Exception as error:  # nibabel raises errors of every kind on a damaged file
        raise FileError(
            f"{path.name} is not a complete NIfTI file ({first_line(error)})."
        ) from error


def _slice(count: int, index: int | None, path: Path) -> int:
    """The number of the slice, by default the middle one."""
    if count == 0:
        raise FileError(f"{path.name} holds no slices.")
    if index is None:
        return count // 2
    if not is_whole(index) or index >= count:
        raise InputError(f"{path.name} has the slices 0 to {count - 1}, got index={index!r}")
    return index


def checked(kspace: np.ndarray, path: Path) -> np.ndarray:
    """K-space in single precision, its largest number 1: squares of others could overflow."""
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

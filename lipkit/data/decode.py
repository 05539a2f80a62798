"""From a file, an array or a picture object to a float32 tensor [C, H, W] in [0, 1].

Everything that is not a picture of sensible size is refused here, with one sentence that begins
with the label of what was given (a file's name, or "the array").
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import metrics
from ..errors import Error, FileError, InputError

if TYPE_CHECKING:
    from PIL.Image import Image

MIN_SIDE = 8  # below this there is nothing for a prior to work on
MAX_SIDE = 16_384
MAX_PIXELS = 100_000_000  # an image of 100 megapixels takes 1.2 GB as float32 RGB
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")  # decoders that run no program
_ROUNDING = 1e-6  # how far outside [0, 1] a float may lie before it is called a mistake


def from_file(path: Path) -> torch.Tensor:
    """Read a picture file or a .npy array; the size is checked before any pixel is decoded."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise FileError(f"{path} {what}; give the path of a picture.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}).") from error
    if path.suffix.lower() == ".npy":
        return from_array(open_npy(path), path.name, error=FileError)
    return _from_picture_file(path)


def from_array(
    array: np.ndarray,
    label: str = "the array",
    *,
    channels_first: bool = False,
    error: type[Error] = InputError,
) -> torch.Tensor:
    """Take [H,W], [H,W,C] or [C,H,W] of any real type; integers are scaled by their range.

    `channels_first` decides what [3, H, 3] means: true for tensors, false for arrays.
    """
    array = _channels_first(array, label, channels_first, error)
    check_size(*array.shape[1:], label, error)
    image = _unit_range(array, label, error)
    return _over_white(image) if image.shape[0] == 4 else image


def from_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Take a tensor on any device, with or without gradient, as an array."""
    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:  # which numpy does not have
        tensor = tensor.float()
    return from_array(tensor.numpy(), "the tensor", channels_first=True)


def from_pil(
    picture: Image, label: str = "the picture", error: type[Error] = InputError
) -> torch.Tensor:
    """Take a PIL image: turned as its EXIF says, first frame, alpha composited over white."""
    from PIL import ImageOps  # late: arrays and tensors do without it

    check_size(picture.height, picture.width, label, error)
    try:
        array = _pil_to_array(ImageOps.exif_transpose(picture))
    except Exception as problem:  # decoders raise errors of every kind on a damaged file
        raise error(
            f"{label} is damaged or cut short ({_first_line(problem)}); get a complete copy."
        ) from problem
    return from_array(array, label, error=error)


def luma(image: torch.Tensor) -> torch.Tensor:
    """Return one channel: the weighted sum of red, green and blue (ITU-R BT.601)."""
    return image if image.shape[0] == 1 else metrics.luma(image)


def check_size(height: int, width: int, label: str, error: type[Error] = InputError) -> None:
    """Refuse what is too small for a prior or too large to hold."""
    if min(height, width) < MIN_SIDE:
        raise error(
            f"{label} is {width} × {height} pixels; an image needs at least {MIN_SIDE} a side."
        )
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise error(
            f"{label} is {width} × {height} pixels; at most {MAX_SIDE} a side and "
            f"{MAX_PIXELS // 10**6} megapixels in all are taken; crop or shrink it first."
        )


@contextmanager
def complete(name: str, kind: str) -> Iterator[None]:
    """Turn whatever a reader raises over a damaged file into one sentence.

    >>> with complete("a.gz", "archive"):
    ...     raise EOFError("it ends here.")
    Traceback (most recent call last):
        ...
    lipkit.errors.FileError: a.gz is not a complete archive (it ends here); get a complete copy.
    """
    try:
        yield
    except Error:
        raise
    except Exception as error:  # libraries raise errors of every kind on a damaged file
        # numpy's advice to allow pickled objects is none of ours
        is_pickle = "pickle" in str(error)
        reason = "Python objects are never loaded" if is_pickle else _first_line(error)
        raise FileError(
            f"{name} is not a complete {kind} ({reason}); get a complete copy."
        ) from error


def open_npy(path: Path) -> np.ndarray:
    """Open a .npy file of numbers without reading it: its size is to be checked first."""
    with complete(path.name, ".npy file of plain numbers"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):  # an .npz archive under the wrong name
        raise FileError(f"{path.name} is an archive of arrays; save the one you mean as .npy.")
    return array


def extremes(array: np.ndarray, label: str, error: type[Error] = FileError) -> tuple[float, float]:
    """Return the lowest and the highest value of an array of finite numbers, or refuse it.

    >>> extremes(np.array([1.0, 0.5]), "the array")
    (0.5, 1.0)
    """
    low = float(array.min())
    high = float(array.max())
    if not np.isfinite(low + high):
        raise error(f"{label} holds NaN or infinite values; replace them first.")
    return low, high


def _from_picture_file(path: Path) -> torch.Tensor:
    import PIL.Image  # late: as above

    try:
        with warnings.catch_warnings():
            # We have a limit of our own, checked before decoding.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            picture = PIL.Image.open(path, formats=_FORMATS)
    except PIL.Image.DecompressionBombError as error:
        raise FileError(
            f"{path.name} has more than {MAX_PIXELS // 10**6} megapixels, the most that is taken; "
            "crop or shrink it first."
        ) from error
    except PIL.UnidentifiedImageError as error:
        raise FileError(
            f"{path.name} is not a picture that can be read, whatever its name says; "
            f"expected {', '.join(_FORMATS)} or .npy."
        ) from error
    except Exception as error:  # a header damaged in such a way that the decoder stumbles
        raise FileError(f"{path.name} is damaged ({_first_line(error)}).") from error
    with picture:
        return from_pil(picture, path.name, FileError)


def _pil_to_array(picture: Image) -> np.ndarray:
    """Return pixels as numpy, in one of the modes that `from_array` understands."""
    if picture.mode.startswith("I;16"):
        return np.asarray(picture).astype(np.uint16)
    if picture.mode == "I":  # how some versions of PIL open a 16-bit PNG
        array = np.asarray(picture)
        return array.astype(np.uint16) if array.min() >= 0 and array.max() < 2**16 else array
    if picture.mode in ("F", "1"):
        return np.asarray(picture)
    grey = picture.mode in ("L", "LA", "La")
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("L" if grey else "RGB"))
    if not grey:
        return np.asarray(picture.convert("RGBA"))
    value, alpha = np.moveaxis(np.asarray(picture.convert("LA"), dtype=np.float32) / 255, -1, 0)
    return value * alpha + (1 - alpha)


def _channels_first(
    array: np.ndarray, label: str, prefer_first: bool, error: type[Error]
) -> np.ndarray:
    """Arrange as [C, H, W] with 1, 3 or 4 channels, or say why not."""
    if array.size == 0:
        raise error(f"{label} is empty (shape {array.shape}).")
    if array.ndim == 2:
        return array[None]
    if array.ndim == 3:
        first, last = (array.shape[axis] in (1, 3, 4) for axis in (0, 2))
        if last and not (first and prefer_first):
            return np.moveaxis(array, 2, 0)
        if first:
            return array
    raise error(
        f"{label} has shape {array.shape}; expected [H,W], [H,W,C] or [C,H,W] with "
        "1 (grey), 3 (RGB) or 4 (RGB and alpha) channels."
    )


def _unit_range(array: np.ndarray, label: str, error: type[Error]) -> torch.Tensor:
    """Return float32 in [0, 1]: floats as they are, integers divided by the top of their range."""
    kind = array.dtype.kind
    if kind == "b":
        return torch.from_numpy(array.astype(np.float32, order="C"))
    if kind not in "iuf":
        raise error(f"{label} holds {array.dtype}; expected bool, integers or floats.")
    low, high = extremes(array, label, error)
    if kind == "f":
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise error(
                f"{label} holds floats from {low:.4g} to {high:.4g}; expected 0 to 1: "
                "divide by the largest possible value first."
            )
        return torch.from_numpy(array.astype(np.float32, order="C")).clamp_(0, 1)
    top = 65535 if array.dtype == np.uint16 else 255
    if low < 0 or high > top:
        raise error(
            f"{label} holds {array.dtype} values from {low:.0f} to {high:.0f}; expected 0 to {top}"
            f"{'' if top == 65535 else ' (16-bit data: convert to uint16)'}."
        )
    return torch.from_numpy(array.astype(np.float32, order="C") / top)


def _over_white(rgba: torch.Tensor) -> torch.Tensor:
    color = rgba[:3]
    alpha = rgba[3:]
    return color * alpha + (1 - alpha)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")

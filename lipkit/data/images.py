"""The three verbs for pictures: `image` and `mask` to get one, `save` to keep one."""

from __future__ import annotations

import io
import operator
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import FileError, InputError
from ..formats.atomic import write
from . import decode, drawn, registry

if TYPE_CHECKING:
    from PIL.Image import Image

    Source = str | os.PathLike | np.ndarray | torch.Tensor | Image
_ZERO_ONE = 1.5 / 255  # no brighter than this: written as 0 and 1, not as 0 and 255

Size = int | tuple[int, int] | None


def image(source: Source, size: Size = None, gray: bool = False) -> torch.Tensor:
    """Return a picture as a float32 tensor [C, H, W] with values in [0, 1].

    Args:
        source: a name from `names` (names come before files: write ``./coffee`` for a file of
            that name; ``shuffled:coffee`` has the pixels of ``coffee`` in another order), the
            path of a PNG, JPEG, TIFF, WebP, BMP, GIF, PPM or .npy file, a numpy
            array or tensor ([H,W], [H,W,C] or [C,H,W]; bool, uint8, uint16, other integers from
            0 to 255, floats from 0 to 1), or a PIL image.
        size: ``(height, width)``, or one number for a square. The picture is cropped centrally to
            that shape and then resized with antialiasing, so nothing is stretched.
        gray: True for one channel of luma (ITU-R BT.601).

    A grey picture has C = 1, a colour picture C = 3. Alpha is composited over white, the EXIF
    orientation applied, CMYK converted, and of several frames the first is taken.

    >>> import lipkit as lk
    >>> lk.data.image("coffee", size=(96, 128)).shape
    torch.Size([3, 96, 128])
    """
    if isinstance(source, str) and source.startswith(drawn.SHUFFLED):
        return drawn.shuffled(image(source.removeprefix(drawn.SHUFFLED), size, gray))
    picture = _load(source, size)
    if gray:
        picture = decode.luma(picture)
    return picture if size is None else _resize(picture, *_checked_size(size))


def mask(source: Source, size: Size = None) -> torch.Tensor:
    """Return an inpainting mask: a float tensor [1, H, W] of zeros and ones, where 1 is *known*.

    Takes what `image` takes, turned to grey and cut at one half. Integers that are only 0 and 1
    are a mask already, not a very dark picture.

    >>> import numpy as np
    >>> import lipkit as lk
    >>> lk.data.mask(np.eye(16, dtype=np.uint8)).sum()
    tensor(16.)
    """
    picture = decode.luma(_load(source, size))
    brightest = picture.max()
    if 0 < brightest <= _ZERO_ONE:
        picture = picture / brightest
    picture = picture if size is None else _resize(picture, *_checked_size(size))
    return (picture >= 0.5).float()


def save(image: torch.Tensor | np.ndarray, path: str | os.PathLike) -> Path:
    """Write a float image [C, H, W] (or [H, W]) as 8-bit PNG: clipped to [0, 1] and rounded.

    The file appears complete or not at all. Returns its path.

    >>> import tempfile
    >>> import lipkit as lk
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lk.data.save(lk.data.image("moon", size=64), f"{folder}/moon.png").name
    'moon.png'
    """
    from PIL import Image  # late: arrays and tensors do without it

    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"Images are saved as PNG; name the file .png instead of {path.name!r}.")
    content = io.BytesIO()
    Image.fromarray(_to_bytes(image)).save(content, format="PNG")
    write(path, content.getvalue())
    return path


def _load(source: Any, size: Size) -> torch.Tensor:
    if isinstance(source, torch.Tensor):
        return decode.from_tensor(source)
    if isinstance(source, np.ndarray):
        return decode.from_array(source)
    if isinstance(source, str) and source in drawn.DRAWN:
        return drawn.DRAWN[source][0](*_checked_size(drawn.SIDE if size is None else size))
    if isinstance(source, str):
        path = registry.find(source) or Path(source)
        if not os.path.exists(path):
            raise FileError(
                f"There is no file and no picture called {source!r}{registry.suggestion(source)}."
            )
        return decode.from_file(path)
    if isinstance(source, os.PathLike):
        return decode.from_file(Path(source))
    from PIL import Image  # late: arrays and tensors do without it

    if isinstance(source, Image.Image):
        return decode.from_pil(source)
    raise InputError(
        "An image is a name, a path, a numpy array, a tensor or a PIL image, "
        f"not {type(source).__name__}."
    )


def _checked_size(size: Any) -> tuple[int, int]:
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    try:
        if any(isinstance(side, bool) for side in sides):
            raise TypeError
        height, width = (operator.index(side) for side in sides)
    except (TypeError, ValueError):
        raise InputError(
            f"size={size!r} is neither a whole number (square) nor a pair (height, width)."
        ) from None
    decode.check_size(height, width, f"size={size!r}")
    return height, width


def _resize(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Cut the largest central part of the wanted shape, then scale it (bicubic, antialiased)."""
    full_height, full_width = picture.shape[1:]
    scale = min(full_height / height, full_width / width)
    cut_height = min(full_height, max(1, round(height * scale)))
    cut_width = min(full_width, max(1, round(width * scale)))
    top = (full_height - cut_height) // 2
    left = (full_width - cut_width) // 2
    part = picture[:, top : top + cut_height, left : left + cut_width]
    if (cut_height, cut_width) == (height, width):
        return part.contiguous()
    scaled = torch.nn.functional.interpolate(
        part[None], (height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return scaled[0].clamp(0, 1)  # bicubic overshoots at edges


def _to_bytes(image: Any) -> np.ndarray:
    """Return [H, W] or [H, W, 3] of uint8."""
    array = image.detach().float().cpu().numpy() if isinstance(image, torch.Tensor) else image
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        kind = array.dtype if isinstance(array, np.ndarray) else type(image).__name__
        raise InputError(f"An image to save is a float tensor or array in [0, 1], not {kind}.")
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[0] not in (1, 3) or array.size == 0:
        raise InputError(f"An image to save has shape [1,H,W] or [3,H,W], not {image.shape}.")
    if not np.isfinite(array).all():
        raise InputError("The image to save holds NaN or infinite values.")
    pixels = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    return pixels[0] if pixels.shape[0] == 1 else np.moveaxis(pixels, 0, 2)

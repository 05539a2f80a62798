"""Where a convolution finds its pixels: padded planes, and each weight as shifts within them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .opcodes import LANES, REFLECT, REPLICATE, ZEROS
from .read import Conv


def round_up(n: int, step: int = LANES) -> int:
    return -(-n // step) * step


@dataclass(frozen=True)
class Geometry:
    """Sizes of a convolution's planes; one plane holds all images of a batch, one below another.

    Strides of two read four planes, split by the parity of row and column. 2x2 average pooling is
    such a stride over means of 2x2 pixels. A convolution of a picture doubled to nearest pixels
    reads the small picture and writes four planes, one for each parity.
    """

    images: int
    h: int  # the picture that is written to the planes
    w: int
    pad: int
    padding: int
    split: bool
    box: bool
    doubled: bool
    rows: int  # of a padded plane
    pitch: int
    h_out: int  # of an output plane
    w_out: int

    @classmethod
    def of(cls, conv: Conv, images: int, h: int, w: int, doubled: bool) -> Geometry:
        k = conv.kernel
        pad = 1 if doubled and k == 3 else k // 2
        padding = ZEROS if conv.module.padding_mode == "zeros" else REFLECT
        # the border of the doubled picture reflects to the border pixel of the small one
        padding = REPLICATE if doubled and padding == REFLECT else padding
        box = conv.pool == "avg"
        split = conv.pool == "avg" or conv.module.stride[0] == 2
        rows = h + 2 * pad - box
        pitch = w + 2 * pad - box
        h_out, w_out = (h, w) if doubled else (rows - k + 1, pitch - k + 1)
        if split:
            h_out = (rows - k) // 2 + 1
            w_out = (pitch - k) // 2 + 1
            rows = (rows + 1) // 2
            pitch = (pitch + 1) // 2
        return cls(images, h, w, pad, padding, split, box, doubled, rows, pitch, h_out, w_out)

    @property
    def image(self) -> int:
        """From one image of a plane to the next."""
        return self.rows * self.pitch

    @property
    def written(self) -> int:
        """Pixels of an output plane, rows of the full pitch."""
        return (self.images - 1) * self.image + (self.h_out - 1) * self.pitch + self.w_out

    @property
    def read(self) -> int:
        """Pixels of an input plane."""
        return self.images * self.image

    @property
    def planes_in(self) -> int:
        return 4 if self.split else 1

    @property
    def planes_out(self) -> int:
        return 4 if self.doubled else 1


def can_double(conv: Conv, parts: int) -> bool:
    """Whether a convolution can read a picture before it is doubled to nearest pixels."""
    return parts == 1 and conv.kernel <= 3 and not conv.pool and conv.module.stride == (1, 1)


@dataclass(frozen=True)
class Taps:
    """Distinct taps (output plane, input plane, shift), sorted by output plane.

    They are the kept weights in their order; only where a convolution reads a picture before it
    is doubled are they sums: kept weight i % n belongs to tap `slot[i]`, i from 0 to 4 n.
    """

    out: np.ndarray
    source: np.ndarray
    shift: np.ndarray
    slot: np.ndarray

    @classmethod
    def of(cls, keep: np.ndarray, plane: np.ndarray, row: np.ndarray, g: Geometry) -> Taps:
        """`plane` and `row` number the channels in use of the input and of the output."""
        o, c, ky, kx = (axis.astype(np.int64) for axis in np.nonzero(keep))
        out = row[o]
        source = plane[c]
        none = np.zeros(0, np.int64)
        if g.split:
            phase = 2 * (ky & 1) + (kx & 1)
            return cls(out, 4 * source + phase, (ky >> 1) * g.pitch + (kx >> 1), none)
        if not g.doubled:
            return cls(out, source, ky * g.pitch + kx, none)
        phase = np.repeat(np.arange(4), o.size)
        out, source, ky, kx = (np.tile(v, 4) for v in (out, source, ky, kx))
        middle = keep.shape[-1] // 2
        dy = (ky - middle + (phase >> 1)) // 2
        dx = (kx - middle + (phase & 1)) // 2
        shift = (g.pad + dy) * g.pitch + g.pad + dx
        keys = np.stack([4 * out + phase, source, shift])
        (out, source, shift), slot = np.unique(keys, axis=1, return_inverse=True)
        return cls(out, source, shift, slot.ravel())

    @property
    def count(self) -> int:
        return self.out.size

    @property
    def reach(self) -> int:
        """The largest shift."""
        return int(self.shift.max(initial=0))


def starts(sorted_planes: np.ndarray, planes: int, multiple: int = 1) -> np.ndarray:
    """Where each plane's taps start in a list that gives each a multiple of `multiple` places."""
    counts = np.bincount(sorted_planes, minlength=planes)
    return np.concatenate([[0], np.cumsum(-(-counts // multiple) * multiple)])


def tiles(pixels: int, widths: tuple[int, ...]) -> list[tuple[int, int]]:
    """A plane in pieces: the first pixel and the number of vectors of each, of those at hand.

    >>> tiles(300, (8, 4, 2, 1))
    [(0, 8), (128, 8), (256, 2), (288, 1)]
    """
    out = []
    left = round_up(pixels) // LANES
    for width in widths:
        while left >= width:
            out.append((round_up(pixels) - left * LANES, width))
            left -= width
    return out

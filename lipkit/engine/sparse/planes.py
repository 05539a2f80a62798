"""Between dense pictures and the planes of convolutions: padding, splitting, and their adjoints.

Every picture is a slice of one array; `h` and `w` are its height and width. A *plane* is what a
convolution reads or writes: rows with a given pitch, padded, for strides of two split by parity.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .opcodes import PHASES, PLAIN, REFLECT, REPLICATE

# without reference counts, which cost more than the work on a short row
# No sum in another order and nothing fused unasked: the compiler would choose anew wherever it puts
# a function into another one, and bits would depend on what a process had compiled before.
_FLAGS = {"nnan", "ninf", "nsz"}
FAST = {"fastmath": _FLAGS, "error_model": "numpy", "nogil": True, "_nrt": False}
ZERO = np.float32(0)
QUARTER = np.float32(0.25)


@njit(inline="always", **FAST)  # views cannot be returned without reference counts
def row_of(x, y, w):
    """Row y of a picture, or of a plane, whose rows are w apart."""
    return x[y * w : (y + 1) * w]


@njit(**FAST)
def copy(x, out):
    """A loop, because assigning to a slice costs far more for short rows."""
    for j in range(out.size):
        out[j] = x[j]


@njit(**FAST)
def add(x, out):
    for j in range(out.size):
        out[j] += x[j]


@njit(**FAST)
def clear(out):
    for j in range(out.size):
        out[j] = ZERO


@njit(**FAST)
def weave(even, odd, out):
    """out[0::2] = even, out[1::2] = odd."""
    for j in range(out.size // 2):
        out[2 * j] = even[j]
        out[2 * j + 1] = odd[j]
    if out.size & 1:
        out[out.size - 1] = even[out.size // 2]


@njit(**FAST)
def unweave(x, even, odd):
    """The inverse of `weave`."""
    for j in range(x.size // 2):
        even[j] = x[2 * j]
        odd[j] = x[2 * j + 1]
    if x.size & 1:
        even[x.size // 2] = x[x.size - 1]


@njit(**FAST)
def load(z, phase, pitch, mode, h, w, out):
    """A dense picture from what a convolution wrote."""
    for y in range(h):
        row = row_of(out, y, w)
        if mode == PLAIN:
            copy(z[y * pitch : y * pitch + w], row)
        elif mode == PHASES:
            start = (y & 1) * 2 * phase + (y >> 1) * pitch
            weave(z[start : start + w // 2], z[start + phase : start + phase + w // 2], row)
        else:
            a = z[2 * y * pitch :]
            b = z[(2 * y + 1) * pitch :]
            for j in range(w):
                row[j] = max(max(a[2 * j], a[2 * j + 1]), max(b[2 * j], b[2 * j + 1]))


@njit(**FAST)
def store(g, z, phase, pitch, mode, h, w, out):
    """The adjoint of `load`; `phase` is the distance of the planes of `out`."""
    for y in range(h):
        row = row_of(g, y, w)
        if mode == PLAIN:
            copy(row, out[y * pitch : y * pitch + w])
        elif mode == PHASES:
            start = (y & 1) * 2 * phase + (y >> 1) * pitch
            unweave(row, out[start : start + w // 2], out[start + phase : start + phase + w // 2])
        else:
            top = 2 * y * pitch
            low = (2 * y + 1) * pitch
            for j in range(w):
                best = top + 2 * j  # the first of equals, as in torch
                for i in (top + 2 * j + 1, low + 2 * j, low + 2 * j + 1):
                    if z[i] > z[best]:
                        best = i
                out[top + 2 * j] = out[top + 2 * j + 1] = ZERO
                out[low + 2 * j] = out[low + 2 * j + 1] = ZERO
                out[best] = row[j]


@njit(**FAST)
def clear_around(out, h, w, pitch, size):
    """Zeros around h rows of w, up to `size`: convolutions backwards read over the edges."""
    for y in range(h):
        clear(out[y * pitch + w : (y + 1) * pitch])
    clear(out[h * pitch : size])


@njit(**FAST)
def inside(i, n, padding):
    """Which of n pixels stands at the place i of the padded line; -1 for a zero."""
    if 0 <= i < n:
        return i
    if padding == REFLECT:
        return -i if i < 0 else 2 * n - 2 - i
    if padding == REPLICATE:
        return 0 if i < 0 else n - 1
    return -1


@njit(**FAST)
def pad_line(line, w, pad, padding):
    """Fill both ends of a line whose middle is there."""
    for j in range(pad):
        left = inside(j - pad, w, padding)
        right = inside(w + j, w, padding)
        line[j] = line[pad + left] if left >= 0 else ZERO
        line[pad + w + j] = line[pad + right] if right >= 0 else ZERO


@njit(**FAST)
def fold_line(line, w, pad, padding):
    """The adjoint of `pad_line`."""
    for j in range(pad):
        left = inside(j - pad, w, padding)
        right = inside(w + j, w, padding)
        if left >= 0:
            line[pad + left] += line[j]
        if right >= 0:
            line[pad + right] += line[pad + w + j]


@njit(**FAST)
def write_plain(x, h, w, pad, padding, u, pitch):
    """The padded picture as one plane."""
    for t in range(h + 2 * pad):
        y = inside(t - pad, h, padding)
        line = row_of(u, t, pitch)
        if y < 0:
            clear(line)
        else:
            copy(row_of(x, y, w), line[pad : pad + w])
            pad_line(line, w, pad, padding)


@njit(**FAST)
def read_plain(gu, pitch, h, w, pad, padding, first, g):
    """The adjoint of `write_plain`, added to g, or put there by the `first` who reads.

    It folds the plane's lines in place. The rows of the picture come before those of the border.
    """
    for y in range(h):
        line = row_of(gu, y + pad, pitch)
        row = row_of(g, y, w)
        fold_line(line, w, pad, padding)
        if first:
            copy(line[pad : pad + w], row)
        else:
            add(line[pad : pad + w], row)
    for i in range(2 * pad):
        t = i if i < pad else h + i
        y = inside(t - pad, h, padding)
        line = row_of(gu, t, pitch)
        if y >= 0:
            fold_line(line, w, pad, padding)
            add(line[pad : pad + w], row_of(g, y, w))


@njit(**FAST)
def write_split(x, h, w, pad, padding, box, u, phase, pitch, line):
    """The padded picture (with `box`: means of 2 x 2 pixels of it) as four planes by parity."""
    wide = w + 2 * pad - box
    middle = line[pad : pad + w]
    whole = line[:wide]
    for t in range(h + 2 * pad - box):
        start = (t & 1) * 2 * phase + (t >> 1) * pitch
        even = u[start : start + pitch]
        odd = u[start + phase : start + phase + pitch]
        y = inside(t - pad, h, padding)
        if not box:
            if y >= 0:
                copy(row_of(x, y, w), middle)
            else:
                clear(middle)
            pad_line(line, w, pad, padding)
            unweave(whole, even, odd)
            continue
        below = inside(t + 1 - pad, h, padding)
        if y >= 0 and below >= 0:
            a = row_of(x, y, w)
            b = row_of(x, below, w)
            for j in range(w):
                middle[j] = QUARTER * (a[j] + b[j])
        elif y >= 0 or below >= 0:
            a = row_of(x, max(y, below), w)
            for j in range(w):
                middle[j] = QUARTER * a[j]
        else:
            clear(middle)
        pad_line(line, w, pad, padding)
        for j in range(wide // 2):
            even[j] = line[2 * j] + line[2 * j + 1]
            odd[j] = line[2 * j + 1] + line[2 * j + 2]
        if wide & 1:
            even[wide // 2] = line[wide - 1] + line[wide]


@njit(**FAST)
def read_split(gu, phase, pitch, h, w, pad, padding, box, g, line):
    """The adjoint of `write_split`, added to g."""
    wide = w + 2 * pad - box
    pairs = wide // 2
    whole = line[:wide]
    middle = line[pad : pad + w]
    for t in range(h + 2 * pad - box):
        start = (t & 1) * 2 * phase + (t >> 1) * pitch
        even = gu[start : start + pitch]
        odd = gu[start + phase : start + phase + pitch]
        if not box:
            weave(even, odd, whole)
        else:
            line[0] = even[0]
            line[1] = even[0] + odd[0]
            for j in range(1, pairs):
                line[2 * j] = even[j] + odd[j - 1]
                line[2 * j + 1] = even[j] + odd[j]
            if wide & 1:
                line[wide - 1] = odd[pairs - 1] + even[pairs]
                line[wide] = even[pairs]
            else:
                line[wide] = odd[pairs - 1]
        fold_line(line, w, pad, padding)
        for part in range(1 + box):
            y = inside(t + part - pad, h, padding)
            if y < 0:
                continue
            row = row_of(g, y, w)
            if box:
                for j in range(w):
                    row[j] += QUARTER * middle[j]
            else:
                add(middle, row)

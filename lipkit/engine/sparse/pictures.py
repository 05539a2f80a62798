"""Passes over one dense picture: batch norm, activation, resampling, and their adjoints."""

from __future__ import annotations

import numpy as np
from numba import njit

from .opcodes import LANES
from .planes import FAST, QUARTER, ZERO, clear, copy, row_of, weave
from .vector import add_up

BLOCK = 1024  # numbers that stay in the cache between two passes
ONE = np.float32(1)
THREE_QUARTERS = np.float32(0.75)


@njit(**FAST)
def sums(x, y):
    """The sums of x and of x * y, in double precision."""
    whole = x.size // LANES
    total, product = add_up(x.ctypes.data, y.ctypes.data, whole)
    for i in range(LANES * whole, x.size):
        total += x[i]
        product += np.float64(x[i]) * y[i]
    return total, product


@njit(**FAST)
def moments(x):
    """Mean and variance."""
    total, squares = sums(x, x)
    mean = total / x.size
    return mean, max(squares / x.size - mean * mean, 0.0)


@njit(**FAST)
def activate(x, mean, scale, shift, slope, out):
    """y = leaky((x - mean) * scale + shift)."""
    for i in range(x.size):
        v = (x[i] - mean) * scale + shift
        out[i] = max(v, slope * v)


@njit(**FAST)
def activate_back(x, mean, scale, shift, slope, g):
    """g becomes the gradient before the activation; its sum, and its sum with (x - mean)."""
    n = x.size
    total = 0.0
    product = 0.0
    for start in range(0, n, BLOCK):
        xs = x[start : min(n, start + BLOCK)]
        gs = g[start : min(n, start + BLOCK)]
        for i in range(xs.size):
            gs[i] *= ONE if (xs[i] - mean) * scale + shift > ZERO else slope
        s, q = sums(gs, xs)
        total += s
        product += q
    return total, product - total * mean


@njit(**FAST)
def norm_back(x, mean, scale, of_mean, of_spread, g):
    """The gradient before batch norm, in place."""
    for i in range(x.size):
        g[i] = scale * (g[i] - of_mean - (x[i] - mean) * of_spread)


@njit(**FAST)
def double(x, h, w, bilinear, out, line):
    """Twice the size, nearest or bilinear (align_corners=False)."""
    for y in range(2 * h):
        middle = line[1 : 1 + w]
        near = row_of(x, y >> 1, w)
        if bilinear:
            other = min(max((y >> 1) + (y & 1) * 2 - 1, 0), h - 1)
            far = row_of(x, other, w)
            for j in range(w):
                middle[j] = THREE_QUARTERS * near[j] + QUARTER * far[j]
        row = row_of(out, y, 2 * w)
        if bilinear:
            line[0] = line[1]
            line[w + 1] = line[w]
            for j in range(w):
                row[2 * j] = THREE_QUARTERS * line[j + 1] + QUARTER * line[j]
                row[2 * j + 1] = THREE_QUARTERS * line[j + 1] + QUARTER * line[j + 2]
        else:
            weave(near, near, row)


@njit(**FAST)
def double_back(g, h, w, bilinear, out, line):
    """The adjoint of `double`: from 2h x 2w to h x w."""
    clear(out[: h * w])
    for y in range(2 * h):
        row = row_of(g, y, 2 * w)
        middle = line[1 : 1 + w]
        if bilinear:
            for j in range(w):
                middle[j] = THREE_QUARTERS * (row[2 * j] + row[2 * j + 1])
            for j in range(1, w - 1):
                middle[j] += QUARTER * (row[2 * j - 1] + row[2 * j + 2])
            if w > 1:
                middle[0] += QUARTER * row[2]
                middle[w - 1] += QUARTER * row[2 * w - 3]
            middle[0] += QUARTER * row[0]
            middle[w - 1] += QUARTER * row[2 * w - 1]
            other = min(max((y >> 1) + (y & 1) * 2 - 1, 0), h - 1)
            far = row_of(out, other, w)
            near = row_of(out, y >> 1, w)
            for j in range(w):
                near[j] += THREE_QUARTERS * middle[j]
            for j in range(w):  # may be the same row
                far[j] += QUARTER * middle[j]
        else:
            near = row_of(out, y >> 1, w)
            for j in range(w):
                near[j] += row[2 * j] + row[2 * j + 1]


@njit(**FAST)
def crop(x, w_all, top, left, h, w, out):
    """The part of a picture `w_all` wide that starts at (top, left)."""
    for y in range(h):
        start = (y + top) * w_all + left
        copy(x[start : start + w], row_of(out, y, w))


@njit(**FAST)
def crop_back(g, h_all, w_all, top, left, h, w, out):
    """The adjoint of `crop`."""
    clear(out[: h_all * w_all])
    for y in range(h):
        start = (y + top) * w_all + left
        copy(row_of(g, y, w), out[start : start + w])

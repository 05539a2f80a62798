"""Passes over one dense picture: batch norm, activation, resampling, and their adjoints."""

from __future__ import annotations

import numpy as np
from numba import njit

from ._planes import FAST, QUARTER, ZERO, clear, copy, weave

BLOCK = 1024  # summed in single precision, blocks of it in double
ONE, THREE_QUARTERS = np.float32(1), np.float32(0.75)


@njit(**FAST)
def moments(x):
    """Mean and variance, about a value near the mean so that nothing cancels."""
    n, shift = x.size, ZERO
    step = max(1, n // 16)
    for i in range(0, n, step):
        shift += x[i]
    shift /= np.float32((n + step - 1) // step)
    total, square = 0.0, 0.0
    for start in range(0, n, BLOCK):
        part, s, q = x[start : min(n, start + BLOCK)], ZERO, ZERO
        for i in range(part.size):
            v = part[i] - shift
            s += v
            q += v * v
        total += s
        square += q
    mean = total / n
    return mean + shift, max(square / n - mean * mean, 0.0)


@njit(**FAST)
def activate(x, mean, scale, shift, slope, out):
    """y = leaky((x - mean) * scale + shift)."""
    for i in range(x.size):
        v = (x[i] - mean) * scale + shift
        out[i] = max(v, slope * v)


@njit(**FAST)
def activate_back(x, mean, scale, shift, slope, g):
    """g becomes the gradient before the activation; its sum, and its sum with (x - mean)."""
    n, total, product = x.size, 0.0, 0.0
    for start in range(0, n, BLOCK):
        stop = min(n, start + BLOCK)
        xs, gs, s, q = x[start:stop], g[start:stop], ZERO, ZERO
        for i in range(xs.size):
            d = xs[i] - mean
            v = gs[i] * (ONE if d * scale + shift > ZERO else slope)
            gs[i] = v
            s += v
            q += v * d
        total += s
        product += q
    return total, product


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
        near = x[(y >> 1) * w : (y >> 1) * w + w]
        if bilinear:
            other = min(max((y >> 1) + (y & 1) * 2 - 1, 0), h - 1)
            far = x[other * w : other * w + w]
            for j in range(w):
                middle[j] = THREE_QUARTERS * near[j] + QUARTER * far[j]
        row = out[2 * y * w : 2 * (y + 1) * w]
        if bilinear:
            line[0], line[w + 1] = line[1], line[w]
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
        row, middle = g[2 * y * w : 2 * (y + 1) * w], line[1 : 1 + w]
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
            far = out[other * w : other * w + w]
            near = out[(y >> 1) * w : (y >> 1) * w + w]
            for j in range(w):
                near[j] += THREE_QUARTERS * middle[j]
            for j in range(w):  # may be the same row
                far[j] += QUARTER * middle[j]
        else:
            near = out[(y >> 1) * w : (y >> 1) * w + w]
            for j in range(w):
                near[j] += row[2 * j] + row[2 * j + 1]


@njit(**FAST)
def crop(x, w_all, top, left, h, w, out):
    """The part of a picture `w_all` wide that starts at (top, left)."""
    for y in range(h):
        start = (y + top) * w_all + left
        copy(x[start : start + w], out[y * w : y * w + w])


@njit(**FAST)
def crop_back(g, h_all, w_all, top, left, h, w, out):
    """The adjoint of `crop`."""
    clear(out[: h_all * w_all])
    for y in range(h):
        start = (y + top) * w_all + left
        copy(g[y * w : y * w + w], out[start : start + w])

"""What happens to one channel between two convolutions, forward and backward."""

from __future__ import annotations

import numpy as np
from numba import njit

from . import _codes
from . import _pictures as pictures
from . import _planes as planes
from ._codes import CROP, DOUBLE, LOAD, MAXIMUM, NORM, OUT, PHASES, WRITE
from ._planes import FAST

MEAN, SPREAD = 0, 1
EPSILON = 1e-5  # of batch norm
SLOPES = np.array(_codes.SLOPES, np.float32)


@njit(**FAST)
def measure(op, channel, x, stats):
    """Batch statistics of one channel."""
    mean, variance = pictures.moments(x)
    row = stats[op[7] + channel]
    row[MEAN], row[SPREAD] = mean, 1 / np.sqrt(variance + EPSILON)


@njit(**FAST)
def constants(op, channel, vectors, stats):
    """Mean, scale, shift and slope of a batch norm with activation; without the norm 0, 1, 0."""
    slope = SLOPES[op[4]]
    if not op[3]:
        return planes.ZERO, pictures.ONE, planes.ZERO, slope
    row = stats[op[7] + channel]
    scale = np.float32(vectors[op[5] + channel] * row[SPREAD])
    return np.float32(row[MEAN]), scale, vectors[op[6] + channel], slope


@njit(**FAST)
def compute(op, k, channel, images, memory, scratch, vectors, stats):
    """One operation of the forward pass, in scratch memory."""
    line, code = memory[scratch:], op[0]
    into, source = memory[scratch + op[1] :], memory[scratch + op[2] :]
    if code == NORM:
        mean, scale, shift, slope = constants(op, channel, vectors, stats)
        pictures.activate(source[: op[8]], mean, scale, shift, slope, into)
    for i in range(images):
        if code == LOAD:
            z = memory[op[4] + (channel if op[14] else k) * op[5] + i * op[8] :]
            h, w = op[9], op[10]
            planes.load(z, op[6], op[7], op[3], h, w, into[i * h * w :])
        elif code == DOUBLE:
            h, w = op[4], op[5]
            pictures.double(source[i * h * w :], h, w, op[3], into[4 * i * h * w :], line)
        elif code == CROP:
            h, w = op[7], op[8]
            picture = source[i * op[3] * op[4] :]
            pictures.crop(picture, op[4], op[5], op[6], h, w, into[i * h * w :])


@njit(**FAST)
def write(op, k, images, memory, scratch):
    """Hand one channel to a convolution that reads it."""
    h, w = op[12], op[13]
    for i in range(images):
        x = memory[scratch + op[2] + i * h * w :]
        u = memory[op[4] + k * op[5] + i * op[8] :]
        if op[3]:
            line = memory[scratch:]
            planes.write_split(x, h, w, op[9], op[10], op[11], u, op[6], op[7], line)
        else:
            planes.write_plain(x, h, w, op[9], op[10], u, op[7])


@njit(**FAST)
def read(op, k, images, memory, scratch, first, g):
    """Add the gradient that such a convolution sends back; the `first` one need not add."""
    h, w = op[12], op[13]
    for i in range(images):
        gu = memory[op[15] + k * op[5] + i * op[8] :]
        if op[3]:
            line, part = memory[scratch:], g[i * h * w :]
            if first:
                planes.clear(part[: h * w])
            planes.read_split(gu, op[6], op[7], h, w, op[9], op[10], op[11], part, line)
        else:
            planes.read_plain(gu, op[7], h, w, op[9], op[10], first, g[i * h * w :])


@njit(**FAST)
def put_out(op, channel, images, memory, scratch, vectors, picture):
    """One channel of the network's output."""
    n = op[7]
    bias = vectors[op[4] + channel] if op[4] >= 0 else planes.ZERO
    for i in range(images):
        x, start = memory[scratch + op[2] + i * n :], (i * op[8] + channel) * n
        out = picture[start : start + n]
        for j in range(n):
            out[j] = x[j] + bias


@njit(**FAST)
def take_in(op, channel, images, g, vectors_grad, picture):
    """The gradient of one channel of the output."""
    n, total = op[7], 0.0
    for i in range(images):
        start = (i * op[8] + channel) * n
        given = picture[start : start + n]
        planes.copy(given, g[i * n : i * n + n])
        total += pictures.sums(given, given)[0]
    if op[4] >= 0:
        vectors_grad[op[4] + channel] = total


@njit(**FAST)
def forward(task, chain, ops, memory, scratch, vectors, stats, picture):
    """A channel from one convolution to those that read it."""
    k, channel, images = task[2], task[3], chain[2]
    for i in range(chain[0], chain[1]):
        op = ops[i]
        if op[0] == WRITE:
            write(op, k, images, memory, scratch)
        elif op[0] == OUT:
            put_out(op, channel, images, memory, scratch, vectors, picture)
        else:
            if op[0] == NORM and op[3]:
                start = scratch + op[2]
                measure(op, channel, memory[start : start + op[8]], stats)
            compute(op, k, channel, images, memory, scratch, vectors, stats)


@njit(**FAST)
def put_back(op, plane, image, last, memory, g):
    """Hand the gradient of what a convolution wrote to it, with zeros around."""
    mode, pitch, h, w, stride, lead = op[3], op[7], op[9], op[10], op[13], op[15]
    start = op[11] + plane * op[12] + image * op[8]
    if lead:
        rows, columns, tail = h, w, op[8]
        count = 4 if mode == PHASES else 1
        if mode == PHASES:
            rows, columns = h // 2, w // 2
        elif mode == MAXIMUM:
            rows, columns = 0, 0
        if last:
            tail = stride - lead - image * op[8]
        for q in range(count):
            first = start + q * stride
            if image == 0:
                planes.clear(memory[first - lead : first])
            planes.clear_around(memory[first:], rows, columns, pitch, tail)
    z = memory[op[4] + plane * op[5] + image * op[8] :]
    planes.store(g[image * h * w :], z, stride, pitch, mode, h, w, memory[start:])


@njit(**FAST)
def back_through(op, k, channel, images, memory, scratch, vectors, stats, vectors_grad, g, other):
    """One operation backwards; whether the gradient is now in the other buffer."""
    code = op[0]
    if code == NORM:
        n = op[8]
        x = memory[scratch + op[2] : scratch + op[2] + n]
        mean, scale, shift, slope = constants(op, channel, vectors, stats)
        total, product = pictures.activate_back(x, mean, scale, shift, slope, g[:n])
        if op[3]:
            spread = stats[op[7] + channel, SPREAD]
            vectors_grad[op[5] + channel] = product * spread
            vectors_grad[op[6] + channel] = total
            of_spread = np.float32(product * spread * spread / n)
            pictures.norm_back(x, mean, scale, np.float32(total / n), of_spread, g[:n])
    for i in range(images):
        if code == LOAD:
            put_back(op, channel if op[14] else k, i, i == images - 1, memory, g)
        elif code == DOUBLE:
            h, w = op[4], op[5]
            pictures.double_back(
                g[4 * i * h * w :], h, w, op[3], other[i * h * w :], memory[scratch:]
            )
        elif code == CROP:
            n, size = op[7] * op[8], op[3] * op[4]
            pictures.crop_back(
                g[i * n :], op[3], op[4], op[5], op[6], op[7], op[8], other[i * size :]
            )
    return code in (DOUBLE, CROP)


@njit(**FAST)
def backward(task, chain, ops, memory, scratch, vectors, stats, vectors_grad, picture):
    """The adjoint of `forward`; what the norms need is computed again."""
    k, channel, images = task[2], task[3], chain[2]
    for i in range(chain[0], chain[3]):
        compute(ops[i], k, channel, images, memory, scratch, vectors, stats)
    g, other = memory[scratch + chain[4] :], memory[scratch + chain[5] :]
    for i in range(chain[1] - 1, chain[0] - 1, -1):
        op = ops[i]
        if op[0] == WRITE:
            read(op, k, images, memory, scratch, i == chain[1] - 1, g)
        elif op[0] == OUT:
            take_in(op, channel, images, g, vectors_grad, picture)
        elif back_through(
            op, k, channel, images, memory, scratch, vectors, stats, vectors_grad, g, other
        ):
            g, other = other, g

"""What happens to one channel between two convolutions, forward and backward."""

from __future__ import annotations

import numpy as np
from numba import njit

from . import opcodes, pictures, planes
from .opcodes import CROP, DOUBLE, LOAD, MAXIMUM, NORM, OUT, PHASES, WRITE
from .planes import FAST

MEAN = 0
SPREAD = 1
EPSILON = 1e-5  # of batch norm
SLOPES = np.array(opcodes.SLOPES, np.float32)


@njit(**FAST)
def measure(op, channel, x, stats):
    """Batch statistics of one channel."""
    mean, variance = pictures.moments(x)
    row = stats[op.stats + channel]
    row[MEAN] = mean
    row[SPREAD] = 1 / np.sqrt(variance + EPSILON)


@njit(**FAST)
def constants(op, channel, vectors, stats):
    """Mean, scale, shift and slope of a batch norm with activation; without the norm 0, 1, 0."""
    slope = SLOPES[op.activation]
    if not op.normed:
        return planes.ZERO, pictures.ONE, planes.ZERO, slope
    row = stats[op.stats + channel]
    scale = np.float32(vectors[op.scale + channel] * row[SPREAD])
    return np.float32(row[MEAN]), scale, vectors[op.shift + channel], slope


@njit(**FAST)
def plane_of(op, plane, channel):
    """The number of a channel's planes, where only channels in use have some."""
    return channel if op.all_there else plane


@njit(**FAST)
def compute(op, plane, channel, images, memory, scratch, vectors, stats):
    """One operation of the forward pass, in scratch memory."""
    h = op.h
    w = op.w
    line = memory[scratch:]
    into = memory[scratch + op.into :]
    source = memory[scratch + op.source :]
    if op.code == NORM:
        mean, scale, shift, slope = constants(op, channel, vectors, stats)
        pictures.activate(source[: op.size], mean, scale, shift, slope, into)
    for i in range(images):
        if op.code == LOAD:
            z = memory[op.planes + plane_of(op, plane, channel) * op.channel + i * op.image :]
            planes.load(z, op.phase, op.pitch, op.mode, h, w, into[i * h * w :])
        elif op.code == DOUBLE:
            pictures.double(source[i * h * w :], h, w, op.bilinear, into[4 * i * h * w :], line)
        elif op.code == CROP:
            x = source[i * h * w :]
            out = into[i * op.new_h * op.new_w :]
            pictures.crop(x, w, op.top, op.left, op.new_h, op.new_w, out)


@njit(**FAST)
def write(op, plane, images, memory, scratch):
    """Hand one channel to a convolution that reads it."""
    h = op.h
    w = op.w
    for i in range(images):
        x = memory[scratch + op.source + i * h * w :]
        u = memory[op.planes + plane * op.channel + i * op.image :]
        if op.split:
            line = memory[scratch:]
            planes.write_split(x, h, w, op.pad, op.padding, op.box, u, op.phase, op.pitch, line)
        else:
            planes.write_plain(x, h, w, op.pad, op.padding, u, op.pitch)


@njit(**FAST)
def read(op, plane, images, memory, scratch, first, g):
    """Add the gradient that such a convolution sends back; the `first` one need not add."""
    h = op.h
    w = op.w
    for i in range(images):
        gu = memory[op.grads + plane * op.channel + i * op.image :]
        part = g[i * h * w :]
        if op.split:
            line = memory[scratch:]
            if first:
                planes.clear(part[: h * w])
            planes.read_split(gu, op.phase, op.pitch, h, w, op.pad, op.padding, op.box, part, line)
        else:
            planes.read_plain(gu, op.pitch, h, w, op.pad, op.padding, first, part)


@njit(**FAST)
def put_out(op, channel, images, memory, scratch, vectors, picture):
    """One channel of the network's output."""
    bias = vectors[op.bias + channel] if op.bias >= 0 else planes.ZERO
    for i in range(images):
        x = memory[scratch + op.source + i * op.size :]
        start = (i * op.channels + channel) * op.size
        out = picture[start : start + op.size]
        for j in range(op.size):
            out[j] = x[j] + bias


@njit(**FAST)
def take_in(op, channel, images, g, vectors_grad, picture):
    """The gradient of one channel of the output."""
    total = 0.0
    for i in range(images):
        start = (i * op.channels + channel) * op.size
        given = picture[start : start + op.size]
        planes.copy(given, g[i * op.size : (i + 1) * op.size])
        total += pictures.sums(given, given)[0]
    if op.bias >= 0:
        vectors_grad[op.bias + channel] = total


@njit(**FAST)
def forward(task, chain, ops, memory, scratch, vectors, stats, picture):
    """A channel from one convolution to those that read it."""
    plane = task.plane
    channel = task.channel
    for i in range(chain.first, chain.last):
        op = ops[i]
        if op.code == WRITE:
            write(op, plane, chain.images, memory, scratch)
        elif op.code == OUT:
            put_out(op, channel, chain.images, memory, scratch, vectors, picture)
        else:
            if op.code == NORM and op.normed:
                start = scratch + op.source
                measure(op, channel, memory[start : start + op.size], stats)
            compute(op, plane, channel, chain.images, memory, scratch, vectors, stats)


@njit(**FAST)
def put_back(op, plane, image, last, memory, g):
    """Hand the gradient of what a convolution wrote to it, with zeros around."""
    h = op.h
    w = op.w
    stride = op.grads_phase
    start = op.grads + plane * op.grads_channel + image * op.image
    if op.lead:
        count = 1
        rows = h
        columns = w
        tail = op.image
        if op.mode == PHASES:
            count = 4
            rows = h // 2
            columns = w // 2
        elif op.mode == MAXIMUM:
            rows = 0
            columns = 0
        if last:
            tail = stride - op.lead - image * op.image
        for q in range(count):
            first = start + q * stride
            if image == 0:
                planes.clear(memory[first - op.lead : first])
            planes.clear_around(memory[first:], rows, columns, op.pitch, tail)
    z = memory[op.planes + plane * op.channel + image * op.image :]
    planes.store(g[image * h * w :], z, stride, op.pitch, op.mode, h, w, memory[start:])


@njit(**FAST)
def back_through_norm(op, channel, memory, scratch, vectors, stats, vectors_grad, g):
    """Batch norm and activation backwards, in place, and the gradients of scale and shift."""
    n = op.size
    x = memory[scratch + op.source : scratch + op.source + n]
    mean, scale, shift, slope = constants(op, channel, vectors, stats)
    total, product = pictures.activate_back(x, mean, scale, shift, slope, g[:n])
    if op.normed:
        spread = stats[op.stats + channel, SPREAD]
        vectors_grad[op.scale + channel] = product * spread
        vectors_grad[op.shift + channel] = total
        of_spread = np.float32(product * spread * spread / n)
        pictures.norm_back(x, mean, scale, np.float32(total / n), of_spread, g[:n])


@njit(**FAST)
def back_through(op, plane, channel, images, memory, scratch, g, other):
    """Another operation backwards; whether the gradient is now in the other buffer."""
    h = op.h
    w = op.w
    for i in range(images):
        if op.code == LOAD:
            put_back(op, plane_of(op, plane, channel), i, i == images - 1, memory, g)
        elif op.code == DOUBLE:
            out = other[i * h * w :]
            pictures.double_back(g[4 * i * h * w :], h, w, op.bilinear, out, memory[scratch:])
        elif op.code == CROP:
            given = g[i * op.new_h * op.new_w :]
            out = other[i * h * w :]
            pictures.crop_back(given, h, w, op.top, op.left, op.new_h, op.new_w, out)
    return op.code in (DOUBLE, CROP)


@njit(**FAST)
def backward(task, chain, ops, memory, scratch, vectors, stats, vectors_grad, picture):
    """The adjoint of `forward`; what the norms need is computed again."""
    plane = task.plane
    channel = task.channel
    images = chain.images
    for i in range(chain.first, chain.again):
        compute(ops[i], plane, channel, images, memory, scratch, vectors, stats)
    g = memory[scratch + chain.g :]
    other = memory[scratch + chain.other :]
    for i in range(chain.last - 1, chain.first - 1, -1):
        op = ops[i]
        if op.code == WRITE:
            read(op, plane, images, memory, scratch, i == chain.last - 1, g)
        elif op.code == OUT:
            take_in(op, channel, images, g, vectors_grad, picture)
        elif op.code == NORM:
            back_through_norm(op, channel, memory, scratch, vectors, stats, vectors_grad, g)
        elif back_through(op, plane, channel, images, memory, scratch, g, other):
            g, other = other, g

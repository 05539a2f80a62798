"""The whole step as a list of small tasks, worked off by one compiled function.

A *program* (see `program.py`) says which tasks there are; this file says what each of them does.
Threads take the tasks of a stage one after the other, and start the next when all are done. What a
task computes does not depend on who takes it, so results do not depend on the threads' timing; nor
does anybody wait for a thread that has not come yet.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numba.core.registry import cpu_target

from . import _planes as planes
from ._channels import backward, forward
from ._codes import BACKWARD, COMBINE, CORRELATE, FORWARD, GATHER, LANES
from ._planes import FAST
from ._team import compiled, stamp
from ._vector import (  # fmt: skip
    combine1,
    combine2,
    combine4,
    combine8,
    combine12,
    correlate,
    give_way,
    read_shared,
    take_one,
)

SPINS = 2000  # before a waiting thread gives way


# --- convolutions -------------------------------------------------------------------------


@njit(**FAST)
def gather(conv, memory, values, index):
    """The weights of all taps, in every order they are read in, from the kept values."""
    start, n, taps, slot = conv[0], conv[1], conv[2], conv[6]
    w = memory[conv[3] : conv[3] + taps]
    if slot < 0:
        planes.copy(values[start : start + n], w)
    else:
        planes.clear(w)
        for phase in range(4):
            for i in range(n):
                w[index[slot + phase * n + i]] += values[start + i]
    for column in (4, 18):
        ordered, order = memory[conv[column] : conv[column] + taps], conv[column + 1]
        for i in range(taps):
            ordered[i] = w[index[order + i]]


@njit(**FAST)
def scatter(conv, memory, grad, index):
    """Gradients of the kept values from those of all taps."""
    start, n, place, rows, padded = conv[0], conv[1], conv[7], conv[16], conv[10]
    out, w_grad = grad[start : start + n], memory[conv[8] :]
    if place < 0:
        for p in range(conv[17]):
            first, last = np.int64(index[rows + p]), np.int64(index[rows + p + 1])
            planes.copy(w_grad[np.int64(index[padded + p]) :], out[first:last])
        return
    planes.clear(out)
    for phase in range(4):
        for i in range(n):
            out[i] += w_grad[index[place + phase * n + i]]


@njit(**FAST)
def combine(task, matrix, memory, index):
    """Some pixels of some planes: each is a weighted sum of shifted input planes.

    Block by block of input planes, few enough that what is read of them stays in the cache.
    """
    start, vectors = task[2], task[3]
    x, rows, taps, weights, out, stride = (
        matrix[0],
        matrix[1],
        matrix[2],
        matrix[3],
        matrix[4],
        matrix[5],
    )
    m, ints = memory.ctypes.data, index.ctypes.data
    source = m + 4 * (x + start)
    for block in range(matrix[6]):
        for p in range(task[4], task[5]):
            row = rows + block * matrix[7] + p
            first = np.int64(index[row])
            count = np.int64(index[row + 1]) - first
            offsets, w = ints + 4 * (taps + first), m + 4 * (weights + first)
            target = m + 4 * (out + p * stride + start)
            if vectors == 12:
                combine12(source, offsets, w, count, target, block)
            elif vectors == 8:
                combine8(source, offsets, w, count, target, block)
            elif vectors == 4:
                combine4(source, offsets, w, count, target, block)
            elif vectors == 2:
                combine2(source, offsets, w, count, target, block)
            else:
                combine1(source, offsets, w, count, target, block)


@njit(**FAST)
def correlate_planes(task, conv, memory, index):
    """The gradients of the taps of some output planes; of input planes too, block by block."""
    x, rows, taps, w_grad, outs = conv[9], conv[10], conv[11], conv[8], conv[17]
    g, stride, vectors, at_once = conv[12], conv[13], conv[14], conv[15]
    cuts, blocks = conv[20], conv[21]
    m, ints = memory.ctypes.data, index.ctypes.data
    planes.clear(memory[w_grad + index[rows + task[2]] : w_grad + index[rows + task[3]]])
    start = np.int64(0)
    while start < vectors:
        count = min(at_once, vectors - start)
        for block in range(blocks):
            for p in range(task[2], task[3]):
                cut = cuts + block * outs + p
                first = np.int64(index[cut])
                groups = (np.int64(index[cut + outs]) - first) >> 3
                if groups > 0:
                    correlate(
                        m + 4 * (x + LANES * start), ints + 4 * (taps + first), groups,
                        m + 4 * (g + p * stride + LANES * start), count, m + 4 * (w_grad + first),
                    )  # fmt: skip
        start += count


# --- the step -----------------------------------------------------------------------------


@njit(**FAST)
def execute(task, tables, data, scratch):
    """One task of a program."""
    convs, matrices, chains, ops = tables
    memory, index, values, grad, vectors, vectors_grad, stats, picture = data
    kind, which = task[0], task[1]
    if kind == GATHER:
        gather(convs[which], memory, values, index)
    elif kind == COMBINE:
        combine(task, matrices[which], memory, index)
    elif kind == FORWARD:
        forward(task, chains[which], ops, memory, scratch, vectors, stats, picture)
    elif kind == BACKWARD:
        chain = chains[which]
        backward(task, chain, ops, memory, scratch, vectors, stats, vectors_grad, picture)
    elif kind == CORRELATE:
        correlate_planes(task, convs[which], memory, index)
    else:
        scatter(convs[which], memory, grad, index)


def widths() -> tuple[int, ...]:
    """How many vectors a weighted sum makes at once, so that all of them stay in registers."""
    features = cpu_target.target_context.codegen().magic_tuple()[2]
    if "+avx512f" in features:
        return (12, 8, 4, 2, 1)
    if "+avx," in features or "+neon" in features:
        return (2, 1)
    return (1,)


def _make(stamp: str):
    """The functions that work off a program, by one thread and by several."""

    def alone(tasks, stages, shared, tables, data, scratch):
        stamp  # noqa: B018
        for stage in range(stages.size - 1):
            first, last = stages[stage], stages[stage + 1]
            taken = shared.ctypes.data + 16 * stage
            done = taken + 8
            while True:
                turn = first + take_one(taken)
                if turn >= last:
                    break
                execute(tasks[turn], tables, data, scratch)
                take_one(done)
            spins = 0
            while read_shared(done) < last - first:
                spins += 1
                if spins > SPINS:
                    give_way()

    def together(team, size, tasks, stages, shared, tables, data, scratch):
        stamp  # noqa: B018
        for member in prange(team):
            run_alone(tasks, stages, shared, tables, data, scratch + member * size)

    return alone, together


_alone, _together = _make(
    stamp("kernels.py", "_channels.py", "_codes.py", "_pictures.py", "_planes.py", "_vector.py")
)
run_alone = compiled(_alone, FAST)
run_together = compiled(_together, {"parallel": True, "nogil": True, "error_model": "numpy"})

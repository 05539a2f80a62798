"""The whole step as a list of small tasks, worked off by one compiled function.

A *program* (see `lower.py`) says which tasks there are; this file says what each of them does.
Threads take the tasks of a stage one after the other, and start the next when all are done. What a
task computes does not depend on who takes it, so results do not depend on the threads' timing; nor
does anybody wait for a thread that has not come yet.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numba.core.registry import cpu_target

from . import channels, opcodes, pictures, planes, vector
from .channels import backward, forward
from .opcodes import BACKWARD, COMBINE, CORRELATE, FORWARD, GATHER, LANES
from .planes import FAST
from .team import compiled, stamp

SPINS = 2000  # before a waiting thread gives way


# --- convolutions -------------------------------------------------------------------------


@njit(**FAST)
def gather(conv, memory, values, index):
    """The weights of all taps, in every order they are read in, from the kept values."""
    kept = values[conv.values : conv.values + conv.kept]
    w = memory[conv.weights : conv.weights + conv.taps]
    if conv.slots < 0:
        planes.copy(kept, w)
    else:
        planes.clear(w)
        for phase in range(4):
            for i in range(conv.kept):
                w[index[conv.slots + phase * conv.kept + i]] += kept[i]
    put_in_order(w, index[conv.ahead_order :], memory[conv.ahead : conv.ahead + conv.taps])
    put_in_order(w, index[conv.back_order :], memory[conv.back : conv.back + conv.taps])


@njit(**FAST)
def put_in_order(w, order, out):
    """out[i] = w[order[i]]."""
    for i in range(out.size):
        out[i] = w[order[i]]


@njit(**FAST)
def scatter(conv, memory, grad, index):
    """Gradients of the kept values from those of all taps."""
    out = grad[conv.values : conv.values + conv.kept]
    of_taps = memory[conv.grad :]
    if conv.grad_slots < 0:
        for p in range(conv.planes):
            first = np.int64(index[conv.rows + p])
            last = np.int64(index[conv.rows + p + 1])
            planes.copy(of_taps[np.int64(index[conv.rows8 + p]) :], out[first:last])
        return
    planes.clear(out)
    for phase in range(4):
        for i in range(conv.kept):
            out[i] += of_taps[index[conv.grad_slots + phase * conv.kept + i]]


@njit(**FAST)
def combine(task, product, memory, index):
    """Some pixels of some planes: each is a weighted sum of shifted input planes.

    Block by block of input planes, few enough that what is read of them stays in the cache.
    """
    numbers = memory.ctypes.data
    places = index.ctypes.data
    source = numbers + 4 * (product.source + task.start)
    for block in range(product.blocks):
        for p in range(task.first, task.last):
            row = product.rows + block * product.planes + p
            first = np.int64(index[row])
            count = np.int64(index[row + 1]) - first
            offsets = places + 4 * (product.offsets + first)
            w = numbers + 4 * (product.weights + first)
            target = numbers + 4 * (product.out + p * product.stride + task.start)
            if task.vectors == 12:
                vector.combine12(source, offsets, w, count, target, block)
            elif task.vectors == 8:
                vector.combine8(source, offsets, w, count, target, block)
            elif task.vectors == 4:
                vector.combine4(source, offsets, w, count, target, block)
            elif task.vectors == 2:
                vector.combine2(source, offsets, w, count, target, block)
            else:
                vector.combine1(source, offsets, w, count, target, block)


@njit(**FAST)
def correlate_planes(task, conv, memory, index):
    """The gradients of the taps of some output planes; of input planes too, block by block."""
    numbers = memory.ctypes.data
    places = index.ctypes.data
    first_tap = index[conv.rows8 + task.first]
    last_tap = index[conv.rows8 + task.last]
    planes.clear(memory[conv.grad + first_tap : conv.grad + last_tap])
    start = np.int64(0)
    while start < conv.vectors:
        count = min(conv.at_once, conv.vectors - start)
        source = numbers + 4 * (conv.u + LANES * start)
        for block in range(conv.blocks):
            for p in range(task.first, task.last):
                cut = conv.cuts + block * conv.planes + p
                first = np.int64(index[cut])
                groups = (np.int64(index[cut + conv.planes]) - first) >> 3
                if groups > 0:
                    offsets = places + 4 * (conv.offsets8 + first)
                    given = numbers + 4 * (conv.gz + p * conv.gz_stride + LANES * start)
                    out = numbers + 4 * (conv.grad + first)
                    vector.correlate(source, offsets, groups, given, count, out)
        start += count


# --- the step -----------------------------------------------------------------------------


@njit(**FAST)
def execute(task, tables, data, scratch):
    """One task of a program."""
    convs, products, chains, ops = tables
    memory, index, values, grad, vectors, vectors_grad, stats, picture = data
    kind = task.kind
    which = task.which
    if kind == GATHER:
        gather(convs[which], memory, values, index)
    elif kind == COMBINE:
        combine(task, products[which], memory, index)
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
            first = stages[stage]
            last = stages[stage + 1]
            taken = shared.ctypes.data + 16 * stage
            done = taken + 8
            while True:
                turn = first + vector.take_one(taken)
                if turn >= last:
                    break
                execute(tasks[turn], tables, data, scratch)
                vector.take_one(done)
            spins = 0
            while vector.read_shared(done) < last - first:
                spins += 1
                if spins > SPINS:
                    vector.give_way()

    def together(team, size, tasks, stages, shared, tables, data, scratch):
        stamp  # noqa: B018
        for member in prange(team):
            run_alone(tasks, stages, shared, tables, data, scratch + member * size)

    return alone, together


_COMPILED_IN = (channels, opcodes, pictures, planes, vector)
_alone, _together = _make(stamp(__file__, *(module.__file__ for module in _COMPILED_IN)))
run_alone = compiled(_alone, FAST)
run_together = compiled(_together, {"parallel": True, "nogil": True, "error_model": "numpy"})

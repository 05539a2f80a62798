"""The passes of `lipkit.find.passes` over all logits, each as one loop of vector code.

Vectors are read and written in whole lanes, so that they need room behind their last number.
"""

from __future__ import annotations

import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from ..masks import relaxed
from ..masks.relaxed import BETAS, FARTHEST, MIXING, TINY, Key, adam_numbers, least
from . import lanes as arithmetic
from .lanes import SIDE, WHOLE, Lanes, spread, whole
from .sparse import opcodes, planes
from .sparse import vector as vectors
from .sparse.opcodes import LANES
from .sparse.planes import FAST
from .sparse.team import as_team, compiled, stamp
from .sparse.vector import (
    F32,
    F64,
    I32,
    I64,
    VECTOR,
    Loop,
    broadcast,
    fold,
    load,
    store,
)

DRAW, DESCEND, DESCEND_WITH = range(3)
LEAST = least(torch.float32)
AHEAD = 2048  # bytes between what is asked for and what is read
ROOM = LANES * SIDE  # a vector must have whole ones of these
PIECE = 512 * ROOM  # numbers that a thread works on at a time
_DOUBLES = ir.VectorType(F64, LANES)


def _uniform(builder, place, key) -> Lanes:
    """Numbers from 0 to 1, from the places of weights and the two words of a key."""
    start = spread(builder, place)
    lanes = (ir.Constant(WHOLE, [LANES * j + i for i in range(LANES)]) for j in range(SIDE))
    bits = Lanes(builder, [builder.add(start, places) for places in lanes])
    for word in key:
        bits = bits.each(lambda b, w: builder.xor(b, builder.bitcast(w, WHOLE)), word)
        bits = _mixed(builder, bits)
    parts = bits.each(lambda b: builder.sitofp(builder.lshr(b, whole(9)), VECTOR))
    return parts * 2.0**-23 + 2.0**-24


def _mixed(builder, bits) -> Lanes:
    """As in `lipkit.masks.relaxed`."""

    def stirred(shift):
        return bits.each(lambda b: builder.xor(b, builder.lshr(b, whole(shift))))

    for shift, factor in zip((16, 15), map(whole, MIXING), strict=True):
        bits = stirred(shift).each(lambda b, factor=factor: builder.mul(b, factor))
    return stirred(16)


def _ask_for(builder, address):
    """Have memory bring what is needed soon: a long loop body sees only little of what comes."""
    pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")
    builder.call(fetch, [pointer, I32(0), I32(3), I32(1)])


def _make_pass(vectors: int, compute):
    """A loop over all numbers of a piece, with four numbers that hold for all.

    `compute` gets a place, the four numbers and what the vectors hold there. It gives what some of
    them become, and something to be added up over the whole piece.
    """

    @intrinsic
    def run(_context, addresses, numbers, first, n):
        def generate(_context, builder, _signature, args):
            addresses, numbers, first, n = args

            def entry(base, i, kind, width):
                return load(builder, builder.add(base, I64(width * i)), kind)

            skip = builder.shl(first, I64(2))
            starts = [builder.add(entry(addresses, i, I64, 8), skip) for i in range(vectors)]
            given = [broadcast(builder, entry(numbers, i, F32, 4)) for i in range(4)]
            given = [Lanes(builder, [number] * SIDE) for number in given]
            turns = builder.sdiv(builder.add(n, I64(ROOM - 1)), I64(ROOM))
            loop = Loop(builder, turns, [ir.Constant(_DOUBLES, None)])
            done = builder.mul(loop.i, I64(ROOM))
            here = builder.shl(done, I64(2))
            places = [
                [builder.add(builder.add(a, here), I64(4 * LANES * j)) for j in range(SIDE)]
                for a in starts
            ]
            for at in (at for several in places for at in several):
                _ask_for(builder, builder.add(at, I64(AHEAD)))
            parts = [Lanes(builder, [load(builder, at, VECTOR) for at in p]) for p in places]
            stored, added = compute(builder.add(first, done), given, *parts)
            for i, lanes in stored.items():
                for vector, at in zip(lanes.vectors, places[i], strict=True):
                    store(builder, vector, at)
            total = loop.values[0]
            if added is not None:
                total = _add_first(builder, total, added.vectors, builder.sub(n, done))
            return fold(builder, loop.end([total])[0])

        return types.float64(*[types.int64] * 4), generate

    return run


def _add_first(builder, total, vectors, count):
    """Add all but what is behind so many numbers, in double precision."""
    most = I64(ROOM)
    count = builder.select(builder.icmp_signed("<", count, most), count, most)
    limit = spread(builder, count)
    for j, vector in enumerate(vectors):
        places = ir.Constant(WHOLE, [LANES * j + i for i in range(LANES)])
        inside = builder.icmp_signed("<", places, limit)
        counted = builder.select(inside, vector, ir.Constant(VECTOR, None))
        total = builder.fadd(total, builder.fpext(counted, _DOUBLES))
    return total


def _drawn(place, numbers, v, theta, w, dw_dv):
    """w becomes theta * m, with m = sigmoid((v + noise) / T)."""
    per_temperature, *key, fraction = numbers
    u = _uniform(per_temperature.builder, place, key)
    noise = (u / (1 - u)).log()
    cooled = ((v + noise) * per_temperature).between(-30, 30)
    m = (1 / ((cooled * -1).exp() + 1)).or_zero_below(LEAST)
    w = theta * m
    return {2: w, 3: w * (1 - m) * (fraction * per_temperature)}, None


def _descended(_place, numbers, v, dloss_dw, dw_dv, first, second, p0, more=None):
    """A step of Adam; the sum of the probabilities before it."""
    lam, rate, epsilon, _ = numbers
    e = (v * -1.0).exp()
    p = 1 / (e + 1)
    q = e * p
    low = p + TINY
    high = q + TINY
    divergence = (low * (1 - p0) / (high * p0)).log() + (p - q) * TINY / (low * high)
    grad = dloss_dw * dw_dv if more is None else dloss_dw.times_plus(dw_dv, more)
    grad = (p * q * lam).times_plus(divergence, grad)
    first = (grad - first).times_plus(1 - BETAS[0], first)
    second = (grad * grad).times_plus(1 - BETAS[1], second * BETAS[1])
    stepped = v - rate * first / (second.root() + epsilon)
    stepped = stepped.between(-FARTHEST, FARTHEST)
    return {0: stepped, 1: dloss_dw.like(0.0), 3: first, 4: second}, p


draw = _make_pass(4, _drawn)
step = _make_pass(6, _descended)
step_with = _make_pass(7, _descended)


@njit(**FAST)
def one_piece(kind, addresses, numbers, n, piece, sums):
    first = piece * PIECE
    n = min(n - first, PIECE)
    if kind == DRAW:
        sums[piece] = draw(addresses.ctypes.data, numbers.ctypes.data, first, n)
    elif kind == DESCEND:
        sums[piece] = step(addresses.ctypes.data, numbers.ctypes.data, first, n)
    else:
        sums[piece] = step_with(addresses.ctypes.data, numbers.ctypes.data, first, n)


def _make(stamp: str):
    """A pass piece by piece, by one thread and by several; sums do not depend on how many."""

    def alone(kind, a, numbers, n, sums):
        stamp  # noqa: B018
        for piece in range(sums.size):
            one_piece(kind, a, numbers, n, piece, sums)

    def together(kind, a, numbers, n, sums):
        stamp  # noqa: B018
        for piece in prange(sums.size):
            one_piece(kind, a, numbers, n, piece, sums)

    return alone, together


_COMPILED_IN = (__file__, *(m.__file__ for m in (arithmetic, relaxed, opcodes, planes, vectors)))
_alone, _together = _make(stamp(*_COMPILED_IN))
_run_alone = compiled(_alone, FAST)
_run_together = compiled(_together, {"parallel": True, "nogil": True, "error_model": "numpy"})


def _run(kind: int, vectors: tuple[Tensor, ...], numbers: np.ndarray) -> float:
    """One pass, with as many threads as torch uses; the sum that it makes."""
    n = vectors[0].numel()
    team = torch.get_num_threads()
    sums = np.zeros(-(-n // PIECE))
    work = (kind, np.array([_address(v) for v in vectors]), numbers, n, sums)
    if team == 1:
        _run_alone(*work)
    else:
        as_team(team, _run_together, *work)
    return float(sums.sum())


def _address(vector: Tensor) -> int:
    """Where a vector starts; it must have room for whole lanes."""
    there = vector.untyped_storage().nbytes() // 4 - vector.storage_offset()
    assert vector.is_contiguous() and there >= -(-vector.numel() // ROOM) * ROOM
    return vector.data_ptr()


def draw_mask(
    v: Tensor,
    temperature: float,
    key: Key,
    theta: Tensor,
    w: Tensor,
    dw_dv: Tensor,
    fraction: float = 1.0,
) -> None:
    """Draw as `lipkit.find.passes.draw_mask` does."""
    numbers = np.array([1 / temperature, 0, 0, fraction], np.float32)
    numbers.view(np.uint32)[1:3] = key
    _run(DRAW, (v, theta, w, dw_dv), numbers)


def descend(
    v: Tensor,
    dloss_dw: Tensor,
    dw_dv: Tensor,
    moments: tuple[Tensor, Tensor],
    p0: Tensor,
    lam: float,
    rate: float,
    step: int,
    more: Tensor | None = None,
) -> float:
    """Descend as `lipkit.find.passes.descend` does."""
    numbers = np.array([lam, *adam_numbers(rate, step), 0], np.float32)
    vectors = (v, dloss_dw, dw_dv, *moments, p0)
    if more is None:
        return _run(DESCEND, vectors, numbers)
    return _run(DESCEND_WITH, (*vectors, more), numbers)

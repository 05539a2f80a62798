"""The passes of a mask search over all logits, each as one loop of vector code.

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

from ..find.passes import BETAS, FARTHEST, adam_numbers
from ..find.relaxed import MIXING, TINY, Key, least
from ._lanes import _WHOLE, SIDE, _Lanes, _spread, _whole
from ._planes import FAST
from ._team import as_team, compiled, stamp
from ._vector import (  # fmt: skip
    _F32,
    _F64,
    _I32,
    _I64,
    _VECTOR,
    LANES,
    _broadcast,
    _fold,
    _load,
    _Loop,
    _store,
)

DRAW, DESCEND, DESCEND_WITH = range(3)
LEAST = least(torch.float32)
AHEAD = 2048  # bytes between what is asked for and what is read
ROOM = LANES * SIDE  # a vector must have whole ones of these
PIECE = 512 * ROOM  # numbers that a thread works on at a time
_DOUBLES = ir.VectorType(_F64, LANES)


def _uniform(builder, place, key) -> _Lanes:
    """Numbers from 0 to 1, from the places of weights and the two words of a key."""
    start = _spread(builder, place)
    lanes = (ir.Constant(_WHOLE, [LANES * j + i for i in range(LANES)]) for j in range(SIDE))
    bits = _Lanes(builder, [builder.add(start, places) for places in lanes])
    for word in key:
        bits = bits.each(lambda b, w: builder.xor(b, builder.bitcast(w, _WHOLE)), word)
        bits = _mixed(builder, bits)
    parts = bits.each(lambda b: builder.sitofp(builder.lshr(b, _whole(9)), _VECTOR))
    return parts * 2.0**-23 + 2.0**-24


def _mixed(builder, bits) -> _Lanes:
    """As in `lipkit.find.relaxed`."""

    def stirred(shift):
        return bits.each(lambda b: builder.xor(b, builder.lshr(b, _whole(shift))))

    for shift, factor in zip((16, 15), map(_whole, MIXING), strict=True):
        bits = stirred(shift).each(lambda b, factor=factor: builder.mul(b, factor))
    return stirred(16)


def _ask_for(builder, address):
    """Have memory bring what is needed soon: a long loop body sees only little of what comes."""
    pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")
    builder.call(fetch, [pointer, _I32(0), _I32(3), _I32(1)])


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
                return _load(builder, builder.add(base, _I64(width * i)), kind)

            skip = builder.shl(first, _I64(2))
            starts = [builder.add(entry(addresses, i, _I64, 8), skip) for i in range(vectors)]
            given = [_broadcast(builder, entry(numbers, i, _F32, 4)) for i in range(4)]
            given = [_Lanes(builder, [number] * SIDE) for number in given]
            turns = builder.sdiv(builder.add(n, _I64(ROOM - 1)), _I64(ROOM))
            loop = _Loop(builder, turns, [ir.Constant(_DOUBLES, None)])
            done = builder.mul(loop.i, _I64(ROOM))
            here = builder.shl(done, _I64(2))
            places = [
                [builder.add(builder.add(a, here), _I64(4 * LANES * j)) for j in range(SIDE)]
                for a in starts
            ]
            for at in (at for several in places for at in several):
                _ask_for(builder, builder.add(at, _I64(AHEAD)))
            parts = [_Lanes(builder, [_load(builder, at, _VECTOR) for at in p]) for p in places]
            stored, added = compute(builder.add(first, done), given, *parts)
            for i, lanes in stored.items():
                for vector, at in zip(lanes.vectors, places[i], strict=True):
                    _store(builder, vector, at)
            total = loop.values[0]
            if added is not None:
                total = _add_first(builder, total, added.vectors, builder.sub(n, done))
            return _fold(builder, loop.end([total])[0])

        return types.float64(*[types.int64] * 4), generate

    return run


def _add_first(builder, total, vectors, count):
    """Add all but what is behind so many numbers, in double precision."""
    most = _I64(ROOM)
    count = builder.select(builder.icmp_signed("<", count, most), count, most)
    limit = _spread(builder, count)
    for j, vector in enumerate(vectors):
        places = ir.Constant(_WHOLE, [LANES * j + i for i in range(LANES)])
        inside = builder.icmp_signed("<", places, limit)
        counted = builder.select(inside, vector, ir.Constant(_VECTOR, None))
        total = builder.fadd(total, builder.fpext(counted, _DOUBLES))
    return total


def _drawn(place, numbers, logits, theta, weight, lever):
    """weight becomes theta * mask, with mask = sigmoid((logits + noise) * cold)."""
    cold, *key, share = numbers
    u = _uniform(cold.builder, place, key)
    noise = (u / (1 - u)).log()
    cooled = ((logits + noise) * cold).between(-30, 30)
    mask = (1 / ((cooled * -1).exp() + 1)).or_zero_below(LEAST)
    weight = theta * mask
    return {2: weight, 3: weight * (1 - mask) * (share * cold)}, None


def _descended(_place, numbers, logits, slope, lever, first, second, p0, more=None):
    """A step of Adam; the sum of the probabilities before it."""
    lam, stride, edge, _ = numbers
    e = (logits * -1.0).exp()
    p = 1 / (e + 1)
    q = e * p
    low, high = p + TINY, q + TINY
    divergence = (low * (1 - p0) / (high * p0)).log() + (p - q) * TINY / (low * high)
    grad = slope * lever if more is None else slope.times_plus(lever, more)
    grad = (p * q * lam).times_plus(divergence, grad)
    first = (grad - first).times_plus(1 - BETAS[0], first)
    second = (grad * grad).times_plus(1 - BETAS[1], second * BETAS[1])
    stepped = logits - stride * first / (second.root() + edge)
    stepped = stepped.between(-FARTHEST, FARTHEST)
    return {0: stepped, 1: slope.like(0.0), 3: first, 4: second}, p


draw, step, step_with = _make_pass(4, _drawn), _make_pass(6, _descended), _make_pass(7, _descended)


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


_FOUND = ("../find/passes.py", "../find/relaxed.py")  # whose constants are compiled in
_alone, _together = _make(stamp("_passes.py", "_lanes.py", "_planes.py", "_vector.py", *_FOUND))
_run_alone = compiled(_alone, FAST)
_run_together = compiled(_together, {"parallel": True, "nogil": True, "error_model": "numpy"})


def _run(kind: int, vectors: tuple[Tensor, ...], numbers: np.ndarray) -> float:
    """One pass, with as many threads as torch uses; the sum that it makes."""
    n, team = vectors[0].numel(), torch.get_num_threads()
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
    logits: Tensor,
    temperature: float,
    key: Key,
    theta: Tensor,
    weight: Tensor,
    lever: Tensor,
    share: float = 1.0,
) -> None:
    """As in `lipkit.find.passes`."""
    numbers = np.array([1 / temperature, 0, 0, share], np.float32)
    numbers.view(np.uint32)[1:3] = key
    _run(DRAW, (logits, theta, weight, lever), numbers)


def descend(
    logits: Tensor,
    slope: Tensor,
    lever: Tensor,
    moments: tuple[Tensor, Tensor],
    pull: tuple[Tensor, float],
    rate: float,
    step: int,
    more: Tensor | None = None,
) -> float:
    """As in `lipkit.find.passes`."""
    p0, lam = pull
    numbers = np.array([lam, *adam_numbers(rate, step), 0], np.float32)
    vectors = (logits, slope, lever, *moments, p0)
    if more is None:
        return _run(DESCEND, vectors, numbers)
    return _run(DESCEND_WITH, (*vectors, more), numbers)

"""The passes of a mask search over all logits, each as one loop of vector code.

Vectors are read and written in whole lanes, so that they need room behind their last number.
Elementary functions are those of Cephes in single precision, exact to two units in the last place.
"""

from __future__ import annotations

import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from ..find.relaxed import TINY, least
from ._planes import FAST
from ._taps import round_up
from ._team import as_team, compiled, stamp
from ._vector import (
    _F64,
    _I32,
    _I64,
    _VECTOR,
    LANES,
    _broadcast,
    _fold,
    _load,
    _Loop,
    _multiply_add,
    _store,
)  # fmt: skip

RELAX, COLLECT, PULL = range(3)
LEAST = least(torch.float32)
AHEAD = 2048  # bytes between what is asked for and what is read
PIECE = 1024 * LANES  # numbers that a thread works on at a time
_WHOLE = ir.VectorType(_I32, LANES)
_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
_EXP = (
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5, 1, 1
)  # fmt: skip


class _Lanes:
    """Sixteen numbers, with the arithmetic of one."""

    def __init__(self, builder, value) -> None:
        self.builder, self.value = builder, value

    def like(self, number) -> _Lanes:
        if isinstance(number, _Lanes):
            return number
        return _Lanes(self.builder, ir.Constant(_VECTOR, [float(np.float32(number))] * LANES))

    def _with(self, operation: str, other) -> _Lanes:
        operate = getattr(self.builder, operation)
        return _Lanes(self.builder, operate(self.value, self.like(other).value))

    def __add__(self, other) -> _Lanes:
        return self._with("fadd", other)

    def __sub__(self, other) -> _Lanes:
        return self._with("fsub", other)

    def __mul__(self, other) -> _Lanes:
        return self._with("fmul", other)

    def __truediv__(self, other) -> _Lanes:
        return self._with("fdiv", other)

    def __rsub__(self, number: float) -> _Lanes:
        return self.like(number) - self

    def __rtruediv__(self, number: float) -> _Lanes:
        return self.like(number) / self

    def times_plus(self, factor, summand) -> _Lanes:
        """self * factor + summand, rounded once."""
        args = (self.like(v).value for v in (summand, self, factor))
        return _Lanes(self.builder, _multiply_add(self.builder, *args))

    def between(self, low: float, high: float) -> _Lanes:
        value = self.value
        for sign, bound in (("<", low), (">", high)):
            edge = self.like(bound).value
            outside = self.builder.fcmp_ordered(sign, value, edge)
            value = self.builder.select(outside, edge, value)
        return _Lanes(self.builder, value)

    def or_zero_below(self, least: float) -> _Lanes:
        small = self.builder.fcmp_ordered("<", self.value, self.like(least).value)
        return _Lanes(self.builder, self.builder.select(small, self.like(0).value, self.value))

    def first(self, count) -> _Lanes:
        """Zeros instead of all but so many."""
        builder = self.builder
        count = builder.select(builder.icmp_signed("<", count, _I64(LANES)), count, _I64(LANES))
        limit = builder.insert_element(_whole(0), builder.trunc(count, _I32), _I32(0))
        limit = builder.shuffle_vector(limit, limit, _whole(0))
        inside = builder.icmp_signed("<", ir.Constant(_WHOLE, list(range(LANES))), limit)
        return _Lanes(builder, builder.select(inside, self.value, self.like(0).value))

    def polynomial(self, coefficients) -> _Lanes:
        total = self.like(coefficients[0])
        for c in coefficients[1:]:
            total = total.times_plus(self, c)
        return total

    def exp(self) -> _Lanes:
        """For numbers from -87 to 87."""
        builder = self.builder
        # adding and taking away 1.5 * 2^23 rounds to a whole number
        power = self.times_plus(1.44269504088896341, 12582912.0) - 12582912.0
        rest = power.times_plus(-0.693359375, self)
        rest = power.times_plus(2.12194440e-4, rest)
        exponent = builder.add(builder.fptosi(power.value, _WHOLE), _whole(127))
        scale = builder.bitcast(builder.shl(exponent, _whole(23)), _VECTOR)
        return rest.polynomial(_EXP) * _Lanes(builder, scale)

    def log(self) -> _Lanes:
        """For positive normal numbers."""
        builder = self.builder
        # the mantissa from sqrt(1/2) to sqrt(2): what is above it goes to the exponent
        bits = builder.sub(builder.bitcast(self.value, _WHOLE), _whole(0x3F3504F3))
        power = _Lanes(builder, builder.sitofp(builder.ashr(bits, _whole(23)), _VECTOR))
        bits = builder.add(builder.and_(bits, _whole(0x7FFFFF)), _whole(0x3F3504F3))
        x = _Lanes(builder, builder.bitcast(bits, _VECTOR)) - 1
        square = x * x
        rest = x.polynomial(_LOG) * x * square
        rest = power.times_plus(-2.12194440e-4, rest)
        rest = square.times_plus(-0.5, rest)
        return power.times_plus(0.693359375, x + rest)


def _whole(number: int) -> ir.Constant:
    return ir.Constant(_WHOLE, [number] * LANES)


def _ask_for(builder, address):
    """Have memory bring what is needed soon: a long loop body sees only little of what comes."""
    pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")
    builder.call(fetch, [pointer, _I32(0), _I32(3), _I32(1)])


def _every_vector(builder, count, addresses, body, carried=()):
    """A loop over vectors; `body` gets their present parts, and gives those to store and sums."""
    loop = _Loop(builder, count, carried)
    places = [builder.add(a, builder.shl(loop.i, _I64(6))) for a in addresses]
    for at in places:
        _ask_for(builder, builder.add(at, _I64(AHEAD)))
    parts = [_Lanes(builder, _load(builder, at, _VECTOR)) for at in places]
    stored, carried = body(parts, loop)
    for i, lanes in stored.items():
        _store(builder, lanes.value, places[i])
    return loop.end(carried)


def _make_pass(compute):
    """A pass over four vectors, with one number; `compute` gives what some of them become."""

    @intrinsic
    def run(_context, a, b, c, d, number, count):
        def generate(context, builder, _signature, args):
            *addresses, number, count = args
            number = _Lanes(builder, _broadcast(builder, number))
            _every_vector(builder, count, addresses, lambda parts, _: (compute(number, *parts), []))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4, types.float32, types.int64), generate

    return run


def _relaxed(cold, noise, logits, theta, weight):
    """noise becomes sigmoid((logits + noise) * cold), and weight theta times that."""
    cooled = ((logits + noise) * cold).between(-30, 30)
    mask = (1 / ((cooled * -1).exp() + 1)).or_zero_below(LEAST)
    return {0: mask, 3: theta * mask}


def _collected(scale, slope, weight, mask, grad):
    """grad += scale * slope * weight * (1 - mask), and slope becomes zero."""
    return {0: slope.like(0.0), 3: (slope * weight * scale).times_plus(1 - mask, grad)}


relax, collect = _make_pass(_relaxed), _make_pass(_collected)


@intrinsic
def pull(_context, logits, p0, grad, lam, tiny, n):
    """grad += lam * d kl(p, p0) / d logits, `tiny` in its logarithms; the sum of the first n p."""

    def generate(_context, builder, _signature, args):
        *addresses, lam, tiny, n = args
        lam, tiny = (_Lanes(builder, _broadcast(builder, v)) for v in (lam, tiny))
        count = builder.ashr(builder.add(n, _I64(LANES - 1)), _I64(4))

        def body(parts, loop):
            logits, p0, grad = parts
            e = (logits.between(-80, 80) * -1.0).exp()
            p = 1 / (e + 1)
            q = e * p
            low, high = p + tiny, q + tiny
            slope = (low * (1 - p0) / (high * p0)).log() + (p - q) * tiny / (low * high)
            left = builder.sub(n, builder.shl(loop.i, _I64(4)))
            counted = builder.fpext(p.first(left).value, loop.values[0].type)
            total = builder.fadd(loop.values[0], counted)
            return {2: (p * q * lam).times_plus(slope, grad)}, [total]

        zeros = ir.Constant(ir.VectorType(_F64, LANES), None)
        return _fold(builder, _every_vector(builder, count, addresses, body, [zeros])[0])

    return types.float64(*[types.int64] * 3, types.float32, types.float32, types.int64), generate


@njit(**FAST)
def one_piece(kind, a, numbers, n, piece, sums):
    first = piece * PIECE
    skip, n = 4 * first, min(n - first, PIECE)
    count = (n + LANES - 1) // LANES
    if kind == RELAX:
        relax(a[0] + skip, a[1] + skip, a[2] + skip, a[3] + skip, numbers[0], count)
    elif kind == COLLECT:
        collect(a[0] + skip, a[1] + skip, a[2] + skip, a[3] + skip, numbers[0], count)
    else:
        kept = pull(a[0] + skip, a[1] + skip, a[2] + skip, numbers[0], numbers[1], n)
        sums[piece] = kept


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


_alone, _together = _make(f"{stamp('_passes.py', '_planes.py', '_vector.py')} {LEAST} {TINY}")
_run_alone = compiled(_alone, FAST)
_run_together = compiled(_together, {"parallel": True, "nogil": True, "error_model": "numpy"})


def _run(kind: int, vectors: tuple[Tensor, ...], *numbers: float) -> float:
    """One pass, with as many threads as torch uses; the sum that it makes."""
    n, team = vectors[0].numel(), torch.get_num_threads()
    addresses = np.array([_address(v) for v in vectors])
    sums = np.zeros(-(-n // PIECE))
    work = (kind, addresses, np.array(numbers, np.float32), n, sums)
    if team == 1:
        _run_alone(*work)
    else:
        as_team(team, _run_together, *work)
    return float(sums.sum())


def _address(vector: Tensor) -> int:
    """Where a vector starts; it must have room for whole lanes."""
    there = vector.untyped_storage().nbytes() // 4 - vector.storage_offset()
    assert vector.is_contiguous() and there >= round_up(vector.numel())
    return vector.data_ptr()


def relax_masks(
    mask: Tensor, logits: Tensor, temperature: float, theta: Tensor, weight: Tensor
) -> None:
    """As in `lipkit.find.passes`."""
    _run(RELAX, (mask, logits, theta, weight), 1 / temperature)


def collect_gradient(
    slope: Tensor, weight: Tensor, mask: Tensor, scale: float, grad: Tensor
) -> None:
    """As in `lipkit.find.passes`."""
    _run(COLLECT, (slope, weight, mask, grad), scale)


def pull_down(logits: Tensor, p0: Tensor, lam: float, grad: Tensor) -> float:
    """As in `lipkit.find.passes`."""
    return _run(PULL, (logits, p0, grad), lam, TINY)

"""The inner loops as explicit vector code, and what threads need to share work.

Written as LLVM instructions because automatic vectorisation chooses half the width of the widest
units. Sixteen numbers at a time everywhere: on processors with narrower units LLVM splits them.
"""

from __future__ import annotations

import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .opcodes import LANES

F32 = ir.FloatType()
F64 = ir.DoubleType()
I32 = ir.IntType(32)
I64 = ir.IntType(64)
VECTOR = ir.VectorType(F32, LANES)
EIGHT = ir.VectorType(F32, 8)
ZEROS = ir.Constant(VECTOR, None)


def load(builder, address, kind):
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 4  # planes start anywhere
    return value


def store(builder, value, address):
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 4


def broadcast(builder, value):
    nothing = ir.Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, value, I32(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(I32, LANES), [0] * 16))


def multiply_add(builder, total, a, b):
    """With one rounding, always: left to choose, the compiler chooses anew in each place."""
    kind = ir.FunctionType(a.type, [a.type] * 3)
    name = f"llvm.fma.v{a.type.count}f{32 if a.type.element == F32 else 64}"
    fused = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(fused, [a, b, total])


def plane_address(builder, x, offsets, index):
    """Address of the plane that tap number `index` reads."""
    entry = load(builder, builder.add(offsets, builder.shl(index, I64(2))), I32)
    return builder.add(x, builder.shl(builder.sext(entry, I64), I64(2)))


class Loop:
    """`for i in range(count)`, carrying values from turn to turn."""

    def __init__(self, builder, count, carried) -> None:
        self.builder = builder
        before = builder.block
        head, body, self.after = (builder.append_basic_block(n) for n in ("head", "body", "after"))
        self.head = head
        builder.branch(head)
        builder.position_at_end(head)
        self.i = builder.phi(I64)
        self.i.add_incoming(I64(0), before)
        self.values = [builder.phi(v.type) for v in carried]
        for phi, value in zip(self.values, carried, strict=True):
            phi.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<", self.i, count), body, self.after)
        builder.position_at_end(body)

    def end(self, carried):
        builder = self.builder
        self.i.add_incoming(builder.add(self.i, I64(1)), builder.block)
        for phi, value in zip(self.values, carried, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(self.head)
        builder.position_at_end(self.after)
        return self.values


def make_combine(vectors: int):
    """out[0 : 16 * vectors] = sum over n taps of w[i] * x[offsets[i] : ...], or added to it.

    Even and odd taps are summed apart, so that short sums do not wait for each other. The order
    is the same for any number of vectors: a picture of one value stays one.
    """

    @intrinsic
    def combine(_context, x, offsets, w, n, out, add):
        def generate(context, builder, _signature, args):
            x, offsets, w, n, out, add = args
            add = builder.icmp_signed("!=", add, I64(0))
            places = [builder.add(out, I64(4 * LANES * j)) for j in range(vectors)]
            before = [builder.select(add, load(builder, at, VECTOR), ZEROS) for at in places]

            def tap(index, totals, chain):
                weight = load(builder, builder.add(w, builder.shl(index, I64(2))), F32)
                weight = broadcast(builder, weight)
                base = plane_address(builder, x, offsets, index)
                for j in range(chain * vectors, (chain + 1) * vectors):
                    place = I64(4 * LANES * (j - chain * vectors))
                    pixels = load(builder, builder.add(base, place), VECTOR)
                    totals[j] = multiply_add(builder, totals[j], pixels, weight)

            loop = Loop(builder, builder.ashr(n, I64(1)), [*before, *[ZEROS] * vectors])
            totals = list(loop.values)
            first = builder.shl(loop.i, I64(1))
            tap(first, totals, 0)
            tap(builder.add(first, I64(1)), totals, 1)
            totals = loop.end(totals)
            even = totals[:vectors]
            odd = totals[vectors:]
            loop = Loop(builder, builder.and_(n, I64(1)), even)
            even = list(loop.values)
            tap(builder.sub(n, I64(1)), even, 0)
            even = loop.end(even)
            for j in range(vectors):
                store(builder, builder.fadd(even[j], odd[j]), places[j])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), generate

    return combine


combine12, combine8, combine4, combine2, combine1 = (make_combine(v) for v in (12, 8, 4, 2, 1))


def sums_of_eight(builder, vectors):
    """The sums of eight vectors, as one vector of eight, in as few additions as it takes."""

    def halves(a, b, width):
        """Fold blocks of `width`: the lower of each pair from a and b, plus the upper ones."""
        lower = []
        upper = []
        for start in range(0, LANES, 2 * width):
            lower += [s + start + i for s in (0, LANES) for i in range(width)]
            upper += [s + start + width + i for s in (0, LANES) for i in range(width)]
        masks = (ir.Constant(ir.VectorType(I32, LANES), m) for m in (lower, upper))
        low, high = (builder.shuffle_vector(a, b, m) for m in masks)
        return builder.fadd(low, high)

    for width in (2, 4, 8):
        vectors = [halves(a, b, width) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    kind = ir.VectorType(I32, 8)
    even, odd = (
        builder.shuffle_vector(vectors[0], vectors[0], ir.Constant(kind, list(range(s, 16, 2))))
        for s in (0, 1)
    )
    return builder.fadd(even, odd)


@intrinsic
def correlate(_context, x, offsets, groups, g, count, out):
    """out[i] += sum over `count` vectors of g * x[offsets[i] : ...], for groups of eight taps."""

    def generate(context, builder, _signature, args):
        x, offsets, groups, g, count, out = args
        outer = Loop(builder, groups, [])
        first = builder.shl(outer.i, I64(3))
        bases = [plane_address(builder, x, offsets, builder.add(first, I64(t))) for t in range(8)]
        inner = Loop(builder, count, [ZEROS] * 8)
        step = builder.shl(inner.i, I64(6))
        gradient = load(builder, builder.add(g, step), VECTOR)
        totals = [
            multiply_add(builder, t, load(builder, builder.add(base, step), VECTOR), gradient)
            for t, base in zip(inner.values, bases, strict=True)
        ]
        sums = sums_of_eight(builder, inner.end(totals))
        target = builder.add(out, builder.shl(first, I64(2)))
        store(builder, builder.fadd(load(builder, target, EIGHT), sums), target)
        outer.end([])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def add_up(_context, x, y, count):
    """The sums of x and of x * y over `count` vectors, in double precision."""

    def generate(context, builder, signature, args):
        x, y, count = args
        double = ir.VectorType(F64, LANES)
        loop = Loop(builder, count, [ir.Constant(double, None)] * 2)
        step = builder.shl(loop.i, I64(6))
        a, b = (builder.fpext(load(builder, builder.add(v, step), VECTOR), double) for v in (x, y))
        total, product = loop.values
        sums = [builder.fadd(total, a), multiply_add(builder, product, a, b)]
        sums = [fold(builder, v) for v in loop.end(sums)]
        return context.make_tuple(builder, signature.return_type, sums)

    return types.UniTuple(types.float64, 2)(*[types.int64] * 3), generate


def fold(builder, vector):
    """The sum of a vector, always in the same order."""
    while vector.type.count > 1:
        half = vector.type.count // 2
        kind = ir.VectorType(I32, half)
        low, high = (
            builder.shuffle_vector(vector, vector, ir.Constant(kind, list(range(s, s + half))))
            for s in (0, half)
        )
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, I32(0))


@intrinsic
def take_one(_context, address):
    """Add one to a number shared by the threads; its value before."""

    def generate(_context, builder, _signature, args):
        pointer = builder.inttoptr(args[0], I64.as_pointer())
        return builder.atomic_rmw("add", pointer, I64(1), "seq_cst")

    return types.int64(types.int64), generate


@intrinsic
def read_shared(_context, address):
    """The present value of a number shared by the threads."""

    def generate(_context, builder, _signature, args):
        pointer = builder.inttoptr(args[0], I64.as_pointer())
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def give_way(_context):
    """Let another thread have the processor, where the system's call for it can be reached."""

    def generate(context, builder, _signature, _args):
        if sys.platform != "win32":
            kind = ir.FunctionType(I32, [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate

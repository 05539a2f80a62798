"""Many numbers with the arithmetic of one, for the loops of compiled passes.

Elementary functions are those of Cephes in single precision, exact to two units in the last place.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from .sparse.opcodes import LANES
from .sparse.vector import I32, VECTOR, multiply_add

SIDE = 4  # vectors computed at a time
WHOLE = ir.VectorType(I32, LANES)
_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
_EXP = (
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5, 1, 1
)  # fmt: skip


class Lanes:
    """`SIDE` times sixteen numbers, with the arithmetic of one.

    Side by side, because each operation has to wait for the one before.
    """

    def __init__(self, builder, vectors) -> None:
        self.builder = builder
        self.vectors = list(vectors)

    def like(self, number) -> Lanes:
        if isinstance(number, Lanes):
            return number
        constant = ir.Constant(VECTOR, [float(np.float32(number))] * LANES)
        return Lanes(self.builder, [constant] * SIDE)

    def each(self, operate, *others) -> Lanes:
        """The same operation on every vector, with those of the others."""
        columns = (self.like(other).vectors for other in others)
        return Lanes(self.builder, map(operate, self.vectors, *columns))

    def __add__(self, other) -> Lanes:
        return self.each(self.builder.fadd, other)

    def __sub__(self, other) -> Lanes:
        return self.each(self.builder.fsub, other)

    def __mul__(self, other) -> Lanes:
        return self.each(self.builder.fmul, other)

    def __truediv__(self, other) -> Lanes:
        return self.each(self.builder.fdiv, other)

    def __rsub__(self, number: float) -> Lanes:
        return self.like(number) - self

    def __rtruediv__(self, number: float) -> Lanes:
        return self.like(number) / self

    def times_plus(self, factor, summand) -> Lanes:
        """self * factor + summand, rounded once."""
        return self.each(lambda a, b, c: multiply_add(self.builder, c, a, b), factor, summand)

    def between(self, low: float, high: float) -> Lanes:
        return self._instead_of("<", low, low)._instead_of(">", high, high)

    def or_zero_below(self, least: float) -> Lanes:
        return self._instead_of("<", least, 0)

    def _instead_of(self, sign: str, bound: float, other: float) -> Lanes:
        """Another number in place of those on that side of a bound."""

        def choose(value, bound, other):
            beyond = self.builder.fcmp_ordered(sign, value, bound)
            return self.builder.select(beyond, other, value)

        return self.each(choose, bound, other)

    def polynomial(self, coefficients) -> Lanes:
        total = self.like(coefficients[0])
        for c in coefficients[1:]:
            total = total.times_plus(self, c)
        return total

    def exp(self) -> Lanes:
        """For numbers from -87 to 87."""
        builder = self.builder
        # adding and taking away 1.5 * 2^23 rounds to a whole number
        power = self.times_plus(1.44269504088896341, 12582912.0) - 12582912.0
        rest = power.times_plus(-0.693359375, self)
        rest = power.times_plus(2.12194440e-4, rest)

        def two_to(value):
            exponent = builder.add(builder.fptosi(value, WHOLE), whole(127))
            return builder.bitcast(builder.shl(exponent, whole(23)), VECTOR)

        return rest.polynomial(_EXP) * power.each(two_to)

    def log(self) -> Lanes:
        """For positive normal numbers."""
        builder = self.builder

        def shifted(value):
            return builder.sub(builder.bitcast(value, WHOLE), whole(0x3F3504F3))

        def exponent(value):
            return builder.sitofp(builder.ashr(shifted(value), whole(23)), VECTOR)

        def mantissa(value):
            bits = builder.and_(shifted(value), whole(0x7FFFFF))
            return builder.bitcast(builder.add(bits, whole(0x3F3504F3)), VECTOR)

        # the mantissa from sqrt(1/2) to sqrt(2): what is above it goes to the exponent
        power = self.each(exponent)
        x = self.each(mantissa) - 1
        square = x * x
        rest = x.polynomial(_LOG) * x * square
        rest = power.times_plus(-2.12194440e-4, rest)
        rest = square.times_plus(-0.5, rest)
        return power.times_plus(0.693359375, x + rest)

    def root(self) -> Lanes:
        kind = ir.FunctionType(VECTOR, [VECTOR])
        root = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.sqrt.v16f32")
        return self.each(lambda value: self.builder.call(root, [value]))


def whole(number: int) -> ir.Constant:
    return ir.Constant(WHOLE, [number] * LANES)


def spread(builder, number):
    """A whole number in all lanes."""
    vector = builder.insert_element(whole(0), builder.trunc(number, I32), I32(0))
    return builder.shuffle_vector(vector, vector, whole(0))

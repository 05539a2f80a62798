"""How far one method is ahead of another, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ..errors import InputError
from .tables import SHOWN, means


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and half its 95 % interval by Student's t, which one value does not have.

    >>> [round(number, 3) for number in interval([1.0, 2.0, 3.0])]
    [2.0, 2.484]
    """
    from scipy.special import stdtrit  # late: loading it takes its time

    if len(values) == 1:
        return values[0], None
    quantile = float(stdtrit(len(values) - 1, 0.975))
    return fmean(values), quantile * stdev(values) / len(values) ** 0.5


@dataclass(frozen=True)
class Gap:
    """Paired differences of two methods, one for each seed or picture, in `unit`.

    A chapter puts one into a sentence, so that the sentence says what its run found:

    >>> gap = Gap([1.1, 1.3, 1.2])
    >>> gap.verdict, gap.says("the ticket", "the dense network")
    ('ahead', 'the ticket is 1.2 dB ahead of the dense network (1.1, 1.3, 1.2)')
    >>> Gap([0.4, -0.2, 0.1]).says("the ticket", "the dense network")
    'the ticket and the dense network cannot be told apart (0.4, -0.2, 0.1 dB)'
    """

    values: Sequence[float]
    unit: str = "dB"
    form: str = ".1f"

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError("a gap needs at least one pair of numbers")

    @property
    def mean(self) -> float:
        """The mean difference."""
        return fmean(self.values)

    @property
    def verdict(self) -> str:
        """Say "ahead", "behind" or "level": the last if the 95 % interval of the mean holds zero.

        Fewer than three pairs are "level" as well: they cannot tell.
        """
        mean, half = interval(self.values)
        if len(self.values) < 3 or half is None or abs(mean) <= half:
            return "level"
        return "ahead" if mean > 0 else "behind"

    def says(self, name: str, other: str) -> str:
        """Say in words how `name` does against `other`, with the numbers."""
        mean = f"{format(abs(self.mean), self.form)} {self.unit}"
        words = {"ahead": f"ahead of {other}", "behind": f"behind {other}"}
        if self.verdict in words:
            return f"{name} is {mean} {words[self.verdict]} ({self.each()})"
        if len(self.values) == 1:
            side = words["ahead" if self.mean > 0 else "behind"]
            return f"{name} is {mean} {side} in this one run"
        if min(self.values) > 0 or max(self.values) < 0:
            side = words["ahead" if self.mean > 0 else "behind"]
            return (
                f"{name} is {side} each time, but by how much is open ({self.each()} {self.unit})"
            )
        return f"{name} and {other} cannot be told apart ({self.each()} {self.unit})"

    def each(self) -> str:
        """List the differences, or of many the range."""
        if len(self.values) <= SHOWN:
            return ", ".join(format(value, self.form) for value in self.values)
        return f"{format(min(self.values), self.form)} to {format(max(self.values), self.form)}"


def gap(
    rows: Sequence[Mapping[str, Any]],
    by: str,
    name: str,
    other: str,
    column: str,
    unit: str = "dB",
    form: str = ".1f",
    pair: str | None = None,
) -> Gap:
    """Pair the rows of two methods of a results table, in their order: one row a seed in both.

    With `pair`, a column such as "picture", there is a pair for each of its values that rows of
    both have, and several rows of a method there are averaged.

    >>> rows = [{"way": w, "PSNR": x} for w, x in
    ...         [("a", 21), ("a", 23), ("a", 22), ("b", 20), ("b", 22), ("b", 20.5)]]
    >>> gap(rows, "way", "a", "b", "PSNR").says("a", "b")
    'a is 1.2 dB ahead of b (1.0, 1.0, 1.5)'
    >>> rows = [{"way": w, "at": p, "PSNR": x} for w, p, x in
    ...         [("a", "cat", 21), ("b", "cat", 20), ("b", "cat", 19), ("b", "dog", 30)]]
    >>> gap(rows, "way", "a", "b", "PSNR", pair="at").values
    [1.5]
    """
    if pair is not None:
        both = ([row for row in rows if row[by] == wanted] for wanted in (name, other))
        own, others = (means(part, pair, column) for part in both)
        common = [value for value in own if value in others]
        own, others = ([found[value] for value in common] for found in (own, others))
    else:
        own, others = ([row[column] for row in rows if row[by] == w] for w in (name, other))
    if len(own) != len(others) or not own:
        raise InputError(
            f"{name!r} has {len(own)} rows and {other!r} {len(others)}: "
            "a gap needs as many of both, in the same order, and at least one"
        )
    return Gap([a - b for a, b in zip(own, others, strict=True)], unit, form)

"""Tables of results: mean and spread over seeds, in a notebook and as text."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from ..errors import InputError
from ..fitting import Fit, fit
from ..metrics import psnr
from ..workers import parallel


class Several(NamedTuple):
    """A mean with the few values it is of: a deviation of three would say less."""

    mean: str
    each: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.mean} ({', '.join(self.each)})"

    def _repr_html_(self) -> str:
        return f"{self.mean}<br><small>{'&ensp;'.join(self.each)}</small>"


Cell = float | int | str | Several | None
Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")
Arguments = Mapping[str, Any] | Callable[[int], Mapping[str, Any]]  # of a run; or of its seed


class Table:
    """Rows of equal columns, shown as HTML in a notebook.

    >>> print(Table(["network", "PSNR"], [["dense", "24.1 ± 0.2"]]))
    network  PSNR
    dense    24.1 ± 0.2
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        if any(len(row) != len(columns) for row in rows):
            raise InputError(f"every row needs {len(columns)} cells: {', '.join(columns)}")
        self.columns = list(columns)
        self.rows = [[_text(cell) for cell in row] for row in rows]
        self._cells = rows

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(c)}</th>" for c in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{_html(c)}</td>" for c in row) + "</tr>" for row in self._cells
        )
        return f'<table class="results"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


SHOWN = 5  # up to so many values are shown one by one
STOPPED = "stopped (dB)"
ORACLE = "oracle (dB)"
COSTS = ("weights", "seconds")  # the same for all seeds, or not worth a comparison
MEASURED = {STOPPED: ".2f", ORACLE: ".2f", "steps": ".0f", "weights": ",.0f", "seconds": ".1f"}


def measured(fit: Fit, reference: Tensor, **labels: Cell) -> dict[str, Cell]:
    """Make one row of a results table: what a fit gave, what it cost, and your own labels.

    *Stopped* is the PSNR of the picture that the fit returned, *oracle* the best along the way;
    *weights* counts those that are not zero.

    >>> import lipkit as lk
    >>> clean, op = lk.testing.tiny_image(), lk.physics.Denoise(sigma=0.1)
    >>> fit = lk.fit(lk.testing.tiny_prior(), op, op.measure(clean), steps=5, reference=clean)
    >>> list(measured(fit, clean, network="dense"))
    ['network', 'stopped (dB)', 'oracle (dB)', 'steps', 'weights', 'seconds']
    """
    return {
        **labels,
        STOPPED: psnr(fit.image, reference),
        ORACLE: float(fit.history["psnr"].max()),
        "steps": fit.steps,
        "weights": sum(int(p.count_nonzero()) for p in fit.net.parameters()),
        "seconds": fit.seconds,
    }


def run_arms(
    arms: Mapping[str, Arguments],
    seeds: Iterable[int],
    shared: Arguments = MappingProxyType({}),
    run: Callable[..., Result] = fit,
    label: str = "fits",
) -> dict[tuple[str, int], Result]:
    """Run every arm with every seed, side by side, and return the results by (name, seed).

    An arm is what sets it apart: arguments of `run` as a dict, or a function of the seed that
    returns one. `shared` are those that all arms have in common, given in the same way; where both
    name an argument, the arm's holds. Results come arm by arm, each with the seeds in order.

    Args:
        run: is called with the arguments by name; `lipkit.fit`, a search such as
            `lipkit.find.oes`, or a function of your own, whatever it returns.
        label: of the progress bar.

    >>> import lipkit as lk
    >>> clean, op = lk.testing.tiny_image(), lk.physics.Denoise(sigma=0.1)
    >>> def problem(seed):  # other weights and other noise for every seed
    ...     prior = lk.testing.tiny_prior(seed=seed)
    ...     y = op.measure(clean, seed=seed)
    ...     return dict(prior=prior, op=op, y=y, steps=4, reference=clean)
    >>> def drawn(seed):
    ...     return dict(mask=lk.find.random(lk.testing.tiny_prior(), density=0.3, seed=seed))
    >>> arms = {"dense": {}, "short": dict(steps=2), "sparse": drawn}
    >>> fits = run_arms(arms, seeds=[0, 1], shared=problem)
    >>> [(name, seed, fit.steps) for (name, seed), fit in fits.items()][:3]
    [('dense', 0, 4), ('dense', 1, 4), ('short', 0, 2)]
    >>> print(summary(rows(fits, clean), "network", {"steps": ".0f"}))
    network  n  steps
    dense    2  4
    short    2  2
    sparse   2  4
    """

    def start(name: str, seed: int) -> Result:
        return run(**_given(shared, seed) | _given(arms[name], seed))

    return _side_by_side(start, arms, seeds, label)


def run_all(
    run: Callable[[Name, int], Fit],
    names: Iterable[Name],
    seeds: Iterable[int],
    reference: Tensor,
    by: str = "network",
) -> tuple[list[dict[str, Cell]], dict[tuple[Name, int], Fit]]:
    """Call `run(name, seed)` for every name and seed, side by side; return rows and fits.

    >>> import lipkit as lk
    >>> clean, op = lk.testing.tiny_image(), lk.physics.Denoise(sigma=0.1)
    >>> def run(name, seed):
    ...     y = op.measure(clean, seed=seed)
    ...     steps = {"short": 2, "long": 5}[name]
    ...     return lk.fit(lk.testing.tiny_prior(), op, y, steps=steps, reference=clean)
    >>> rows, fits = run_all(run, ["short", "long"], [0, 1], clean, by="fit")
    >>> print(summary(rows, "fit", {"steps": ".0f"}))
    fit    n  steps
    short  2  2
    long   2  5
    >>> fits["long", 1].steps
    5
    """
    fits = _side_by_side(run, names, seeds, "fits")
    return rows(fits, reference, by), fits


compare = run_all  # its name before; kept for one release


def _side_by_side(
    run: Callable[[Name, int], Result], names: Iterable[Name], seeds: Iterable[int], label: str
) -> dict[tuple[Name, int], Result]:
    jobs = list(itertools.product(names, seeds))
    return dict(zip(jobs, parallel(lambda job: run(*job), jobs, label=label), strict=True))


def _given(arguments: Arguments, seed: int) -> dict[str, Any]:
    return dict(arguments(seed) if callable(arguments) else arguments)


def rows(
    fits: Mapping[tuple[Name, int], Fit], reference: Tensor, by: str = "network"
) -> list[dict[str, Cell]]:
    """Make a row of `measured` for each fit of `run_arms`, its name in the column `by`."""
    return [{by: name} | measured(fit, reference) for (name, _), fit in fits.items()]


def means(rows: Sequence[Mapping[str, Cell]], by: str, column: str) -> dict[Cell, float]:
    """Return the mean of a column for each value of `by`.

    >>> rows = [{"network": "dense", "PSNR": 24.0}, {"network": "dense", "PSNR": 25.0}]
    >>> means(rows, "network", "PSNR")
    {'dense': 24.5}
    """
    groups = _groups(rows, by)
    return {name: statistics.fmean(row[column] for row in group) for name, group in groups.items()}


def summary(
    rows: Sequence[Mapping[str, Cell]], by: str, columns: Mapping[str, str] = MEASURED
) -> Table:
    """Make a table with a line for each value of `by`: the mean, and what it is the mean of.

    Up to five values are shown one by one, more as mean ± standard deviation; of costs (*weights*
    and *seconds*) the mean alone. `columns` maps what to show to a format such as ".2f".

    >>> rows = [{"network": "dense", "PSNR": 24.0}, {"network": "dense", "PSNR": 25.0}]
    >>> print(summary(rows, "network", {"PSNR": ".1f"}))
    network  n  PSNR
    dense    2  24.5 (24.0, 25.0)
    """
    body = [
        [name, len(group), *(_mean(c, [r.get(c) for r in group], f) for c, f in columns.items())]
        for name, group in _groups(rows, by).items()
    ]
    return Table([by, "n", *columns], body)


def _groups(rows: Sequence[Mapping[str, Cell]], by: str) -> dict[Cell, list[Mapping[str, Cell]]]:
    groups: dict[Cell, list[Mapping[str, Cell]]] = {}
    for row in rows:
        groups.setdefault(row[by], []).append(row)
    return groups


def _mean(column: str, values: Sequence[Cell], form: str) -> Cell:
    numbers = [float(v) for v in values if v is not None and v == v]
    if not numbers:
        return None
    mean = format(statistics.fmean(numbers), form)
    each = tuple(format(number, form) for number in numbers)
    if column in COSTS or len({*each}) == 1:
        return mean
    if len(numbers) <= SHOWN:
        return Several(mean, each)
    return f"{mean} ± {format(statistics.stdev(numbers), form)}"


def _text(cell: Cell) -> str:
    if cell is None:
        return "–"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _html(cell: Cell) -> str:
    return cell._repr_html_() if isinstance(cell, Several) else escape(_text(cell))

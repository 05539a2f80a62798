"""Figures of the book: pictures with captions, labelled curves, bars, spectra.

Every function returns a matplotlib figure that draws itself in a notebook, in the one style of
`lipkit.book.style`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .style import (
    CMAP,
    COLORS,
    INK,
    WIDTH,
    as_array,
    assign,
    color,
    new_figure,
    pixels,
    png,
    styled,
    use_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "CMAP", "COLORS", "bars", "color", "curves", "images", "learning", "matrix", "png", "spectrum",
    "use_style",
]  # fmt: skip


@styled
def images(
    pictures: Mapping[str, Any],
    columns: int | None = None,
    zoom: tuple[int, int, int] | None = None,
    reference: Any = None,
    cmap: str = "gray",
) -> Figure:
    """Show pictures side by side, the titles as captions.

    A picture is [C,H,W] or [H,W]; colour and grey are taken on the range [0,1], maps
    (``cmap=CMAP``) on their common range, shown by a colour bar. `zoom` is (row, column, size)
    of a detail to enlarge. With `reference`, captions carry the PSNR.

    >>> import torch
    >>> figure = images({"clean": torch.rand(3, 16, 16), "noisy": torch.rand(3, 16, 16)})
    >>> figure.axes[1].get_xlabel()
    'noisy'
    """
    arrays = {}
    for title, picture in _filled(pictures, "pictures").items():
        array = pixels(f"Picture {title!r}", picture)
        arrays[title] = array.clip(0, 1) if array.ndim == 3 else array  # maps keep their range
    columns = columns or min(len(arrays), 4)
    cell = min(WIDTH / columns, 2.4)
    captions = [_caption(title, x, reference, int(cell * 13)) for title, x in pictures.items()]
    below = 0.17 * (1 + max(caption.count("\n") for caption in captions)) + 0.14
    height = (cell - 0.1) * max(a.shape[0] / a.shape[1] for a in arrays.values())
    rows = -(-len(arrays) // columns)
    figure = new_figure(rows * (height + below))
    limits = (0, 1) if cmap == "gray" else _range(arrays.values())
    left = (WIDTH - columns * cell) / 2 + 0.05
    for i, array in enumerate(arrays.values()):
        x = left + i % columns * cell
        y = (rows - i // columns) * (height + below) - height
        axes = figure.add_axes(_inches(figure, x, y, cell - 0.1, height))
        shown = axes.imshow(array, cmap=cmap, vmin=limits[0], vmax=limits[1])
        _frame(axes)
        axes.set_xlabel(captions[i], size=10, labelpad=5)
        if zoom:
            _zoom(axes, array, zoom, cmap, limits)
    if cmap != "gray":
        figure.colorbar(shown, ax=figure.axes, fraction=0.02, pad=0.02)
    return figure


@styled
def curves(
    series: Mapping[str, tuple[Any, Any]],
    xlabel: str,
    ylabel: str,
    logx: bool = False,
    logy: bool = False,
    band: Mapping[str, tuple[Any, Any]] | None = None,
    markers: Mapping[str, tuple[float, float]] | None = None,
    level: Mapping[str, float] | None = None,
) -> Figure:
    """Draw curves (x, y), each labelled at its end.

    `band` holds (lowest, highest) over seeds for a label; `markers` names single points; `level`
    names values to compare with, such as the noisy input's. Two curves of one method share its
    colour and differ in their dashes.

    >>> figure = curves({"dense": ([0, 1, 2], [20, 30, 25])}, "step", "PSNR (dB)",
    ...                 markers={"best": (1, 30)})
    >>> len(figure.axes[0].lines)
    2
    """
    figure = new_figure(3.6, layout="constrained")
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.set_xscale("log" if logx else "linear")
    axes.set_yscale("log" if logy else "linear")
    for label, tone, dash in assign(_filled(series, "series")):
        x = _numbers(label, series[label][0])
        y = _numbers(label, series[label][1])
        if len(x) != len(y):
            raise InputError(f"Curve {label!r} has {len(x)} x and {len(y)} y values; give as many.")
        axes.plot(x, y, color=tone, linestyle=dash, label=label)
        if band and label in band:
            axes.fill_between(x, *band[label], color=tone, alpha=0.2, linewidth=0)
    for text, (x, y) in (markers or {}).items():
        tone = color(text) or INK
        axes.plot(
            [x], [y], "o", color=tone, markersize=7, markerfacecolor="none", markeredgewidth=2
        )
        axes.annotate(text, (x, y), (0, 8), textcoords="offset points", ha="center", size=10)
    for text, y in (level or {}).items():
        axes.axhline(y, color=INK, linestyle=":", linewidth=1.2, alpha=0.8, label=f"_{text}")
    if not logx and all(float(v).is_integer() for line in axes.lines for v in line.get_xdata()):
        axes.xaxis.get_major_locator().set_params(integer=True)
    _level_labels(axes, level or {})
    _end_labels(axes)
    return figure


def learning(
    fits: Mapping[tuple[str, int], Any],
    ylabel: str = "PSNR (dB)",
    column: str = "psnr",
    level: Mapping[str, float] | None = None,
    skip: Sequence[str] = (),
    logx: bool = False,
) -> Figure:
    """Draw a column of the fits' histories: the mean over seeds, and a band of all of them.

    `fits` has them by (name, seed), as `lipkit.lab.run_arms` returns them; `skip` leaves names out.
    Fits that end at different steps are drawn up to the first end.

    >>> from types import SimpleNamespace as Fit
    >>> fits = {("dense", s): Fit(history={"step": [0, 1], "psnr": [20, 30 + s]}) for s in (0, 2)}
    >>> learning(fits).axes[0].lines[0].get_ydata().tolist()
    [20.0, 31.0]
    """
    series, band = {}, {}
    for name in dict.fromkeys(name for name, _ in fits if name not in skip):
        histories = [fit.history for (other, _), fit in fits.items() if other == name]
        length = min(len(history["step"]) for history in histories)
        values = np.stack([as_array(history[column])[:length] for history in histories])
        steps = as_array(histories[0]["step"])[:length]
        series[name] = (steps, values.mean(0))
        if len(values) > 1:
            band[name] = (values.min(0), values.max(0))
    return curves(series, "step", ylabel, logx=logx, band=band, level=level)


@styled
def bars(
    values: Mapping[str, float | Sequence[float]],
    xlabel: str,
    start: float = 0,
    level: Mapping[str, float] | None = None,
) -> Figure:
    """Draw horizontal bars of means; several values for one label appear as dots on the bar.

    `level` names values to compare with, such as the noisy input's.

    >>> len(bars({"dense": [26.1, 26.5], "sparse": 27.0}, "PSNR (dB)", start=20).axes[0].patches)
    2
    """
    rows = {k: _numbers(k, v) for k, v in _filled(values, "values").items()}
    figure = new_figure(0.7 + 0.36 * len(rows), layout="constrained")
    axes = figure.add_subplot(xlabel=xlabel)
    for place, (label, tone, _) in enumerate(assign(rows)):
        mean = float(rows[label].mean())
        axes.barh(place, mean - start, left=start, color=tone, height=0.62, alpha=0.9)
        if len(rows[label]) > 1:
            axes.plot(rows[label], [place] * len(rows[label]), "o", color=INK, markersize=4)
        tip = max(mean, float(rows[label].max()))
        axes.annotate(f"{mean:.4g}", (tip, place), (6, 0), textcoords="offset points", va="center")
    for text, x in (level or {}).items():
        axes.axvline(x, color=INK, linestyle=":", linewidth=1.2, alpha=0.8)
        place = axes.get_xaxis_transform()
        axes.annotate(
            text, (x, 1), (0, 3), xycoords=place, textcoords="offset points", size=9, ha="center"
        )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return figure


@styled
def matrix(
    panels: Mapping[str, Mapping[tuple[str, str], float]],
    rows: Sequence[str] | Mapping[str, str] | None = None,
    columns: Sequence[str] | Mapping[str, str] | None = None,
    base: str | None = None,
    span: float | None = None,
    form: str = ".1f",
) -> Figure:
    """Draw heat maps side by side, numbers in the cells: ``{title: {(row, column): value}}``.

    `rows` and `columns` say which to show and in what order; as dicts they also rename. Colours
    follow the values, or with `base`, the name of a row, how far each value lies above that row's
    in its column, and end at `span` on either side of zero.

    >>> gains = {("ticket", "moon"): 25.0, ("dense", "moon"): 24.0}
    >>> figure = matrix({"PSNR (dB)": gains}, base="dense", span=3)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['25.0', '24.0']
    """
    pairs = list(next(iter(_filled(panels, "panels").values())))
    rows = _renamed(rows or [row for row, _ in pairs])
    columns = _renamed(columns or [column for _, column in pairs])
    grids = [_grid(t, cells, list(rows), list(columns), base) for t, cells in panels.items()]
    reach = span or max(float(np.nanmax(np.abs(tones))) for _, tones in grids) or 1.0
    figure = new_figure(0.7 + 0.3 * len(rows), layout="constrained")
    panes = figure.subplots(1, len(grids), sharey=True, squeeze=False)[0]
    for axes, title, (values, tones) in zip(panes, panels, grids, strict=True):
        axes.imshow(tones, cmap=CMAP, vmin=-reach, vmax=reach, aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            if value == value:
                ink = "black" if tones[i, j] > 0.1 * reach else "white"
                axes.text(j, i, format(value, form), ha="center", va="center", color=ink, size=10)
        axes.set_title(title)
        axes.set_xticks(range(len(columns)), columns.values())
        axes.set_yticks(range(len(rows)), rows.values())
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
    return figure


def spectrum(series: Mapping[str, tuple[Any, Any]], ylabel: str = "power") -> Figure:
    """Draw radial spectra (frequency in cycles per pixel, power) on a logarithmic scale.

    >>> spectrum({"noisy": ([0.1, 0.5], [1.0, 0.01])}).axes[0].get_yscale()
    'log'
    """
    return curves(series, "frequency (cycles per pixel)", ylabel, logy=True)


def _inches(figure: Figure, *box: float) -> tuple[float, ...]:
    width, height = figure.get_size_inches()
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def _filled(given: Mapping, name: str) -> Mapping:
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"{name} must be a dict with a label for each entry, at least one.")
    return given


def _renamed(shown: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Name each row or column to show, in order, and what to call it."""
    return dict(shown) if isinstance(shown, Mapping) else {name: name for name in shown}


def _grid(
    title: str, cells: Mapping, rows: list[str], columns: list[str], base: str | None
) -> tuple:
    """Return the values of a heat map (NaN where there is none), and what colours them."""
    values = np.array([[float(cells.get((r, c), np.nan)) for c in columns] for r in rows])
    if base is None:
        return values, values
    if base not in rows:
        raise InputError(f"{title!r} has no row {base!r}; its rows are {', '.join(rows)}")
    return values, values - values[rows.index(base)]


def _numbers(label: str, values: Any) -> Any:
    array = as_array(values)
    if array.ndim > 1 or array.size == 0:
        raise InputError(f"{label!r} has values of shape {array.shape}; give a list of numbers.")
    return np.atleast_1d(array)


def _range(arrays: Any) -> tuple[float, float]:
    arrays = list(arrays)
    return min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)


def _caption(title: str, picture: Any, reference: Any, characters: int) -> str:
    lines = textwrap.wrap(title, max(8, characters))
    if reference is not None and picture is not reference:
        from ..metrics import psnr

        lines.append(f"{float(psnr(picture, reference)):.2f} dB")
    return "\n".join(lines)


def _frame(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set(visible=True, linewidth=0.6)


def _zoom(axes: Axes, array: Any, zoom: tuple[int, int, int], cmap: str, limits: tuple) -> None:
    """Mark the detail and show it enlarged, in the corner farthest from it."""
    from matplotlib.patches import Rectangle

    row, column, size = zoom
    detail = array[row : row + size, column : column + size]
    if min(row, column) < 0 or detail.shape[:2] != (size, size) or size < 1:
        raise InputError(
            f"zoom={zoom} leaves the picture of {array.shape[:2]}; give row, column, size."
        )
    box = {"fill": False, "edgecolor": COLORS["sparse"], "linewidth": 1.2}
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), size, size, **box))
    right = 0.54 if column + size / 2 < array.shape[1] / 2 else 0
    low = 0 if row + size / 2 < array.shape[0] / 2 else 0.54
    inset = axes.inset_axes((right, low, 0.46, 0.46))
    inset.imshow(detail, cmap=cmap, vmin=limits[0], vmax=limits[1])
    _frame(inset)
    inset.spines[:].set(color=COLORS["sparse"], linewidth=1.2)


def _level_labels(axes: Axes, level: Mapping[str, float]) -> None:
    """Name the lines across at their left ends, away from the names of the curves.

    Above their lines, from the lowest up, and moved up where two would meet.
    """
    axes.get_ylim()  # lets pending limits take effect
    to_axes = axes.transData - axes.transAxes
    x, _ = axes.get_xlim()
    heights = {text: 2.9 * 72 * to_axes.transform((x, y))[1] for text, y in level.items()}
    floor = -math.inf
    for text in sorted(level, key=heights.get):
        floor = max(heights[text] + 3, floor + 11)
        place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        offset = (4, floor - heights[text])
        axes.annotate(text, (0, level[text]), offset, color=INK, size=9, **place)


def _end_labels(axes: Axes) -> None:
    """Write each curve's name at its end, moved apart where two ends meet.

    Many curves, or curves that end in the middle of the others, get a legend instead.
    """
    lines = [line for line in axes.lines if not line.get_label().startswith("_")]
    last = [line.get_xdata()[-1] for line in lines]
    left, right = axes.get_xlim()
    if len(lines) > 6 or max(last) - min(last) > 0.1 * (right - left):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
        return
    axes.get_ylim()  # lets pending limits take effect
    to_axes = axes.transData - axes.transAxes
    ends = [(line, line.get_xydata()[-1]) for line in lines]
    heights = [(2.9 * 72 * to_axes.transform(end)[1], line, end) for line, end in ends]
    heights.sort(key=lambda item: item[0], reverse=True)
    ceiling = 2.9 * 72 + 6
    tops = []
    for height, _, _ in heights:
        ceiling = min(height, ceiling - 13)
        tops.append(ceiling)
    for i, lowest in enumerate(range(6, 6 + 13 * len(tops), 13), start=1):
        tops[-i] = max(tops[-i], lowest)  # none below the axis, over its numbers
    for (height, line, end), top in zip(heights, tops, strict=True):
        offset = (6, top - height)
        style = {"va": "center", "color": line.get_color()}
        axes.annotate(line.get_label(), end, offset, textcoords="offset points", **style)

"""The look of the book's figures: one text tone, one colour map, one colour for each method.

Backgrounds are transparent and text has a middle tone, so that one picture reads on light and on
dark pages. A colour stands for the same method in every chapter.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from functools import cache, wraps
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#7b7f86"  # at least 4:1 against white and against the dark page
CMAP = "cividis"  # maps: perceptually uniform, and the same to a colour-blind reader
COLORS = {
    "dense": "#2b7fc4",
    "sparse": "#dc6418",
    "ticket": "#dc6418",
    "oes": "#dc6418",
    "imp": "#c2405a",
    "deep decoder": "#23946a",
    "random": "#94704a",
    "snip": "#9361cc",
    "grasp": "#cc559c",
    "synflow": "#1a93a3",
    "magnitude": "#8f851c",
    "sgld": "#6a74de",
    "noisy": "#8a8f98",
    "reference": "#5f7285",
}
OTHERS = ("#2b7fc4", "#dc6418", "#23946a", "#9361cc", "#94704a", "#1a93a3", "#cc559c", "#8f851c")
DASHES = ("-", (0, (4, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.4, 1.2, 1.4)))
_INKED = (
    "axes.edgecolor axes.labelcolor axes.titlecolor grid.color text.color xtick.color ytick.color"
)
_CLEAR = "figure.facecolor savefig.facecolor axes.facecolor"
STYLE: dict[str, Any] = {
    **dict.fromkeys(_INKED.split(), INK),
    **dict.fromkeys(_CLEAR.split(), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 11),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 10),
    "figure.dpi": 180,
    "axes.grid": True,
    "grid.alpha": 0.22,
    "grid.linewidth": 0.7,
    "lines.linewidth": 2.0,
    "image.cmap": CMAP,
    "image.interpolation": "nearest",
}
WIDTH = 5.6  # inches, of every figure: so text has one size, and is legible on a phone too


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the book's style, and leave matplotlib's settings as they were."""

    @wraps(draw)
    def in_style(*args: Any, **kwargs: Any) -> Figure:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return in_style


def use_style() -> None:
    """Give your own matplotlib figures the look of the book.

    >>> use_style()
    >>> import matplotlib; matplotlib.rcParams["image.cmap"]
    'cividis'
    """
    import matplotlib
    from cycler import cycler

    matplotlib.rcParams.update(STYLE | {"axes.prop_cycle": cycler(color=OTHERS)})


def color(name: str) -> str | None:
    """Find the colour of the method that a label names; None if it names none.

    >>> color("Dense, 3000 steps") == COLORS["dense"]
    True
    >>> color("something else") is None
    True
    """
    words = re.sub(r"[-_\s]+", " ", name.lower())
    found = [(words.find(key), key) for key in COLORS if re.search(rf"\b{key}\b", words)]
    return COLORS[min(found)[1]] if found else None


def png(figure: Figure) -> bytes:
    """Render a figure as the bytes of a PNG file, at exactly its own size.

    >>> png(new_figure(1.0))[1:4]
    b'PNG'
    """
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, facecolor=figure.get_facecolor())
    return buffer.getvalue()


@cache
def _figure_class() -> type:
    from matplotlib.figure import Figure

    class BookFigure(Figure):
        """A figure that draws itself in a notebook whatever the backend, and never twice."""

        def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple:
            size = {"width": round(self.get_figwidth() * 112)}
            return {"image/png": b64encode(png(self)).decode()}, {"image/png": size}

    return BookFigure


def new_figure(height: float, layout: str | None = None) -> Figure:
    """Make an empty figure of the book's width, `height` inches high.

    >>> new_figure(2.0).get_size_inches().tolist()
    [5.6, 2.0]
    """
    return _figure_class()(figsize=(WIDTH, height), layout=layout)


def assign(labels: Iterable[str]) -> list[tuple[str, str, Any]]:
    """Give each label (label, colour, dashes): its method's colour, or the next that is free.

    >>> [dash for _, _, dash in assign(["dense, seed 0", "dense, seed 1"])]
    ['-', (0, (4, 1.6))]
    """
    known = {label: color(label) for label in labels}
    spare = [c for c in OTHERS if c not in known.values()] or list(OTHERS)
    for i, label in enumerate([label for label in labels if not known[label]]):
        known[label] = spare[i % len(spare)]
    used: list[str | None] = []
    rows = []
    for label, tone in known.items():
        rows.append((label, tone, DASHES[used.count(tone) % len(DASHES)]))
        used.append(tone)
    return rows


def as_array(values: Any) -> np.ndarray:
    """Read numbers or a tensor as an array of doubles.

    >>> as_array([1, 2]).tolist()
    [1.0, 2.0]
    """
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, float)


def pixels(what: str, picture: Any) -> np.ndarray:
    """Read a picture [C,H,W] or [H,W] as an array [H,W,3] or [H,W]; errors name it `what`.

    >>> pixels("Picture", [[0.0, 1.0]]).shape
    (1, 2)
    """
    array = as_array(picture)
    if array.ndim == 3 and array.shape[0] in (1, 3):
        array = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, 2)
    if not (array.ndim == 2 or array.shape[2:] == (3,)) or array.size == 0:
        raise InputError(f"{what} has shape {array.shape}; give [1 or 3, H, W] or [H, W].")
    return array

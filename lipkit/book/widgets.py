"""Pictures that move under a slider, live in Jupyter and without a kernel in the rendered book.

A frame is a picture tensor [C,H,W] or [H,W] in [0,1], the bytes of an image file, or a matplotlib
figure. All frames travel inside the page, as compact WebP.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .style import pixels, png

if TYPE_CHECKING:
    from IPython.display import HTML
    from ipywidgets import VBox

BUDGET = 600_000  # bytes of one slider's frames
QUALITIES = (92, 84, 74, 62, 50, 36)
PLAY_MS = 600


def picture_slider(
    frames: Sequence[Any],
    labels: Sequence[str],
    title: str = "step",
    alt: str = "picture",
    width: int = 360,
) -> VBox:
    """Show one picture at a time under a slider and a play button; arrow keys work too.

    `title` names the slider, `alt` says what the pictures show to a reader who cannot see them:
    each frame's alternative text is ``"alt, title label"``.

    >>> import torch
    >>> slider = picture_slider([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)], ["0", "100"])
    >>> len(slider.children[1].children)
    2
    """
    labels = _labels(frames, labels)
    pages = [
        _img(uri, f"{alt}, {title} {label}", width)
        for uri, label in zip(_uris(frames), labels, strict=True)
    ]
    return _slider(pages, labels, title)


def curve_slider(
    frames: Sequence[Any],
    labels: Sequence[str],
    curve: tuple[Sequence[float], Sequence[float]],
    at: Sequence[float],
    title: str = "step",
    alt: str = "picture",
    ylabel: str = "PSNR (dB)",
    width: int = 300,
) -> VBox:
    """Show a picture slider, and beside it a curve (x, y) with a dot that moves along it.

    `at` holds the x of each frame.

    >>> import torch
    >>> frames = [torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]
    >>> slider = curve_slider(frames, ["0", "100"], ([0, 50, 100], [10, 25, 20]), at=[0, 100])
    >>> "<svg" in slider.children[1].children[0].value
    True
    """
    labels = _labels(frames, labels)
    x = [float(value) for value in curve[0]]
    y = [float(value) for value in curve[1]]
    if len(x) != len(y) or len(x) < 2 or len(at) != len(labels):
        raise InputError(
            f"curve has {len(x)} x and {len(y)} y values and there are {len(at)} positions for "
            f"{len(labels)} frames; give two or more points and one position for each frame."
        )
    pages = [
        '<div style="display:flex;flex-wrap:wrap;gap:1rem;align-items:center">'
        + _img(uri, f"{alt}, {title} {label}", width)
        + _plot(x, y, float(now), title, ylabel)
        + "</div>"
        for uri, label, now in zip(_uris(frames), labels, at, strict=True)
    ]
    return _slider(pages, labels, title)


def wipe(
    before: Any,
    after: Any,
    labels: tuple[str, str] = ("before", "after"),
    alt: str = "two versions of one picture",
    width: int = 360,
) -> HTML:
    """Lay two pictures on top of each other, with a handle that wipes from one to the other.

    >>> import torch
    >>> "range" in wipe(torch.zeros(3, 8, 8), torch.ones(3, 8, 8)).data
    True
    """
    from IPython.display import HTML

    below, above = _uris([before, after])
    names = [escape(label) for label in labels]
    return HTML(
        f'<figure class="lipkit-compare" style="--cut:50%;max-width:{width}px;margin:0">'
        f'<div style="position:relative">{_img(above, f"{alt}: {labels[1]}", width)}'
        f'<div style="position:absolute;inset:0;clip-path:inset(0 calc(100% - var(--cut)) 0 0)">'
        f"{_img(below, f'{alt}: {labels[0]}', width)}</div></div>"
        f'<input type="range" value="50" style="width:100%" aria-label="share of {names[0]}" '
        f"oninput=\"this.parentNode.style.setProperty('--cut',this.value+'%')\">"
        f'<figcaption style="display:flex;justify-content:space-between">'
        f"<span>{names[0]}</span><span>{names[1]}</span></figcaption></figure>"
    )


compare = wipe  # its old name, for one release


def _labels(frames: Sequence[Any], labels: Sequence[str]) -> list[str]:
    if len(frames) < 2 or len(frames) != len(labels):
        raise InputError(
            f"A slider got {len(frames)} frames and {len(labels)} labels; "
            "give at least two frames and one label for each."
        )
    labels = [str(label) for label in labels]
    if len(set(labels)) != len(labels):
        raise InputError(f"Two frames carry the same label in {labels}; give each its own.")
    return labels


def _slider(pages: list[str], labels: list[str], title: str) -> VBox:
    import ipywidgets as w

    stack = w.Stack([w.HTML(page) for page in pages], selected_index=0)
    slider = w.SelectionSlider(
        options=labels,
        description=title,
        layout={"width": "min(26rem, 100%)"},
        style={"description_width": "initial"},
    )
    play = w.Play(min=0, max=len(pages) - 1, interval=PLAY_MS, description=f"play {title}")
    w.jslink((play, "value"), (slider, "index"))
    w.jslink((slider, "index"), (stack, "selected_index"))
    controls = w.HBox([play, slider], layout={"flex_flow": "row wrap"})
    return w.VBox([controls, stack], layout={"overflow": "hidden"})


def _img(uri: str, alt: str, width: int) -> str:
    style = f"display:block;width:{width}px;max-width:100%;height:auto;margin:0"
    return f'<img src="{uri}" alt="{escape(alt)}" style="{style}">'


def _plot(x: list[float], y: list[float], now: float, xlabel: str, ylabel: str) -> str:
    """Draw a small curve as SVG: it takes the page's text colour, light or dark."""
    wide = 280
    high = 170  # with the value above the curve; the x axis' name stands below
    foot = 26
    low = min(y)
    top = max(y)
    across = (wide - 16) / ((x[-1] - x[0]) or 1.0)
    up = (high - 30) / ((top - low) or 1.0)

    def place(px: float, py: float) -> tuple[float, float]:
        return 8 + across * (px - x[0]), 22 + up * (top - py)

    nearest = min(range(len(x)), key=lambda i: abs(x[i] - now))
    dot = place(x[nearest], y[nearest])
    drawn = list(zip(x, y, strict=True))[:: max(1, len(x) // 120)]  # more than the eye can tell
    line = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in drawn)
    said = (
        f"{ylabel} {y[nearest]:.2f} at {xlabel} {x[nearest]:g}; it runs from {low:.2f} to {top:.2f}"
    )
    return (
        f'<svg viewBox="0 0 {wide} {high + foot}" role="img" aria-label="{escape(said)}" '
        f'style="width:{wide}px;max-width:100%;font:13px sans-serif" fill="currentColor">'
        f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-opacity=".55" '
        f'stroke-width="2"/><path d="M8 {high}H{wide - 8}" stroke="currentColor" '
        f'stroke-opacity=".3"/><circle cx="{dot[0]:.1f}" cy="{dot[1]:.1f}" r="6" fill="#dc6418"/>'
        f'<text x="8" y="13">{escape(ylabel)}: {y[nearest]:.2f}</text>'
        f'<text x="{wide - 8}" y="{high + 18}" text-anchor="end">{escape(xlabel)}</text></svg>'
    )


def _uris(frames: Sequence[Any]) -> list[str]:
    """Write all frames as data addresses, at the best quality that fits the budget."""
    from PIL import Image

    opened = [_open(frame, i, Image) for i, frame in enumerate(frames)]
    for quality in QUALITIES:
        files = [_webp(picture, quality) for picture in opened]
        if sum(map(len, files)) * 4 / 3 <= BUDGET:
            return ["data:image/webp;base64," + b64encode(data).decode() for data in files]
    raise InputError(
        f"{len(frames)} frames do not fit in {BUDGET // 1000} kB of page; "
        "give fewer or smaller ones."
    )


def _webp(picture: Any, quality: int) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _open(frame: Any, index: int, Image: Any) -> Any:
    if hasattr(frame, "savefig"):
        frame = png(frame)
    if isinstance(frame, bytes | bytearray):
        try:
            return _plain(Image.open(BytesIO(frame)))
        except OSError as error:
            raise InputError(
                f"Frame {index} holds no readable image file; give PNG bytes."
            ) from error
    array = pixels(f"Frame {index}", frame)
    if not np.isfinite(array).all():
        raise InputError(f"Frame {index} has values that are not finite; give numbers in [0, 1].")
    return Image.fromarray(np.round(array.clip(0, 1) * 255).astype(np.uint8)).convert("RGB")


def _plain(picture: Any) -> Any:
    return picture.convert(
        "RGBA" if "A" in picture.mode or "transparency" in picture.info else "RGB"
    )

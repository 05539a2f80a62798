"""Sliders: every frame travels in the page, under its name, within the budget."""

from __future__ import annotations

import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
import torch
from ipywidgets.embed import dependency_state
from PIL import Image

from lipkit.book import plots, widgets
from lipkit.errors import InputError

SHADES = [torch.full((3, 16, 24), value) for value in (0.0, 0.5, 1.0)]
LABELS = ["0", "100", "2000"]


def pages(slider) -> list[str]:
    return [child.value for child in slider.children[1].children]


def picture(page: str) -> np.ndarray:
    data = re.search(r"data:image/webp;base64,([^\"]+)", page)[1]
    return np.asarray(Image.open(BytesIO(b64decode(data))).convert("RGB"))


def test_the_saved_state_holds_all_frames_in_order() -> None:
    slider = widgets.picture_slider(SHADES, LABELS, alt="shades")
    state = dependency_state([slider])
    values = [v["state"]["value"] for v in state.values() if v["model_name"] == "HTMLModel"]
    assert len(values) == 3
    means = [picture(page).mean() / 255 for page in pages(slider)]
    assert means == pytest.approx([0, 0.5, 1], abs=0.02)
    assert picture(pages(slider)[0]).shape == (16, 24, 3)


def test_slider_and_play_button_are_linked_in_the_browser() -> None:
    slider = widgets.picture_slider(SHADES, LABELS)
    (play, handle), stack = slider.children[0].children, slider.children[1]
    names = {v["model_name"] for v in dependency_state([slider]).values()}
    assert "LinkModel" in names
    assert handle._options_labels == tuple(LABELS)
    assert (play.max, len(stack.children), stack.selected_index) == (2, 3, 0)


def test_each_frame_says_what_it_shows() -> None:
    slider = widgets.picture_slider(SHADES, LABELS, title="step", alt='a "grey" <card>')
    assert slider.children[0].children[1].description == "step"
    for page, label in zip(pages(slider), LABELS, strict=True):
        assert f'alt="a &quot;grey&quot; &lt;card&gt;, step {label}"' in page


def test_frames_may_be_files_figures_and_grey_arrays() -> None:
    figure = plots.bars({"dense": 1}, "x")
    frames = [plots.png(figure), figure, np.full((8, 8), 0.25)]
    slider = widgets.picture_slider(frames, LABELS)
    assert picture(pages(slider)[2]).mean() / 255 == pytest.approx(0.25, abs=0.02)


def test_transparent_figures_stay_transparent() -> None:
    figure = plots.bars({"dense": 1}, "x")
    page = pages(widgets.picture_slider([figure, figure], ["a", "b"]))[0]
    data = b64decode(re.search(r"base64,([^\"]+)", page)[1])
    assert Image.open(BytesIO(data)).mode == "RGBA"


def test_many_noisy_frames_share_the_budget() -> None:
    noise = torch.Generator().manual_seed(0)
    frames = [torch.rand((3, 128, 128), generator=noise) for _ in range(30)]
    slider = widgets.picture_slider(frames, [str(i) for i in range(30)])
    sizes = sum(len(re.search(r"base64,([^\"]+)", page)[1]) for page in pages(slider))
    assert sizes <= widgets.BUDGET


def test_frames_beyond_the_budget_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widgets, "BUDGET", 50)
    with pytest.raises(InputError, match="fewer or smaller"):
        widgets.picture_slider(SHADES, LABELS)


def test_curve_slider_moves_its_dot_and_says_the_value() -> None:
    curve = ([0, 1000, 2000], [10.0, 30.0, 20.0])
    slider = widgets.curve_slider(SHADES, LABELS, curve, at=[0, 900, 2000])
    dots = [re.search(r'cx="([\d.]+)" cy="([\d.]+)"', page).groups() for page in pages(slider)]
    xs, ys = np.array(dots, float).T
    assert xs[0] < xs[1] < xs[2]
    assert ys[1] < ys[2] < ys[0]  # SVG counts downwards
    assert "PSNR (dB) 30.00 at step 1000" in pages(slider)[1]


def test_a_wipe_holds_both_pictures_and_a_named_range() -> None:
    html = widgets.wipe(SHADES[0], SHADES[2], ("noisy", "clean"), alt="a card").data
    assert html.count("<img") == 2
    assert 'alt="a card: noisy"' in html
    assert 'alt="a card: clean"' in html
    assert re.search(r'<input type="range"[^>]*aria-label="share of noisy"', html)


@pytest.mark.parametrize(
    ("frames", "labels", "sentence"),
    [
        (SHADES, LABELS[:2], "3 frames and 2 labels"),
        (SHADES[:1], LABELS[:1], "at least two frames"),
        (SHADES, ["1", "1", "2"], "same label"),
        ([torch.zeros(5, 8, 8)] * 3, LABELS, r"Frame 0 has shape \(5, 8, 8\)"),
        ([SHADES[0], torch.full((3, 8, 8), float("nan")), SHADES[1]], LABELS, "Frame 1 has values"),
        ([b"no picture"] * 3, LABELS, "no readable image"),
    ],
)
def test_bad_frames_get_one_sentence(frames, labels, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        widgets.picture_slider(frames, labels)
    assert "\n" not in str(caught.value)


def test_curve_slider_refuses_positions_that_do_not_match() -> None:
    with pytest.raises(InputError, match="2 positions for 3 frames"):
        widgets.curve_slider(SHADES, LABELS, ([0, 1], [1, 2]), at=[0, 1])

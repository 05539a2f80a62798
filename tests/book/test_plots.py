"""The figures: what is drawn, in which colour, and what bad input says."""

from __future__ import annotations

from base64 import b64decode
from io import BytesIO
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from lipkit.book import plots, style
from lipkit.errors import InputError

PICTURE = torch.linspace(0, 1, 3 * 32 * 48).reshape(3, 32, 48)


def luminance(color: str) -> float:
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
@pytest.mark.parametrize("name", [*plots.COLORS, "text"])
def test_every_colour_reads_on_light_and_dark_pages(name: str, page: str) -> None:
    tone = style.INK if name == "text" else plots.COLORS[name]
    # WCAG 2.1, 1.4.11: 3:1 for graphical objects; our small text asks for more
    assert contrast(tone, page) >= (4.0 if name == "text" else 3.0)


def test_a_method_keeps_its_colour_whatever_else_is_drawn() -> None:
    alone = plots.curves({"deep decoder": ([0, 1], [1, 2])}, "x", "y")
    among = plots.curves(
        {n: ([0, 1], [1, 2]) for n in ("a", "b", "Deep-decoder, seed 1")}, "x", "y"
    )
    assert alone.axes[0].lines[0].get_color() == plots.COLORS["deep decoder"]
    assert among.axes[0].lines[2].get_color() == plots.COLORS["deep decoder"]


def test_unknown_labels_avoid_the_colours_of_known_ones() -> None:
    rows = style.assign(["dense", "first", "second"])
    assert len({tone for _, tone, _ in rows}) == 3


def test_colour_matches_whole_words_only() -> None:
    assert plots.color("condensed") is None
    assert plots.color("SNIP, 5 %") == plots.COLORS["snip"]


def test_images_show_each_picture_its_caption_and_psnr() -> None:
    figure = plots.images({"clean": PICTURE, "dimmed": PICTURE * 0.9}, reference=PICTURE)
    expected = -10 * np.log10(float(((PICTURE * 0.1) ** 2).mean()))
    assert [a.get_xlabel() for a in figure.axes] == ["clean", f"dimmed\n{expected:.2f} dB"]
    shown = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shown, PICTURE.permute(1, 2, 0).numpy())


def test_zoom_enlarges_exactly_the_detail() -> None:
    figure = plots.images({"a": PICTURE}, zoom=(4, 30, 10))
    inset = figure.axes[0].child_axes[0]
    detail = PICTURE[:, 4:14, 30:40].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(np.asarray(inset.images[0].get_array()), detail)


def test_maps_share_their_range_and_get_a_colour_bar() -> None:
    maps = {"a": torch.zeros(8, 8), "b": torch.full((8, 8), 7.0)}
    figure = plots.images(maps, cmap=plots.CMAP)
    assert [a.images[0].get_clim() for a in figure.axes[:2]] == [(0, 7), (0, 7)]
    assert len(figure.axes) == 3


def test_pictures_of_a_figure_do_not_overlap_and_stay_inside() -> None:
    figure = plots.images({str(i): PICTURE for i in range(7)}, columns=3)
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(0 <= b.x0 < b.x1 <= 1 and 0 <= b.y0 < b.y1 <= 1.0001 for b in boxes)
    overlaps = [a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert not any(overlaps)


def test_labels_at_the_ends_of_curves_are_kept_apart() -> None:
    names = ("a", "b", "c", "d")
    figure = plots.curves({n: ([0, 1], [0, 1 + i / 1000]) for i, n in enumerate(names)}, "x", "y")
    figure.draw_without_rendering()
    heights = sorted(t.get_window_extent().y0 for t in figure.axes[0].texts)
    assert len(heights) == 4
    assert np.diff(heights).min() > 10 * figure.dpi / 72


def test_band_and_markers_are_drawn() -> None:
    figure = plots.curves(
        {"dense": ([1, 2, 3], [1, 2, 3])},
        "step",
        "PSNR",
        logx=True,
        band={"dense": ([0, 1, 2], [2, 3, 4])},
        markers={"stopped": (2, 2)},
    )
    axes = figure.axes[0]
    assert len(axes.collections) == 1
    assert {t.get_text() for t in axes.texts} == {"stopped", "dense"}
    assert axes.get_xscale() == "log"


def test_bars_have_the_means_and_a_dot_for_each_seed() -> None:
    axes = plots.bars({"dense": [20, 24], "sparse": 27.5}, "PSNR (dB)", start=18).axes[0]
    assert [p.get_width() for p in axes.patches] == [4, 9.5]
    assert len(axes.lines[0].get_xdata()) == 2


def test_a_figure_draws_itself_transparent_and_once() -> None:
    data, _ = plots.bars({"a": 1}, "x")._repr_mimebundle_()
    assert set(data) == {"image/png"}
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []  # nothing left open for pyplot to show a second time
    drawn = Image.open(BytesIO(b64decode(data["image/png"])))
    assert drawn.getpixel((0, 0))[3] == 0


def test_drawing_leaves_matplotlibs_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    plots.curves({"a": ([0, 1], [0, 1])}, "x", "y")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: plots.images({}), "at least one"),
        (lambda: plots.images([PICTURE]), "must be a dict"),
        (lambda: plots.images({"a": torch.zeros(5, 8, 8)}), r"'a' has shape \(5, 8, 8\)"),
        (lambda: plots.images({"a": PICTURE}, zoom=(20, 0, 20)), "leaves the picture"),
        (lambda: plots.curves({"a": ([1, 2], [1])}, "x", "y"), "2 x and 1 y"),
        (lambda: plots.bars({"a": []}, "x"), "list of numbers"),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_matrix_shows_every_number_and_colours_it_against_the_base() -> None:
    cells = {("ticket", "moon"): 25.0, ("dense", "moon"): 24.0, ("ticket", "coffee"): 21.0}
    cells |= {("dense", "coffee"): 23.0}
    axes = plots.matrix({"PSNR": cells}, base="dense", span=4).axes[0]
    assert [text.get_text() for text in axes.texts] == ["25.0", "21.0", "24.0", "23.0"]
    np.testing.assert_array_equal(axes.images[0].get_array(), [[1, -2], [0, 0]])
    assert axes.images[0].get_clim() == (-4, 4)


def heights(figure, names) -> list[tuple[float, float]]:
    """Where texts begin and end in the picture, from the bottom up, in its pixels."""
    figure.draw_without_rendering()
    boxes = {t.get_text(): t.get_window_extent() for t in figure.axes[0].texts}
    return sorted((boxes[name].y0, boxes[name].y1) for name in names)


def test_names_of_curves_that_end_at_the_bottom_stay_above_the_axis() -> None:
    series = {f"curve {i}": ([0, 1, 2], [30, 10, i / 100]) for i in range(4)}
    figure = plots.curves(series, "step", "PSNR")
    places = heights(figure, series)
    assert places[0][0] >= figure.axes[0].get_window_extent().y0 - 2
    assert all(upper[0] >= lower[1] - 2 for lower, upper in pairwise(places))


def test_names_of_level_lines_do_not_lie_over_each_other() -> None:
    level = {"total variation": 24.0, "non-local means": 24.2, "the input as it is": 24.4}
    figure = plots.curves({"dense": ([0, 1, 2], [10, 20, 25])}, "step", "PSNR", level=level)
    places = heights(figure, level)
    assert all(upper[0] >= lower[1] - 2 for lower, upper in pairwise(places))

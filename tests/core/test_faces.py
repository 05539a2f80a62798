"""Procedural faces: the same ones always, many different ones, and quickly."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

import lipkit as lk
from lipkit.data import portrait
from lipkit.data.faces import draw, render
from lipkit.data.portrait import paint


def test_a_face_depends_on_its_seed_and_place_alone():
    many = lk.data.faces(40, size=32, seed=5)
    assert many.shape == (40, 3, 32, 32) and many.dtype == torch.float32
    assert many.min() >= 0 and many.max() <= 1
    assert torch.equal(lk.data.faces(40, size=32, seed=5), many)
    torch.testing.assert_close(lk.data.faces(3, size=32, seed=5), many[:3], rtol=0, atol=1e-5)
    assert (lk.data.faces(3, size=32, seed=6) - many[:3]).abs().mean() > 0.05


def test_a_face_looks_alike_at_every_size():
    small, large = lk.data.faces(8, 32, seed=1), lk.data.faces(8, 128, seed=1)
    reduced = torch.nn.functional.avg_pool2d(large, 4)
    assert (reduced - small).abs().mean() < 0.01


def test_no_two_faces_are_alike_and_the_manifold_is_rich():
    x = lk.data.faces(300, size=16, seed=2).flatten(1)
    distance = torch.cdist(x, x) + 99 * torch.eye(300)
    assert distance.min() > 0.5
    spread = torch.linalg.svdvals(x - x.mean(0)).square()
    needed = int((spread.cumsum(0) / spread.sum() < 0.95).sum())
    assert needed > 20  # directions for 95 % of the variance


def test_parameters_are_those_of_the_pictures():
    pictures, known = lk.data.faces(2, size=32, seed=3, parameters=True)
    assert torch.equal(render(known, 32), pictures)
    turned = render(known | {"smile": torch.tensor([1.0, -0.25])}, 32)
    changed = (turned - pictures).abs().amax((0, 1, 3))
    assert changed[16:].max() > 0.05 and changed[:10].max() == 0  # the mouth is below
    assert all(value.shape == (2,) for value in known.values())
    assert {k: v[:2].tolist() for k, v in draw(9, 3).items()} == {
        k: v.tolist() for k, v in known.items()
    }


def test_every_part_is_painted_on_the_device_of_the_parameters(monkeypatch):
    """A field made on another device would meet those of the parameters and fail."""
    prepared = {}
    monkeypatch.setattr(portrait, "paint", lambda p, size: prepared.update(vars(p)))
    render(draw(2), 16)
    elsewhere = SimpleNamespace(**{name: value.to("meta") for name, value in prepared.items()})
    painted = paint(elsewhere, 16)
    assert painted.shape == (2, 3, 16, 16) and painted.device.type == "meta"


def test_speed():
    lk.data.faces(64)
    seconds = []
    for _ in range(5):
        start = time.process_time()  # of this process, whatever else runs
        lk.data.faces(64)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 64 / 150  # over a thousand a second when nothing else runs


@pytest.mark.parametrize(("wrong", "what"), [({"n": -1}, "n"), ({"size": 3}, "size")])
def test_bad_numbers_are_named(wrong, what):
    with pytest.raises(lk.InputError, match=f"^{what} must be a whole number"):
        lk.data.faces(**({"n": 1} | wrong))

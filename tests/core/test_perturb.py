"""The noise that imitates another machine: where it goes, and what it leaves alone."""

import pytest
import torch

import lipkit as lk
from lipkit.errors import InputError
from lipkit.physics.perturb import NOISE, VARIABLE, number, perturbed
from lipkit.testing import tiny_prior
from tests.support.tiny_fit import OP, Y, assert_same_fit, quick

X = lk.testing.tiny_image()
MAPS = torch.ones(2, 16, 16, dtype=torch.complex64)
OPERATORS = {
    "denoising": (OP, X),
    "inpainting": (lk.physics.Inpaint.random(X.shape, density=0.5), X),
    "enlarging": (lk.physics.SuperResolution(2), X),
    "sensing": (lk.physics.CompressedSensing(tuple(X.shape), m=50), X),
    "scan": (lk.physics.MRI(MAPS, torch.ones(16, 16)), torch.ones(2, 16, 16)),
}


@pytest.fixture(autouse=True)
def off(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_measurement_has_it(name, monkeypatch):
    op, x = OPERATORS[name]
    quiet = op.measure(x)
    assert torch.equal(op.measure(x), quiet)
    seen = []
    for k in ("1", "2", "1"):
        monkeypatch.setenv(VARIABLE, k)
        seen.append(op.measure(x))
    assert torch.equal(seen[0], seen[2]), "the same machine measures the same"
    for noisy in seen[:2]:
        assert 0 < (noisy - quiet).abs().max() < 1e-4, "another measurement of the same picture"
    assert not torch.equal(seen[0], seen[1])


def test_nothing_else_has_it(monkeypatch):
    quiet = quick(steps=3)
    monkeypatch.setenv(VARIABLE, "1")
    assert_same_fit(quick(steps=3), quiet)


def test_noise_has_the_size_of_a_few_roundings_in_each_precision(monkeypatch):
    y = torch.zeros(3, 64, 64)
    monkeypatch.setenv(VARIABLE, "1")
    noise = perturbed(y)
    assert noise.std() == pytest.approx(NOISE, rel=0.05)
    assert noise.mean().abs() < NOISE / 10
    double = perturbed(y.double())
    assert double.std() == pytest.approx(NOISE * 2.0**-29, rel=0.05)
    both = torch.view_as_real(perturbed(torch.complex(y, y)))
    assert both.std() == pytest.approx(NOISE, rel=0.05)
    assert perturbed(torch.complex(y, y)).dtype == torch.complex64
    assert (y == 0).all(), "the measurement itself stays as it is"


def test_a_picture_has_the_same_noise_with_and_without_a_batch_axis(monkeypatch):
    monkeypatch.setenv(VARIABLE, "5")
    assert torch.equal(perturbed(Y[None])[0], perturbed(Y))
    assert_same_fit(quick(steps=4), quick(steps=4))


def test_off_it_is_the_measurement_itself(monkeypatch):
    for text in ("", " "):
        monkeypatch.setenv(VARIABLE, text)
        assert number() is None
        assert perturbed(Y) is Y


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "yes", "1e3", "²", "12345678"])
def test_what_is_no_whole_number_is_refused(text, monkeypatch):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(InputError) as caught:
        OP.measure(X)
    assert str(caught.value) == (
        "the environment variable LIPKIT_PERTURB must be a whole number from 1 to 999,999, "
        f"got {text!r}; unset it to compute without noise"
    )


def test_a_file_goes_on_only_with_the_noise_it_began_with(monkeypatch, tmp_path):
    path = tmp_path / "fit.safetensors"

    def fit(steps):
        how = dict(steps=steps, checkpoint=path, progress=False)
        return lk.fit(tiny_prior(), OP, OP.measure(X), **how)

    fit(3)
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(lk.Error, match="weights and measurement"):
        fit(6)

"""The noise that imitates another machine: where it goes, and what it leaves alone."""

import pytest
import torch

import lipkit as lk
from lipkit.errors import InputError
from lipkit.fitting.perturb import NOISE, VARIABLE, number, perturbed
from lipkit.testing import tiny_prior
from tests.support.tiny_fit import OP, Y, assert_same_fit, quick


def generator():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return lk.models.build("pgan", latent=4, depth0=4, scales=(4, 4))


def of_fit() -> torch.Tensor:
    return quick(steps=3).image


def of_logits() -> torch.Tensor:
    found = lk.find.oes(tiny_prior(), OP, Y, 0.2, steps=3, details=True, progress=False)
    return found.probabilities()


def of_loss_of_rounds() -> torch.Tensor:
    found = lk.find.imp(tiny_prior(), OP, Y, density=0.8, steps=3, progress=False)
    return torch.from_numpy(found.losses)


def of_scores() -> torch.Tensor:
    return lk.find.snip_scores(tiny_prior(), OP, Y)["head.weight"]


def of_latent() -> torch.Tensor:
    return lk.gan.search(generator(), OP, Y, steps=30, progress=False).z


def of_tickets() -> torch.Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        critic = lk.models.Critic(4, (4, 4))
    faces = lk.data.faces(6, size=16)
    found = lk.gan.imp(generator(), critic, faces, rounds=1, steps=3, batch=4, progress=False)
    return torch.cat([p.detach().flatten() for p in found.finetuned[-1].parameters()])


BEGINNINGS = (of_fit, of_logits, of_loss_of_rounds, of_scores, of_latent, of_tickets)


@pytest.fixture(autouse=True)
def off(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.parametrize("begin", BEGINNINGS, ids=lambda begin: begin.__name__)
def test_every_fit_and_search_begins_with_it(begin, monkeypatch):
    quiet = begin()
    assert torch.equal(begin(), quiet)
    seen = []
    for k in ("1", "2", "1"):
        monkeypatch.setenv(VARIABLE, k)
        seen.append(begin())
    assert torch.equal(seen[0], seen[2]), "the same machine computes the same"
    for noisy in seen[:2]:
        far = (noisy - quiet).abs().max()
        assert 0 < far < 0.1, "another result, of the same problem"
    assert not torch.equal(seen[0], seen[1])


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
        quick()
    assert str(caught.value) == (
        "the environment variable LIPKIT_PERTURB must be a whole number from 1 to 999,999, "
        f"got {text!r}; unset it to compute without noise"
    )


def test_a_file_goes_on_only_with_the_noise_it_began_with(monkeypatch, tmp_path):
    path = tmp_path / "fit.safetensors"
    quick(steps=3, checkpoint=path)
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(lk.Error, match=VARIABLE):
        quick(steps=6, checkpoint=path)

"""The mask that needs no search: its counts follow the profile, and it works where chance fails."""

from __future__ import annotations

import math
from statistics import median

import pytest

import lipkit as lk
from lipkit.find import universal
from lipkit.find.universal import profile, profiles
from lipkit.masks.select import count


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 6])
def test_each_layer_is_kept_with_the_odds_of_the_profile(levels):
    prior = lk.Prior("oes", 64, levels=levels)
    mask = universal(prior, density=0.05)
    assert mask.kept == count(0.05, mask.total) and not mask.collapsed()
    wanted = profiles()[str(levels)]
    assert list(wanted) == mask.names
    odds = {n: math.log(c.kept / (c.total - c.kept)) for n, c in mask.per_layer().items()}
    shift = median(odds[name] - wanted[name] for name in odds)
    for name, layer in mask.per_layer().items():
        spread = 0.05 + 4 / math.sqrt(min(layer.kept, layer.total - layer.kept))
        assert odds[name] == pytest.approx(wanted[name] + shift, abs=spread), name


def test_the_profile_of_universal_masks_is_the_profile():
    prior = lk.Prior("oes", 64, levels=3)
    again = profile([universal(prior, density=0.1, seed=seed) for seed in range(8)])
    shift = median(again[name] - value for name, value in profiles()["3"].items())
    for name, value in profiles()["3"].items():
        assert again[name] == pytest.approx(value + shift, abs=0.5), name


def test_same_seed_same_mask_other_seed_another():
    prior = lk.Prior("oes", 32, levels=2)
    assert universal(prior, seed=1) == universal(prior, seed=1) != universal(prior, seed=2)
    assert universal(prior).kept == round(lk.find.KEPT_PER_VALUE * 3 * 32 * 32)


@pytest.mark.filterwarnings("ignore::lipkit.masks.LayerCollapseWarning")
def test_it_restores_where_uniform_chance_leaves_a_constant():
    clean, op = lk.data.image("chelsea", size=32), lk.physics.Denoise(0.1)
    prior, y = lk.Prior("oes", 32, levels=2), op.measure(clean)
    ours = universal(prior)
    masks = {"universal": ours, "uniform": lk.Mask.random(prior.net, ours.density)}
    fits = {
        name: lk.fit(prior, op, y, mask=mask, steps=150, reference=clean, progress=False)
        for name, mask in masks.items()
    }
    ends = {name: fit.history["psnr"][-1] for name, fit in fits.items()}
    assert ends["universal"] > ends["uniform"] + 2, ends


@pytest.mark.parametrize(
    ("prior", "options", "match"),
    [
        (lk.testing.tiny_prior(), {}, "is for the network 'oes', not for 'dip'"),
        (lk.Prior("oes", 32, levels=1), {}, "for 2, 3, 4, 5, 6 levels, not for 1"),
        (lk.Prior("oes", 32, levels=2), {"density": 1.5}, "density"),
    ],
)
def test_what_it_is_not_for(prior, options, match):
    with pytest.raises(lk.InputError, match=match):
        universal(prior, **options)

"""A prior is its recipe: the same bits every time, any size, nothing else disturbed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipkit as lk
from lipkit.prior import Recipe
from lipkit.testing import tiny_prior

SMALL = dict(levels=2, down=8, up=8, skip=2)
RECIPES = [
    ("dip", (32, 48), {}),
    ("dip", 16, SMALL),
    ("dip", 16, SMALL | {"code": "normal", "code_scale": 1.0}),
    ("dip-snail", (40, 40), {"down": [4, 4, 4], "up": [4, 4, 4], "skip": [0, 0, 4], "levels": 3}),
    ("dip-vase", (64, 34), {}),
    ("oes", (30, 41), {"levels": 2}),
    ("deep-decoder", (20, 31), {"levels": 2, "width": 8}),
]


def same_bits(a: lk.Prior, b: lk.Prior) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.mark.parametrize(("name", "size", "options"), RECIPES)
def test_recipe_rebuilds_the_same_bits(name, size, options):
    prior = lk.Prior(name, size, seed=3, **options)
    torch.manual_seed(99)  # the state of the global generator must not matter
    through_json = Recipe.from_dict(json.loads(json.dumps(prior.recipe.as_dict())))
    assert through_json == prior.recipe
    for again in (prior.recipe.prior(), through_json.prior(), prior.clone()):
        assert same_bits(prior, again)
        assert again.recipe == prior.recipe


@pytest.mark.parametrize(("name", "size", "options"), RECIPES)
def test_building_leaves_the_global_generators_alone(name, size, options):
    torch.manual_seed(7)
    np.random.seed(7)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    lk.Prior(name, size, seed=1, **options)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_seed_changes_weights_and_code():
    a, b = tiny_prior(seed=0), tiny_prior(seed=1)
    assert not torch.equal(a.z, b.z)
    assert not torch.equal(a.net.head.weight, b.net.head.weight)
    assert same_bits(a, tiny_prior(seed=0))


def test_recipe_says_name_options_size_seed_and_version():
    recipe = lk.Prior("dip", 16, seed=5, **SMALL, code="uniform").recipe
    assert recipe.as_dict() == dict(
        name="dip", size=(16, 16), seed=5, options=SMALL, version=lk.__version__
    )


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("dip", (33, 41), {}),
        ("dip", (5, 70), {}),
        ("dip-kate", (50, 70), {}),
        ("dip-vase", (50, 70), {}),
        ("dip-library", (50, 70), {}),
        ("oes", (224, 224), {}),
        ("oes", (50, 70), {"levels": 4}),
        ("deep-decoder", (45, 71), {}),
        ("deep-decoder", (45, 71), {"upsample_first": False}),
        ("deep-decoder", (2, 3), {}),
    ],
)
def test_any_size_gives_that_size(name, size, options):
    picture = lk.Prior(name, size, **options)()
    assert picture.shape == (1, 3, *size)
    assert torch.isfinite(picture).all()


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["dip", "dip-vase", "oes", "deep-decoder"]),
    levels=st.integers(1, 4),
    height=st.integers(2, 70),
    width=st.integers(2, 70),
    channels=st.sampled_from([1, 2, 3]),
)
def test_any_size_law(name, levels, height, width, channels):
    thin = {"width": 4} if name == "deep-decoder" else {"down": 4, "up": 4, "skip": 0}
    prior = lk.Prior(name, (height, width), levels=levels, out_channels=channels, **thin)
    assert prior().shape == (1, channels, height, width)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("dip", (41, 64), {}),
        ("dip-vase", (64, 96), {}),
        ("oes", (192, 256), {}),
        ("oes", (48, 64), {"levels": 4}),
        ("deep-decoder", (64, 96), {}),
    ],
)
def test_where_the_reference_takes_the_size_the_network_is_used_bare(name, size, options):
    prior = lk.Prior(name, size, seed=2, **options)
    torch.manual_seed(2)  # the recipe by hand: weights first, then the code
    net = lk.models.build(name, **options)
    for ours, bare in zip(prior.net.parameters(), net.parameters(), strict=True):
        assert torch.equal(ours, bare)
    if name != "dip-vase":
        down = 2**net.levels if name == "deep-decoder" else 1
        shape = (1, next(net.parameters()).shape[1], size[0] // down, size[1] // down)
        assert torch.equal(prior.z, torch.rand(shape) * 0.1)
    assert torch.equal(prior(), net(prior.z))


def test_other_sizes_are_cropped_from_the_middle():
    prior = lk.Prior("oes", (50, 70), levels=4)
    whole = prior.net(prior.z)
    assert whole.shape == (1, 3, 64, 80)
    assert torch.equal(prior(), whole[..., 7:57, 5:75])


def test_vase_code_is_the_published_grid():
    height, width = 64, 96
    x, y = np.meshgrid(
        np.arange(width) / float(width - 1),
        np.arange(height) / float(height - 1),
    )
    published = torch.from_numpy(np.stack([x, y])).float()[None]
    torch.testing.assert_close(lk.Prior("dip-vase", (height, width)).z, published)


def test_codes_have_their_laws():
    flat = lk.Prior("dip", 64, levels=1).z
    assert flat.min() >= 0 and flat.max() <= 0.1
    assert float(flat.mean()) == pytest.approx(0.05, abs=1e-3)
    bell = lk.Prior("dip", 64, levels=1, code="normal", code_scale=1.0).z
    assert float(bell.std()) == pytest.approx(1, abs=0.02)
    assert float(bell.mean()) == pytest.approx(0, abs=0.02)


def test_another_code_can_be_given():
    prior = tiny_prior()
    assert torch.equal(prior(prior.z), prior())
    assert not torch.equal(prior(prior.z + 0.1 * torch.rand_like(prior.z)), prior())


def test_priors_built_in_threads_are_the_ones_built_alone():
    def build(seed: int) -> torch.Tensor:
        return torch.cat([p.flatten() for p in lk.testing.tiny_prior(seed=seed).parameters()])

    seeds = list(range(24))
    for alone, together in zip(
        map(build, seeds), lk.parallel(build, seeds, workers=4), strict=True
    ):
        assert torch.equal(alone, together)


@pytest.mark.parametrize("levels", [9, 28, 99])
def test_a_network_far_too_deep_for_its_picture_is_refused_at_once(levels):
    with pytest.raises(lk.InputError, match=r"halves its picture .* too deep for 32 pixels"):
        lk.Prior("deep-decoder", 32, levels=levels, width=2)

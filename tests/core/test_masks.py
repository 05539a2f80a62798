"""Laws of masks: exact counts, nothing pruned comes back, controls that keep what they promise."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipkit as lk
from lipkit.masks import LayerCollapseWarning, Mask, count, covered

NET = lk.models.build("dip", levels=2, down=8, up=8, skip=2, in_channels=4)
SCOPES = st.sampled_from(["conv", "all"])
SEEDS = st.integers(0, 10**6)
laws = settings(max_examples=40, deadline=None)

pytestmark = pytest.mark.filterwarnings("ignore::lipkit.masks.LayerCollapseWarning")


def scores_with_ties(seed: int, scope: str = "conv", values: int = 4) -> dict[str, torch.Tensor]:
    """Few different values, so that nearly every weight ties with others."""
    draw = torch.Generator().manual_seed(seed)
    return {
        n: torch.randint(0, values, p.shape, generator=draw).float() for n, p in covered(NET, scope)
    }


def densities(mask: Mask) -> list[tuple[int, int]]:
    return [tuple(c) for c in mask.per_layer().values()]


# --- counts -------------------------------------------------------------------------------------


@laws
@given(density=st.floats(0.001, 1), seed=SEEDS, scope=SCOPES, values=st.integers(1, 5))
def test_top_keeps_the_exact_count_for_any_density_and_ties(density, seed, scope, values):
    scores = scores_with_ties(seed, scope, values)
    mask = Mask.top(scores, density)
    total = sum(s.numel() for s in scores.values())
    assert mask.total == total
    assert mask.kept == count(density, total) == int(mask.flat().sum())
    flat = torch.cat([s.flatten() for s in scores.values()])
    kept, dropped = flat[mask.flat()], flat[~mask.flat()]
    assert not len(dropped) or kept.min() >= dropped.max()
    tied = flat == kept.min()  # of equal scores the first are kept
    assert (mask.flat()[tied].int().diff() <= 0).all()


@laws
@given(density=st.floats(0.02, 1), seed=SEEDS)
def test_top_per_layer_keeps_the_exact_count_in_each(density, seed):
    scores = {n: s for n, s in scores_with_ties(seed).items() if s.numel() >= 50}
    for name, layer in Mask.top(scores, density, per_layer=True).per_layer().items():
        assert layer == (count(density, scores[name].numel()), scores[name].numel())


@laws
@given(density=st.floats(0.001, 1), seed=SEEDS, scope=SCOPES)
def test_random_keeps_the_exact_count(density, seed, scope):
    mask = Mask.random(NET, density, scope, seed)
    assert mask.kept == count(density, mask.total)
    assert mask == Mask.random(NET, density, scope, seed)
    assert mask.density == mask.kept / mask.total == pytest.approx(1 - mask.sparsity)


@given(kept=st.integers(0, 10**7), total=st.integers(1, 10**7))
@settings(max_examples=300, deadline=None)
def test_a_density_written_as_a_fraction_is_counted_without_rounding_error(kept, total):
    kept = min(kept, total)
    assert count(kept / total, total) == kept


@laws
@given(seed=SEEDS, rate=st.floats(0.05, 0.6))
def test_masks_of_rounds_are_nested(seed, rate):
    mask, density = Mask.full(NET), 1.0
    for round_ in range(6):
        density *= 1 - rate
        if count(density, mask.total) == 0:
            break
        smaller = Mask.top(scores_with_ties(seed + round_), density, within=mask)
        assert smaller.kept == count(density, mask.total)
        assert (smaller & mask) == smaller
        mask = smaller


def test_pruned_stays_pruned_whatever_its_score():
    within = Mask.random(NET, 0.3, seed=0)
    scores = {n: torch.where(within[n], -1.0, 9.0) for n in within.names}
    assert Mask.top(scores, 0.3, within=within) == within


# --- controls -----------------------------------------------------------------------------------


def uneven_mask(seed: int, scope: str = "conv") -> Mask:
    """Layers of very different density, as found tickets have."""
    draw = torch.Generator().manual_seed(seed)
    keep = {}
    for name, p in covered(NET, scope):
        level = float(torch.rand((), generator=draw))
        keep[name] = torch.rand(p.shape, generator=draw) < level
    return Mask(keep)


@laws
@given(seed=SEEDS, control=SEEDS, scope=SCOPES)
def test_controls_keep_the_count_of_each_layer(seed, control, scope):
    mask = uneven_mask(seed, scope)
    for other in (mask.shuffled(control), mask.same_density_random(control)):
        assert densities(other) == densities(mask) and other.names == mask.names


@laws
@given(seed=SEEDS, control=SEEDS)
def test_shuffling_within_filters_keeps_the_count_of_each_filter(seed, control):
    mask = uneven_mask(seed)
    other = mask.shuffled(control, within="filter")
    for name in mask.names:
        assert torch.equal(mask[name].flatten(1).sum(1), other[name].flatten(1).sum(1))


CONTROLS = {
    "shuffled": lambda m, s: m.shuffled(s),
    "shuffled within filters": lambda m, s: m.shuffled(s, within="filter"),
    "same density": lambda m, s: m.same_density_random(s),
}


@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_controls_really_move_the_weights(control):
    mask = Mask.random(NET, 0.5, seed=1)
    other = control(mask, 0)
    assert other == control(mask, 0) and other != control(mask, 1)
    moved = float((mask.flat() != other.flat()).float().mean())
    assert moved == pytest.approx(0.5, abs=0.06)  # as for two unrelated masks of half density


@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_every_position_of_a_layer_is_equally_likely(control):
    mask = Mask({"w": torch.arange(12).reshape(2, 6) % 3 == 0})
    often = torch.stack([control(mask, s)["w"] for s in range(1500)]).float().mean(0)
    torch.testing.assert_close(often, torch.full((2, 6), 1 / 3), rtol=0, atol=0.06)


def test_overlap_expectation_is_the_mean_over_random_masks():
    a, b = uneven_mask(0), uneven_mask(1)
    common = [float(a.overlap(b.same_density_random(s)).common) for s in range(200)]
    want = a.overlap(b).expected
    spread = torch.tensor(common).std() / len(common) ** 0.5
    assert abs(sum(common) / len(common) - want) < 4 * float(spread)
    assert a.overlap(a).common == a.kept
    assert a.overlap(b).ratio == pytest.approx((a & b).kept / want)


def test_overlap_expectation_is_that_of_the_layers_not_of_the_whole():
    ones, none = torch.ones(1, 10, dtype=torch.bool), torch.zeros(1, 10, dtype=torch.bool)
    a = Mask({"first": ones, "second": none})
    assert a.overlap(a) == (10, 10.0)


# --- algebra, vectors, networks -----------------------------------------------------------------


@laws
@given(a=SEEDS, b=SEEDS, scope=SCOPES)
def test_set_algebra(a, b, scope):
    left, right = uneven_mask(a, scope), uneven_mask(b, scope)
    assert torch.equal((left & right).flat(), left.flat() & right.flat())
    assert torch.equal((left | right).flat(), left.flat() | right.flat())
    assert (left & right).kept + (left | right).kept == left.kept + right.kept
    assert (left & left) == left == (left | left)
    assert hash(left & left) == hash(left) and left.digest() == (left | left).digest()


@laws
@given(seed=SEEDS, scope=SCOPES, kind=st.sampled_from([torch.bool, torch.uint8, torch.float32]))
def test_flat_vector_and_back(seed, scope, kind):
    mask = uneven_mask(seed, scope)
    again = Mask.from_flat(mask.flat().to(kind), like=NET)
    assert again == mask and again.names == mask.names


def test_flat_vector_is_in_the_order_of_parameters():
    vector = torch.zeros(sum(p.numel() for p in NET.parameters()), dtype=torch.bool)
    sizes = [p.numel() for p in NET.parameters()]
    vector[sum(sizes[:5]) + 1] = True
    mask = Mask.from_flat(vector, like=NET)
    name = [n for n, _ in NET.named_parameters()][5]
    assert mask[name].flatten()[1] and mask.kept == 1


def test_scopes_cover_convolutions_or_everything():
    assert Mask.full(NET).total == sum(p.numel() for p in NET.parameters() if p.ndim > 1)
    assert Mask.full(NET, "all").total == sum(p.numel() for p in NET.parameters())
    assert Mask.full(NET).density == 1


def test_masks_cannot_be_changed_from_outside():
    source = torch.ones(2, 3, dtype=torch.bool)
    mask = Mask({"w": source})
    source[0, 0] = False
    mask["w"][1, 1] = False
    assert mask.kept == 6


@pytest.mark.parametrize("scope", ["conv", "all"])
@pytest.mark.parametrize("move", [lambda n: n, lambda n: n.double(), lambda n: n.half()])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_mask_follows_the_network_through_types_and_layouts(scope, move, layout):
    net = move(copy.deepcopy(NET)).to(memory_format=layout)
    mask = Mask.random(net, 0.2, scope, seed=3)
    assert mask == Mask.random(NET, 0.2, scope, seed=3)
    mask.apply(net)
    originals = dict(NET.named_parameters())
    for name, parameter in net.named_parameters():
        keep = mask[name] if name in mask.names else torch.ones_like(parameter, dtype=torch.bool)
        want = torch.where(keep, originals[name], 0).to(parameter.dtype)
        assert torch.equal(parameter, want), name
    for parameter, m in mask.pairs(net):
        assert m.dtype == parameter.dtype and m.stride() == parameter.stride()


def test_a_mask_moves_to_the_device_of_the_network():
    net = copy.deepcopy(NET).to("meta")
    mask = Mask.random(NET, 0.2)
    assert {m.device.type for _, m in mask.pairs(net)} == {"meta"}


def test_collapse_is_warned_of_by_name():
    scores = {n: torch.ones_like(p) for n, p in covered(NET, "conv")}
    scores["up0a.conv.weight"].zero_()
    density = 1 - scores["up0a.conv.weight"].numel() / sum(s.numel() for s in scores.values())
    with pytest.warns(LayerCollapseWarning, match=r"layer collapse: 1 of .*\(up0a\.conv\.weight\)"):
        mask = Mask.top(scores, density)
    assert mask.collapsed() == ["up0a.conv.weight"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Mask.top(scores, 1.0)


def test_an_empty_bias_is_no_collapse():
    zeros = torch.zeros(3, dtype=torch.bool)
    assert Mask({"bias": zeros, "weight": torch.ones(3, 3, dtype=torch.bool)}).collapsed() == []


# --- refusals -----------------------------------------------------------------------------------


def test_another_network_is_refused():
    mask = Mask.random(NET, 0.5)
    wide = lk.models.build("dip", levels=2, down=8, up=8, skip=4, in_channels=4)
    deep = lk.models.build("deep-decoder", levels=2, width=8)
    with pytest.raises(lk.InputError, match=r"'skip0.conv.weight' has shape .* another width"):
        mask.apply(wide)
    with pytest.raises(
        lk.InputError, match=r"'skip0.conv.weight', which this network does not have"
    ):
        mask.apply(deep)
    with pytest.raises(lk.InputError, match=r"has [\d,]+ entries .* got [\d,]+; is it for another"):
        Mask.from_flat(mask.flat()[1:], like=NET)
    with pytest.raises(lk.InputError, match="different networks or scopes"):
        mask & Mask.random(NET, 0.5, "all")
    with pytest.raises(lk.InputError, match="different networks or scopes"):
        mask.overlap(Mask.random(wide, 0.5))
    with pytest.raises(lk.InputError, match=r"does not cover 'skip0.conv.bias' of shape \(2,\)"):
        Mask.top(scores_with_ties(0, "all"), 0.1, within=mask)


def test_a_refused_mask_leaves_the_network_alone():
    net = lk.models.build("dip", levels=2, down=8, up=8, skip=4, in_channels=4)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(lk.InputError):
        Mask.random(NET, 0.5).apply(net)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_what_cannot_be_ranked_is_refused():
    scores = scores_with_ties(0)
    with pytest.raises(lk.InputError, match=r"would keep [\d,]+ weights, but only .* unpruned"):
        Mask.top(scores, 0.5, within=Mask.random(NET, 0.4))
    scores["head.weight"][0] = float("nan")
    with pytest.raises(lk.InputError, match=r"'head.weight' are not all finite"):
        Mask.top(scores, 0.5)


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        ({}, "at least one parameter"),
        ({"w": torch.ones(3)}, r"'w' must be a boolean tensor, got torch.float32"),
        ({"w": [True]}, r"'w' must be a boolean tensor, got list"),
        ({"w": torch.ones(0, dtype=torch.bool)}, "'w' is empty"),
    ],
)
def test_what_is_no_mask_is_refused(keep, sentence):
    with pytest.raises(lk.InputError, match=sentence):
        Mask(keep)


def test_a_flat_vector_of_other_numbers_is_refused():
    vector = torch.ones(Mask.full(NET).total)
    vector[3] = 0.5
    with pytest.raises(lk.InputError, match="only 0 and 1"):
        Mask.from_flat(vector, like=NET)

"""Pruning at initialisation: scores against closed forms and finite differences, exact counts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import lipkit as lk
from lipkit.masks import LayerCollapseWarning, Mask, count, covered

METHODS = ["random", "magnitude", "snip", "grasp", "synflow"]
SCOPES = ["conv", "all"]
VARIANTS = ["paper", "published"]
OPERATORS = {
    "denoise": lk.physics.Denoise(0.1),
    "inpaint": lk.physics.Inpaint.random((3, 16, 16), density=0.5),
    "super-resolution": lk.physics.SuperResolution(2),
}

pytestmark = pytest.mark.filterwarnings("ignore::lipkit.masks.LayerCollapseWarning")


def problem(op_name: str = "denoise"):
    """A small prior in float64, an operator and its measurement."""
    op = OPERATORS[op_name]
    return lk.testing.tiny_prior().double(), op, op.measure(lk.testing.tiny_image()).double()


def find(method: str, prior, op, y, density: float, **options) -> Mask:
    if method == "synflow" and options.get("variant") != "published":
        options = {"rounds": 10} | options
    return getattr(lk.find, method)(prior, op, y, density, **options)


def around(net: nn.Module, size: int = 4, channels: int = 3, seed: int = 0) -> lk.Prior:
    """A prior in float64 whose network is replaced by this one."""
    prior = lk.testing.tiny_prior()
    prior.net, prior.size, prior.net_size = net, (size, size), (size, size)
    draw = torch.Generator().manual_seed(seed)
    prior.z = torch.rand(1, channels, size, size, generator=draw)
    return prior.double()


def loss_at(prior, op, y, changed: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss with some weights replaced; differentiable in them."""
    weights = dict(prior.net.named_parameters()) | changed
    x = prior.crop(torch.func.functional_call(prior.net, weights, (prior.z,)))
    return (op.A(x) - y).square().mean()


def gradient_at(prior, op, y, at: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    at = {n: w.detach().requires_grad_() for n, w in at.items()}
    return dict(zip(at, torch.autograd.grad(loss_at(prior, op, y, at), at.values()), strict=True))


def initial(prior, scope: str) -> dict[str, torch.Tensor]:
    return {n: w.detach().clone() for n, w in covered(prior.net, scope)}


def entries(weights: dict[str, torch.Tensor], each: int = 2):
    """A few weights of each parameter, as (name, index)."""
    draw = torch.Generator().manual_seed(3)
    for name, w in weights.items():
        for i in torch.randint(w.numel(), (each,), generator=draw).tolist():
            yield name, i


def with_entry(w: torch.Tensor, i: int, value: torch.Tensor) -> torch.Tensor:
    flat = w.flatten().clone()
    flat[i] = value
    return flat.reshape(w.shape)


# --- SNIP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("op_name", OPERATORS)
def test_snip_is_the_change_of_the_loss_as_a_weight_vanishes(op_name, scope):
    prior, op, y = problem(op_name)
    scores, h = lk.find.snip_scores(prior, op, y, scope=scope), 1e-6
    weights = initial(prior, scope)
    assert list(scores) == list(weights)
    largest = max(float(s.max()) for s in scores.values())
    for name, i in entries(weights):
        w = weights[name].flatten()[i]
        up, down = (
            loss_at(prior, op, y, {name: with_entry(weights[name], i, w * (1 + t))})
            for t in (h, -h)
        )
        by_difference = abs(float((up - down).detach())) / (2 * h)
        assert float(scores[name].flatten()[i]) == pytest.approx(
            by_difference, rel=1e-4, abs=1e-6 * largest
        )


def test_published_snip_is_the_gradient_without_the_weight():
    prior, op, y = problem()
    weights = initial(prior, "all")
    scores = lk.find.snip_scores(prior, op, y, scope="all", variant="published")
    for name, g in gradient_at(prior, op, y, weights).items():
        torch.testing.assert_close(scores[name], g.abs(), rtol=1e-9, atol=1e-15)
    paper = lk.find.snip_scores(prior, op, y, scope="all")
    for name, w in weights.items():
        torch.testing.assert_close(paper[name], scores[name] * w.abs(), rtol=1e-9, atol=1e-15)


# --- GraSP --------------------------------------------------------------------------------------


def quadratic():
    """One 1x1 convolution: L = |W Z - Y|^2 / N, g = 2 (W Z - Y) Z^T / N, H v = 2 v Z Z^T / N."""
    prior, op = around(nn.Conv2d(3, 2, 1, bias=False)), lk.physics.Denoise()
    y = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    w, z, target = prior.net.weight.detach().flatten(1), prior.z[0].flatten(1), y.flatten(1)
    g = 2 * (w @ z - target) @ z.T / target.numel()
    return prior, op, y, w, g, lambda v: 2 * v @ z @ z.T / target.numel()


def test_grasp_on_a_quadratic():
    prior, op, y, w, g, hessian = quadratic()
    (score,) = lk.find.grasp_scores(prior, op, y).values()
    torch.testing.assert_close(score.flatten(1), w * hessian(g))
    (score,) = lk.find.grasp_scores(prior, op, y, variant="published").values()
    torch.testing.assert_close(score.flatten(1), -(g + hessian(w)))
    (score,) = lk.find.grasp_scores(prior, op, y, variant="published", per_layer=True).values()
    torch.testing.assert_close(score.flatten(1), g.abs() / ((g + hessian(w)).abs() + 1e-10))


def test_grasp_removes_the_largest_s_of_the_original():
    prior, op, y, w, g, hessian = quadratic()
    s = -w * hessian(g)
    kept = lk.find.grasp(prior, op, y, density=0.5).flat().reshape(s.shape)
    assert s[kept].max() < s[~kept].min()


@pytest.mark.parametrize("scope", SCOPES)
def test_grasp_equals_differences_of_the_gradient(scope):
    prior, op, y = problem("inpaint")
    weights = initial(prior, scope)
    g = gradient_at(prior, op, y, weights)
    h = 1e-6 / max(float(v.abs().max()) for v in g.values())
    up, down = (
        gradient_at(prior, op, y, {n: weights[n] + t * g[n] for n in weights}) for t in (h, -h)
    )
    scores = lk.find.grasp_scores(prior, op, y, scope=scope)
    largest = max(float(s.abs().max()) for s in scores.values())
    for n, w in weights.items():
        by_difference = w * (up[n] - down[n]) / (2 * h)
        torch.testing.assert_close(scores[n], by_difference, rtol=1e-4, atol=1e-6 * largest)


def test_grasp_is_half_the_loss_of_squared_gradient_as_a_weight_vanishes():
    prior, op, y = problem()
    weights, h = initial(prior, "conv"), 1e-5
    scores = lk.find.grasp_scores(prior, op, y)
    largest = max(float(s.abs().max()) for s in scores.values())
    for name, i in entries(weights, each=1):
        w = weights[name].flatten()[i]
        flow = [
            sum(
                float(g.square().sum())
                for g in gradient_at(
                    prior, op, y, weights | {name: with_entry(weights[name], i, w * (1 + t))}
                ).values()
            )
            for t in (h, -h)
        ]
        by_difference = (flow[0] - flow[1]) / (2 * h) / 2
        assert float(scores[name].flatten()[i]) == pytest.approx(
            by_difference, rel=1e-3, abs=1e-6 * largest
        )


# --- SynFlow ------------------------------------------------------------------------------------


def test_synflow_of_two_layers():
    a, b = nn.Conv2d(3, 5, 1, bias=False), nn.Conv2d(5, 2, 1, bias=False)
    prior = around(nn.Sequential(a, nn.BatchNorm2d(5), nn.LeakyReLU(0.2), b))
    scores = lk.find.synflow_scores(prior)
    wa, wb = (c.weight.detach().flatten(1).abs() for c in (a, b))
    pixels = 16
    torch.testing.assert_close(scores["0.weight"].flatten(1), pixels * wa * wb.sum(0)[:, None])
    torch.testing.assert_close(scores["3.weight"].flatten(1), pixels * wb * wa.sum(1))


CHAINS = {
    "strides": ("dip", dict(levels=2, down=8, up=8, skip=0)),
    "pooling": ("oes", dict(levels=2)),
    "zero borders": ("dip", dict(levels=2, down=8, up=8, skip=0, pad="zeros")),
    "deep decoder": ("deep-decoder", dict(levels=2, width=8)),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("pruned", [False, True])
def test_synflow_is_conserved_from_layer_to_layer(chain, pruned):
    """All that flows out has flowed through each layer."""
    name, options = CHAINS[chain]
    prior = lk.Prior(name, 16, **options)
    with torch.no_grad():  # gains and shifts of any sign
        for p in prior.net.parameters():
            if p.ndim == 1:
                p.normal_(generator=torch.Generator().manual_seed(p.numel()))
    mask = Mask.random(prior.net, 0.5) if pruned else None
    scores = lk.find.synflow_scores(prior, scope="all", mask=mask)
    total = float(scores["head.weight"].sum())
    assert total > 0 and all(bool((s >= 0).all()) for s in scores.values())
    for n, s in scores.items():
        assert float(s.sum()) == pytest.approx(0 if n.endswith("bias") else total, rel=1e-9), n
    if pruned:
        assert all(bool((scores[n][~mask[n]] == 0).all()) for n in mask.names)


def flow_of_ones(prior: lk.Prior) -> dict[str, torch.Tensor]:
    """SynFlow's scores for a code of full size."""
    model = copy.deepcopy(prior).double()
    model.net.sigmoid = False
    model.net.eval()
    with torch.no_grad():
        for n, p in model.net.named_parameters():
            p.copy_(torch.zeros_like(p) if n.endswith("bias") else p.abs())
        for m in model.net.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.zero_()
                m.running_var.fill_(1 - m.eps)
    weights = dict(covered(model.net, "all"))
    total = model.net(torch.ones_like(model.z)).sum()
    grads = torch.autograd.grad(total, list(weights.values()))
    return {n: (g * w).detach() for (n, w), g in zip(weights.items(), grads, strict=True)}


@pytest.mark.parametrize(
    ("name", "options"),
    [*CHAINS.values(), ("dip", dict(levels=2, down=8, up=8, skip=2))],
    ids=[*CHAINS, "skips"],
)
def test_synflow_scores_do_not_depend_on_the_size_of_the_picture(name, options):
    prior = lk.Prior(name, (36, 52), **options)
    prior()  # leaves running averages behind, which must not matter
    scores, reference = lk.find.synflow_scores(prior, scope="all"), flow_of_ones(prior)
    factor = reference["head.weight"].sum() / scores["head.weight"].sum()
    assert factor > 1 if options.get("pad") != "zeros" else factor == pytest.approx(1)
    for n, s in scores.items():
        torch.testing.assert_close(factor * s, reference[n], rtol=1e-9, atol=0)


def test_synflow_does_not_overflow_where_single_precision_would_come_close():
    scores = lk.find.synflow_scores(lk.Prior("oes", 192))
    assert all(bool(s.isfinite().all()) for s in scores.values())
    assert float(scores["head.weight"].sum()) > 1e20


@pytest.mark.parametrize("density", [0.1, 0.002])  # 0.002: fewer weights than layers, no flow left
def test_synflow_prunes_in_rounds_and_pruned_stays_pruned(density):
    prior, rounds = lk.testing.tiny_prior(), 4
    masks = [Mask.full(prior.net)]
    for t in range(1, rounds + 1):
        scores = lk.find.synflow_scores(prior, mask=masks[-1])
        masks.append(Mask.top(scores, density ** (t / rounds), within=masks[-1]))
        assert masks[-1] & masks[-2] == masks[-1]
    assert lk.find.synflow(prior, density=density, rounds=rounds) == masks[-1]
    assert lk.find.synflow(prior, density=density, rounds=1) != masks[-1]


def test_synflow_in_many_rounds_empties_no_layer_of_a_chain():
    prior = lk.Prior("dip", 16, levels=2, down=8, up=8, skip=0)
    assert lk.find.synflow(prior, density=0.01, rounds=100).collapsed() == []
    assert lk.find.synflow(prior, density=0.01, rounds=1).collapsed() != []
    assert lk.find.magnitude(prior, density=0.01).collapsed() != []


def test_published_synflow_is_the_gradient_of_the_network_as_it_is():
    prior, _, _ = problem()
    weights = {n: w.detach().requires_grad_() for n, w in covered(prior.net, "all")}
    out = torch.func.functional_call(copy.deepcopy(prior.net), weights, (prior.z,)).sum()
    scores = lk.find.synflow_scores(prior, scope="all", variant="published")
    for n, g in zip(weights, torch.autograd.grad(out, weights.values()), strict=True):
        torch.testing.assert_close(scores[n], g.abs(), rtol=1e-9, atol=1e-12)


# --- all methods --------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("method", METHODS)
def test_counts_scopes_and_repeatability(method, scope, variant):
    prior, op, y = problem()
    mask = find(method, prior, op, y, 0.2, scope=scope, variant=variant, seed=5)
    assert mask.names == [n for n, _ in covered(prior.net, scope)]
    if (method, scope, variant) == ("random", "conv", "published"):
        assert mask.density == pytest.approx(0.64**4, abs=0.02)
    elif method in ("random", "magnitude") and variant == "published":
        nonzero = sum(int((p != 0).sum()) for _, p in covered(prior.net, scope))
        assert mask.kept == count(0.2, nonzero)
    else:
        assert mask.kept == count(0.2, mask.total)
    assert mask == find(method, prior, op, y, 0.2, scope=scope, variant=variant, seed=5)


@pytest.mark.parametrize("method", METHODS)
def test_per_layer(method):
    prior, op, y = problem()
    mask = find(method, prior, op, y, 0.3, per_layer=True)
    for layer in mask.per_layer().values():
        assert layer.kept == count(0.3, layer.total)
    with pytest.raises(lk.InputError, match=r"density 0\.05 keeps none of 8 weights"):
        find(method, prior, op, y, 0.05, per_layer=True)
    if method in ("random", "magnitude"):
        with pytest.raises(lk.InputError, match="per_layer is not offered"):
            find(method, prior, op, y, 0.3, per_layer=True, variant="published")
    else:
        mask = find(method, prior, op, y, 0.3, per_layer=True, variant="published")
        assert mask.per_layer()["head.weight"].kept == count(0.3, 24)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", METHODS)
def test_the_prior_and_the_random_numbers_of_others_stay_as_they_are(method, variant):
    prior, op, y = problem()
    prior.net.head.weight.requires_grad_(False)
    before, mode = copy.deepcopy(prior.state_dict()), prior.training
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    find(method, prior, op, y, 0.2, scope="all", variant=variant)
    assert torch.equal(torch.random.get_rng_state(), state)
    after = prior.state_dict()
    assert all(torch.equal(before[n], v) and before[n].dtype == v.dtype for n, v in after.items())
    assert prior.training == mode and prior.net.sigmoid
    assert all(p.grad is None for p in prior.parameters())
    assert not prior.net.head.weight.requires_grad and prior.net.head.bias.requires_grad


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (dict(variant="legacy"), "variant must be one of paper, published, got 'legacy'"),
        (dict(scope="bn"), "scope must be one of conv, all, got 'bn'"),
        (dict(density=0), "density is the fraction of weights kept"),
        (dict(density=5), "density is the fraction of weights kept"),
        (dict(density=float("nan")), "density is the fraction of weights kept"),
        (dict(prior=nn.Conv2d(1, 1, 1)), "prior must be a lipkit.Prior, got a Conv2d"),
    ],
)
def test_what_no_method_takes(method, wrong, sentence):
    prior, op, y = problem()
    with pytest.raises(lk.InputError, match=sentence):
        getattr(lk.find, method)(**(dict(prior=prior, op=op, y=y) | wrong))


@pytest.mark.parametrize("method", ["snip", "grasp"])
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (dict(op=None), "op must be an operator with a method A"),
        (dict(y=None), "the measurement must be a floating-point tensor, got None"),
        (dict(y=torch.full((3, 16, 16), torch.nan)), "NaN or infinite"),
        (dict(y=torch.rand(1, 16, 16)), r"the measurement has shape \(1, 16, 16\)"),
    ],
)
def test_methods_with_a_loss_need_data(method, wrong, sentence):
    prior, op, y = problem()
    with pytest.raises(lk.InputError, match=sentence):
        getattr(lk.find, method)(**(dict(prior=prior, op=op, y=y) | wrong))


@pytest.mark.parametrize("rounds", [0, -1, 2.5, True])
def test_synflow_needs_whole_rounds(rounds):
    with pytest.raises(lk.InputError, match="rounds must be a whole number of at least 1"):
        lk.find.synflow(lk.testing.tiny_prior(), rounds=rounds)


# --- random and magnitude -----------------------------------------------------------------------


def test_random_is_a_uniform_mask():
    prior = lk.testing.tiny_prior()
    assert lk.find.random(prior, density=0.3, seed=4) == Mask.random(prior.net, 0.3, seed=4)
    assert lk.find.random(prior, density=0.3, seed=4) != lk.find.random(prior, density=0.3, seed=5)


def test_magnitude_keeps_the_largest():
    prior = lk.testing.tiny_prior()
    kept = lk.find.magnitude(prior, density=0.3).flat()
    sizes = torch.cat([p.detach().abs().flatten() for _, p in covered(prior.net, "conv")])
    assert sizes[kept].min() >= sizes[~kept].max()


@pytest.mark.parametrize(("density", "rounds"), [(1.0, 0), (0.64, 1), (0.5, 2), (0.05, 7)])
def test_published_random_takes_the_fewest_rounds_that_reach_the_density(density, rounds):
    prior = lk.Prior("dip", 16, levels=2, down=32, up=32, skip=2)
    mask = lk.find.random(prior, density=density, variant="published")
    assert mask.density == pytest.approx(0.64**rounds, rel=0.03)


def test_published_random_removes_what_the_doubled_list_of_layers_does():
    prior = lk.Prior("dip", 16, levels=2, down=32, up=32, skip=2)
    net = copy.deepcopy(prior.net)
    convs = [(m, "weight") for m in net.modules() if isinstance(m, nn.Conv2d)]
    torch.manual_seed(0)
    for rounds in (1, 2, 3):
        prune.global_unstructured(convs * 2, prune.RandomUnstructured, amount=0.2)
        masks = [m.weight_mask for m, _ in convs]
        density = sum(float(m.sum()) for m in masks) / sum(m.numel() for m in masks)
        ours = lk.find.random(prior, density=0.64**rounds, variant="published")
        assert ours.density == pytest.approx(density, rel=0.02)
        assert density == pytest.approx(0.64**rounds, rel=0.02)


def test_published_magnitude_counts_zeros_as_pruned():
    prior = lk.testing.tiny_prior()
    mask = lk.find.magnitude(prior, density=0.99, scope="all", variant="published")
    shifts = [n for n, p in prior.net.named_parameters() if (p == 0).all()]
    assert shifts and all("norm" in n and n.endswith("bias") for n in shifts)
    assert not any(mask[n].any() for n in shifts)
    dense = lk.find.magnitude(prior, density=1.0, scope="all")
    assert dense.kept == dense.total
    conv = [lk.find.magnitude(prior, density=0.3, variant=v) for v in VARIANTS]
    assert conv[0] == conv[1]


@pytest.mark.filterwarnings("default::lipkit.masks.LayerCollapseWarning")
def test_magnitude_at_five_percent_empties_layers_of_the_oes_network():
    prior = lk.Prior("oes", 192, seed=0)
    with pytest.warns(LayerCollapseWarning, match="5 of 19 layers keep no weight"):
        mask = lk.find.magnitude(prior, density=0.05)
    # the wide 5x5 layers start from the smallest bounds, 1 / sqrt(25 * 128)
    assert mask.collapsed() == [f"down{i}.conv.weight" for i in ("3b", "4a", "4b", "5a", "5b")]

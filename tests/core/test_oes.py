"""Optimal Eye Surgeon: its loss beside a literal one, counts, resuming, refusals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import lipkit as lk
from lipkit.engine.cuda_graph import Watch
from lipkit.find import auto_density, oes, oes_multi, passes
from lipkit.find.oes_search import FIRST_LAM, OesSearch, oes_settings
from lipkit.masks import covered
from lipkit.masks.relaxed import PENALTIES, key_of, kl_slope, logistic_noise, relax_
from lipkit.testing import tiny_image, tiny_prior
from tests.support.tiny_fit import PressesCtrlC

CLEAN = tiny_image()
OP = lk.physics.Denoise(sigma=0.1)
Y = OP.measure(CLEAN)

pytestmark = pytest.mark.filterwarnings("ignore::lipkit.masks.LayerCollapseWarning")


def settings(**changes):
    named = dict(
        density=0.1, steps=30, lr=0.1, lam=1e-6, p0=None, reg="kl", samples=1, temperature=0.2,
        scope="all", seed=0, precision="auto",
    ) | changes  # fmt: skip
    return oes_settings(*named.values())


def literal(net, z, y, v, g1, g0, lam: float, p0: float, temperature: float = 0.2):
    """Mean squared error plus summed divergence under two Gumbel draws a weight, word by word."""
    p = torch.sigmoid(v)
    keep = torch.exp((torch.log(p) + g1) / temperature)
    drop = torch.exp((torch.log(1 - p) + g0) / temperature)
    m = keep / (keep + drop)
    weights, start = {}, 0
    for name, w in net.named_parameters():
        weights[name] = w.detach() * m[start : start + w.numel()].reshape(w.shape)
        start += w.numel()
    x = torch.func.functional_call(net, weights, (z,))
    divergence = p * torch.log((p + 1e-6) / p0) + (1 - p) * torch.log((1 - p + 1e-6) / (1 - p0))
    return ((x - y) ** 2).mean() + lam * divergence.sum()


def test_loss_and_gradient_are_those_of_two_gumbel_draws(monkeypatch):
    prior = tiny_prior().double()
    y, lam, p0 = Y.double()[None], 1e-3, 0.1
    draw = torch.Generator().manual_seed(5)
    total = sum(p.numel() for p in prior.net.parameters())
    g1, g0 = (
        -torch.log(-torch.log(torch.rand(total, generator=draw, dtype=torch.float64)))
        for _ in range(2)
    )
    v = 3 * torch.randn(total, generator=draw, dtype=torch.float64)

    logits = v.clone().requires_grad_(True)
    expected = literal(prior.clone().net, prior.z, y, logits, g1, g0, lam, p0)
    expected.backward()

    search = OesSearch(prior, OP, y, settings(lam=lam, p0=p0))
    flat, ours = [], {}
    for name, p in covered(prior.net, "all"):  # noise and logits in the order of our vector
        ours[name] = torch.arange(len(flat), len(flat) + p.numel()).reshape(p.shape)
        flat.extend([name] * p.numel())
    order = torch.cat([(i.movedim(1, -1) if i.ndim == 4 else i).flatten() for i in ours.values()])
    monkeypatch.setattr(
        "lipkit.find.passes.logistic_noise", lambda out, *_: out.copy_((g1 - g0)[order])
    )
    losses = []
    monkeypatch.setattr(search, "_note", losses.append)
    search.v.copy_(v[order])
    search.advance()
    penalty = PENALTIES["kl"](v.sigmoid(), search.p0)
    assert float(losses[0] + lam * penalty) == pytest.approx(expected.item(), rel=1e-10)
    torch.testing.assert_close(gradient(search), logits.grad[order], rtol=1e-8, atol=1e-12)


def gradient(search):
    """What the first step of a search went down: Adam's first moment starts with a tenth of it."""
    return 10 * search.moments[0]


def within_chance(a, b) -> bool:
    """Two samples of one law, says Kolmogorov and Smirnov's bound, at one in a thousand."""
    a, b = a.double().sort().values, b.double().sort().values
    grid = torch.linspace(-8, 8, 200, dtype=torch.float64)
    gap = (torch.searchsorted(a, grid) - torch.searchsorted(b, grid)).abs().max() / len(a)
    return gap < 1.95 * math.sqrt(2 / len(a))


def test_one_logistic_draw_has_the_law_of_two_gumbel_draws():
    draw, n = torch.Generator().manual_seed(0), 200_000
    gumbel = -torch.log(-torch.log(torch.rand(2, n, generator=draw, dtype=torch.float64)))
    logistic = logistic_noise(torch.empty(n), key_of(0, 0))
    assert within_chance(logistic, gumbel[0] - gumbel[1])
    assert not within_chance(1.05 * logistic, gumbel[0] - gumbel[1])
    assert torch.isfinite(logistic_noise(torch.empty(2**24), key_of(0, 1))).all()


@pytest.mark.parametrize("lag", [1, 2, 16, 64, 2**16])
def test_noise_of_neighbours_draws_and_seeds_is_unrelated(lag):
    n = 200_000
    noise = {key: logistic_noise(torch.empty(n), key_of(*key)) for key in ((0, 0), (0, 1), (1, 0))}
    first = noise[0, 0]
    pairs = [(first[lag:], first[:-lag]), *((first, noise[key]) for key in ((0, 1), (1, 0)))]
    pairs += [(first[lag:], noise[0, 1][:-lag]), (first[:-lag], noise[1, 0][lag:])]
    for a, b in pairs:
        for f, g in itertools.product((torch.sign, torch.abs, torch.asinh), repeat=2):
            together = torch.corrcoef(torch.stack([f(a), g(b)]))[0, 1]
            assert abs(together) < 5 / math.sqrt(len(a))
    ranks = (first.sigmoid()[:, None] * 2.0 ** torch.arange(1, 20)).floor().long() % 2
    assert (ranks.double().mean(0) - 0.5).abs().max() < 5 * 0.5 / math.sqrt(n)  # every bit is fair


@pytest.mark.parametrize("reg", ["kl", "l1", "centred", "none"])
@pytest.mark.parametrize("samples", [1, 3])
def test_slopes_of_penalties_and_draws_add_up(monkeypatch, reg, samples):
    search = OesSearch(
        tiny_prior().double(), OP, Y.double(), settings(reg=reg, lam=0.5, samples=samples)
    )
    search.v.normal_(generator=torch.Generator().manual_seed(1))
    v = search.v.clone().requires_grad_(True)
    penalty, parts = PENALTIES[reg], []
    if penalty is not None:
        (0.5 * penalty(v.sigmoid(), search.p0)).backward()
        parts.append(v.grad)
    draw = search._draw

    def watched(sample):
        assert not search.dloss_dw.any(), "nothing is left of the draw before"
        loss = draw(sample)
        parts.append(search.dloss_dw * search.dw_dv)
        return loss

    monkeypatch.setattr(search, "_draw", watched)
    search.advance()
    assert len(parts) == samples + (penalty is not None)
    torch.testing.assert_close(gradient(search), sum(parts), rtol=1e-9, atol=1e-14)
    assert not search.dloss_dw.any()
    v.grad = sum(parts)
    torch.optim.Adam([v], lr=search.s.lr).step()
    torch.testing.assert_close(search.v, v.detach(), rtol=1e-7, atol=1e-9)


def test_the_divergence_pulls_as_published():
    """A weight without a gradient of its own, p0 = 0.05, lr 0.01: the published speed of lam."""
    for lam, steps, p in ((1e-9, 1000, 0.355), (1e-9, 5000, 0.151), (1e-8, 1000, 0.120)):
        v = torch.zeros(1, dtype=torch.float64)
        adam = torch.optim.Adam([v], lr=0.01)
        for _ in range(steps):
            q = v.sigmoid()
            v.grad = lam * kl_slope(q, 0.05) * q * (1 - q)
            adam.step()
        assert float(v.sigmoid()) == pytest.approx(p, abs=2e-3)


def test_relaxed_masks_are_zero_before_they_are_slow_numbers():
    mask = relax_(torch.tensor([-16.0, -1.0, 16.0]), torch.tensor([-20.0, 0.0, 20.0]), 0.2)
    assert mask[0] == 0 and 0 < mask[1] < 0.01 and mask[2] == 1
    assert relax_(torch.tensor(-2.0).double(), torch.tensor(-2.0).double(), 0.2) > 0


def roomy(*sizes):
    """Random vectors with the room behind them that passes in whole lanes need."""
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(n + 64, generator=draw)[:n] for n in sizes]


def all_passes(module, n, kind=torch.float32, more=False):
    """What two steps leave behind, from the same numbers."""
    vectors = roomy(*[n] * 8)
    if kind == torch.float64:
        vectors = [v.double() for v in vectors]
    logits, theta, weight, slope, lever, first, second, rest = vectors
    p0 = torch.full((n + 64,), 0.05, dtype=kind)[:n]
    p0[: n // 2] = 0.3
    logits.mul_(5)
    second.abs_()
    drawn = []
    for step in (3, 4):
        module.draw_mask(logits, 0.2, key_of(0, step), theta, weight, lever, 0.7)
        drawn += [weight.clone(), lever.clone()]
        kept = module.descend(
            logits, slope, lever, (first, second), p0, 1e-2, 0.1, step, rest if more else None
        )
        drawn.append(torch.as_tensor(kept, dtype=kind))
    return [*drawn, logits, slope, first, second]


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 63, 64, 65, 70_001])
def test_compiled_passes_are_those_in_pytorch(n, more):
    compiled = passes.best_for(torch.zeros(1))
    assert compiled is not passes
    exact = all_passes(passes, n, torch.float64, more)
    for ours, theirs in zip(all_passes(compiled, n, more=more), exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=3e-5, atol=3e-6)
    for ours, theirs in zip(all_passes(passes, n, more=more), exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=3e-5, atol=3e-6)


def test_descending_is_adam():
    n = 1000
    logits, slope, start = roomy(n, n, n)
    ones, zeros = torch.ones(n + 64)[:n], torch.full((n + 64,), 0.5)[:n]
    theirs = logits.clone()
    adam = torch.optim.Adam([theirs], lr=0.1)
    moments = (torch.zeros(n + 64)[:n], torch.zeros(n + 64)[:n])
    for step in range(1, 8):
        theirs.grad = start * step
        adam.step()
        slope.copy_(start * step)
        passes.best_for(logits).descend(logits, slope, ones, moments, zeros, 0.0, 0.1, step)
    torch.testing.assert_close(logits, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("module", [passes, passes.best_for(torch.zeros(1))])
def test_masks_that_a_weight_would_not_feel_are_zero(module):
    theta, weight, lever = roomy(*[40] * 3)
    noise = logistic_noise(torch.empty(40), key_of(0, 0))
    cooled = torch.linspace(-25, 5, 40)
    logits = roomy(40)[0].copy_(0.2 * cooled - noise)
    module.draw_mask(logits, 0.2, key_of(0, 0), theta, weight, lever)
    small = cooled < -15.5  # sigmoid(-15.5) is 1.9e-7
    assert small.any() and not lever[small].any() and not weight[small].any()
    assert ((weight / theta)[cooled > -15] > 2e-7).all()


def test_compiled_passes_do_not_depend_on_the_threads():
    compiled, threads = passes.best_for(torch.zeros(1)), torch.get_num_threads()
    alone = all_passes(compiled, 70_001)
    torch.set_num_threads(2)
    try:
        together = all_passes(compiled, 70_001)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_compiled_passes_leave_what_is_behind_a_vector_alone_and_want_room():
    compiled = passes.best_for(torch.zeros(1))
    whole = torch.ones(128)
    with pytest.raises(AssertionError):
        compiled.draw_mask(whole[80:], 0.2, (0, 1), *[whole[80:]] * 3)
    behind = torch.ones(160)
    logits, theta, lever = roomy(9, 9, 9)
    compiled.draw_mask(logits, 0.2, (0, 1), theta, behind[:9], lever)
    assert torch.equal(behind[64:], torch.ones(96)) and not torch.equal(behind[:9], torch.ones(9))


def test_elementary_functions_are_exact_over_their_whole_range():
    compiled, n = passes.best_for(torch.zeros(1)), 100_000
    logits = torch.linspace(-20, 20, n + 64)[:n]
    before, p0 = roomy(n)[0].copy_(logits), torch.full((n + 64,), 0.1)[:n]
    slope, lever, *moments = (torch.zeros(n + 64)[:n] for _ in range(4))
    kept = compiled.descend(logits, slope, lever, moments, p0, 1.0, 0.1, 1)
    v = before.double().requires_grad_(True)
    PENALTIES["kl"](v.sigmoid(), 0.1).backward()
    torch.testing.assert_close(10 * moments[0].double(), v.grad, rtol=2e-5, atol=2e-6)
    assert kept == pytest.approx(float(v.detach().sigmoid().sum()), rel=1e-7)
    ones, weight, key = torch.ones(n + 64)[:n], torch.zeros(n + 64)[:n], key_of(0, 0)
    compiled.draw_mask(before, 1.0, key, ones, weight, lever)
    wanted = (before.double() + logistic_noise(torch.empty(n).double(), key)).sigmoid()
    torch.testing.assert_close(weight.double(), wanted, rtol=2e-6, atol=2.4e-7)
    torch.testing.assert_close(lever.double(), wanted * (1 - wanted), rtol=2e-6, atol=2.4e-7)


def test_in_pytorch_a_step_waits_for_nothing(monkeypatch):
    monkeypatch.setattr("lipkit.find.passes.best_for", lambda theta: passes)
    search = OesSearch(tiny_prior(), OP, Y, settings(lam="auto"))
    search.advance()  # the first and every tenth are noted
    with Watch() as watch:
        search.advance()
    assert watch.waits == ""
    assert float(search.lam) != FIRST_LAM


def test_without_a_compiler_a_search_finds_the_same(monkeypatch):
    fast = lk.find.oes(tiny_prior(), OP, Y, density=0.3, steps=12, seed=1, progress=False)
    monkeypatch.setattr("lipkit.find.passes.best_for", lambda theta: passes)
    slow = lk.find.oes(tiny_prior(), OP, Y, density=0.3, steps=12, seed=1, progress=False)
    for name in fast.names:
        assert (fast[name] == slow[name]).double().mean() > 0.95  # bits of gradients near zero


@pytest.mark.parametrize("scope", ["all", "conv"])
@pytest.mark.parametrize("density", [0.5, 0.03])
def test_count_is_exact_and_the_prior_untouched(scope, density):
    prior = tiny_prior()
    before = {k: v.clone() for k, v in prior.state_dict().items()}
    mask = oes(prior, OP, Y, density, steps=5, scope=scope)
    total = sum(p.numel() for _, p in covered(prior.net, scope))
    assert mask.total == total and mask.kept == int(density * total)
    assert all(torch.equal(v, before[k]) for k, v in prior.state_dict().items())
    assert all(p.requires_grad for p in prior.net.parameters())


def test_a_search_makes_the_picture_appear_and_reaches_the_density():
    prior = tiny_prior((32, 32))
    clean = tiny_image((32, 32))
    y = OP.measure(clean)
    found = oes(prior, OP, y, 0.2, steps=300, details=True)
    assert found.history["loss"][-1] < 0.8 * found.history["loss"][0]
    assert found.history["kept"][-1] == pytest.approx(0.4, abs=0.08)
    masked, shuffled = prior.clone(), prior.clone()
    found.mask.apply(masked.net)
    found.mask.shuffled(0).apply(shuffled.net)
    with torch.no_grad():
        gain = lk.metrics.psnr(masked()[0], clean) - lk.metrics.psnr(shuffled()[0], clean)
    assert gain > 1.5
    assert found.at(0.1).kept == int(0.1 * found.mask.total)
    assert (found.at(0.1) & found.mask) == found.at(0.1)


def test_same_seed_same_mask_other_seed_another():
    first, again, other = (oes(tiny_prior(), OP, Y, 0.1, steps=10, seed=s) for s in (0, 0, 1))
    assert first == again != other


def test_interrupted_search_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path):
    path = tmp_path / "search.safetensors"
    options = dict(steps=12, details=True, checkpoint=path, progress=False)
    partial = oes(tiny_prior(), PressesCtrlC(7), Y, 0.1, **options)
    assert partial.interrupted and partial.steps == 7
    same = PressesCtrlC(-1)
    resumed = oes(tiny_prior(), same, Y, 0.1, **options)
    whole = oes(tiny_prior(), OP, Y, 0.1, **(options | {"checkpoint": None}))
    assert not resumed.interrupted and resumed.steps == 12
    assert all(torch.equal(resumed.logits[n], v) for n, v in whole.logits.items())
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])
    with pytest.raises(lk.InputError, match="another search: its lr differ"):
        oes(tiny_prior(), same, Y, 0.1, lr=0.2, **options)
    path.write_bytes(b"no such thing")
    with pytest.raises(lk.FileError, match="no readable checkpoint"):
        oes(tiny_prior(), OP, Y, 0.1, **options)


def test_a_half_learned_mask_is_not_handed_out_in_silence(tmp_path):
    path = tmp_path / "search"
    how = dict(steps=12, progress=False)
    with pytest.raises(KeyboardInterrupt, match="interrupted at step 5 of 12.*details=True"):
        oes(tiny_prior(), PressesCtrlC(5), Y, 0.1, **how)
    with pytest.raises(KeyboardInterrupt, match=rf"at step 5 of 12; .*{path.name} goes on"):
        oes(tiny_prior(), PressesCtrlC(5), Y, 0.1, checkpoint=path, **how)
    assert path.exists()
    with pytest.raises(KeyboardInterrupt, match="interrupted at step 2 of 12"):
        oes_multi(tiny_prior(), [PressesCtrlC(2), OP], [Y, Y], 0.1, **how)
    found = oes_multi(tiny_prior(), [PressesCtrlC(2), OP], [Y, Y], 0.1, details=True, **how)
    assert found.interrupted and found.steps == 2
    assert not oes(tiny_prior(), OP, Y, 0.1, details=True, **how).interrupted


def test_probabilities_for_each_layer():
    prior = tiny_prior()
    p0 = {n: 0.5 if n.startswith("head") else 0.01 for n, _ in covered(prior.net, "all")}
    found = oes(prior, OP, Y, 0.1, p0=p0, lam=1.0, steps=300, lr=0.1, details=True)
    kept = {n: float(v.sigmoid().mean()) for n, v in found.logits.items()}
    assert kept["head.weight"] == pytest.approx(0.5, abs=0.02)
    assert kept["down0a.conv.weight"] == pytest.approx(0.01, abs=0.008)


def test_auto_density_keeps_a_fifth_of_a_weight_for_each_value():
    prior = lk.Prior("oes", 64, levels=3)
    mask = oes(prior, OP, OP.measure(tiny_image((64, 64))), "auto", steps=1)
    assert mask.kept == pytest.approx(0.2 * 3 * 64 * 64, abs=1)
    assert auto_density(tiny_prior((64, 64)), "conv") == pytest.approx(2457.6 / 3632)


def test_any_operator_and_prior():
    decoder = lk.Prior("deep-decoder", (16, 16), levels=1, width=8)
    inpaint = lk.physics.Inpaint.random((3, 16, 16), density=0.5, seed=0)
    assert oes(decoder, inpaint, inpaint.measure(CLEAN), 0.5, steps=3).density == 0.5
    ys = [OP.measure(CLEAN, seed=0), OP.measure(1 - CLEAN, seed=1)]
    joint = oes_multi(tiny_prior(), OP, ys, 0.1, steps=3, details=True)
    assert joint.mask.kept == 387 and len(joint.logits) == 46


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(density=0), "density is the fraction"),
        (dict(steps=0), "steps must be a whole number"),
        (dict(lr=0), "lr must be 'auto' or a number above 0"),
        (dict(lam=-1), "lam must be 'auto' or a number of at least 0"),
        (dict(p0=1.0), "p0 is a probability"),
        (dict(p0={"head.weight": 0.5}), "p0 must name every parameter"),
        (dict(reg="l2"), "reg must be one of kl, l1, centred, none"),
        (dict(samples=0), "samples must be"),
        (dict(temperature=0), "temperature must be"),
        (dict(scope="bias"), "scope must be one of"),
        (dict(precision="fp8"), "precision must be one of"),
    ],
)
def test_bad_input_is_one_clear_sentence(options, message):
    with pytest.raises(lk.InputError, match=message):
        oes(tiny_prior(), OP, Y, **({"steps": 2} | options))


def test_a_measurement_of_another_size_is_refused():
    with pytest.raises(lk.InputError, match="the measurement has shape"):
        oes(tiny_prior(), OP, torch.rand(3, 8, 8), 0.1, steps=2)

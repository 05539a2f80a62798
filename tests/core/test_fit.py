"""The training loop does what it says: equal to loops written out, repeatable to the bit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import lipkit as lk
from lipkit.testing import tiny_prior
from tests.support.tiny_fit import (
    CLEAN,
    EVERYTHING,
    MASK,
    Garbage,
    Y,
    assert_same_fit,
    outputs,
    quick,
)

# --- the same as loops written out --------------------------------------------------------------


def plain_loop(
    prior, y, steps, *, lr=0.01, weight_decay=0.0, input_noise=0.0, langevin=0.0, seed=0
):
    """What fit does, as plainly as it can be said, in the precision of the prior."""
    net, z = copy.deepcopy(prior.net), prior.z
    adam = torch.optim.Adam(net.parameters(), lr, weight_decay=weight_decay)
    draw, losses = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        noisy = z + input_noise * torch.randn(z.shape, generator=draw) if input_noise else z
        out = net(noisy)
        loss = (out - y).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if langevin:
            with torch.no_grad():
                for p in net.parameters():
                    if p.ndim == 4:
                        p += langevin * torch.randn(p.shape, generator=draw)
        losses.append(loss.item())
    return out.detach()[0], losses, net


def assert_close_weights(a, b) -> None:
    theirs = dict(b.named_parameters())
    for name, mine in a.named_parameters():
        # batch norm takes shifts before it away: their gradient is nothing but rounding
        if mine.ndim == 4:
            torch.testing.assert_close(mine, theirs[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.003},
        {"weight_decay": 0.1},
        {"input_noise": 0.05},
        {"langevin": 0.02},
        {"input_noise": 0.05, "langevin": 0.02, "weight_decay": 0.01, "seed": 9},
    ],
    ids=str,
)
def test_fit_is_the_plain_loop(options):
    prior, y = tiny_prior().double(), Y.double()
    image, losses, net = plain_loop(prior, y, 25, **options)
    fit = quick(prior, y=y, steps=25, **options)
    np.testing.assert_allclose(fit.history["loss"], losses, rtol=1e-6)
    torch.testing.assert_close(fit.image, image, rtol=1e-5, atol=1e-6)
    assert_close_weights(fit.net, net)


def test_masked_fit_is_training_the_kept_weights_alone():
    """By hand: one vector of the kept weights, put into place anew at every step."""
    prior, y = tiny_prior().double(), Y.double()
    fixed = {n: p.detach() for n, p in prior.net.named_parameters()}
    kept = MASK.flat()
    covered = torch.cat([fixed[n].flatten() for n in MASK.names])
    vector = covered[kept].clone().requires_grad_()
    others = {n: p.clone().requires_grad_() for n, p in fixed.items() if n not in MASK.names}
    adam = torch.optim.Adam([vector, *others.values()], 0.01, weight_decay=0.05)
    sizes = [fixed[n].numel() for n in MASK.names]
    for _ in range(20):
        flat = torch.zeros_like(covered).masked_scatter(kept, vector)
        parts = zip(MASK.names, flat.split(sizes), strict=True)
        weights = others | {n: part.reshape(fixed[n].shape) for n, part in parts}
        out = torch.func.functional_call(prior.net, weights, (prior.z,))
        adam.zero_grad()
        (out - y).square().mean().backward()
        adam.step()
    # the engine leaves weights without influence alone, which here decay
    fit = quick(prior, y=y, steps=20, mask=MASK, weight_decay=0.05, engine="plain")
    torch.testing.assert_close(fit.image, out.detach()[0], rtol=1e-8, atol=1e-8)
    state = dict(fit.net.named_parameters())
    trained = torch.cat([state[n].detach().flatten() for n in MASK.names])[kept]
    torch.testing.assert_close(trained, vector.detach(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("weight", [0.5, 0.9])
def test_exponential_average_is_its_formula(weight):
    raw = outputs()
    mean = raw[0].clone()
    for x, seen in zip(raw, outputs(average=lk.EMA(weight)), strict=True):
        mean = weight * mean + (1 - weight) * x if x is not raw[0] else mean
        torch.testing.assert_close(seen, mean, rtol=1e-5, atol=1e-6)
    fit = quick(average=weight)
    torch.testing.assert_close(fit.image, mean, rtol=1e-5, atol=1e-6)
    assert_same_fit(fit, quick(average=lk.EMA(weight)))


def test_posterior_mean_is_its_formula():
    """As published, counted from 0: the outputs after 5 that 3 divides, so 6, 9, 12, ..."""
    raw = outputs(steps=20, langevin=0.02)
    fit = quick(steps=20, langevin=0.02, average=lk.PosteriorMean(burn_in=5, every=3))
    want = torch.stack([raw[t] for t in (6, 9, 12, 15, 18)]).mean(0)
    torch.testing.assert_close(fit.image, want, rtol=1e-5, atol=1e-6)
    early = quick(steps=4, langevin=0.02, average=lk.PosteriorMean(burn_in=5, every=3))
    assert torch.equal(early.image, raw[3])  # nothing drawn yet: the last output


def test_posterior_mean_takes_the_published_259_samples():
    mean, count = torch.zeros(()), 0
    rule = lk.PosteriorMean(burn_in=7000, every=50)
    for step in range(1, 20_001):
        mean, count = rule.update(mean, count, step, torch.full((1,), float(step - 1)))
    assert count == 259
    assert float(mean) == pytest.approx(np.mean(range(7050, 20_000, 50)), rel=1e-5)


def test_backtracking_goes_back_to_the_last_good_weights():
    prior, y = tiny_prior().double(), Y.double()
    net = copy.deepcopy(prior.net)
    adam = torch.optim.Adam(net.parameters(), 0.01)
    first = [p.detach().clone() for p in net.parameters()]
    for _ in range(100):
        adam.zero_grad()
        (net(prior.z) - y).square().mean().backward()
        adam.step()
    with torch.no_grad():  # the 101st step: the weights of step 0 again, and no gradient
        for p, good in zip(net.parameters(), first, strict=True):
            p.copy_(good)
            p.grad.zero_()
    adam.step()
    assert_close_weights(quick(prior, Garbage(at=101), y, steps=101, backtrack=5.0).net, net)
    with pytest.raises(AssertionError):
        assert_close_weights(quick(prior, Garbage(at=101), y, steps=101).net, net)


def test_backtracking_leaves_a_good_fit_alone():
    assert_same_fit(quick(steps=120, every=40, backtrack=5.0), quick(steps=120, every=40))
    blown = Garbage(at=101), Garbage(at=101)
    far = quick(op=blown[0], steps=110, every=10, backtrack=1000.0)
    assert_same_fit(far, quick(op=blown[1], steps=110, every=10))


# --- repeatable ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, EVERYTHING | {"mask": MASK}])
def test_the_same_seed_gives_the_same_bits(options):
    assert_same_fit(quick(reference=CLEAN, **options), quick(reference=CLEAN, **options))


@pytest.mark.parametrize("option", [{"input_noise": 0.03}, {"langevin": 0.01}])
def test_another_seed_gives_other_noise(option):
    assert not torch.equal(quick(seed=0, **option).image, quick(seed=1, **option).image)


@pytest.mark.parametrize("rule", [None, lk.stop.WMV(3, 4), lk.stop.EMV(0.1, 4, 2)])
@pytest.mark.parametrize("every", [1, 5])
def test_the_reference_changes_nothing_but_metrics(rule, every):
    options = EVERYTHING | {"mask": MASK, "stop": rule, "every": every, "steps": 30}
    without = quick(**options)
    for reference in (CLEAN, 1 - CLEAN, torch.rand(3, 16, 16)):
        fit = quick(reference=reference, **options)
        assert_same_fit(fit, without, but=("psnr", "ssim", "psnr_raw", "best"))
    assert without.best is None and np.isnan(without.history["psnr"]).all()


def test_measuring_often_or_seldom_changes_nothing():
    often = quick(steps=20, every=1, reference=CLEAN, **EVERYTHING)
    seldom = quick(steps=20, every=7, **EVERYTHING)
    assert torch.equal(often.image, seldom.image)
    assert often.history["loss"][[6, 13, 19]].tolist() == seldom.history["loss"].tolist()


def test_the_prior_and_the_global_generator_stay_as_they_are():
    prior = tiny_prior()
    before, state = copy.deepcopy(prior.state_dict()), torch.get_rng_state()
    fit = quick(prior, mask=MASK, **EVERYTHING)
    assert all(torch.equal(before[k], v) for k, v in prior.state_dict().items())
    assert all(p.grad is None for p in prior.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert fit.net is not prior.net


def test_automatic_precision_on_a_cpu_is_single():
    assert_same_fit(quick(precision="auto"), quick(precision="fp32"))


def test_half_precision_runs_and_is_close():
    exact, rough = quick(steps=40, every=40), quick(steps=40, every=40, precision="bf16")
    assert rough.image.dtype == torch.float32
    assert not torch.equal(exact.image, rough.image)
    assert lk.metrics.psnr(rough.image, exact.image) > 20
    assert rough.history["loss"][-1] == pytest.approx(exact.history["loss"][-1], rel=0.5)


# --- masks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["conv", "all"])
@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.1},
        {"langevin": 0.02},
        {"precision": "bf16"},
        {"lr": 0.5},
        EVERYTHING,
        EVERYTHING | {"op": Garbage(at=101), "steps": 130, "every": 50},
    ],
)
def test_pruned_weights_are_exactly_zero(scope, options):
    mask = lk.Mask.random(tiny_prior().net, 0.3, scope, seed=2)
    options = copy.deepcopy(options)  # an operator may count its calls
    net = quick(mask=mask, **({"steps": 30, "every": 30} | options)).net
    start, moved = dict(tiny_prior().net.named_parameters()), 0
    for name, parameter in net.named_parameters():
        keep = mask[name] if name in mask.names else torch.ones_like(parameter, dtype=torch.bool)
        assert (parameter[~keep] == 0).all(), name
        moved += int((parameter != start[name])[keep].sum())
    assert moved > 0


def test_a_full_mask_changes_nothing():
    assert_same_fit(quick(mask=lk.Mask.full(tiny_prior().net, "all")), quick())

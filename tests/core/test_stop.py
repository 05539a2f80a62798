"""Stop rules against literal implementations of what was published."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipkit.fitting.stop import EMV, WMV, MaxSteps


def literal_wmv(outputs: list[torch.Tensor], window: int, patience: int):
    """Keep the last outputs, wait while they calm: (end, best step, its picture, its variance)."""
    buffer, best, best_step, image, wait = [], np.inf, 0, None, 0
    for step, x in enumerate(outputs, start=1):
        buffer = [*buffer, x.double().numpy().ravel()][-window:]
        if len(buffer) < window:
            continue
        mean = np.mean(buffer, axis=0)
        variance = np.mean((np.stack(buffer) - mean) ** 2)
        if variance < best:
            best, best_step, image, wait = variance, step, x, 0
        else:
            wait += 1
            if wait >= patience:
                return step, best_step, image, best
    return None, best_step, image, best


def literal_emv(outputs: list[torch.Tensor], weight: float, patience: int, warmup: int):
    mean, variance = outputs[0].double(), 0.0
    best, best_step, image, wait = np.inf, 0, None, 0
    for step, x in enumerate(outputs, start=1):
        delta = x.double() - mean
        mean = torch.clip(mean + weight * delta, 0, 1)
        variance = (1 - weight) * (variance + weight * float((delta**2).sum()))
        if step <= warmup:
            continue
        if variance < best:
            best, best_step, image, wait = variance, step, mean.clone(), 0
        else:
            wait += 1
            if wait >= patience:
                return step, best_step, image, best
    return None, best_step, image, best


def run(rule, outputs: list[torch.Tensor]):
    state = rule.init(outputs[0])
    for step, x in enumerate(outputs, start=1):
        state = rule.update(state, step, x)
        if state["done"]:
            return step, int(state["best_step"]), state["image"], float(state["least"])
    return None, int(state["best_step"]), state["image"], float(state["least"])


def walk(seed: int, steps: int, kind: str) -> list[torch.Tensor]:
    """Outputs of a pretended fit; `ties` and `dark` repeat themselves exactly."""
    draw = torch.Generator().manual_seed(seed)
    shape = (1, 3, 4, 5)
    if kind == "dark":  # nothing but zeros, as a window that is not yet full would hold
        return [torch.zeros(shape)] * steps
    if kind == "ties":  # in eighths every sum is exact, and equal variances equal to the bit
        pool = torch.randint(0, 9, (3, *shape), generator=draw) / 8
        return [pool[int(i)] for i in torch.randint(0, 3, (steps,), generator=draw)]
    pace = torch.rand(steps, generator=draw) * 0.05
    x, out = torch.rand(shape, generator=draw), []
    for p in pace:
        x = (x + p * torch.randn(shape, generator=draw)).clamp(0, 1)
        out.append(2 * x - 0.5 if kind == "beyond" else x)  # a network without a sigmoid
    return out


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["walk", "ties", "dark"]),
    window=st.sampled_from([2, 4, 8]),  # powers of two: the literal mean is exact too
    patience=st.integers(1, 30),
)
def test_wmv_is_the_literal_rule(seed, kind, window, patience):
    outputs = walk(seed, 80, kind)
    stopped, best_step, image, least = run(WMV(window, patience), outputs)
    want = literal_wmv(outputs, window, patience)
    assert (stopped, best_step) == want[:2]
    assert torch.equal(image, want[2])
    assert least == pytest.approx(want[3], rel=1e-9, abs=1e-15)


def test_wmv_at_its_published_window_and_after_many_steps():
    """The running sums of the variance must not drift away from the window they stand for."""
    outputs = walk(0, 1500, "walk")
    rule = WMV(window=100, patience=1000)
    assert run(rule, outputs)[:2] == literal_wmv(outputs, 100, 1000)[:2]
    state = rule.init(outputs[0])
    for step, x in enumerate(outputs, start=1):
        state = rule.update(state, step, x)
    window = torch.stack(outputs[-100:]).double()
    want = window.var(dim=0, correction=0).mean()
    have = state["squares"] / window.numel() - (state["sum"] / 100).square().mean()
    torch.testing.assert_close(have, want, rtol=1e-9, atol=0)


def test_wmv_returns_the_end_of_the_calmest_window():
    calm = [torch.full((1, 1, 2, 2), 0.5)] * 10
    draw = torch.Generator().manual_seed(0)
    wild = [torch.rand(1, 1, 2, 2, generator=draw) for _ in range(20)]
    stopped, best_step, *_ = run(WMV(window=5, patience=12), wild[:10] + calm + wild[10:])
    assert best_step == 15 and stopped == 27


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["walk", "ties", "dark", "beyond"]),
    weight=st.sampled_from([0.1, 0.3, 0.5]),
    patience=st.integers(1, 30),
    warmup=st.sampled_from([0, 5, 20]),
)
def test_emv_is_the_literal_rule(seed, kind, weight, patience, warmup):
    outputs = [x.double() for x in walk(seed, 80, kind)]
    stopped, best_step, image, least = run(EMV(weight, patience, warmup), outputs)
    want = literal_emv(outputs, weight, patience, warmup)
    assert (stopped, best_step) == want[:2]
    torch.testing.assert_close(image, want[2], rtol=1e-12, atol=1e-12)
    assert least == pytest.approx(want[3], rel=1e-9, abs=1e-15)


def test_published_defaults():
    assert WMV() == WMV(window=100, patience=1000)
    assert EMV() == EMV(weight=0.1, patience=1000, warmup=100)


def test_max_steps():
    x = torch.zeros(1)
    rule = MaxSteps(3)
    assert [bool(rule.update(rule.init(x), s, x)["done"]) for s in (1, 2, 3, 4)] == [0, 0, 1, 1]


@pytest.mark.parametrize("rule", [WMV(5, 7), EMV(0.1, 7, 0)])
def test_a_reason_is_a_sentence_with_the_step(rule):
    assert "7 steps" in rule.reason(100, 12) and "step 12" in rule.reason(100, 12)

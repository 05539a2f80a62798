"""What makes a fit fast changes nothing: smaller and reordered networks beside the plain ones."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

import lipkit as lk
from lipkit.engine import boxed, choose, cost, drop_channels
from lipkit.testing import tiny_image, tiny_prior
from tests.engine.constants import exact_constants
from tests.support.tiny_fit import EVERYTHING, assert_same_fit, quick

pytestmark = pytest.mark.filterwarnings("ignore::lipkit.masks.LayerCollapseWarning")

SMALL = dict(levels=3, down=(6, 8, 10), up=(6, 8, 10), in_channels=4)
PRIORS = {
    "dip": lambda: lk.Prior("dip", (35, 26), **SMALL, skip=2),
    "dip, zero padding": lambda: lk.Prior("dip", (35, 26), **SMALL, skip=2, pad="zeros"),
    "one skip": lambda: lk.Prior("dip", (32, 24), **SMALL, skip=(0, 3, 0), upsample="nearest"),
    "oes": lambda: lk.Prior("oes", (42, 33), **SMALL),
    "oes, zero padding": lambda: lk.Prior("oes", (32, 24), **SMALL, pad="zeros"),
    "max pooling": lambda: lk.Prior("oes", (24, 32), **SMALL, downsample="max", sigmoid=False),
    "deep-decoder": lambda: lk.Prior("deep-decoder", (32, 24), levels=2, width=10),
    "decoder, late": lambda: lk.Prior("deep-decoder", (32, 24), levels=2, width=9,
                                      upsample_first=False),
}  # fmt: skip


def made(kind: str) -> lk.Prior:
    """In double precision, with norms and biases that are not all alike."""
    prior = PRIORS[kind]().double()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in prior.net.parameters():
            if p.ndim == 1:
                p.add_(0.3 * torch.randn(p.shape, generator=draw, dtype=p.dtype))
    return prior


def learned_like(net: nn.Module, seed: int, scope: str = "all") -> lk.Mask:
    """Denser towards the end, with channels that are empty on either side."""
    draw = torch.Generator().manual_seed(seed)
    full = lk.Mask.full(net, scope)
    keep = {}
    for i, name in enumerate(full.names):
        m = torch.rand(full[name].shape, generator=draw) < 0.1 + 0.4 * i / len(full.names)
        if m.ndim == 4:
            m &= torch.rand(m.shape[0], 1, 1, 1, generator=draw) < 0.7
            m &= torch.rand(1, m.shape[1], 1, 1, generator=draw) < 0.7
        keep[name] = m
    keep["head.weight"][:, :2] = True  # so that there is a picture
    return lk.Mask(keep)


def without(mask: lk.Mask, *names: str) -> lk.Mask:
    """The mask, with nothing left of some parameters."""
    keep = {n: mask[n] for n in mask.names}
    return lk.Mask(keep | {n: torch.zeros_like(keep[n]) for n in names})


def trained(net: nn.Module, mask: lk.Mask, prior: lk.Prior, steps: int = 6) -> list[torch.Tensor]:
    """The outputs of some steps of Adam on the kept weights."""
    pairs, outputs = mask.pairs(net), []
    target = torch.rand(prior().shape, generator=torch.Generator().manual_seed(2)).double()
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):
        outputs.append(prior.crop(net(prior.z)))
        adam.zero_grad()
        (outputs[-1] - target).square().mean().backward()
        for p, m in pairs:
            p.grad.mul_(m)
        adam.step()
    return [x.detach() for x in outputs]


def assert_compaction_is_exact(prior: lk.Prior, mask: lk.Mask, multiple: int = 1) -> float:
    """Outputs and kept weights while both are trained; returns the part of the channels left.

    All run with `exact_constants`, which says why.
    """
    mask.apply(prior.net)
    full = copy.deepcopy(prior.net)
    small = drop_channels(prior.net, mask, multiple)
    before = nn.utils.parameters_to_vector(prior.net.parameters()).detach()
    with exact_constants(full):
        theirs = trained(full, mask, prior)
        last = full(prior.z)
    with exact_constants(small.net):
        ours = trained(small.net, small.mask, prior)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)  # Adam divides by small gradients
    small.write_back()
    with exact_constants(prior.net):
        torch.testing.assert_close(prior.net(prior.z), last, rtol=0, atol=1e-7)
    vector = nn.utils.parameters_to_vector(prior.net.parameters()).detach()
    places = small.positions()
    assert torch.equal(vector[places], nn.utils.parameters_to_vector(small.net.parameters()))
    rest = torch.ones_like(vector, dtype=torch.bool)
    rest[places] = False
    assert torch.equal(vector[rest], before[rest])
    return small.channels[0] / small.channels[1]


@pytest.mark.parametrize("kind", PRIORS)
def test_compaction_changes_neither_outputs_nor_training(kind):
    for mask, multiple in (
        (learned_like(made(kind).net, seed=0), 1),
        (learned_like(made(kind).net, seed=1, scope="conv"), 4),
        (lk.Mask.random(made(kind).net, 0.1, "conv"), 1),
    ):
        assert assert_compaction_is_exact(made(kind), mask, multiple) < 0.95


@pytest.mark.parametrize(
    ("kind", "emptied"),
    [
        ("dip", ["down1a.conv.weight"]),
        ("dip", ["skip0.conv.weight", "up1a.conv.weight"]),
        ("dip", ["norm1.weight"]),
        ("dip", ["norm1.bias"]),
        ("oes", ["down2b.conv.weight"]),
        ("oes", ["up1a.norm.weight", "up1a.norm.bias"]),
        ("oes", ["head.weight"]),
        ("oes, zero padding", ["up2a.conv.weight"]),
        ("deep-decoder", ["conv1.weight"]),
        ("deep-decoder", ["norm1.weight", "head.weight"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("scope", ["all", "conv"])
def test_compaction_of_networks_with_emptied_layers(kind, emptied, scope):
    prior = made(kind)
    full = lk.Mask.full(prior.net, scope)
    assert_compaction_is_exact(prior, without(full, *set(emptied) & set(full.names)))


def test_compaction_removes_what_it_can_and_no_more():
    prior = made("oes")
    full = lk.Mask.full(prior.net)
    assert drop_channels(prior.net, full).channels[0] == drop_channels(prior.net, full).channels[1]
    keep = {n: full[n] for n in full.names}
    keep["down1a.conv.weight"][3:] = False  # constant channels
    keep["up1a.conv.weight"][:, 4:] = False  # channels that nobody reads
    small = drop_channels(prior.net, lk.Mask(keep)).net
    assert small.down1a.conv.out_channels == small.down1b.conv.in_channels == 3
    assert small.up2a.conv.out_channels == small.norm1.num_features == 4
    zeros = made("oes, zero padding").net  # where the border shows, constants count
    assert drop_channels(zeros, lk.Mask(keep)).net.down1a.conv.out_channels == 8
    even = drop_channels(prior.net, lk.Mask(keep), multiple=5).net
    assert (even.down1a.conv.out_channels, even.up2a.conv.out_channels) == (5, 5)
    assert drop_channels(nn.Conv2d(3, 3, 1), full) is None


def test_compaction_of_another_network_is_refused():
    with pytest.raises(lk.InputError, match="belongs to another"):
        drop_channels(made("dip").net, lk.Mask.full(made("oes").net))


# --- pooling before the convolution -------------------------------------------------------------


@pytest.mark.parametrize("size", [(24, 32), (33, 27), (25, 40)])
@pytest.mark.parametrize("pad", ["reflect", "zeros"])
def test_pooling_first_gives_the_same_outputs_and_gradients(size, pad):
    net = lk.models.build("oes", **SMALL, pad=pad, sigmoid=False).double()
    twin = boxed(copy.deepcopy(net))
    assert type(net) is type(twin) and list(net.state_dict()) == list(twin.state_dict())
    z = torch.rand(2, 4, *size, dtype=torch.float64)
    outputs = net(z), twin(z)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-10)
    for x in outputs:
        x.square().mean().backward()
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-7, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", PRIORS)
def test_pooling_first_gives_the_same_picture_of_every_kind(kind):
    prior = made(kind)
    torch.testing.assert_close(boxed(prior.net)(prior.z), prior.net(prior.z), rtol=0, atol=1e-10)


def test_only_average_pooling_is_moved():
    for changes in ({}, {"downsample": "max"}):
        net = lk.models.build("dip", **SMALL, **changes)
        assert boxed(net) is net
    assert boxed(decoder := PRIORS["deep-decoder"]().net) is decoder


# --- multiply-adds ------------------------------------------------------------------------------


def test_the_cost_is_that_of_the_formula_and_leaves_the_network_alone():
    prior = lk.Prior("oes", (40, 24), levels=2, down=4, up=4, in_channels=3)
    before = copy.deepcopy(prior.state_dict())
    full, half, quarter = 40 * 24, 20 * 12, 10 * 6
    down = 25 * (3 * 4 * full + 4 * 4 * half + 4 * 4 * half + 4 * 4 * quarter)
    want = down + 9 * (4 * 4 * half + 4 * 4 * full) + 4 * 3 * full
    keep = {"head.weight": torch.ones(3, 4, 1, 1, dtype=torch.bool)}
    keep["head.weight"][0] = False
    found = cost(prior.net, prior.z, lk.Mask(keep))
    outputs = 4 * (full + half + half + quarter) + 4 * (half + full) + 3 * full
    assert found == (want, want - 4 * full, outputs)
    assert cost(prior.net, prior.z).density == 1
    assert prior.net.training
    assert all(torch.equal(v, before[k]) for k, v in prior.state_dict().items())


# --- what a fit makes of it ---------------------------------------------------------------------

CLEAN = tiny_image((32, 24))
NOISY = lk.physics.Denoise(0.1).measure(CLEAN)


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    """The networks here are smaller than those that the engine takes."""
    monkeypatch.setattr(choose, "SMALL", 0)


@pytest.fixture
def narrow(monkeypatch) -> None:
    """Smaller networks of any number of channels: the ones here are narrow."""
    monkeypatch.setattr(choose, "EVEN", 1)


def masked(prior: lk.Prior, seed: int = 0) -> dict:
    return dict(prior=prior, y=NOISY, mask=learned_like(prior.net, seed))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"input_noise": 0.05, "seed": 3},
        {"average": 0.9, "weight_decay": 0.01},
        {"stop": lk.stop.WMV(3, 4), "lr": 0.1},
        {"stop": lk.stop.EMV(0.1, 4, 2)},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["one skip", "oes, zero padding", "deep-decoder"])
def test_the_engine_fits_what_the_plain_loop_fits(kind, options, narrow):
    options = masked(made(kind)) | {"y": NOISY.double(), "steps": 12} | options
    plain, auto = (quick(**options, engine=how) for how in ("plain", "auto"))
    assert plain.engine == "plain: asked for"
    assert re.fullmatch(r"dense, on \d+ of \d+ channels: .* single precision on a CPU", auto.engine)
    torch.testing.assert_close(auto.image, plain.image, rtol=0, atol=1e-6)
    assert auto.steps == plain.steps and auto.reason == plain.reason
    assert type(auto.net) is type(plain.net)
    z = options["prior"].z
    for mode in (True, False):  # with its running statistics too
        difference = auto.net.train(mode)(z) - auto.net.train(True)(z)
        assert difference.abs().max() < (1e-9 if mode else 0.05)
    torch.testing.assert_close(auto.net(z), plain.net(z), rtol=0, atol=1e-6)
    state = dict(auto.net.named_parameters())
    assert all((state[n][~options["mask"][n]] == 0).all() for n in options["mask"].names)


@pytest.mark.parametrize("kind", ["one skip", "oes", "deep-decoder"])
def test_the_engine_resumes_to_the_bit_and_sees_no_reference(tmp_path, kind, narrow):
    prior = lk.Prior("oes", (32, 24), **SMALL) if kind == "oes" else PRIORS[kind]()
    everything = EVERYTHING | {"langevin": 0.0, "stop": lk.stop.WMV(4, 100)}
    options = masked(prior) | everything | {"steps": 20}
    whole = quick(**options, reference=CLEAN)
    assert "channels" in whole.engine

    def interrupt(snapshot):
        if snapshot.step == 9:
            raise KeyboardInterrupt

    path = tmp_path / "c"
    part = quick(**options, reference=CLEAN, checkpoint=path, callback=interrupt)
    assert part.interrupted and part.engine == whole.engine
    assert_same_fit(quick(**options, reference=CLEAN, checkpoint=path), whole)
    assert_same_fit(quick(**options), whole, but=("psnr", "ssim", "psnr_raw", "best"))
    with pytest.raises(lk.InputError, match="its engine differ"):
        quick(**options, checkpoint=path, engine="plain")


def test_a_fit_says_how_it_was_computed(monkeypatch):
    prior, full = tiny_prior(), lk.Mask.full(tiny_prior().net)
    said = {
        "dense: in bfloat16, as asked for": quick(prior, precision="bf16"),
        "dense: Langevin noise is for all weights": quick(prior, mask=full, langevin=0.1),
        "plain: asked for": quick(prior, mask=full, engine="plain"),
    }
    for sentence, fit in said.items():
        assert fit.engine == sentence
    monkeypatch.undo()
    assert quick(prior, mask=full).engine == "dense: the network is small"
    with pytest.raises(lk.InputError, match="engine must be one of auto, plain, got 'fast'"):
        quick(engine="fast")


def test_why_there_is_no_sparse_step():
    prior = lk.Prior("oes", (64, 48), levels=3)
    few, many = lk.Mask.random(prior.net, 0.05), lk.Mask.random(prior.net, 0.7)
    why = choose.why_not_sparse
    assert why(prior.net, prior.z, few, "auto") == ""
    assert why(prior.net, prior.z, few, "bf16") == "in bfloat16, as asked for"
    assert why(prior.net, prior.z, many, "auto") == "70 % of the multiply-adds are to be done"
    assert "single precision" in why(prior.net, made("dip").z, few, "auto")
    prior.z = prior.z.expand(2, -1, -1, -1)
    assert why(prior.net, prior.z, few, "auto") == "several codes take turns"


# --- the sparse step in a fit -------------------------------------------------------------------


@pytest.fixture
def sparse_fit() -> dict:
    """What makes a fit that is computed sparsely."""
    clean = tiny_image((48, 40))
    prior = lk.Prior("oes", (48, 40), levels=3, down=16, up=16)
    y = lk.physics.Denoise(0.1).measure(clean)
    mask = lk.Mask.random(prior.net, 0.1)
    return dict(prior=prior, y=y, mask=mask, steps=20, every=1)


def test_a_sparse_fit_starts_like_the_plain_one_and_gives_an_ordinary_network(sparse_fit):
    plain, auto = quick(**sparse_fit, engine="plain"), quick(**sparse_fit)
    assert re.fullmatch(r"sparse step for [\d,]+ weights on \d+ of \d+ channels", auto.engine)
    assert auto.history["loss"][0] == pytest.approx(plain.history["loss"][0], rel=1e-5)
    assert auto.history["loss"][-1] == pytest.approx(plain.history["loss"][-1], rel=0.1)
    last = quick(**(sparse_fit | {"steps": 21})).image  # of the weights after 20 steps
    torch.testing.assert_close(auto.net(sparse_fit["prior"].z)[0], last, rtol=0, atol=1e-5)
    state = dict(auto.net.named_parameters())
    assert all((state[n][~sparse_fit["mask"][n]] == 0).all() for n in sparse_fit["mask"].names)
    assert type(auto.net) is type(plain.net)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"input_noise": 0.03, "weight_decay": 1e-4, "average": 0.9, "backtrack": 5.0},
        {"stop": lk.stop.WMV(3, 5), "lr": 0.1},
    ],
    ids=str,
)
def test_a_sparse_fit_resumes_to_the_bit_and_sees_no_reference(tmp_path, sparse_fit, options):
    def interrupt(snapshot):
        if snapshot.step == 6:
            raise KeyboardInterrupt

    options = sparse_fit | options | {"reference": tiny_image((48, 40))}
    whole, path = quick(**options), tmp_path / "c"
    assert whole.engine.startswith("sparse")
    quick(**options, checkpoint=path, callback=interrupt)
    assert_same_fit(quick(**options, checkpoint=path), whole)
    other = quick(**(options | {"reference": None}))
    assert_same_fit(other, whole, but=("psnr", "ssim", "psnr_raw", "best"))


def test_a_narrow_network_takes_the_sparse_step_without_a_mask():
    clean = tiny_image((48, 40))
    prior = lk.Prior("dip", (48, 40), levels=3, down=16, up=16)
    options = dict(prior=prior, y=clean, steps=12, every=1, weight_decay=0.01)
    plain, auto = quick(**options, engine="plain"), quick(**options)
    assert re.fullmatch("sparse step for all [0-9,]+ weights: the network is narrow", auto.engine)
    np.testing.assert_allclose(auto.history["loss"][:3], plain.history["loss"][:3], rtol=2e-3)
    last = quick(**(options | {"steps": 13})).image
    torch.testing.assert_close(auto.net(prior.z)[0], last, rtol=0, atol=1e-5)
    wide = lk.Prior("dip", (48, 40), levels=3, down=64, up=64)
    assert "100 % of the multiply-adds" in quick(wide, y=clean, steps=1).engine


def test_sparse_fits_side_by_side_do_not_disturb_each_other(sparse_fit):
    alone = [quick(**(sparse_fit | {"input_noise": 0.03, "seed": s})) for s in (0, 1)]
    both = lk.parallel(
        lambda s: quick(**(sparse_fit | {"input_noise": 0.03, "seed": s})), (0, 1), workers=2
    )
    for a, b in zip(alone, both, strict=True):
        assert_same_fit(a, b)

"""The networks are the published ones: shapes, names and numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import lipkit as lk

GOLDEN = json.loads((Path(__file__).parents[1] / "golden.json").read_text())


def fill(net: torch.nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """Weights and input by the recipe of golden.json."""
    with torch.no_grad():
        for k, p in enumerate(net.parameters()):
            i = torch.arange(p.numel(), dtype=torch.float64)
            if p.ndim > 1:
                value = torch.sin(0.7 * i + 0.3 * k) * 1.5 / p[0].numel() ** 0.5
            else:
                value = 0.5 + 0.5 * torch.cos(0.9 * i + 0.2 * k)
            p.copy_(value.reshape(p.shape))
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (0.05 + 0.05 * torch.sin(1.3 * i)).reshape(shape)


BUILT = {
    "dip_default": ("dip", {}),
    "dip_inpaint_vase": ("dip-vase", {}),
    "oes_4": ("oes", {"levels": 4}),
    "deep_decoder_5": ("deep-decoder", {}),
}


@pytest.mark.parametrize("key", BUILT)
def test_numbers_of_the_published_networks(key):
    want = GOLDEN["networks"][key]
    name, options = BUILT[key]
    net = lk.models.build(name, **options).double()
    assert [list(p.shape) for p in net.parameters()] == want["shapes"]
    names = lk.models.reference_names(net)
    ours = [n.rpartition(".") for n, _ in net.named_parameters()]
    assert [f"{names[module]}.{leaf}" for module, _, leaf in ours] == want["names"]

    out = net(fill(net, want["input"]))
    out.square().mean().backward()
    out = out.detach()
    flat = out.flatten()
    picked = flat[[j * (flat.numel() - 1) // 15 for j in range(16)]]
    samples = torch.tensor(want["samples"], dtype=torch.float64)
    torch.testing.assert_close(picked, samples, rtol=1e-9, atol=0)
    assert float(out.mean()) == pytest.approx(want["mean"], rel=1e-9)
    assert float(out.std()) == pytest.approx(want["std"], rel=1e-9)
    squares = sum(p.grad.square().sum() for p in net.parameters() if p.grad is not None)
    assert float(squares**0.5) == pytest.approx(want["grad_norm_total"], rel=1e-9)


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("dip", {}, 2_217_831),
        ("oes", {}, 3_008_867),
        ("deep-decoder", {}, 100_224),
        ("deep-decoder", {"levels": 6}, 116_864),
        ("deep-decoder", {"width": 320}, 619_200),
    ],
)
def test_published_parameter_counts(name, options, count):
    assert sum(p.numel() for p in lk.models.build(name, **options).parameters()) == count


@pytest.mark.parametrize("name", lk.models.PRESETS)
def test_every_network_makes_a_prior(name):
    """Its sides are those that it tells, and experiments can choose its channels and its range."""
    known = lk.models.options(name)
    tiny = {option: n for option, n in (("levels", 2), ("width", 8)) if option in known}
    prior = lk.Prior(name, (21, 30), out_channels=1, sigmoid=False, **tiny)
    assert prior().shape == (1, 1, 21, 30)
    net = prior.net
    size = prior.net_size
    assert net(prior.z).shape[2:] == size
    assert tuple(net.output_side(side) for side in size) == size
    assert prior.z.shape[2:] == tuple(net.input_side(side) for side in size)


PUBLISHED = (lk.models.Hourglass, lk.models.DeepDecoder)  # networks whose parameters have names


@pytest.mark.parametrize(
    "name", [n for n, (net, _) in lk.models.PRESETS.items() if net in PUBLISHED]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_load_reference_round_trip(name, prefix):
    torch.manual_seed(0)
    theirs, ours = lk.models.build(name), lk.models.build(name)
    names = lk.models.reference_names(theirs)
    state = {}
    for key, value in theirs.state_dict().items():
        module, _, leaf = key.rpartition(".")
        state[f"{prefix}{names[module]}.{leaf}"] = value
    lk.models.load_reference(ours, state)
    for a, b in zip(theirs.state_dict().values(), ours.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_load_reference_refuses_another_network():
    dip, oes = lk.models.build("dip"), lk.models.build("oes")
    names = lk.models.reference_names(dip)
    state = {f"{names['head']}.weight": torch.zeros(3, 128, 1, 1)}
    with pytest.raises(lk.InputError, match="lacks .* that this network needs"):
        lk.models.load_reference(oes, state)
    full = {}
    for key, value in dip.named_parameters():
        module, _, leaf = key.rpartition(".")
        full[f"{names[module]}.{leaf}"] = value
    full[f"{names['head']}.weight"] = torch.zeros(1, 128, 1, 1)
    with pytest.raises(lk.InputError, match="shape"):
        lk.models.load_reference(dip, full)


def test_unknown_names_and_options_say_what_there_is():
    with pytest.raises(lk.InputError, match="unknown network 'dipp'.*Did you mean 'dip'"):
        lk.models.build("dipp")
    with pytest.raises(lk.InputError, match="no option 'level'.*'levels'.*downsample="):
        lk.models.build("oes", level=3)
    with pytest.raises(lk.InputError, match="levels"):
        lk.models.build("oes", levels=7)
    with pytest.raises(lk.InputError, match="upsample must be one of bilinear, nearest"):
        lk.models.build("dip", upsample="cubic")


@pytest.mark.parametrize("side", [34, 41, 63, 64, 65, 100])
@pytest.mark.parametrize("name", ["dip", "dip-snail", "dip-kate", "dip-vase", "dip-library"])
def test_output_side_predicts_the_network(name, side):
    options = {"levels": 3} if name == "dip-library" else {}
    net = lk.models.build(name, **options)
    channels = next(net.parameters()).shape[1]
    out = net(torch.rand(1, channels, side, 64))
    assert net.output_side(side) == out.shape[2]


def test_output_side_knows_what_the_network_refuses():
    net = lk.models.build("dip")
    assert net.output_side(32) is None and net.output_side(33) == 33
    with pytest.raises((RuntimeError, ValueError)):
        net(torch.rand(1, 32, 32, 64))
    assert lk.models.build("oes").output_side(191) is None
    assert lk.models.build("oes").output_side(224) == 192

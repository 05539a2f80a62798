"""A network that its user brought along: fits, searches, masks of PyTorch's pruning, files."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import lipkit as lk

CLEAN = lk.testing.tiny_image()
OP = lk.physics.Denoise(sigma=0.1)
Y = OP.measure(CLEAN)


class Grown(nn.Module):
    """Of things that no network of lipkit has: transposed convolutions, group norms, a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(3, 12)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.gate = nn.Parameter(torch.ones(8, 1, 1))
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, z):
        return self.head(self.gate * self.up(self.norm(self.first(z)).relu())).sigmoid()


class Coordinates(nn.Module):
    """No convolution at all: colours of coordinates."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 3), nn.Sigmoid())

    def forward(self, z):
        return self.layers(z.movedim(1, -1)).movedim(-1, 1)


def grown(seed: int = 0, side: int = 8) -> lk.Prior:
    torch.manual_seed(seed)
    return lk.Prior.of(Grown(), torch.rand(1, 8, side, side))


def coordinates(seed: int = 0) -> lk.Prior:
    torch.manual_seed(seed)
    line = torch.linspace(-1, 1, 16)
    return lk.Prior.of(Coordinates(), torch.stack(torch.meshgrid(line, line, indexing="xy"))[None])


both = pytest.mark.parametrize("make", [grown, coordinates])


def by_hand(prior: lk.Prior, mask: lk.Mask, steps: int, lr: float) -> torch.Tensor:
    """The loop as anyone would write it."""
    net = copy.deepcopy(prior.net)
    mask.apply(net)
    adam = torch.optim.Adam(net.parameters(), lr)
    for _ in range(steps):
        x = net(prior.z)
        loss = (x - Y).square().mean()
        adam.zero_grad()
        loss.backward()
        for parameter, m in mask.pairs(net):
            parameter.grad.mul_(m)
        adam.step()
    return x[0].detach()


@both
def test_a_masked_fit_is_the_plain_loop(make):
    prior = make()
    mask = lk.Mask.random(prior.net, density=0.4)
    before = copy.deepcopy(prior.state_dict())
    fit = lk.fit(prior, OP, Y, mask=mask, steps=30, progress=False)
    torch.testing.assert_close(fit.image, by_hand(prior, mask, 30, 0.01), atol=1e-4, rtol=0)
    assert fit.engine.startswith("plain: a network of your own")
    assert all(not p[m == 0].any() for p, m in mask.pairs(fit.net)), "pruned weights stay zero"
    assert all(torch.equal(v, before[k]) for k, v in prior.state_dict().items())


@both
@pytest.mark.parametrize("method", ["random", "magnitude", "snip", "grasp", "synflow"])
def test_masks_at_initialization_are_found(make, method):
    prior = make()
    mask = getattr(lk.find, method)(prior, OP, Y, density=0.3)
    assert mask.kept == int(0.3 * mask.total)
    mask.pairs(prior.net)


@both
def test_masks_are_searched(make):
    prior = make()
    found = lk.find.imp(prior, OP, Y, density=0.5, steps=10)
    assert found.mask.density == pytest.approx(0.5, abs=0.01)
    assert lk.find.oes(prior, OP, Y, density=0.3, steps=10).density == pytest.approx(0.3, abs=0.01)
    several = lk.find.imp_multi(prior, OP, [Y, Y.flip(-1)], density=0.6, steps=5)
    assert several.mask.density == pytest.approx(0.6, abs=0.1)


def test_stop_rules_checkpoints_and_averages_work(tmp_path):
    prior = grown()
    rule = lk.stop.WMV(window=5, patience=5)
    fit = lk.fit(prior, OP, Y, steps=200, stop=rule, average=0.9, progress=False)
    assert fit.steps <= 200
    path = tmp_path / "half.safetensors"
    lk.fit(prior, OP, Y, steps=10, checkpoint=path, progress=False)
    resumed = lk.fit(prior, OP, Y, steps=20, checkpoint=path, progress=False)
    whole = lk.fit(prior, OP, Y, steps=20, progress=False)
    assert torch.equal(resumed.image, whole.image)


def test_a_picture_is_cropped_to_its_size():
    prior = grown()
    assert prior().shape == (1, 3, 16, 16)
    small = lk.Prior.of(prior.net, prior.z, size=(12, 15))
    assert torch.equal(small(), prior()[..., 2:14, :15])


@both
def test_a_ticket_stores_the_weights(make, tmp_path):
    prior = make()
    mask = lk.Mask.random(prior.net, density=0.3, seed=1)
    path = tmp_path / "own.ticket"
    lk.Ticket(mask, prior.recipe, start=prior).save(path)
    ticket = lk.Ticket.load(path)
    another = make(seed=5)  # of other weights
    again = ticket.prior(of=another)
    wanted = lk.fit(prior, OP, Y, mask=mask, steps=10, progress=False).image
    z = lk.Prior.of(again.net, prior.z)
    assert torch.equal(lk.fit(z, OP, Y, mask=ticket.mask, steps=10, progress=False).image, wanted)
    there = dict(another.net.named_parameters())
    assert any(not torch.equal(p, there[n]) for n, p in again.net.named_parameters())
    assert "one of your own" in ticket.describe() and "stored" in ticket.describe()
    with pytest.raises(lk.InputError, match=r"ticket.prior\(of=lipkit.Prior.of"):
        ticket.prior()
    with pytest.raises(lk.InputError, match="another network"):
        ticket.prior(of=grown() if make is coordinates else coordinates())
    with pytest.raises(lk.InputError, match="does not say how it is built"):
        ticket.fresh(seed=3)


def test_a_changed_weight_of_a_ticket_is_noticed(tmp_path):
    from safetensors.numpy import load_file, save

    prior = grown()
    path = tmp_path / "own.ticket"
    mask = lk.Mask.random(prior.net, density=0.3)
    lk.Ticket(mask, prior.recipe, start=prior).save(path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    text = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]["lipkit"]
    tensors = load_file(path)
    tensors["start"][7] += 0.5
    path.write_bytes(save(tensors, {"lipkit": text}))
    with pytest.raises(lk.FileError, match="its checksum differs"):
        lk.Ticket.load(path)


def test_tickets_need_the_weights_of_such_networks_and_only_of_them():
    prior = grown()
    mask = lk.Mask.random(prior.net, density=0.3)
    with pytest.raises(lk.InputError, match=r"start=prior"):
        lk.Ticket(mask, prior.recipe)
    tiny = lk.testing.tiny_prior()
    ticket = lk.Ticket(lk.Mask.random(tiny.net, density=0.3), tiny.recipe)
    with pytest.raises(lk.InputError, match="builds its own network"):
        ticket.prior(of=prior)


@pytest.mark.parametrize(
    ("net", "z", "words"),
    [
        ("dip", torch.rand(1, 8, 8, 8), "a torch.nn.Module and its code"),
        (Grown(), [1.0], "got a Grown and a list"),
        (Grown(), torch.zeros(1, 8, 8, 8, dtype=torch.int64), "a tensor of floats"),
        (nn.Flatten(), torch.rand(1, 8, 8, 8), "no parameters"),
        (nn.Linear(8, 3), torch.rand(1, 8), "shape \\(1, channels, height, width\\)"),
        (Grown(), torch.rand(2, 8, 8, 8), "shape \\(1, channels, height, width\\)"),
        (Grown(), torch.full((1, 8, 8, 8), torch.nan), "not finite"),
    ],
)  # fmt: skip
def test_what_is_no_prior_is_refused(net, z, words):
    with pytest.raises(lk.InputError, match=words):
        lk.Prior.of(net, z)


def test_a_size_beyond_the_picture_and_a_fresh_code_are_refused():
    prior = grown()
    with pytest.raises(lk.InputError, match="16 x 16 pixels, which is smaller"):
        lk.Prior.of(prior.net, prior.z, size=20)
    with pytest.raises(lk.InputError, match="no law to draw others from"):
        lk.find.image_codes(prior, 2)


# --- torch.nn.utils.prune -------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["conv", "all"])
@pytest.mark.parametrize("make", [grown, coordinates, lambda: lk.Prior("oes", 32, levels=2)])
def test_masks_go_to_prune_and_back(make, scope):
    prior = make()
    mask = lk.Mask.random(prior.net, density=0.3, scope=scope)
    net = mask.to_prune(copy.deepcopy(prior.net))
    assert prune.is_pruned(net)
    torch.testing.assert_close(net(prior.z), mask.apply(copy.deepcopy(prior.net))(prior.z))
    again = lk.Mask.from_prune(net)
    assert again == mask and again.names == mask.names


def test_a_mask_of_prune_is_fitted():
    net = Grown()
    convs = [(m, "weight") for m in net.modules() if isinstance(m, nn.Conv2d)]
    prune.global_unstructured(convs, prune.L1Unstructured, amount=0.5)
    prune.ln_structured(net.up, "weight", amount=0.25, n=2, dim=1)
    mask = lk.Mask.from_prune(net)
    assert mask["up.weight"].sum() == 0.75 * net.up.weight.numel()
    with pytest.raises(lk.InputError, match=r"prune.remove"):
        lk.Prior.of(net, torch.rand(1, 8, 8, 8))
    for module in (net.first, net.head, net.up):
        prune.remove(module, "weight")
    prior = lk.Prior.of(net, torch.rand(1, 8, 8, 8))
    fit = lk.fit(prior, OP, Y, mask=mask, steps=5, progress=False)
    assert int((fit.net.up.weight != 0).sum()) == int(mask["up.weight"].sum())


def test_a_network_that_is_not_pruned_has_no_mask():
    with pytest.raises(lk.InputError, match="is not pruned"):
        lk.Mask.from_prune(Grown())


# --- results as files, and programs -----------------------------------------------------------


@pytest.mark.parametrize("reference", [CLEAN, None])
def test_a_fit_is_saved_and_loaded(tmp_path, reference):
    prior = grown()
    fit = lk.fit(prior, OP, Y, steps=20, every=5, reference=reference, progress=False)
    fit.save(tmp_path / "a.fit")
    again = lk.Fit.load(tmp_path / "a.fit", grown(seed=4))
    assert torch.equal(again.image, fit.image)
    assert (again.best is None) == (fit.best is None)
    assert set(again.history) == set(fit.history)
    assert all((again.history[k] == v).all() or reference is None for k, v in fit.history.items())
    facts = ("steps", "reason", "seconds", "interrupted", "engine")
    assert [getattr(again, f) for f in facts] == [getattr(fit, f) for f in facts]
    state = fit.net.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in again.net.state_dict().items())


def test_a_file_that_is_no_fit_is_refused(tmp_path):
    path = tmp_path / "a.fit"
    with pytest.raises(lk.FileError, match="there is no such file"):
        lk.Fit.load(path, grown())
    lk.fit(grown(), OP, Y, steps=5, progress=False).save(path)
    with pytest.raises(lk.InputError, match="another network"):
        lk.Fit.load(path, coordinates())
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(lk.FileError, match="no whole file as Fit.save writes it"):
        lk.Fit.load(path, grown())


@pytest.mark.parametrize("make", [grown, lambda: lk.Prior("oes", 16, levels=2)])
def test_a_fitted_network_is_exported(make):
    prior = make()
    mask = lk.Mask.random(prior.net, density=0.5)
    fit = lk.fit(prior, OP, Y, mask=mask, steps=5, progress=False)
    net = fit.net.eval()
    program = torch.export.export(net, (prior.z,))
    torch.testing.assert_close(program.module()(prior.z), net(prior.z))

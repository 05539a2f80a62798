"""The sparse step computes what the masked network computes, at the kept weights alone."""

import copy
import subprocess
import sys

import pytest
import torch

import lipkit as lk
from lipkit.engine import sparse_network, why_not
from lipkit.engine.sparse.network import _announce
from tests.engine.constants import exact_constants

ZEROS = dict(pad="zeros", out_channels=2)
NETWORKS = {  # name, options, size of the code, images
    "oes": ("oes", dict(levels=3), (72, 56), 1),
    "oes, two images": ("oes", dict(levels=2, out_channels=1), (33, 50), 2),
    "dip": ("dip", dict(levels=3, down=16, up=16), (50, 71), 2),
    "kate": ("dip-kate", dict(levels=2, down=12, up=12, skip=8, refine=False), (40, 31), 1),
    "vase": ("dip-vase", dict(levels=2, down=12, up=12, sigmoid=False), (40, 36), 1),
    "max": ("dip", dict(levels=2, down=12, up=12, downsample="max", **ZEROS), (41, 38), 2),
    "wide": ("oes", dict(levels=2, kernel_down=7, kernel_up=5, **ZEROS), (36, 44), 1),
    "narrow": (
        "dip-library",
        dict(levels=2, kernel_down=1, kernel_up=1, in_channels=16),
        (24, 36),
        1,
    ),
    "decoder": ("deep-decoder", dict(levels=3, width=24), (5, 7), 1),
    "decoder, late": ("deep-decoder", dict(levels=3, width=24, upsample_first=False), (5, 7), 2),
}


def masked(name, options, size, images, density=0.2, seed=0):
    """A masked network with lively norms, its mask, and a code that asks for its gradient."""
    torch.manual_seed(seed)
    net = lk.models.build(name, **options)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight, 1, 0.2)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    random = lk.Mask.random(net, density, seed=seed)
    head = {"head.weight": torch.ones_like(net.head.weight, dtype=torch.bool)}
    mask = lk.Mask({name: random[name] for name in random.names} | head)
    mask.apply(net)
    z = torch.rand(images, next(net.parameters()).shape[1], *size, requires_grad=True)
    return net, mask, z


def gradients(net, mask, z, given):
    """Of all parameters by name, and of the code, in double precision."""
    net, z = copy.deepcopy(net).double(), z.detach().double().requires_grad_()
    with exact_constants(net):
        net(z).backward(given.double())
    for p, m in mask.pairs(net):
        p.grad.mul_(m)
    return {n: p.grad for n, p in net.named_parameters()}, z.grad


def agree(net, mask, z, tolerance=5e-5):
    """Output and all gradients of the sparse step are those of the masked network."""
    sparse = sparse_network(net, mask)
    out = sparse(z)
    with exact_constants(copy.deepcopy(net).double()) as exact:
        picture = exact(z.detach().double())
    torch.testing.assert_close(out.double(), picture, rtol=0, atol=1e-5)
    given = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    z.grad = None
    out.backward(given)
    expected, of_code = gradients(net, mask, z, given)
    # what `values` holds goes home to the parameters, and so does its gradient
    carrier = copy.deepcopy(sparse)
    carrier.values.data.copy_(sparse.values.grad)
    for p in carrier.graph.net.parameters():
        p.data.zero_()
    carrier.write_back()
    # gradients that are zero, as those of constants in front of a norm, hold nothing but rounding
    floor = 1e-4 * torch.stack([g.norm() for g in expected.values()]).max()
    inert = {f"{name}.bias" for name in sparse.graph.convs} - {"head.bias"}
    for name, p in carrier.graph.net.named_parameters():
        if name not in inert:
            close(p.detach(), expected[name], tolerance, floor, name)
    close(z.grad, of_code, tolerance, 0, "code")
    return sparse


def close(ours, exact, tolerance, floor, name):
    error = (ours.double() - exact).norm()
    assert error <= tolerance * exact.norm() + floor, f"{name}: {error / exact.norm():.1e}"


@pytest.mark.filterwarnings("ignore::lipkit.masks.LayerCollapseWarning")  # `masked` fills it
@pytest.mark.parametrize("case", NETWORKS)
def test_output_and_gradients_are_those_of_the_masked_network(case):
    agree(*masked(*NETWORKS[case]))


def test_a_full_mask_is_computed_too():
    net, _, z = masked("oes", dict(levels=2, down=8, up=8), (36, 28), 1, density=1.0)
    agree(net, lk.Mask.full(net), z)


def test_emptied_channels_change_nothing():
    net, mask, z = masked(*NETWORKS["oes"])
    keep = {name: mask[name] for name in mask.names}
    keep["down0b.conv.weight"][9:] = False  # outputs of nothing
    keep["up1a.conv.weight"][:, ::2] = False  # read by nobody
    emptied = lk.Mask(keep)
    agree(emptied.apply(net), emptied, z)


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
def test_behind_an_emptied_layer_the_picture_is_that_of_no_signal(padding):
    net, mask, z = masked("oes", dict(levels=2, pad=padding), (36, 28), 1)
    keep = {name: mask[name] for name in mask.names}
    keep["down1a.conv.weight"][:] = False
    emptied = lk.Mask(keep)
    emptied.apply(net)
    sparse = sparse_network(net, emptied)
    with exact_constants(copy.deepcopy(net).double()) as exact:
        picture = exact(z.detach().double())
    torch.testing.assert_close(sparse(z).double(), picture, rtol=0, atol=1e-5)
    assert not sparse.graph.convs["down0a.conv"].keep.any()


def test_masks_of_all_parameters_prune_norms_too():
    net, _, z = masked(*NETWORKS["kate"])
    mask = lk.Mask.random(net, 0.2, scope="all", seed=3)
    sparse = agree(mask.apply(net), mask, z)
    assert sparse.values.numel() < mask.kept


def test_training_takes_the_same_path_and_ends_in_the_full_network():
    net, mask, z = masked(*NETWORKS["oes"])
    z = z.detach()
    y = lk.testing.tiny_image((72, 56))[None]
    plain, sparse = copy.deepcopy(net), sparse_network(net, mask)
    losses = []
    for model in (plain, sparse):
        adam = torch.optim.Adam(model.parameters(), lr=0.01)
        path = []
        for _ in range(6):
            adam.zero_grad()
            loss = torch.nn.functional.mse_loss(model(z), y)
            loss.backward()
            for p, m in mask.pairs(plain) if model is plain else ():
                p.grad.mul_(m)
            adam.step()
            path.append(loss.item())
        losses.append(path)
    assert losses[1] == pytest.approx(
        losses[0], rel=5e-3
    )  # as far as single and double precision are apart
    sparse.write_back()
    torch.testing.assert_close(net(z), sparse(z), rtol=0, atol=1e-5)
    assert all(bool((p[m == 0] == 0).all()) for p, m in mask.pairs(net))


def test_results_do_not_depend_on_the_run_or_the_threads():
    net, mask, z = masked(*NETWORKS["dip"])
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            sparse = sparse_network(net, mask)
            out = sparse(z)
            out.square().sum().backward()
            results.append((out.detach(), sparse.values.grad))
    finally:
        torch.set_num_threads(before)
    for out, grad in results[1:]:
        assert torch.equal(out, results[0][0])
        assert torch.equal(grad, results[0][1])


SEVERAL_STEPS = """
import torch, lipkit as lk
torch.set_num_threads({threads})
prior = lk.Prior("dip", 64, 0, levels=3, down=24, up=24)
y = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
fit = lk.fit(prior, lk.physics.Denoise(0.1), y, steps=5, progress=False)
print(fit.engine[:6], float(fit.image.double().square().sum()))
"""


def test_results_do_not_depend_on_what_a_process_does_first():
    said = {
        subprocess.run(
            [sys.executable, "-c", SEVERAL_STEPS.format(threads=threads)],
            capture_output=True, text=True, check=True,
        ).stdout
        for threads in (1, 2)
    }  # fmt: skip
    assert len(said) == 1 and said.pop().startswith("sparse")


def test_backward_belongs_to_its_own_forward():
    net, mask, z = masked(*NETWORKS["oes"])
    sparse = sparse_network(net, mask)
    sparse(z).sum().backward()
    first, sparse.values.grad = sparse.values.grad, None
    out = sparse(z)
    with torch.no_grad():
        other = sparse(z + 0.1)
    out.sum().backward()
    assert torch.equal(sparse.values.grad, first)
    with torch.no_grad():
        z += 0.1  # in place: the code is read anew
    assert torch.equal(sparse(z), other)


def test_what_it_cannot_compute_is_refused_with_the_reason(monkeypatch):
    net, mask, _ = masked(*NETWORKS["oes"])
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3))
    mask_of_other = lk.Mask.random(other, 0.1)
    assert sparse_network(other, mask_of_other) is None
    assert "Sequential" in why_not(other, mask_of_other)
    net.down0a.norm.eps = 1e-3
    assert "down0a.norm" in why_not(net, mask)
    net.down0a.norm.eps = 1e-5
    assert why_not(net, mask) == ""
    monkeypatch.setitem(sys.modules, "numba", None)  # as if it were not installed
    assert sparse_network(net, mask) is None and "numba" in why_not(net, mask)


def test_codes_that_do_not_fit_are_refused():
    net, mask, z = masked(*NETWORKS["oes"])
    sparse = sparse_network(net, mask)
    for code, text in ((z[:, :3], "32 channels"), (z.double(), "float32"), (z[..., :8], "small")):
        with pytest.raises(lk.Error, match=text):
            sparse(code)
    with pytest.raises(lk.Error, match="train mode"):
        sparse.eval()(z)


@pytest.mark.parametrize(("disabled", "said"), [("", True), ("1", False)])
def test_compiling_is_announced_where_progress_is_shown(disabled, said, capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", disabled)
    _announce.__wrapped__()
    assert ("compiling the sparse step" in capsys.readouterr().err) == said

"""The progressive GAN is the published one, and its files load without running anything."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import sys
import threading
import types
from pathlib import Path

import pytest
import torch

import lipkit as lk
from lipkit.data import registry
from lipkit.models.pgan import Equalized

GOLDEN = json.loads((Path(__file__).parents[1] / "golden.json").read_text())
SMALL = {"latent": 8, "depth0": 8, "scales": (8, 4)}


def test_numbers_of_the_published_generator():
    want = GOLDEN["networks"]["pgan_small"]
    net = lk.models.build("pgan", latent=16, depth0=16, scales=[16, 8]).double()
    assert [list(p.shape) for p in net.parameters()] == want["shapes"]
    names = lk.models.reference_names(net)
    ours = [n.rpartition(".") for n, _ in net.named_parameters()]
    assert [f"{names[module]}.{leaf}" for module, _, leaf in ours] == want["names"]
    with torch.no_grad():
        for k, p in enumerate(net.parameters()):
            i = torch.arange(p.numel(), dtype=torch.float64)
            wave = torch.sin(0.7 * i + 0.3 * k) * 1.5 / p[0].numel() ** 0.5
            p.copy_((wave if p.ndim > 1 else 0.5 + 0.5 * torch.cos(0.9 * i + 0.2 * k)).view_as(p))
    i = torch.arange(32, dtype=torch.float64)
    out = net(((0.05 + 0.05 * torch.sin(1.3 * i)) * 20 - 1).reshape(2, 16))
    out.square().mean().backward()
    flat = out.detach().flatten()
    picked = flat[[j * (flat.numel() - 1) // 15 for j in range(16)]]
    samples = torch.tensor(want["samples"], dtype=torch.float64)
    torch.testing.assert_close(picked, samples, rtol=1e-9, atol=0)
    assert float(flat.mean()) == pytest.approx(want["mean"], rel=1e-9)
    assert float(flat.std()) == pytest.approx(want["std"], rel=1e-9)
    squares = sum(p.grad.square().sum() for p in net.parameters() if p.grad is not None)
    assert float(squares**0.5) == pytest.approx(want["grad_norm_total"], rel=1e-9)


@pytest.mark.parametrize(
    ("name", "more", "count"),
    [
        ("pgan", (), 23_051_989),
        ("pgan", (32,), 23_079_800),
        ("pgan-critic", (), 23_052_353),
        ("pgan-critic", (32,), 23_080_225),
    ],
)
def test_published_parameter_counts(name, more, count):
    with torch.device("meta"):
        net = lk.models.build(name, scales=(512, 512, 512, 256, 128, 64, *more))
    assert sum(p.numel() for p in net.parameters()) == count


def test_the_bias_is_scaled_as_the_weights_are():
    layer = Equalized(4, 2)
    with torch.no_grad():
        layer.bias.fill_(1)
    torch.testing.assert_close(layer(torch.zeros(1, 4)), torch.full((1, 2), 0.5**0.5))


@pytest.mark.parametrize(
    ("latent", "depth0", "scales"), [(3, 5, ()), (7, 4, (6,)), (2, 3, (5, 4, 2))]
)
def test_sizes_of_every_kind(latent, depth0, scales):
    net = lk.models.build("pgan", latent=latent, depth0=depth0, scales=scales)
    critic = lk.models.build("pgan-critic", depth0=depth0, scales=scales)
    for scale in range(len(scales) + 1):
        x = net(torch.randn(6, latent), scale=scale)
        assert x.shape == (6, 3, 4 * 2**scale, 4 * 2**scale)
        assert critic(x, scale=scale, alpha=0.4).shape == (6,)
    assert net.side == 4 * 2 ** len(scales)


def test_alpha_blends_with_the_scale_before():
    torch.manual_seed(0)
    net, z = lk.models.build("pgan", **SMALL), torch.randn(3, 8)
    new, old = net(z), torch.nn.functional.interpolate(net(z, scale=1), scale_factor=2)
    torch.testing.assert_close(net(z, alpha=0.3), 0.7 * new + 0.3 * old)
    critic = lk.models.build("pgan-critic", depth0=8, scales=(8, 4))
    before = critic(torch.nn.functional.avg_pool2d(new, 2), scale=1)
    torch.testing.assert_close(critic(new, alpha=1.0), before)
    torch.testing.assert_close(critic(new, alpha=1e-7), critic(new), atol=1e-5, rtol=1e-5)


def test_the_critic_sees_that_all_pictures_are_the_same():
    torch.manual_seed(0)
    critic = lk.models.build("pgan-critic", depth0=8, scales=(8, 4))
    x = torch.randn(8, 3, 16, 16)
    same = x[:1].expand(8, -1, -1, -1)
    assert (critic(same)[0] - critic(x)[0]).abs() > 1e-3
    torch.testing.assert_close(critic(x)[:4], critic(x[:4]))  # in groups of four


# --- published files ------------------------------------------------------------------------------


def published(tmp_path: Path, wrap: str, config: object, zipped: bool = False) -> tuple[Path, dict]:
    """A checkpoint of the published layout, and the three networks in it."""
    nets = {"netG": lk.models.build("pgan", **SMALL), "avgG": lk.models.build("pgan", **SMALL)}
    nets["netD"] = lk.models.build("pgan-critic", depth0=8, scales=(8, 4))
    content = {"config": config, "tmp": {"scale": 2}}
    for part, net in nets.items():
        names = lk.models.reference_names(net)
        content[part] = {}
        for key, value in net.state_dict().items():
            module, _, leaf = key.rpartition(".")
            theirs = names[module] if wrap else names[module].removesuffix(".module")
            content[part][f"{wrap}{theirs}.{leaf}"] = value
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path, nets


@pytest.fixture
def unknown_config(monkeypatch):
    """An attribute bag whose class exists when the file is written and not when it is read."""
    module = types.ModuleType("models.utils.config")
    module.BaseConfig = type("BaseConfig", (), {"__module__": module.__name__})
    for name in ("models", "models.utils", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    config = module.BaseConfig()
    config.latentVectorDim, config.depthOtherScales, config.alpha = 8, [8, 4], 0
    return config


@pytest.mark.parametrize(("wrap", "zipped"), [("", False), ("module.", False), ("", True)])
def test_a_published_checkpoint_loads(tmp_path, unknown_config, wrap, zipped, monkeypatch):
    path, nets = published(tmp_path, wrap, unknown_config, zipped)
    for name in ("models", "models.utils", "models.utils.config"):
        monkeypatch.delitem(sys.modules, name)
    net = lk.models.load_reference(lk.models.build("pgan", **SMALL), path)
    for part in ("avgG", "netG"):
        lk.models.load_reference(net, path, part=part)
        for ours, theirs in zip(net.parameters(), nets[part].parameters(), strict=True):
            assert torch.equal(ours, theirs)
    critic = lk.models.build("pgan-critic", depth0=8, scales=(8, 4))
    lk.models.load_reference(critic, path)
    assert torch.equal(critic.decision.weight, nets["netD"].decision.weight)
    with pytest.raises(lk.InputError, match="shape|lacks|unknown"):
        lk.models.load_reference(lk.models.build("pgan", **SMALL | {"depth0": 4}), path)
    with pytest.raises(lk.InputError, match="part must be one of avgG, netG, netD"):
        lk.models.load_reference(net, path, part="G")


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.mkdir, Path])
def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, function):
    trap = tmp_path / "ran"
    path, _ = published(tmp_path, "", Hostile(function, str(trap)))
    with pytest.raises(lk.FileError, match="refused"):
        lk.models.load_reference(lk.models.build("pgan", **SMALL), path)
    assert not trap.exists()


def test_a_checkpoint_lacking_the_average_says_so(tmp_path):
    path, _ = published(tmp_path, "", None)
    content = torch.load(path)
    del content["avgG"]
    torch.save(content, path)
    with pytest.raises(lk.FileError, match="no 'avgG'; it holds: config, tmp, netG, netD"):
        lk.models.load_reference(lk.models.build("pgan", **SMALL), path)


def test_the_beginning_of_a_sha256_is_checked(tmp_path, monkeypatch):
    served = tmp_path / "served"
    served.mkdir()
    (served / "net.pth").write_bytes(b"what was published")
    right = hashlib.sha256(b"what was published").hexdigest()[:8]
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": print})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *given: handler(*given, directory=served)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/net.pth"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(registry.CACHE_VARIABLE, str(tmp_path / "cache"))
    entries = {"pgan/a.pth": {"url": url, "sha256": right}}
    entries["pgan/b.pth"] = {"url": url, "sha256": "0" * 8}
    monkeypatch.setattr(registry, "entries", lambda: entries)
    try:
        assert lk.data.file("pgan/a.pth").read_bytes() == b"what was published"
        with pytest.raises(lk.FileError, match="another sha256"):
            lk.data.file("pgan/b.pth")
    finally:
        server.shutdown()
    assert not (tmp_path / "cache" / "pgan" / "b.pth").exists()


def test_both_published_generators_are_listed():
    names = {name for name in lk.data.names() if name.startswith("pgan/")}
    assert {name[-12:-4] for name in names} == {"9c72988c", "6196db68"}


def test_a_generator_is_no_untrained_prior():
    with pytest.raises(lk.InputError, match="lipkit.gan.search"):
        lk.Prior("pgan", size=16, **SMALL)
    with pytest.raises(lk.InputError, match=r"latent vectors \[N, 8\]"):
        lk.models.build("pgan", **SMALL)(torch.zeros(1, 9))
    with pytest.raises(lk.InputError, match="scales lists the channels"):
        lk.models.build("pgan", scales=8)

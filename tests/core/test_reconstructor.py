"""The two ways between lipkit and deepinv: their operators in our fit, our fit as their method."""

from __future__ import annotations

import pytest
import torch

import lipkit as lk
from lipkit.testing import tiny_image

SMALL = dict(levels=2, down=8, up=8, skip=2)
FAST = dict(prior_options=SMALL, steps=8, progress=False)


class Blur(torch.nn.Module):
    """Written as deepinv's operators are: a module, batches only, calling it adds noise."""

    def __init__(self, sigma: float = 0.05):
        super().__init__()
        self.register_buffer("kernel", torch.full((1, 1, 3, 3), 1 / 9))
        self.noise_model = lambda x: x + sigma * torch.randn_like(x)

    def A(self, x, **kwargs):
        n, c, h, w = x.shape
        flat = x.reshape(n * c, 1, h, w)
        return torch.nn.functional.conv2d(flat, self.kernel, padding=1).reshape(x.shape)

    def A_adjoint(self, y, **kwargs):
        return self.A(y)  # the kernel is symmetric

    def forward(self, x, **kwargs):
        return self.noise_model(self.A(x))


class Downsample(Blur):
    def A(self, x, **kwargs):
        return super().A(x)[..., ::2, ::2]

    def A_adjoint(self, y, **kwargs):
        up = torch.zeros(*y.shape[:-2], 2 * y.shape[-2], 2 * y.shape[-1], dtype=y.dtype)
        up[..., ::2, ::2] = y
        return Blur.A(self, up)


def batch(n: int = 2, channels: int = 3) -> torch.Tensor:
    clean = tiny_image((16, 20), channels)
    return torch.stack([clean if i % 2 == 0 else 1 - clean for i in range(n)])


@pytest.mark.parametrize("physics", [Blur(), Downsample()])
def test_a_foreign_operator_drops_into_fit(physics):
    lk.testing.check_linear(physics.double(), (2, 3, 16, 20))
    lk.testing.check_adjoint(physics, (2, 3, 16, 20))
    physics.float()
    y = physics.A(batch(1))
    prior = lk.Prior("dip", (16, 20), **SMALL)
    fit = lk.fit(prior, physics, y, steps=60, every=1, progress=False)
    assert fit.image.shape == (3, 16, 20)
    assert fit.history["loss"][-1] < 0.5 * fit.history["loss"][0]
    assert all(p.grad is None for p in physics.parameters())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("physics", [Blur(), Downsample(), lk.physics.SuperResolution(2)])
def test_pictures_have_the_shape_of_the_adjoint(physics, channels):
    x = batch(2, channels)
    out = lk.Reconstructor(**FAST)(physics.A(x), physics)
    assert out.shape == x.shape and out.dtype == torch.float32 and not out.requires_grad


def test_it_is_a_fit_for_each_measurement():
    physics = Downsample()
    y = physics(batch(3))
    restore = lk.Reconstructor(**FAST, seed=4, average=0.9)
    together = restore(y, physics)
    prior = lk.Prior("dip", (16, 20), seed=4, **SMALL)
    for i in range(3):
        fit = lk.fit(prior, physics, y[i], steps=8, seed=4, average=0.9, progress=False)
        assert torch.equal(together[i], fit.image)
        assert torch.equal(together[i], restore(y[i : i + 1], physics)[0])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_switched_off(mode):
    physics, x = lk.physics.SuperResolution(2), batch(1)
    lk.physics.pictures.reduction_matrix.cache_clear()
    restore = lk.Reconstructor(**FAST)
    want = restore(physics.A(x), physics)
    with mode():
        assert torch.equal(restore(physics.A(x), physics), want)


def test_the_size_can_be_given_where_there_is_no_adjoint():
    class OnlyA:
        def A(self, x):
            return x.flatten(1)[:, ::2]

    x = batch(2)
    out = lk.Reconstructor(**FAST, size=(3, 16, 20))(OnlyA().A(x), OnlyA())
    assert out.shape == x.shape
    with pytest.raises(
        lk.InputError, match=r"OnlyA has no A_adjoint .*size=\(channels, height, width"
    ):
        lk.Reconstructor(**FAST)(OnlyA().A(x), OnlyA())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"step": 5}, "no option 'step'; it takes .*steps"),
        ({"checkpoint": "x"}, "no option 'checkpoint'"),
        ({"size": (16, 20)}, r"size must be \(channels, height, width\), got \(16, 20\)"),
        ({"size": 16}, "size must be"),
    ],
)
def test_bad_options_are_refused_at_once(options, sentence):
    with pytest.raises(lk.InputError, match=sentence):
        lk.Reconstructor(**options)


@pytest.mark.parametrize(
    ("y", "sentence"),
    [
        (torch.rand(3, 16, 20), r"shape \(16, 20\), where a picture is .*batch axis"),
        (torch.rand(16), r"batch axis first, got shape \(16,\)"),
        (torch.rand(0, 3, 16, 20), "batch axis first, got shape"),
        ([torch.rand(3, 16, 20)], "batch axis first, got a list"),
        (torch.full((1, 3, 16, 20), torch.nan), "measurement holds NaN"),
    ],
)
def test_bad_measurements_are_refused(y, sentence):
    with pytest.raises(lk.InputError, match=sentence):
        lk.Reconstructor(**FAST)(y, lk.physics.Denoise(0.1))


def test_it_says_what_it_is():
    assert repr(lk.Reconstructor("oes", steps=5)) == "Reconstructor('oes', steps=5)"

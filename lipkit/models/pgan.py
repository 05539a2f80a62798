"""The progressive GAN: a generator of pictures from a latent vector, and its critic.

Pictures have values from -1 to 1. At every scale the generator doubles the side, from 4 pixels on;
the critic goes the same way back. While a scale is new, `alpha` blends it with the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError, check_whole, is_whole

_LEAK = 0.2
_GROUP = 4  # pictures whose spread the critic sees together


class Equalized(nn.Module):
    """A linear layer, or with `kernel` a convolution; weights *and bias* are scaled by `gain`.

    Stored weights are of unit size, so that Adam's steps are alike in every layer.

    >>> round(Equalized(512, 512, kernel=3).gain, 7)
    0.0208333
    """

    def __init__(self, inputs: int, outputs: int, kernel: int | None = None) -> None:
        super().__init__()
        window = () if kernel is None else (kernel, kernel)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *window))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = (2 / self.weight[0].numel()) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.gain
        bias = self.bias * self.gain
        if weight.ndim == 2:
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


class Generator(nn.Module):
    """Latent vectors [N, latent] to pictures [N, 3, side, side], side = 4 * 2**len(scales).

    `depth0` channels at 4 pixels, then `scales` channels at each doubling; the defaults are those
    of the published generator of 256 pixels.

    >>> net = Generator(latent=8, depth0=8, scales=(8, 4))
    >>> net(torch.randn(5, 8)).shape, net(torch.randn(5, 8), scale=1, alpha=0.3).shape
    (torch.Size([5, 3, 16, 16]), torch.Size([5, 3, 8, 8]))
    """

    def __init__(
        self,
        latent: int = 512,
        depth0: int = 512,
        scales: Sequence[int] = (512, 512, 512, 256, 128, 64),
        out_channels: int = 3,
    ) -> None:
        super().__init__()
        self.depths = _checked_depths(depth0, scales)
        check_whole("latent", latent, least=1)
        check_whole("out_channels", out_channels, least=1)
        self.latent = latent
        self.levels = len(self.depths) - 1
        # registered in this order, which is the published one
        self.scales = nn.ModuleList(
            nn.ModuleList([Equalized(before, depth, 3), Equalized(depth, depth, 3)])
            for before, depth in zip(self.depths, self.depths[1:], strict=False)
        )
        self.to_rgb = nn.ModuleList(Equalized(depth, out_channels, 1) for depth in self.depths)
        self.format = Equalized(latent, 16 * depth0)
        self.start = Equalized(depth0, depth0, 3)

    @property
    def side(self) -> int:
        """Height and width of the pictures."""
        return 4 * 2**self.levels

    def forward(self, z: Tensor, scale: int | None = None, alpha: float = 0.0) -> Tensor:
        """Pictures of the last scale or an earlier one; `alpha` is the share of the one before."""
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise InputError(
                f"the generator takes latent vectors [N, {self.latent}], got shape {tuple(z.shape)}"
            )
        last = _checked_scale(scale, self.levels)
        x = _normalized(F.leaky_relu(self.format(_normalized(z)), _LEAK).unflatten(1, (-1, 4, 4)))
        x = before = _normalized(F.leaky_relu(self.start(x), _LEAK))
        for layers in self.scales[:last]:
            before = x
            x = _doubled(x)
            for layer in layers:
                x = _normalized(F.leaky_relu(layer(x), _LEAK))
        picture = self.to_rgb[last](x)
        if alpha and last:
            return torch.lerp(picture, _doubled(self.to_rgb[last - 1](before)), alpha)
        return picture

    def output_side(self, side: int) -> int:
        """Refuses: a generator is trained first and then searched, not fitted to one picture."""
        raise InputError(
            "a pgan makes pictures from a latent vector and is no untrained prior; "
            "search its range with lipkit.gan.search"
        )


class Critic(nn.Module):
    """Pictures to one number each, high for those that look real; the generator reversed.

    >>> Critic(depth0=8, scales=(8, 4))(torch.randn(5, 3, 16, 16)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        depth0: int = 512,
        scales: Sequence[int] = (512, 512, 512, 256, 128, 64),
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.depths = _checked_depths(depth0, scales)
        check_whole("in_channels", in_channels, least=1)
        self.levels = len(self.depths) - 1
        self.scales = nn.ModuleList(
            nn.ModuleList([Equalized(depth, depth, 3), Equalized(depth, before, 3)])
            for before, depth in zip(self.depths, self.depths[1:], strict=False)
        )
        self.from_rgb = nn.ModuleList(Equalized(in_channels, depth, 1) for depth in self.depths)
        self.decision = Equalized(depth0, 1)
        self.last = nn.ModuleList(
            [Equalized(depth0 + 1, depth0, 3), Equalized(16 * depth0, depth0)]
        )

    def forward(self, x: Tensor, scale: int | None = None, alpha: float = 0.0) -> Tensor:
        """The verdict on pictures of the last scale, or of an earlier one."""
        return self.decision(self._features(x, scale, alpha))[:, 0]

    def _features(self, x: Tensor, scale: int | None, alpha: float) -> Tensor:
        last = _checked_scale(scale, self.levels)
        features = F.leaky_relu(self.from_rgb[last](x), _LEAK)
        for level in range(last, 0, -1):
            for layer in self.scales[level - 1]:
                features = F.leaky_relu(layer(features), _LEAK)
            features = F.avg_pool2d(features, 2)
            if alpha and level == last:  # the published program forgets to, at its first doubling
                small = F.leaky_relu(self.from_rgb[last - 1](F.avg_pool2d(x, 2)), _LEAK)
                features = torch.lerp(features, small, alpha)
        features = F.leaky_relu(self.last[0](_with_spread(features)), _LEAK)
        return F.leaky_relu(self.last[1](features.flatten(1)), _LEAK)


class Encoder(Critic):
    """Pictures to normal distributions of latent vectors: a critic that says which, not how good.

    >>> mean, spread = Encoder(latent=6, depth0=8, scales=(8, 4))(torch.randn(5, 3, 16, 16))
    >>> mean.shape, bool((spread > 0).all())
    (torch.Size([5, 6]), True)
    """

    def __init__(
        self, latent: int, depth0: int, scales: Sequence[int], in_channels: int = 3
    ) -> None:
        super().__init__(depth0, scales, in_channels)
        check_whole("latent", latent, least=1)
        self.decision = Equalized(depth0, 2 * latent)

    def forward(
        self, x: Tensor, scale: int | None = None, alpha: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Means and standard deviations for pictures of the last scale, or of an earlier one."""
        mean, logarithm = self.decision(self._features(x, scale, alpha)).float().chunk(2, 1)
        return mean, logarithm.clamp(-8, 8).exp()


def _checked_depths(depth0: int, scales: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(scales, (list, tuple)):
        raise InputError(
            f"scales lists the channels at each doubling, such as (64, 32), got {scales!r}"
        )
    check_whole("depth0", depth0, least=1)
    for i, depth in enumerate(scales):
        check_whole(f"scales[{i}]", depth, least=1)
    return (depth0, *scales)


def _checked_scale(scale: int | None, levels: int) -> int:
    if scale is None:
        return levels
    if not is_whole(scale) or scale > levels:
        raise InputError(f"scale must be a whole number from 0 to {levels}, got {scale!r}")
    return scale


def _normalized(x: Tensor) -> Tensor:
    """Scale each pixel's features (or a latent vector) to unit mean square."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _with_spread(x: Tensor) -> Tensor:
    """Add a channel: how much pictures of a group differ, so that a critic sees sameness."""
    n = x.shape[0]
    group = min(n, _GROUP)
    group = n if n % group else group
    if group == 1:
        return torch.cat([x, x.new_zeros(n, 1, *x.shape[2:])], 1)
    spread = (x.unflatten(0, (-1, group)).var(1) + 1e-8).sqrt().mean((1, 2, 3))
    spread = spread.repeat_interleave(group).view(n, 1, 1, 1).expand(-1, -1, *x.shape[2:])
    return torch.cat([x, spread], 1)

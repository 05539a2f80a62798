"""The deep decoder: 1x1 convolutions and upsampling, fewer weights than pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import check_whole
from .links import Double, Link, Norm, Step


class DeepDecoder(nn.Module):
    """`levels` upsamplings by two, `levels` + 1 hidden 1x1 convolutions of equal `width`.

    >>> net = DeepDecoder(levels=3, width=16)
    >>> net(torch.rand(1, 16, 4, 5)).shape
    torch.Size([1, 3, 32, 40])
    """

    def __init__(
        self,
        levels: int = 5,
        width: int = 128,
        out_channels: int = 3,
        upsample_first: bool = True,
        sigmoid: bool = True,
    ) -> None:
        super().__init__()
        check_whole("levels", levels, least=1)
        check_whole("width", width, least=1)
        check_whole("out_channels", out_channels, least=1)
        self.levels = levels
        self.upsample_first = upsample_first
        self.sigmoid = sigmoid
        for i in range(levels + 1):
            self.add_module(f"conv{i}", nn.Conv2d(width, width, 1, bias=False))
            self.add_module(f"norm{i}", nn.BatchNorm2d(width))
        self.head = nn.Conv2d(width, out_channels, 1, bias=False)

    def links(self) -> list[Link]:
        """The convolutions in the order of computation.

        >>> [link.conv for link in DeepDecoder(levels=1).links()]
        ['conv0', 'conv1', 'head']
        """
        links: list[Link] = []
        last: tuple[str, ...] = ()  # the convolution that the next one reads; none: the code
        for i in range(self.levels + 1):
            before = "" if self.upsample_first or i == 0 else "bilinear"
            behind: tuple[Step, ...] = (Norm("", "relu"), Norm(f"norm{i}"))
            if self.upsample_first and i < self.levels:
                behind = (Double("bilinear"), *behind)
            links.append(Link(f"conv{i}", f"conv{i}", last, doubled=before, behind=behind))
            last = (f"conv{i}",)
        return [*links, Link("head", "head", last)]

    def forward(self, z: Tensor) -> Tensor:
        x = z
        for i in range(self.levels + 1):
            if not self.upsample_first and i > 0:
                x = self._double(x)
            x = self._modules[f"conv{i}"](x)
            if self.upsample_first and i < self.levels:
                x = self._double(x)
            x = self._modules[f"norm{i}"](F.relu(x))
        x = self.head(x)
        return torch.sigmoid(x) if self.sigmoid else x

    @staticmethod
    def _double(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    def output_side(self, side: int) -> int | None:
        """Length of the output for a code made for a picture of this length."""
        return 2**self.levels * self.input_side(side)

    def input_side(self, side: int) -> int:
        """Length of the input code for a picture of this length."""
        # batch norm needs more than one value a channel, also before the first upsampling
        least = 1 if self.upsample_first else 2
        return max(side // 2**self.levels, least)

"""The encoder-decoder ("hourglass") behind the deep image prior and Optimal Eye Surgeon."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError, check_choice, check_whole
from .links import Link, Norm

LEAK = 0.2
Widths = int | Sequence[int]


class Block(nn.Module):
    """Convolution, optional 2x2 pooling, batch norm, leaky ReLU - in the published order."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        stride: int = 1,
        pool: str = "",
        pad: str = "reflect",
    ) -> None:
        super().__init__()
        self.conv = conv(c_in, c_out, kernel, stride, pad)
        self.norm = nn.BatchNorm2d(c_out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.pool == "avg":
            x = F.avg_pool2d(x, 2)
        elif self.pool == "max":
            x = F.max_pool2d(x, 2)
        return F.leaky_relu(self.norm(x), LEAK)


class Hourglass(nn.Module):
    """Encoder-decoder with `len(down)` levels; level 0 is the finest.

    Modules are created in the order of the published implementations, so that `parameters()`,
    and hence every flat mask, lines up with theirs: down through the encoder (`skip0`, `down0a`,
    `down0b`, `skip1`, ...), up through the decoder (..., `norm0`, `up0a`, `up0b`), then `head`.

    >>> net = Hourglass(levels=3, down=8, up=8, skip=2)
    >>> net(torch.rand(1, 32, 40, 52)).shape
    torch.Size([1, 3, 40, 52])
    """

    def __init__(
        self,
        in_channels: int = 32,
        out_channels: int = 3,
        levels: int | None = None,
        down: Widths = (128,) * 5,
        up: Widths = (128,) * 5,
        skip: Widths = (4,) * 5,
        kernel_down: int = 3,
        kernel_up: int = 3,
        downsample: str = "stride",
        upsample: str = "bilinear",
        pad: str = "reflect",
        refine: bool = True,
        sigmoid: bool = True,
    ) -> None:
        super().__init__()
        down, up, skip = _per_level(levels, down=down, up=up, skip=skip)
        check_choice("downsample", downsample, ("stride", "avg", "max"))
        check_choice("upsample", upsample, ("bilinear", "nearest"))
        check_choice("pad", pad, ("reflect", "zeros"))
        check_whole("in_channels", in_channels, least=1)
        check_whole("out_channels", out_channels, least=1)
        for name, kernel in (("kernel_down", kernel_down), ("kernel_up", kernel_up)):
            if kernel not in (1, 3, 5, 7):
                raise InputError(f"{name} must be 1, 3, 5 or 7, got {kernel!r}")
        self.levels = len(down)
        self.upsample = upsample
        self.sigmoid = sigmoid
        self.kernel_down = kernel_down
        self.kernel_up = kernel_up
        self.downsample = downsample
        self.pad = pad
        self.skip_channels = skip
        stride, pool = (2, "") if downsample == "stride" else (1, downsample)

        width = in_channels
        for i in range(self.levels):
            if skip[i]:
                self.add_module(f"skip{i}", Block(width, skip[i], 1))
            self.add_module(f"down{i}a", Block(width, down[i], kernel_down, stride, pool, pad))
            self.add_module(f"down{i}b", Block(down[i], down[i], kernel_down, pad=pad))
            width = down[i]
        for i in reversed(range(self.levels)):
            self.add_module(f"norm{i}", nn.BatchNorm2d(skip[i] + width))
            self.add_module(f"up{i}a", Block(skip[i] + width, up[i], kernel_up, pad=pad))
            if refine:
                self.add_module(f"up{i}b", Block(up[i], up[i], 1))
            width = up[i]
        self.head = conv(width, out_channels, 1)

    def links(self) -> list[Link]:
        """The convolutions in the order of computation: down, up, and the head.

        >>> [link.module for link in Hourglass(levels=1).links()]
        ['skip0', 'down0a', 'down0b', 'up0a', 'up0b', 'head']
        """
        links: list[Link] = []
        last: tuple[str, ...] = ()  # the convolution that the next one reads; none: the code
        skips = []
        for i in range(self.levels):
            skips.append((f"skip{i}.conv",) if self.skip_channels[i] else ())
            if skips[i]:
                links.append(self._link(f"skip{i}", last))
            links.append(self._link(f"down{i}a", last))
            links.append(self._link(f"down{i}b", (f"down{i}a.conv",)))
            last = (f"down{i}b.conv",)
        for i in reversed(range(self.levels)):
            joined = dict(doubled=self.upsample, joined_norm=f"norm{i}")
            links.append(self._link(f"up{i}a", skips[i] + last, **joined))
            last = (f"up{i}a.conv",)
            if f"up{i}b" in self._modules:
                links.append(self._link(f"up{i}b", last))
                last = (f"up{i}b.conv",)
        return [*links, Link("head", "head", last)]

    def _link(self, block: str, reads: tuple[str, ...], **joined: str) -> Link:
        pool = getattr(self._modules[block], "pool", "")
        behind = (Norm(f"{block}.norm", "leaky"),)
        return Link(block, f"{block}.conv", reads, pool=pool, behind=behind, **joined)

    def forward(self, z: Tensor) -> Tensor:
        made: dict[str, Tensor] = {}
        for link in self.links():
            parts = [made[name] for name in link.reads] or [z]
            if link.doubled:
                # torch would warn about align_corners for 'nearest', which has none
                corners = False if link.doubled == "bilinear" else None
                parts[-1] = F.interpolate(
                    parts[-1], scale_factor=2, mode=link.doubled, align_corners=corners
                )
            x = _concat(*parts)
            if link.joined_norm:
                x = self._child(link.joined_norm, x)
            made[link.conv] = self._child(link.module, x)
        x = made["head"]
        return torch.sigmoid(x) if self.sigmoid else x

    def _child(self, name: str, x: Tensor) -> Tensor:
        return self._modules[name](x)

    def output_side(self, side: int) -> int | None:
        """Length of the output for an input of this length, None where the network refuses it."""
        reach = self.kernel_down // 2 if self.pad == "reflect" else 0
        sides = []
        for _ in range(self.levels):
            if side <= reach:
                return None
            sides.append(side)
            side = -(-side // 2) if self.downsample == "stride" else side // 2
            if side <= max(reach, 0):
                return None
        reach = self.kernel_up // 2 if self.pad == "reflect" else 0
        for i in reversed(range(self.levels)):
            side *= 2
            if self.skip_channels[i]:
                side = min(side, sides[i])
            if side <= reach:
                return None
        return side

    def input_side(self, side: int) -> int:
        """Length of the input code for a picture of this length (the same)."""
        return side


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1, pad: str = "reflect") -> nn.Conv2d:
    mode = pad if kernel > 1 else "zeros"
    return nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, padding_mode=mode)


def _concat(*parts: Tensor) -> Tensor:
    """Join channels; where sizes differ all are centre-cropped to the smallest, as published."""
    if len(parts) == 1:
        return parts[0]
    h = min(x.shape[2] for x in parts)
    w = min(x.shape[3] for x in parts)
    return torch.cat([center_crop(x, h, w) for x in parts], dim=1)


def center_crop(x: Tensor, height: int, width: int) -> Tensor:
    """The middle `height` x `width` of the last two dimensions.

    >>> center_crop(torch.zeros(1, 3, 9, 12), 8, 8).shape
    torch.Size([1, 3, 8, 8])
    """
    top = (x.shape[-2] - height) // 2
    left = (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


def _per_level(levels: int | None, **widths: Widths) -> list[tuple[int, ...]]:
    """Expand numbers to one per level and cut longer lists to the first `levels`."""
    lengths = {len(w) for w in widths.values() if not isinstance(w, int)}
    available = min(lengths, default=levels or 0)
    levels = available if levels is None else levels
    check_whole("levels", levels, least=1)
    if lengths and levels > available:
        raise InputError(
            f"levels={levels} needs {levels} channel widths, but only {available} are given; "
            "pass down=, up= and skip= as single numbers or as lists of that length"
        )
    full = [(w,) * levels if isinstance(w, int) else tuple(w)[:levels] for w in widths.values()]
    for (name, _), values in zip(widths.items(), full, strict=True):
        least = 0 if name == "skip" else 1
        if any(not isinstance(v, int) or v < least for v in values):
            raise InputError(f"{name} takes whole numbers of at least {least}, got {values}")
    return full

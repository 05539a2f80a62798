"""Pictures that are no photographs, drawn at the size that is asked for, and always the same."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHUFFLED = "shuffled:"  # before the name of a picture: its pixels in another order
SIDE = 256  # where no size is asked for
_SQUARES = 8  # along a side of the board
_DARK = 0.2  # with noise on top it stays within what a network can draw, as does the bright one
_BRIGHT = 0.8


def noise(height: int, width: int) -> Tensor:
    """Draw every value of every pixel uniformly from 0 to 1.

    >>> noise(4, 6).shape
    torch.Size([3, 4, 6])
    """
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


def checkers(height: int, width: int) -> Tensor:
    """Draw a board of eight by eight squares, dark and bright.

    >>> checkers(8, 8)[0, 0, :3]
    tensor([0.2000, 0.8000, 0.2000])
    """
    rows, columns = (torch.arange(side) * _SQUARES // side for side in (height, width))
    bright = (rows[:, None] + columns) % 2
    return (_DARK + (_BRIGHT - _DARK) * bright)[None]


def shuffled(picture: Tensor) -> Tensor:
    """Put the pixels of a picture in another order, colours kept together.

    >>> shuffled(torch.eye(3)[None]).sum()
    tensor(3.)
    """
    pixels = picture.flatten(1)
    order = torch.randperm(pixels.shape[1], generator=torch.Generator().manual_seed(0))
    return pixels[:, order].reshape(picture.shape)


def is_drawn(source: object) -> bool:
    """Tell whether this names a picture that has no size of its own.

    >>> is_drawn("shuffled:coffee"), is_drawn("coffee")
    (True, False)
    """
    return isinstance(source, str) and (source in DRAWN or source.startswith(SHUFFLED))


DRAWN: dict[str, tuple[Callable[[int, int], Tensor], str]] = {
    "noise": (noise, "every value of every pixel uniform from 0 to 1"),
    "checkers": (checkers, "a board of eight by eight dark and bright squares"),
}

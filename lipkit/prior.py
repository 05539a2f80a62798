"""A prior: a network, its fixed input code, and the recipe that rebuilds both exactly."""

from __future__ import annotations

import copy
import threading
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from . import models
from ._version import __version__
from .checks import is_number, is_whole
from .errors import InputError

# The code of a network, where it is not uniform noise scaled by 0.1.
_CODES = {"dip-vase": "meshgrid"}
CODES = ("uniform", "normal", "meshgrid")
MAX_SIDE = 16_384
_GLOBAL_GENERATOR = threading.Lock()  # torch has one for all threads, and we lend it out


@dataclass(frozen=True)
class Recipe:
    """All that a prior is made from; two priors of one recipe are equal bit for bit.

    >>> Recipe("dip", (64, 64)).prior().recipe == Recipe("dip", (64, 64))
    True
    """

    name: str
    size: tuple[int, int]
    seed: int = 0
    options: dict = field(default_factory=dict)
    version: str = __version__

    def prior(self) -> Prior:
        """Build the prior again."""
        return Prior(self.name, self.size, self.seed, **self.options)

    def as_dict(self) -> dict:
        """The recipe as plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> Recipe:
        """The recipe from plain data."""
        try:
            fields = dict(data) | {"size": tuple(data["size"])}
            fields["options"] = {k: _frozen(v) for k, v in data.get("options", {}).items()}
            return cls(**fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"this is no recipe of a prior ({error}); "
                "a recipe has name, size, seed, options, version"
            ) from None


class Prior(nn.Module):
    """Network and code for pictures of any `size`; calling it gives a picture [1, C, H, W].

    Sizes that the network cannot take are made with a larger code and cropped back.

    >>> prior = Prior("deep-decoder", size=(50, 70), seed=0, levels=3, width=16)
    >>> prior().shape
    torch.Size([1, 3, 50, 70])
    """

    def __init__(
        self,
        name: str = "dip",
        size: int | tuple[int, int] = (256, 256),
        seed: int = 0,
        *,
        code: str | None = None,
        code_scale: float = 0.1,
        **options,
    ) -> None:
        super().__init__()
        size = _checked_size(size)
        code = code or _CODES.get(name, "uniform")
        if code not in CODES:
            raise InputError(f"code must be one of {', '.join(CODES)}, got {code!r}")
        if not is_number(code_scale, least=0) or code_scale == 0:
            raise InputError(f"code_scale must be a number above 0, got {code_scale!r}")
        if not is_whole(seed):
            raise InputError(f"seed must be a whole number of at least 0, got {seed!r}")
        options = {k: _frozen(v) for k, v in options.items()}
        # torch's initializers draw from the global generator: lend it to them and put it back
        with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.net = models.build(name, **options)
            self.net_size = tuple(_fitting_side(self.net, side) for side in size)
            z = _draw_code(self.net, self.net_size, code, code_scale)
        self.register_buffer("z", z)
        self.size = size
        kept = dict(options)
        if code != _CODES.get(name, "uniform"):
            kept["code"] = code
        if code_scale != 0.1:
            kept["code_scale"] = code_scale
        self.recipe = Recipe(name, size, seed, kept)

    def forward(self, z: Tensor | None = None) -> Tensor:
        """The picture for a code, by default the fixed one."""
        return self.crop(self.net(self.z if z is None else z))

    def crop(self, x: Tensor) -> Tensor:
        """Cut the network's output back to the size that was asked for."""
        return x if self.size == self.net_size else models.center_crop(x, *self.size)

    def clone(self) -> Prior:
        """An independent copy, to be trained without touching this one."""
        return copy.deepcopy(self)

    def extra_repr(self) -> str:
        return f"{self.recipe.name!r}, size={self.size}, seed={self.recipe.seed}"


def _frozen(value):
    return tuple(value) if isinstance(value, list) else value


def _checked_size(size: int | tuple[int, int]) -> tuple[int, int]:
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(is_whole(s, least=2) and s <= MAX_SIDE for s in pair):
        raise InputError(
            f"size must be (height, width), each a whole number from 2 to {MAX_SIDE}, got {size!r}"
        )
    return pair


def _fitting_side(net: nn.Module, side: int) -> int:
    """The smallest length that the network reproduces and that covers `side`."""
    step = 2**net.levels
    for candidate in range(side, side + 8 * step):
        if net.output_side(candidate) == candidate:
            return candidate
    raise InputError(
        f"this network cannot make a picture of {side} pixels a side; "
        "use fewer levels or a smaller kernel"
    )


def _draw_code(net: nn.Module, size: tuple[int, int], code: str, scale: float) -> Tensor:
    height, width = (net.input_side(s) for s in size)
    channels = next(net.parameters()).shape[1]
    if code == "meshgrid":
        if channels != 2:
            raise InputError(f"code='meshgrid' has 2 channels, but this network takes {channels}")
        y, x = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
        return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]
    draw = torch.rand if code == "uniform" else torch.randn
    return draw(1, channels, height, width) * scale

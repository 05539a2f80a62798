"""A prior: a network, its fixed input code, and the recipe that rebuilds both exactly."""

from __future__ import annotations

import copy
import threading
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from . import models
from ._version import __version__
from .errors import InputError, check_choice, check_positive, check_whole, is_whole, kind_of

CODES = ("uniform", "normal", "meshgrid")
OWN = "own"  # the name of a network that its user brought along
_ARGUMENTS = ("self", "name", "size", "seed")  # of a prior, which are no options of its network
_CODE_SCALE = 0.1
MAX_SIDE = 16_384
SHALLOW = 64  # pixels that a network's smallest picture may have whatever is asked for
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

    @property
    def code(self) -> str:
        """The kind of the code: one of `CODES`."""
        return self.options.get("code", _usual_code(self.name))

    @property
    def code_scale(self) -> float:
        """What the values of the code are multiplied with."""
        return self.options.get("code_scale", _CODE_SCALE)

    def prior(self) -> Prior:
        """Build the prior again."""
        if self.name == OWN:
            raise InputError(
                "the recipe of a network of your own does not say how it is built: "
                "make its prior with lipkit.Prior.of(net, z)"
            )
        for name in _ARGUMENTS:
            if name in self.options:
                raise InputError(f"{name!r} is no option of a network: the recipe itself has it")
        return Prior(self.name, self.size, self.seed, **self.options)

    def as_dict(self) -> dict:
        """Return the recipe as plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> Recipe:
        """Make a recipe from plain data."""
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
        code_scale: float = _CODE_SCALE,
        **options,
    ) -> None:
        super().__init__()
        size = checked_size(size)
        code = code or _usual_code(name)
        check_choice("code", code, CODES)
        check_positive("code_scale", code_scale)
        check_whole("seed", seed)
        options = {k: _frozen(v) for k, v in options.items()}
        # torch's initializers draw from the global generator: lend it to them and put it back
        with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.net = models.build(name, **options)
            self.net_size = tuple(fitting_side(self.net, side) for side in size)
            z = _draw_code(self.net, self.net_size, code, code_scale)
        self.register_buffer("z", z)
        self.size = size
        kept = dict(options)
        if code != _usual_code(name):
            kept["code"] = code
        if code_scale != _CODE_SCALE:
            kept["code_scale"] = code_scale
        self.recipe = Recipe(name, size, seed, kept)

    @classmethod
    def of(cls, net: nn.Module, z: Tensor, size: int | tuple[int, int] | None = None) -> Prior:
        """Take a network of your own, and the code `z` that it makes a picture of.

        Fits, searches for masks, stop rules and tickets work with it. It is trained as it is, one
        operation after the other: `Fit.engine` is "plain".

        Args:
            net: makes a picture [1, C, H, W] of the code. It is not copied.
            z: anything that `net` takes as its one argument, such as noise or coordinates.
            size: (height, width) to which the picture is cropped about its centre, by default all.

        >>> net = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
        >>> Prior.of(net, torch.rand(1, 4, 32, 40), size=(30, 40))().shape
        torch.Size([1, 3, 30, 40])
        """
        picture_size = _own_picture_size(net, z)
        size = checked_size(picture_size if size is None else size)
        if size[0] > picture_size[0] or size[1] > picture_size[1]:
            raise InputError(
                f"the network makes a picture of {picture_size[0]} x {picture_size[1]} pixels, "
                f"which is smaller than size={size}"
            )
        prior = cls.__new__(cls)
        nn.Module.__init__(prior)
        prior.net = net
        prior.net_size = picture_size
        prior.size = size
        prior.register_buffer("z", z.detach().clone())
        prior.recipe = Recipe(OWN, size, options={"network": type(net).__name__, "code": "given"})
        return prior

    def forward(self, z: Tensor | None = None) -> Tensor:
        """Make the picture for a code, by default the fixed one."""
        return self.crop(self.net(self.z if z is None else z))

    def crop(self, x: Tensor) -> Tensor:
        """Cut the network's output back to the size that was asked for."""
        return x if self.size == self.net_size else models.center_crop(x, *self.size)

    def clone(self) -> Prior:
        """Copy the prior, to be trained without touching this one."""
        return copy.deepcopy(self)

    def extra_repr(self) -> str:
        return f"{self.recipe.name!r}, size={self.size}, seed={self.recipe.seed}"


def _usual_code(name: str) -> str:
    """Name the code that a network has if no other is asked for."""
    return "meshgrid" if name == "dip-vase" else "uniform"


@torch.no_grad()
def _own_picture_size(net: nn.Module, z: Tensor) -> tuple[int, int]:
    """Return height and width of the picture that a network of one's own makes, or refuse it."""
    if not isinstance(net, nn.Module) or not isinstance(z, Tensor) or not z.is_floating_point():
        raise InputError(
            "a prior of your own is made of a torch.nn.Module and its code, a tensor of floats: "
            f"Prior.of(net, z), got {kind_of(net)} and {kind_of(z)}"
        )
    if prune.is_pruned(net):
        raise InputError(
            "the network is pruned by torch.nn.utils.prune: take its mask with "
            "lipkit.Mask.from_prune(net), then make the pruning permanent with "
            "torch.nn.utils.prune.remove"
        )
    if not any(p.requires_grad for p in net.parameters()):
        raise InputError("the network has no parameters that could be trained")
    picture = copy.deepcopy(net)(z)  # a copy: running statistics change by being used
    shape = tuple(picture.shape) if isinstance(picture, Tensor) else kind_of(picture)
    if not isinstance(picture, Tensor) or picture.ndim != 4 or len(picture) != 1:
        raise InputError(
            f"the network must make a picture of shape (1, channels, height, width), got {shape}"
        )
    if not picture.isfinite().all():
        raise InputError("the network makes a picture with values that are not finite")
    return picture.shape[-2], picture.shape[-1]


def _frozen(value):
    return tuple(value) if isinstance(value, list) else value


def checked_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return a size as (height, width), or refuse it.

    >>> checked_size(64)
    (64, 64)
    """
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(is_whole(s, least=2) and s <= MAX_SIDE for s in pair):
        raise InputError(
            f"size must be (height, width), each a whole number from 2 to {MAX_SIDE}, got {size!r}"
        )
    return pair


def fitting_side(net: nn.Module, side: int) -> int:
    """Return the smallest length that the network reproduces and that covers `side`.

    >>> fitting_side(models.build("deep-decoder", levels=3, width=8), 50)
    56
    """
    step = 2**net.levels
    if step > max(SHALLOW, 4 * side):  # its own picture would be many times the one asked for
        raise InputError(
            f"this network halves its picture {net.levels} times, which is too deep for "
            f"{side} pixels a side; use fewer levels"
        )
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
        y = torch.linspace(0, 1, height)
        x = torch.linspace(0, 1, width)
        return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]
    draw = torch.rand if code == "uniform" else torch.randn
    return draw(1, channels, height, width) * scale

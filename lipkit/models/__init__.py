"""Networks by name: `build("oes", levels=4)` gives a plain `nn.Module`."""

from __future__ import annotations

import inspect

from torch import nn

from ..errors import InputError, did_you_mean
from .decoder import DeepDecoder
from .hourglass import Hourglass, center_crop
from .pgan import Critic, Encoder, Generator
from .reference import load_reference, reference_names

__all__ = [
    "PRESETS",
    "Critic",
    "DeepDecoder",
    "Encoder",
    "Generator",
    "Hourglass",
    "build",
    "center_crop",
    "load_reference",
    "options",
    "reference_names",
]

_OES_WIDTHS = (16, 32, 64, 128, 128, 128)
_LIBRARY = dict(
    down=_OES_WIDTHS, up=_OES_WIDTHS, skip=0, kernel_down=5, upsample="nearest", refine=False
)
_SNAIL = (8, 16, 32, 64, 128)

# name -> (network, options that differ from the network's own defaults)
PRESETS: dict[str, tuple[type[nn.Module], dict]] = {
    "dip": (Hourglass, {}),
    "dip-snail": (Hourglass, dict(in_channels=3, down=_SNAIL, up=_SNAIL, skip=(0, 0, 0, 4, 4))),
    "dip-kate": (Hourglass, dict(skip=(128,) * 5, upsample="nearest")),
    "dip-vase": (Hourglass, dict(in_channels=2, skip=(0,) * 5, upsample="nearest")),
    "dip-library": (Hourglass, dict(in_channels=1, **_LIBRARY)),
    "oes": (Hourglass, dict(downsample="avg", **_LIBRARY)),
    "deep-decoder": (DeepDecoder, {}),
}
# networks to be trained on many pictures: no prior by themselves
_TRAINED: dict[str, tuple[type[nn.Module], dict]] = {
    "pgan": (Generator, {}),
    "pgan-critic": (Critic, {}),
}


def options(name: str) -> dict:
    """Return all options of a network and their defaults.

    >>> options("deep-decoder")["width"]
    128
    """
    network, changes = _preset(name)
    known = {k: p.default for k, p in inspect.signature(network).parameters.items()}
    return known | changes


def build(name: str, **given) -> nn.Module:
    """Build the bare network of a preset, with torch's default initial weights.

    >>> sum(p.numel() for p in build("oes").parameters())
    3008867
    """
    known = options(name)
    unknown = sorted(set(given) - set(known))
    if unknown:
        near = did_you_mean(unknown[0], known).strip()
        raise InputError(
            f"{name!r} has no option {', '.join(map(repr, unknown))}"
            + (f" ({near})" if near else "")
            + "; it takes: "
            + ", ".join(f"{k}={v!r}" for k, v in known.items())
        )
    network, _ = _preset(name)
    return network(**(known | given))


def _preset(name: str) -> tuple[type[nn.Module], dict]:
    networks = PRESETS | _TRAINED
    if name not in networks:
        near = did_you_mean(name, networks).strip().capitalize()
        known = ", ".join(networks)
        raise InputError(f"unknown network {name!r}; the networks are: {known}. {near}".strip())
    return networks[name]

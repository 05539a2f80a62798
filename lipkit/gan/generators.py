"""Trained networks by name: the one that comes with lipkit, and the published ones."""

from __future__ import annotations

from pathlib import Path

from ..errors import FileError, InputError, did_you_mean
from ..models import Critic, Generator, load_reference
from .files import load

SHIPPED = ("faces-64",)
_WIDTHS = (512, 512, 512, 256, 128, 64)
# name -> (checkpoint in the download registry, channels at each doubling)
PUBLISHED = {
    "celebahq-256": ("pgan/celebaHQ_s6_i80000-6196db68.pth", _WIDTHS),
    "celebahq-512": ("pgan/celebaHQ16_december_s7_i96000-9c72988c.pth", (*_WIDTHS, 32)),
}


def generator(name: str | Path = "faces-64") -> Generator:
    """Load a trained generator by name, from a file that `save` wrote, or from a training's folder.

    "faces-64" was trained on procedural faces and comes with lipkit; its `.note` says how, and how
    far its faces are from the true ones. "celebahq-256" and "celebahq-512" are the published ones,
    the moving average of their weights, and are fetched once.

    >>> generator("faces-64").side
    64
    """
    return _network(name, Generator)


def critic(name: str | Path = "faces-64") -> Critic:
    """Load the critic that a generator was trained against: fine-tuning needs it.

    >>> import torch
    >>> critic("faces-64")(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2])
    """
    return _network(name, Critic)


def _network(name: str | Path, kind: type) -> Generator | Critic:
    role = kind.__name__.lower()
    if name in PUBLISHED:
        from ..data import file

        checkpoint, scales = PUBLISHED[name]
        return load_reference(kind(scales=scales), file(checkpoint))
    if not isinstance(name, (str, Path)):
        raise InputError(f"a {role} is asked for by name or path, not by {name!r}")
    path = Path(__file__).with_name(name) if name in SHIPPED else Path(name)
    if path.is_dir():
        path = path / f"{role}.safetensors"
    elif not path.suffix:
        known = [*SHIPPED, *PUBLISHED]
        near = did_you_mean(name, known)
        raise InputError(
            f"there is no {role} {str(name)!r}; {near}there are {', '.join(known)}, files of "
            "lipkit.gan.save and folders of a training"
        )
    net = load(path)
    if not isinstance(net, kind):
        raise FileError(f"{path.name} holds a {type(net).__name__.lower()}, not a {role}")
    return net

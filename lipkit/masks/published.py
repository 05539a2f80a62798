"""Masks as the authors of OES and LIP published them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from .. import models
from ..errors import FileError, InputError
from ..formats import maskfile
from ..models.pickled import read_tensors
from .select import unflatten

_OES_WEIGHTS = 3_008_867
_ENDING = ".weight_mask"
_PICKLES = (b"PK\x03\x04", b"\x80")


def is_published(path: Path) -> bool:
    """Tell whether a file is a pickle, as masks were published, and not one of lipkit's."""
    start = maskfile.head(path)
    # the text of a safetensors file begins after eight bytes that could look like anything
    return start[8:] != b"{" and start.startswith(_PICKLES)


def read(path: Path, like: nn.Module | None) -> dict[str, Tensor]:
    """Read OES's one vector over all parameters, or LIP's dictionary of `*.weight_mask`."""
    content = read_tensors(path)
    if isinstance(content, Tensor):
        return _from_vector(path, content, like)
    return _from_dictionary(path, content, like)


def _skeleton(name: str) -> nn.Module:
    with torch.device("meta"):  # names and shapes are enough
        return models.build(name)


def _from_vector(path: Path, vector: Tensor, like: nn.Module | None) -> dict[str, Tensor]:
    if like is None and vector.numel() == _OES_WEIGHTS:
        like = _skeleton("oes")
    if like is None:
        raise InputError(
            f"{path.name} is a flat mask of {vector.numel():,} weights and does not say of which "
            "network; pass it: Mask.load(path, like=lipkit.models.build(...))"
        )
    try:
        return unflatten(vector, like)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None


def _from_dictionary(path: Path, content: dict, like: nn.Module | None) -> dict[str, Tensor]:
    net = _skeleton("dip") if like is None else like
    shapes = {name: p.shape for name, p in net.named_parameters()}
    ours = {
        f"{theirs}{_ENDING}": f"{module}.weight"
        for module, theirs in models.reference_names(net).items()
    }
    advice = (
        "pass its network: Mask.load(path, like=...)" if like is None else "of another network?"
    )
    keep: dict[str, Tensor] = {}
    for key, value in content.items():
        name = ours.get(str(key).removeprefix("module."))
        if name is None:
            raise FileError(
                f"{path.name} holds {str(key)[:80]!r}, which is no mask of its network's layers; "
                f"expected '<layer>{_ENDING}' entries only; {advice}"
            )
        if not isinstance(value, Tensor) or value.shape != shapes[name]:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise FileError(
                f"{path.name}: the mask {str(key)!r} is {shape}, the layer "
                f"{tuple(shapes[name])}; {advice}"
            )
        if not bool(((value == 0) | (value == 1)).all()):
            raise FileError(f"{path.name}: the mask {str(key)!r} holds more than 0 and 1")
        keep[name] = value.bool()
    if not keep:
        raise FileError(f"{path.name} holds no mask: no '<layer>{_ENDING}' entry")
    return {name: keep[name] for name in shapes if name in keep}

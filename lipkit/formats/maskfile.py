"""The file format of masks and tickets: safetensors with one bit for each weight.

One tensor `mask` (eight weights a byte, all layers in a row); in tickets also `probe` (a few
initial weights) and, if they begin with weights that no recipe draws, `start` (all that they keep);
one JSON text for everything else. Equal content gives equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._version import __version__
from ..errors import FileError, InputError, check_file

MASK = "lipkit mask 1"
TICKET = "lipkit ticket 1"
MAX_WEIGHTS = 100_000_000  # thirty times the largest network here; bounds what a file can claim
_MAX_BYTES = 4 * MAX_WEIGHTS + MAX_WEIGHTS // 8 + 2**20
_MAX_SIDE = 2**31


@dataclass(frozen=True)
class Content:
    """What a file holds: `about` is the JSON text as data, less what became the mask.

    `keep` is True where a weight is kept, for each parameter.
    """

    kind: str
    keep: dict[str, torch.Tensor]
    about: dict[str, Any]
    probe: torch.Tensor | None
    start: torch.Tensor | None


def versions() -> dict[str, str]:
    """Say what a file is made with."""
    return {"lipkit": __version__, "torch": str(torch.__version__).split("+")[0]}


def pack(
    kind: str,
    keep: Mapping[str, torch.Tensor],
    about: dict[str, Any],
    **values: torch.Tensor | None,
) -> bytes:
    """Make the bytes of a file; `values` are its `probe` and `start`."""
    from safetensors.numpy import save  # late: few programs need it

    flat = torch.cat([m.flatten() for m in keep.values()])
    if flat.numel() > MAX_WEIGHTS:
        raise InputError(f"a mask file holds at most {MAX_WEIGHTS:,} weights, got {flat.numel():,}")
    bits = np.packbits(flat.numpy())
    about = about | {
        "format": kind,
        "layers": [[name, list(m.shape)] for name, m in keep.items()],
        "mask_sha256": hashlib.sha256(bits.tobytes()).hexdigest(),
    }
    tensors = {"mask": bits} | {k: v.numpy() for k, v in values.items() if v is not None}
    if "start" in tensors:
        about["start_sha256"] = hashlib.sha256(tensors["start"].tobytes()).hexdigest()
    # one entry only: the order of several is not fixed
    return save(tensors, {"lipkit": json.dumps(about, sort_keys=True, allow_nan=False)})


def head(path: Path, length: int = 9) -> bytes:
    """Read the first bytes of a file that exists."""
    check_file(path)
    try:
        with path.open("rb") as file:
            return file.read(length)
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror or error})") from None


def read(path: str | Path) -> Content:
    """Read a mask or ticket; anything else is a `FileError` of one sentence."""
    path = Path(path)
    if not head(path):
        raise FileError(f"{path.name} is empty; get a complete copy")
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise FileError(
            f"{path.name} has {size:,} bytes, more than the {_MAX_BYTES:,} of the largest mask; "
            "it is no file of a mask or ticket"
        )
    tensors, text = _open(path)
    try:
        about = json.loads(text)
        kind = about.pop("format")
        if kind not in (MASK, TICKET):
            raise FileError(
                f"{path.name} says {str(kind)[:40]!r}, which this version of lipkit does not know; "
                "update lipkit"
            )
        keep = _unpack(tensors["mask"], about.pop("layers"), about.pop("mask_sha256"))
        start = _values(tensors, "start")
        if start is not None:
            _check_sum(tensors["start"], about.pop("start_sha256"))
    except FileError:
        raise
    except KeyError as error:
        raise FileError(f"{path.name} is no complete mask or ticket: it lacks {error}") from None
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise FileError(
            f"{path.name} is a damaged mask or ticket ({reason}); get a complete copy"
        ) from None
    return Content(kind, keep, about, _values(tensors, "probe"), start)


def is_ticket(path: str | Path) -> bool:
    """Tell whether this is a ticket, not a mask alone or a published one."""
    return head(Path(path))[8:] == b"{" and read(path).kind == TICKET


def _open(path: Path) -> tuple[dict[str, np.ndarray], str]:
    from safetensors import SafetensorError, safe_open  # late: as above

    wrong = "holds other tensors than a mask or ticket does; is it the right file?"
    try:
        with safe_open(path, "numpy") as file:
            text = (file.metadata() or {}).get("lipkit")
            names = set(file.keys())
            if text is None or not {"mask"} <= names <= {"mask", "probe", "start"}:
                raise FileError(f"{path.name} {wrong}")
            return {name: file.get_tensor(name) for name in names}, text
    except FileError:
        raise
    except (SafetensorError, OSError, TypeError, ValueError):
        raise FileError(
            f"{path.name} is no file of a mask or ticket, or it is damaged or cut short; "
            "get a complete copy"
        ) from None


def _unpack(bits: np.ndarray, layers: list, sha256: str) -> dict[str, torch.Tensor]:
    """Return the mask, once what the file claims agrees with what it holds."""
    if bits.dtype != np.uint8 or bits.ndim != 1:
        raise ValueError("the mask is not packed in bytes")
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layers:
        if not isinstance(name, str) or name in shapes:
            raise ValueError("a layer has no name of its own")
        whole = all(type(side) is int and 0 < side < _MAX_SIDE for side in shape)
        if not whole or len(shape) > 8:
            raise ValueError(f"layer {name!r} has an impossible shape")
        shapes[name] = tuple(shape)
    counts = [math.prod(shape) for shape in shapes.values()]
    total = sum(counts)
    if (total + 7) // 8 != bits.size:
        raise ValueError(f"it claims {total:,} weights and holds {8 * bits.size:,} bits")
    _check_sum(bits, sha256)
    flat = torch.from_numpy(np.unpackbits(bits, count=total).astype(bool))
    parts = zip(shapes.items(), flat.split(counts), strict=True)
    return {name: part.reshape(shape) for (name, shape), part in parts}


def _check_sum(values: np.ndarray, sha256: str) -> None:
    if hashlib.sha256(values.tobytes()).hexdigest() != sha256:
        raise ValueError("its checksum differs")


def _values(tensors: dict[str, np.ndarray], name: str) -> torch.Tensor | None:
    values = tensors.get(name)
    return None if values is None else torch.from_numpy(values.astype(np.float32).ravel())

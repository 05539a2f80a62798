"""The file from which a computation goes on: tensors, numbers, and which computation it is.

One safetensors file, so that nothing is pickled, with one JSON text beside the tensors. Its
checksum is that of the whole file with zeros in the place of the checksum: no bit of the file,
tensor or header, can change unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FileError, InputError, check_file
from . import atomic

FORMAT = "lipkit state 1"
BLANK = "0" * 64  # in the place of the checksum, where it is computed
_SHORT = 80  # letters: longer changes of a setting are not shown, only named

Tensors = dict[str, Tensor]


def write(
    path: Path,
    kind: str,
    signature: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Any],
) -> None:
    """Write a state, whole or not at all.

    `kind` and `signature` say what is under way, such as "fit", and with which settings. `numbers`
    is whatever JSON can hold.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "half"
    ...     write(path, "fit", {"lr": "0.01"}, {"x": torch.zeros(2)}, {"step": 3})
    ...     read(path, "fit", {"lr": "0.01"})
    ({'x': tensor([0., 0.])}, {'step': 3})
    """
    from safetensors.torch import save  # late: it is not needed where nothing is saved

    about = {
        "format": FORMAT,
        "checksum": BLANK,
        "kind": kind,
        "signature": dict(signature),
        "numbers": dict(numbers),
    }
    # copies: safetensors takes no two tensors that share their memory
    own = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    atomic.write(path, sealed(save(own, {"lipkit": json.dumps(about)})))


def read(path: Path, kind: str, signature: Mapping[str, str]) -> tuple[Tensors, dict] | None:
    """Read the tensors and numbers of a state; None if there is no file yet.

    A file that is damaged, or belongs to something else, is refused with one sentence.
    """
    from safetensors.torch import load  # late: as above

    if not path.parent.is_dir():
        raise FileError(f"cannot write the checkpoint {path}: there is no folder {path.parent}")
    if not path.exists():
        return None
    check_file(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise damaged(path, error.strerror or error) from None
    about = _about(path, data)
    if about["kind"] != kind:
        raise InputError(
            f"{path} is the checkpoint of a {about['kind']}, not of a {kind}; "
            "use another file name, or delete it to start anew"
        )
    saved = about["signature"]
    changed = [name for name, value in signature.items() if saved.get(name) != value]
    if changed:
        pairs = [f"{name} was {saved.get(name)}, now {signature[name]}" for name in changed]
        raise another(path, kind, changed, [pair for pair in pairs if len(pair) < _SHORT])
    return load(data), about["numbers"]


def damaged(path: Path, reason: object) -> FileError:
    """Say that a file cannot be gone on from."""
    return FileError(f"{path} is no readable checkpoint ({reason}); delete it to start anew")


def another(path: Path, kind: str, changed: Iterable[str], shown: Iterable[str] = ()) -> InputError:
    """Say that a file belongs to other settings."""
    details = "; ".join(shown)
    return InputError(
        f"{path} is the checkpoint of another {kind}: its {', '.join(changed)} differ"
        f"{f' ({details})' if details else ''}; "
        "use another file name, or delete it to start anew"
    )


def sealed(data: bytes) -> bytes:
    """Put the checksum of a file into the place that `BLANK` keeps for it."""
    return data.replace(BLANK.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def is_whole(data: bytes, checksum: str) -> bool:
    """Say whether this is the checksum that `sealed` put into a file.

    >>> data = sealed(b"checksum: " + BLANK.encode() + b", content: 3")
    >>> is_whole(data, data[10:74].decode())
    True
    """
    blank = data.replace(checksum.encode(), BLANK.encode(), 1)
    return hashlib.sha256(blank).hexdigest() == checksum


def _about(path: Path, data: bytes) -> dict[str, Any]:
    """Return the JSON text of a file, once its checksum agrees."""
    try:
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        about = json.loads(metadata.get("lipkit", "{}"))
        if about.get("format") != FORMAT:
            raise FileError(
                f"{path} is not a checkpoint of this version of lipkit; delete it to start anew"
            )
        whole = is_whole(data, about["checksum"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise damaged(path, "it is another file, or cut short") from None
    if not whole:
        raise damaged(path, "its checksum differs")
    return about


# --- what a state is made of --------------------------------------------------------------------

Part = nn.Module | torch.optim.Optimizer | torch.Generator | dict[str, Tensor]


def collect(parts: Mapping[str, Part]) -> Tensors:
    """Return the tensors of networks, optimizers, random generators and dicts under their names.

    >>> list(collect({"net": nn.Linear(2, 1), "best": {"psnr": torch.zeros(1)}}))
    ['net.weight', 'net.bias', 'best.psnr']
    """
    return {f"{name}.{key}": t for name, part in parts.items() for key, t in _read(part).items()}


def put_back(tensors: Tensors, parts: Mapping[str, Part], device: object = None) -> None:
    """Put what `collect` returned back where it was, dicts onto a device."""
    for name, part in parts.items():
        start = f"{name}."
        own = {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}
        if isinstance(part, nn.Module):
            part.load_state_dict(own)
        elif isinstance(part, torch.Generator):
            part.set_state(own["state"])
        elif isinstance(part, torch.optim.Optimizer):
            _into_adam(part, own)
        else:
            part.clear()
            part.update({k: t.to(device) for k, t in own.items()})


def _read(part: Part) -> Mapping[str, Tensor]:
    if isinstance(part, nn.Module):
        return part.state_dict()
    if isinstance(part, torch.Generator):
        return {"state": part.get_state()}
    if isinstance(part, torch.optim.Optimizer):
        entries = part.state_dict()["state"].items()
        return {f"{i}.{key}": t for i, entry in entries for key, t in entry.items()}
    return part


def _into_adam(adam: torch.optim.Optimizer, tensors: Tensors) -> None:
    parameters = [p for options in adam.param_groups for p in options["params"]]
    for i, parameter in enumerate(parameters):
        if f"{i}.step" in tensors:  # else it was never stepped
            entry = {"step": tensors[f"{i}.step"].to(parameter.device)}
            # Adam walks through weights and moments side by side in memory: one layout for all
            for name in ("exp_avg", "exp_avg_sq"):
                entry[name] = torch.empty_like(parameter).copy_(tensors[f"{i}.{name}"])
            adam.state[parameter] = entry

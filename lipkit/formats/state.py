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
from torch import Tensor

from ..errors import FileError, InputError
from . import atomic

FORMAT = "lipkit state 1"
_BLANK = "0" * 64  # in the place of the checksum, where it is computed
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
        "checksum": _BLANK,
        "kind": kind,
        "signature": dict(signature),
        "numbers": dict(numbers),
    }
    # copies: safetensors takes no two tensors that share their memory
    own = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    data = save(own, {"lipkit": json.dumps(about)})
    atomic.write(path, data.replace(_BLANK.encode(), _checksum(data).encode(), 1))


def read(path: Path, kind: str, signature: Mapping[str, str]) -> tuple[Tensors, dict] | None:
    """Read the tensors and numbers of a state; None if there is no file yet.

    A file that is damaged, or belongs to something else, is refused with one sentence.
    """
    from safetensors.torch import load  # late: as above

    if not path.parent.is_dir():
        raise FileError(f"cannot write the checkpoint {path}: there is no folder {path.parent}")
    if not path.exists():
        return None
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


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _about(path: Path, data: bytes) -> dict[str, Any]:
    """The JSON text of a file, once its checksum agrees."""
    try:
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        about = json.loads(metadata.get("lipkit", "{}"))
        if about.get("format") != FORMAT:
            raise FileError(
                f"{path} is not a checkpoint of this version of lipkit; delete it to start anew"
            )
        blank = data.replace(about["checksum"].encode(), _BLANK.encode(), 1)
        whole = _checksum(blank) == about["checksum"]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise damaged(path, "it is another file, or cut short") from None
    if not whole:
        raise damaged(path, "its checksum differs")
    return about


# --- pieces of a state ------------------------------------------------------------------------


def joined(**groups: Mapping[str, Tensor]) -> Tensors:
    """Join groups of tensors: `net.weight` is the `weight` of the group `net`.

    >>> list(joined(net={"weight": torch.zeros(1)}, adam={"0.step": torch.zeros(1)}))
    ['net.weight', 'adam.0.step']
    """
    return {f"{group}.{name}": t for group, part in groups.items() for name, t in part.items()}


def group(tensors: Mapping[str, Tensor], name: str, device: object = None) -> Tensors:
    """Take one group of `joined` out again, onto a device.

    >>> list(group({"net.weight": torch.zeros(1), "x": torch.zeros(1)}, "net"))
    ['weight']
    """
    start = f"{name}."
    return {k.removeprefix(start): t.to(device) for k, t in tensors.items() if k.startswith(start)}


def of_adam(adam: torch.optim.Optimizer) -> Tensors:
    """Read the moments and step counts of an optimizer, by the number of the parameter."""
    entries = adam.state_dict()["state"].items()
    return {f"{i}.{name}": value for i, entry in entries for name, value in entry.items()}


def into_adam(adam: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put moments and step counts back; a parameter that was never stepped has none."""
    parameters = [p for options in adam.param_groups for p in options["params"]]
    for i, parameter in enumerate(parameters):
        entry = group(tensors, str(i), parameter.device)
        if entry:
            # Adam walks through weights and moments side by side in memory: one layout for all
            for name in ("exp_avg", "exp_avg_sq"):
                entry[name] = torch.empty_like(parameter).copy_(entry[name])
            adam.state[parameter] = entry

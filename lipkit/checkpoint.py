"""Save a fit under way and resume it, bit for bit: one safetensors file, nothing pickled."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import FileError, InputError

if TYPE_CHECKING:
    from .fit import _Run

FORMAT = "lipkit checkpoint 1"


def signature(prior, op, y: Tensor, mask, settings) -> dict[str, str]:
    """What makes two fits the same fit; the number of steps may grow."""
    state = hashlib.sha256()
    for value in (*prior.state_dict().values(), y):
        state.update(value.detach().cpu().contiguous().numpy().tobytes())
    known = {k: repr(v) for k, v in vars(settings).items() if k != "steps"}
    return known | {
        "prior": repr(prior.recipe),
        "operator": type(op).__name__,
        "mask": "none" if mask is None else mask.digest(),
        "weights and measurement": state.hexdigest(),
    }


def save_checkpoint(run: _Run, path: Path) -> None:
    """Write to the side, then move into place: an interrupted save leaves the old file whole."""
    from safetensors.torch import save_file

    tensors = {f"net.{k}": v for k, v in run.prior.state_dict().items()}
    for i, entry in enumerate(run.adam.state[p] for p in run.prior.net.parameters()):
        tensors |= {f"adam.{i}.{k}": v for k, v in entry.items()}
    for group in ("stopper", "oracle", "good"):
        tensors |= {f"{group}.{k}": v for k, v in getattr(run, group).items()}
    tensors |= {"x": run.x, "mean": run.mean, "generator": run.generator.get_state()}
    tensors["rows"] = torch.tensor([[float(v) for v in row] for row in run.rows], dtype=torch.float64)
    numbers = dict(step=run.step, mean_count=run.mean_count, seconds=run.seconds, reason=run.reason)
    metadata = {
        "format": FORMAT,
        "signature": json.dumps(run.signature),
        "numbers": json.dumps(numbers),
    }
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, part, metadata)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise FileError(f"cannot write the checkpoint {path}: {error.strerror or error}") from None


def load_checkpoint(run: _Run, path: Path) -> None:
    """Put a run where the file left it; do nothing if there is no file yet."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return
    try:
        with safe_open(path, "pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path} is no readable checkpoint ({error}); delete it to start anew") from None
    if metadata.get("format") != FORMAT:
        raise FileError(f"{path} is not a checkpoint of this version of lipkit; delete it to start anew")
    _check_same_fit(run, json.loads(metadata["signature"]), path)
    device = run.prior.z.device

    def group(name: str) -> dict[str, Tensor]:
        start = f"{name}."
        return {k.removeprefix(start): v.to(device) for k, v in tensors.items() if k.startswith(start)}

    run.prior.load_state_dict(group("net"))
    for i, parameter in enumerate(run.prior.net.parameters()):
        entry = group(f"adam.{i}")
        if entry:
            run.adam.state[parameter] = entry
    run.stopper, run.oracle, run.good = group("stopper"), group("oracle"), group("good")
    run.x, run.mean = tensors["x"].to(device), tensors["mean"].to(device)
    run.generator.set_state(tensors["generator"])
    run.rows = [list(row) for row in tensors["rows"].to(device).unbind()]
    numbers = json.loads(metadata["numbers"])
    run.step, run.mean_count = numbers["step"], numbers["mean_count"]
    run.seconds, run.reason = numbers["seconds"], numbers["reason"]


def _check_same_fit(run: _Run, saved: dict[str, str], path: Path) -> None:
    changed = [k for k, v in run.signature.items() if saved.get(k) != v]
    if changed:
        raise InputError(
            f"{path} is the checkpoint of another fit: its {', '.join(changed)} differ; "
            "use another file name, or delete it to start anew"
        )

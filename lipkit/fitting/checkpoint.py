"""Save a fit under way and resume it, bit for bit: one safetensors file, nothing pickled."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import FileError, InputError

if TYPE_CHECKING:
    from .descent import _Run

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
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {f"net.{k}": v for k, v in run.prior.state_dict().items()}
    for i, entry in enumerate(run.adam.state[p] for p in run.prior.net.parameters()):
        tensors |= {f"adam.{i}.{k}": v for k, v in entry.items()}
    for group in ("stopper", "oracle", "good"):
        tensors |= {f"{group}.{k}": v for k, v in getattr(run, group).items()}
    tensors |= {"x": run.x, "predicted": run.predicted, "mean": run.mean}
    tensors["generator"] = run.generator.get_state()
    tensors["rows"] = torch.tensor(
        [[float(v) for v in row] for row in run.rows], dtype=torch.float64
    )
    numbers = dict(step=run.step, mean_count=run.mean_count, seconds=run.seconds, reason=run.reason)
    metadata = {
        "format": FORMAT,
        "signature": json.dumps(run.signature),
        "numbers": json.dumps(numbers),
    }
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, part, metadata
        )
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise FileError(f"cannot write the checkpoint {path}: {error}") from None


def load_checkpoint(run: _Run, path: Path) -> None:
    """Put a run where the file left it; do nothing if there is no file yet."""
    from safetensors import SafetensorError, safe_open

    if not path.parent.is_dir():
        raise FileError(f"cannot write the checkpoint {path}: there is no folder {path.parent}")
    if not path.exists():
        return
    try:
        with safe_open(path, "pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FileError(
            f"{path} is no readable checkpoint ({error}); delete it to start anew"
        ) from None
    if metadata.get("format") != FORMAT:
        raise FileError(
            f"{path} is not a checkpoint of this version of lipkit; delete it to start anew"
        )
    try:
        _check_same_fit(run, json.loads(metadata["signature"]), tensors, path)
        _restore(run, tensors, json.loads(metadata["numbers"]))
    except (KeyError, RuntimeError, json.JSONDecodeError) as error:
        raise FileError(
            f"{path} is no readable checkpoint ({error}); delete it to start anew"
        ) from None


def _restore(run: _Run, tensors: dict[str, Tensor], numbers: dict) -> None:
    device = run.prior.z.device

    def group(name: str) -> dict[str, Tensor]:
        start = f"{name}."
        return {
            k.removeprefix(start): v.to(device) for k, v in tensors.items() if k.startswith(start)
        }

    run.prior.load_state_dict(group("net"))
    for i, parameter in enumerate(run.prior.net.parameters()):
        entry = group(f"adam.{i}")
        # Adam walks through weights and moments side by side in memory: one layout for all
        moments = {
            k: torch.empty_like(parameter).copy_(entry[k]) for k in ("exp_avg", "exp_avg_sq")
        }
        run.adam.state[parameter] = {"step": entry["step"], **moments}
    run.stopper, run.oracle, run.good = group("stopper"), group("oracle"), group("good")
    run.x, run.mean = tensors["x"].to(device), tensors["mean"].to(device)
    run.predicted = tensors["predicted"].to(device)
    run.generator.set_state(tensors["generator"])
    run.rows = [list(row) for row in tensors["rows"].to(device).unbind()]
    run.step, run.mean_count = numbers["step"], numbers["mean_count"]
    run.seconds, run.reason = numbers["seconds"], numbers["reason"]


def _check_same_fit(
    run: _Run, saved: dict[str, str], tensors: dict[str, Tensor], path: Path
) -> None:
    changed = [k for k, v in run.signature.items() if saved.get(k) != v]
    if not changed:  # then ask the operator itself, whatever it is made of
        predicted = run.op.A(tensors["x"].to(run.prior.z.device)).cpu()
        if not torch.allclose(predicted, tensors["predicted"], rtol=1e-4, atol=1e-5):
            changed = ["operator"]
    if changed:
        raise InputError(
            f"{path} is the checkpoint of another fit: its {', '.join(changed)} differ; "
            "use another file name, or delete it to start anew"
        )

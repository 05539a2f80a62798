"""A training as one safetensors file, to go on from as if nothing had happened."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import FileError, InputError
from ..formats.atomic import write

if TYPE_CHECKING:
    from .training import Training

FORMAT, NAME = "lipkit gan training 1", "checkpoint.safetensors"


def save_snapshot(training: Training, folder: Path) -> None:
    """Networks, average, optimizers and the state of the random numbers; complete or not at all."""
    from safetensors.torch import save

    tensors = {name: random.get_state() for name, random in training.randoms.items()}
    for name, net in _networks(training).items():
        tensors |= {f"{name}.{key}": value for key, value in net.state_dict().items()}
    for name, adam in training.adams.items():
        for i, state in adam.state_dict()["state"].items():
            tensors |= {f"adam.{name}.{i}.{key}": value for key, value in state.items()}
    about = {
        "format": FORMAT,
        "plan": json.dumps(asdict(training.plan)),
        "progress": json.dumps({"step": training.step, "seconds": training.seconds}),
    }
    whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write(folder / NAME, save(whole, about))


def load_snapshot(training: Training, folder: Path) -> None:
    """Go on from the checkpoint of a folder, if it has one; of another plan it is an error."""
    from safetensors import SafetensorError, safe_open

    path = folder / NAME
    if not path.exists():
        return
    wrong = f"{path} is no readable checkpoint of a training; delete it to start anew"
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if about["format"] != FORMAT:
            raise FileError(wrong)
        given, saved = json.dumps(asdict(training.plan)), about["plan"]
        if given != saved:
            raise InputError(
                f"{path} is the checkpoint of another plan ({_difference(given, saved)}); "
                "use another folder, or delete it to start anew"
            )
        _restore(training, tensors, json.loads(about["progress"]))
    except (SafetensorError, KeyError, RuntimeError, json.JSONDecodeError):
        raise FileError(wrong) from None


def _restore(training: Training, tensors: dict[str, Tensor], progress: dict) -> None:
    def group(name: str) -> dict[str, Tensor]:
        start = f"{name}."
        return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}

    for name, net in _networks(training).items():
        net.load_state_dict(group(name))
    for name, adam in training.adams.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in group(f"adam.{name}").items():
            index, _, leaf = key.partition(".")
            state.setdefault(int(index), {})[leaf] = value
        adam.load_state_dict(adam.state_dict() | {"state": state})
        # Adam walks through weights and moments side by side in memory: one layout for all
        for parameter, moments in adam.state.items():
            for leaf in ("exp_avg", "exp_avg_sq"):
                moments[leaf] = torch.empty_like(parameter).copy_(moments[leaf])
    for name, random in training.randoms.items():
        random.set_state(tensors[name])
    training.step, training.seconds = progress["step"], progress["seconds"]


def _networks(training: Training) -> dict[str, nn.Module]:
    return training.nets | {"average": training.average}


def _difference(given: str, saved: str) -> str:
    ours, theirs = json.loads(given), json.loads(saved)
    names = [name for name in ours if ours[name] != theirs.get(name)]
    return ", ".join(f"{name} was {theirs.get(name)}, now {ours[name]}" for name in names)

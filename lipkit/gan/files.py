"""A generator or critic as one safetensors file that says how to build the network it fills."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..errors import FileError, InputError, check_file
from ..formats import state
from ..formats.atomic import write
from ..models import Critic, Generator

FORMAT = "lipkit gan 1"


def save(
    net: Generator | Critic, path: str | Path, half: bool = True, note: dict | None = None
) -> Path:
    """Write a network, in half precision unless told otherwise; `note` is kept beside it.

    >>> import tempfile
    >>> net = Generator(latent=4, depth0=4, scales=(4,))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = load(save(net, f"{folder}/tiny.safetensors"))
    >>> again.side, bool((again.start.weight - net.start.weight).abs().max() < 1e-2)
    (8, True)
    """
    from safetensors.torch import save as pack

    dtype = torch.float16 if half else torch.float32
    tensors = {n: p.detach().cpu().to(dtype).contiguous() for n, p in net.named_parameters()}
    about = describe(net) | {"note": note or {}, "checksum": state.BLANK}
    write(path, state.sealed(pack(tensors, {"lipkit": json.dumps(about)})))
    return Path(path)


def load(path: str | Path) -> Generator | Critic:
    """Read the network that `save` wrote, in single precision; `.note` is what it says."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    check_file(path)
    wrong = f"{path.name} is no network that lipkit.gan.save wrote, or it is damaged"
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("lipkit", "{}"))
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        if "checksum" in about and not state.is_whole(path.read_bytes(), about["checksum"]):
            raise ValueError("damaged")  # older files have none
        net = _empty(about)
        net.load_state_dict(tensors, assign=True)
    except (InputError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        raise FileError(wrong) from None
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror or error})") from None
    net.requires_grad_()
    net.note = about.get("note", {})
    return net


def describe(net: Generator | Critic) -> dict:
    """Return all that `load` needs to build the network."""
    kind = "generator" if isinstance(net, Generator) else "critic"
    colours = (
        net.to_rgb[0].weight.shape[0] if kind == "generator" else net.from_rgb[0].weight.shape[1]
    )
    about = {"format": FORMAT, "kind": kind, "depths": net.depths, "channels": colours}
    return about | ({"latent": net.latent} if kind == "generator" else {})


def _empty(about: dict) -> Generator | Critic:
    if about["format"] != FORMAT:
        raise ValueError("another format")
    depth0, *scales = about["depths"]
    with torch.device("meta"):  # shapes only: what a file claims costs no memory
        if about["kind"] == "critic":
            return Critic(depth0, scales, about["channels"])
        return Generator(about["latent"], depth0, scales, about["channels"])

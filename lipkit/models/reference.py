"""Names that the published implementations give to the same parameters."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from ..errors import FileError, InputError, check_choice
from .decoder import DeepDecoder
from .hourglass import Hourglass
from .pgan import Critic, Generator


def reference_names(net: nn.Module) -> dict[str, str]:
    """Return our module name -> the published one, for every convolution and batch norm.

    >>> from lipkit.models import build
    >>> reference_names(build("dip"))["head"]
    '9.1'
    """
    if isinstance(net, Hourglass):
        return _hourglass_names(net)
    if isinstance(net, DeepDecoder):
        return _decoder_names(net)
    if isinstance(net, (Generator, Critic)):
        return _pgan_names(net)
    raise InputError(
        f"no published names are known for a {type(net).__name__}; "
        "they are for Hourglass, DeepDecoder, Generator and Critic"
    )


def load_reference(
    net: nn.Module, state_dict: dict[str, Tensor] | str | os.PathLike, part: str | None = None
) -> nn.Module:
    """Load a published state dict (keys with or without `module.`) into our network.

    A published file of one is read without running what is pickled in it. A checkpoint
    of a GAN has several: `part` is "avgG" (the moving average, as for a `Generator` by default),
    "netG" or "netD" (for a `Critic`).

    >>> from lipkit.models import build
    >>> net = build("deep-decoder", levels=1, width=2)
    >>> theirs = {"1.1.weight": torch.zeros(2, 2, 1, 1), "5.1.weight": torch.zeros(2, 2, 1, 1)}
    >>> theirs |= {f"{k}.{leaf}": torch.ones(2) for k in "47" for leaf in ("weight", "bias")}
    >>> net = load_reference(net, theirs | {"8.1.weight": torch.ones(3, 2, 1, 1)})
    >>> int(net.head.weight.detach().sum())
    6
    """
    if not isinstance(state_dict, dict):
        from .pickled import read_tensors  # late: it would slow down `import lipkit`

        state_dict = read_tensors(state_dict, allow_objects=True)
    given = {_plain(key): value for key, value in _part(net, state_dict, part).items()}
    names = reference_names(net)
    wanted = {}
    for ours in net.state_dict():
        module, _, leaf = ours.rpartition(".")
        wanted[ours] = _plain(f"{names[module]}.{leaf}")
    _check_keys(given, set(wanted.values()))
    state = net.state_dict()
    for ours, theirs in wanted.items():
        if theirs not in given:  # running statistics: never read, since we train and run alike
            continue
        value = torch.as_tensor(given[theirs])
        if value.shape != state[ours].shape:
            raise InputError(
                f"{theirs!r} has shape {tuple(value.shape)}, but this network needs "
                f"{tuple(state[ours].shape)}; is the state dict of another width?"
            )
        state[ours] = value.to(state[ours])
    net.load_state_dict(state)
    return net


_PARTS = ("avgG", "netG", "netD")


def _part(net: nn.Module, content: dict, part: str | None) -> dict:
    """Take the state dict of one network out of a checkpoint, if it is not one already."""
    if part is not None:
        check_choice("part", part, _PARTS)
    if part is None and not isinstance(content.get("netG"), dict):
        return content
    part = part or ("netD" if isinstance(net, Critic) else "avgG")
    if not isinstance(content.get(part), dict):
        raise FileError(f"the checkpoint has no {part!r}; it holds: {', '.join(map(str, content))}")
    return content[part]


def _plain(key: str) -> str:
    """Leave out wrappers of layers and of whole networks, which are called `module`."""
    return ".".join(name for name in str(key).split(".") if name != "module")


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def _check_keys(given: dict, wanted: set[str]) -> None:
    missing = [k for k in wanted - set(given) if not k.endswith(_STATISTICS)]
    extra = [k for k in set(given) - wanted if not k.endswith(_STATISTICS)]
    problem, keys = ("lacks", missing) if missing else ("has unknown", extra)
    if keys:
        more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
        need = " that this network needs" if missing else ""
        raise InputError(
            f"the state dict {problem} {_in_order(keys)[0]!r}{more}{need}; "
            "is it of another network, width or depth?"
        )


def _in_order(keys: list[str]) -> list[str]:
    def by_number(key: str) -> list:
        return [(0, int(part)) if part.isdigit() else (1, part) for part in key.split(".")]

    return sorted(keys, key=by_number)


def _hourglass_names(net: Hourglass) -> dict[str, str]:
    # a published convolution is Sequential(padding, conv, pooling), without padding module if zero
    index = 0 if net.pad == "zeros" else 1
    names = {}
    root = ""
    for i in range(net.levels):
        deep = f"{root}1.1." if net.skip_channels[i] else f"{root}1."
        if net.skip_channels[i]:
            names |= {f"skip{i}.conv": f"{root}1.0.1.{index}", f"skip{i}.norm": f"{root}1.0.2"}
        names |= {f"down{i}a.conv": f"{deep}1.{index}", f"down{i}a.norm": f"{deep}2"}
        names |= {f"down{i}b.conv": f"{deep}4.{index}", f"down{i}b.norm": f"{deep}5"}
        names |= {f"norm{i}": f"{root}2"}
        names |= {f"up{i}a.conv": f"{root}3.{index}", f"up{i}a.norm": f"{root}4"}
        names |= {f"up{i}b.conv": f"{root}6.{index}", f"up{i}b.norm": f"{root}7"}
        root = f"{deep}7."
    refine = hasattr(net, "up0b")
    return names | {"head": f"{9 if refine else 6}.{index}"}


def _decoder_names(net: DeepDecoder) -> dict[str, str]:
    # the published builder numbers its layers from 1: convolution, upsampling, ReLU, norm
    names = {}
    number = 1
    for i in range(net.levels + 1):
        last = i == (net.levels if net.upsample_first else 0)
        number += 0 if net.upsample_first or last else 1
        names[f"conv{i}"] = f"{number}.1"
        number += 2 if last or not net.upsample_first else 3
        names[f"norm{i}"] = str(number)
        number += 1
    return names | {"head": f"{number}.1"}


def _pgan_names(net: Generator | Critic) -> dict[str, str]:
    names = {f"scales.{i}.{k}": f"scaleLayers.{i}.{k}" for i in range(net.levels) for k in (0, 1)}
    if isinstance(net, Generator):
        names |= {f"to_rgb.{i}": f"toRGBLayers.{i}" for i in range(net.levels + 1)}
        names |= {"format": "formatLayer", "start": "groupScale0.0"}
    else:
        names |= {f"from_rgb.{i}": f"fromRGBLayers.{i}" for i in range(net.levels + 1)}
        names |= {"decision": "decisionLayer"}
        names |= {f"last.{k}": f"groupScaleZero.{k}" for k in (0, 1)}
    return {ours: f"{theirs}.module" for ours, theirs in names.items()}

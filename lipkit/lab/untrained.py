"""What all experiments on an untrained network share: their checks and its initial weights."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch

from .. import find, models
from ..data.drawn import is_drawn
from ..errors import InputError, check_one_of, is_number
from ..find.imp import FIT_OPTIONS as OF_EVERY_ROUND
from ..prior import Prior
from .settings import METHODS, Settings, check_names

CONTROLS = ("none", "shuffled", "random", "fresh")
FIT_OPTIONS = ("input_noise", "average", "langevin", "weight_decay", "backtrack")
FRESH_SEED = 1000  # added to the seed of initial weights that a mask was not found for
LAWS = {"xavier": torch.nn.init.xavier_normal_}  # of initial weights, beside the networks' own


def check(e: Settings) -> None:
    """Refuse what no untrained network can do, whatever it is used for."""
    check_one_of("method", e.method, METHODS)
    check_one_of("control", e.control, CONTROLS)
    check_one_of("network", e.prior, models.PRESETS)
    check_names(f"option of network {e.prior!r}:", e.options, _network_options(e.prior))
    check_names("option of the initial weights:", e.initial, ("law", "scale"))
    check_one_of("law of initial weights", e.initial.get("law", ""), ("", *LAWS))
    if not is_number(e.initial.get("scale", 1), least=0):
        raise InputError("the scale of initial weights is a number of at least 0")
    if e.stretch and is_drawn(e.image):
        raise InputError(f"{e.image!r} is drawn at its size: leave out stretch")
    check_names("fit option", e.fit, FIT_OPTIONS)
    check_names(f"option of {e.method!r}:", e.find, _find_options(e.method))
    check_names("stop option", e.stop, ("window", "patience"))
    if e.method == "dense":
        _check_dense(e)
    if not isinstance(e.image, str) and e.method != "imp_multi":
        raise InputError("several pictures in one experiment are for method 'imp_multi' only")


def _check_dense(e: Settings) -> None:
    if e.find or e.find_on or e.density != 1:
        raise InputError("method 'dense' has no mask: no density, find or find_on")
    if e.control not in ("none", "fresh"):
        raise InputError(f"method 'dense' has no mask to make the control {e.control!r} of")


def check_no_oracle(search: Settings) -> None:
    """Refuse rounds that end where only a clean picture could say."""
    if search.find.get("until_oracle"):
        raise InputError("only where there is a clean picture is the oracle's step known")


@functools.cache
def _network_options(name: str) -> list[str]:
    return [*models.options(name), "code", "code_scale"]


@functools.cache
def _find_options(method: str) -> list[str]:
    """What the function of a method takes, beside what an experiment gives it."""
    if method == "dense":
        return []
    ours = ("prior", "op", "ops", "y", "ys", "density", "seed", "progress", "options",
            "fit_options", "folder", "checkpoint", "details")  # fmt: skip
    names = [*inspect.signature(getattr(find, method)).parameters]
    if method.startswith("imp"):
        names += [*inspect.signature(find.imp).parameters, *OF_EVERY_ROUND]
    if method == "imp":
        names.append("until_oracle")
    return [name for name in dict.fromkeys(names) if name not in ours and "reference" not in name]


def initial_prior(e: Settings, size: Any, device: str, seed: int | None = None, **made) -> Prior:
    """Make the network of an experiment, with its initial weights and its code."""
    prior = Prior(e.prior, size, e.seed if seed is None else seed, **made, **e.options)
    _redraw(prior, **e.initial)
    return prior.to(device)


@torch.no_grad()
def _redraw(prior: Prior, law: str = "", scale: float = 1) -> None:
    """Other initial weights of the convolutions: of another law, or larger or smaller."""
    draw = torch.Generator().manual_seed(prior.recipe.seed)
    for weight in (w for w in prior.net.parameters() if w.ndim == 4):
        if law:
            LAWS[law](weight, generator=draw)
        weight.mul_(scale)

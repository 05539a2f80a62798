"""Experiments with a classifier: taught under a prior's mask, or to find a mask for a prior."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ... import find
from ...data import labelled
from ...errors import InputError
from ...find.schedule import rounds_to
from ...masks import Mask
from ...prior import Prior
from .. import classifier as classify

if TYPE_CHECKING:
    from torch import Tensor

    from ..experiment import Experiment

OPTIONS = ("variant", "side", "batch")  # of `classify.Classifier` and of `classify.train`
METHODS = ("dense", "random", "imp")  # and whatever finds masks in restoring


def check(e: Experiment) -> None:
    """Refuse what cannot be taught."""
    for name in e.task_options:
        if name not in OPTIONS:
            raise InputError(f"task 'classify' has the options {', '.join(OPTIONS)}, not {name!r}")
    if e.control == "fresh" or e.fit or e.stop or e.gray or e.stretch:
        raise InputError("task 'classify' takes no fit, stop, gray, stretch or fresh weights")
    if e.search().task == "classify" and e.method not in METHODS:
        raise InputError(f"classifiers find masks by {', '.join(METHODS[1:])}, not {e.method!r}")


def find_mask(e: Experiment, prior: Prior, progress: bool) -> Mask:
    """The mask that a classifier finds, carried over to the prior."""
    if e.method == "random":
        return find.random(prior, density=e.density, seed=e.seed, **e.find)
    how = {"rounds": rounds_to(e.density, e.find.get("rate", 0.2)), "seed": e.seed}
    how |= {"progress": progress} | _of_training(e) | e.find
    found = classify.imp(_classifier(e, prior), *_pictures(e, "train"), **how)
    return classify.carried(found.mask, prior.net)


def teach(e: Experiment, prior: Prior, mask: Mask | None) -> dict[str, Any]:
    """What a record says of a classifier trained under a mask, from the prior's weights."""
    began = time.perf_counter()
    how = dict(steps=e.steps, lr=e.lr, seed=e.seed, **_of_training(e))
    trained = classify.train(_classifier(e, prior), *_pictures(e, "train"), mask=mask, **how)
    numbers = {
        "accuracy": classify.accuracy(trained, *_pictures(e, "test")),
        "loss": trained.loss,
        "weights": sum(int(p.count_nonzero()) for p in trained.parameters()),
        "kept": sum(p.numel() for p in trained.parameters()),
        "density": 1.0,
    }
    return {
        "reason": f"all {e.steps} steps are done",
        "numbers": numbers,
        "curve": {},
        "fit_seconds": round(time.perf_counter() - began, 2),
    }


def _classifier(e: Experiment, prior: Prior) -> classify.Classifier:
    how = {n: v for n, v in e.task_options.items() if n != "batch"}
    return classify.Classifier(prior, _pictures(e, "test")[0].shape[1:], **how)


def _pictures(e: Experiment, part: str) -> tuple[Tensor, Tensor]:
    return labelled(e.image, part, int(e.strength) if part == "train" else None)


def _of_training(e: Experiment) -> dict[str, int]:
    return {n: v for n, v in e.task_options.items() if n == "batch"}

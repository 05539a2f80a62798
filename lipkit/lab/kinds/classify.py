"""Teach a classifier with a prior's layers, under a prior's mask, or to find a mask for a prior."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ... import find as find_mask
from ...data import labelled
from ...errors import InputError
from ...find.schedule import rounds_to
from ...masks import Mask
from ...prior import Prior
from .. import classifier, untrained
from ..restoring import weights
from ..results import Found, Outcome
from ..search import kept_mask
from ..settings import Settings

TASKS = {"classify": "number of labelled pictures to learn from"}
MASKS_ARE_OF = "a picture"  # as it has the layers of a network that draws one
OPTIONS = ("variant", "side", "batch")  # of `Classifier` and of `classifier.train`
METHODS = ("dense", "random", "imp")  # and whatever finds masks in restoring


class Lesson(NamedTuple):
    """Labelled pictures to learn from, and others to be asked about."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def check(e: Settings) -> None:
    """Refuse what cannot be taught."""
    untrained.check(e)
    for name in e.task_options:
        if name not in OPTIONS:
            raise InputError(f"task 'classify' has the options {', '.join(OPTIONS)}, not {name!r}")
    if e.control == "fresh" or e.fit or e.stop or e.gray or e.stretch:
        raise InputError("task 'classify' takes no fit, stop, gray, stretch or fresh weights")
    if e.search().task in TASKS:
        untrained.check_no_oracle(e)
        if e.method not in METHODS:
            known = ", ".join(METHODS[1:])
            raise InputError(f"classifiers find masks by {known}, not {e.method!r}")


def problem(e: Settings) -> Lesson:
    """Load the pictures with their labels."""
    return Lesson(labelled(e.image, "train", int(e.strength)), labelled(e.image, "test"))


def find(search: Settings, device: str, folder: str | Path | None, progress: bool) -> Found:
    """Find a mask by a classifier, and carry it over to the prior."""
    prior = untrained.initial_prior(search, search.size, device)
    return kept_mask(search, prior, folder, lambda: (_new(search, prior, progress), {}))


def _new(search: Settings, prior: Prior, progress: bool) -> Mask:
    if search.method == "random":
        return find_mask.random(prior, density=search.density, seed=search.seed, **search.find)
    lesson = problem(search)
    how = {"rounds": rounds_to(search.density, search.find.get("rate", 0.2)), "seed": search.seed}
    how |= {"progress": progress} | _training_options(search) | search.find
    found = classifier.imp(_classifier(search, prior, lesson), *lesson.train, **how)
    return classifier.carried(found.mask, prior.net)


def run(e: Settings, found: Found, progress: bool) -> Outcome:
    """Teach a classifier under the mask, from the prior's weights."""
    began = time.perf_counter()
    lesson = problem(e)
    how = dict(steps=e.steps, lr=e.lr, seed=e.seed, **_training_options(e))
    untaught = _classifier(e, found.start, lesson)
    taught = classifier.train(untaught, *lesson.train, mask=found.mask, **how)
    accuracy = classifier.accuracy(taught, *lesson.test)
    numbers = {"accuracy": accuracy, "loss": taught.loss} | weights(taught)
    return Outcome(f"all {e.steps} steps are done", numbers, {}, time.perf_counter() - began)


def _classifier(e: Settings, prior: Prior, lesson: Lesson) -> classifier.Classifier:
    how = {n: v for n, v in e.task_options.items() if n != "batch"}
    return classifier.Classifier(prior, lesson.test[0].shape[1:], **how)


def _training_options(e: Settings) -> dict[str, int]:
    return {n: v for n, v in e.task_options.items() if n == "batch"}

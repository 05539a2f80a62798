"""Run one experiment, on any device, and return its record as plain data."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import Error, StorageError
from ..masks import LayerCollapseWarning, Mask
from ..workers import default_device, device_name, processor_name
from .experiment import Experiment
from .kinds import kind_of
from .records import commit
from .results import shortened


def run(
    experiment: Experiment,
    device: str | None = None,
    masks: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Return the record of one experiment: numbers, curve, layers, seconds; or why it failed.

    `masks` is a folder that keeps masks found, so that experiments that share one find it once.

    >>> record = run(Experiment("astronaut", 16, options={"levels": 2, "down": 4}, steps=4))
    >>> record["status"], sorted(record["numbers"])[:3], record["curve"]["step"]
    ('done', ['density', 'kept', 'last'], [1, 2, 3, 4])
    """
    began = time.perf_counter()
    commit()  # of the sources as they are now, before an edit of them
    device = device or default_device()
    try:
        experiment.check()
        results = _results(experiment, device, masks, progress)
    except (
        StorageError,
        MemoryError,
    ):  # of this machine, not of the experiment: it can be repeated
        raise
    except Exception as problem:  # whatever it is: the experiments after it shall run
        return failure(experiment, problem, device, time.perf_counter() - began)
    record = _about(experiment, device, time.perf_counter() - began)
    return record | {"status": "done"} | results


def failure(
    experiment: Experiment, problem: BaseException, device: str = "cpu", seconds: float = 0.0
) -> dict[str, Any]:
    """Return the record of an experiment that failed.

    >>> failure(Experiment("coffee", 64), Error("no memory"))["reason"]
    'no memory'
    """
    kind = "" if isinstance(problem, Error) else f"{type(problem).__name__}: "
    reason = " ".join(f"{kind}{problem}".split())[:300]
    return _about(experiment, device, seconds) | {"status": "failed", "reason": reason}


def _about(experiment: Experiment, device: str, seconds: float) -> dict[str, Any]:
    return {
        "hash": experiment.digest,
        "experiment": experiment.given(),
        "versions": experiment.versions(),
        "device": device_name(device),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "torch": str(torch.__version__),
        "seconds": round(seconds, 2),
    }


def _results(
    e: Experiment, device: str, masks: str | Path | None, progress: bool
) -> dict[str, Any]:
    """The kind of the search finds the mask, and the experiment's own kind uses it."""
    search = e.search()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)  # it is counted in the record
        found = kind_of(search).find(search, device, masks, progress)
    mask = _controlled(found.mask, e)
    outcome = kind_of(e).run(e, replace(found, mask=mask), progress)
    numbers = outcome.numbers | found.numbers | _numbers(mask)
    layers = {} if mask is None else mask.per_layer()
    return {
        "reason": outcome.reason,
        "numbers": {name: shortened(value) for name, value in numbers.items()},
        "curve": {name: [shortened(v) for v in values] for name, values in outcome.curve.items()},
        "layers": {name: list(count) for name, count in layers.items()},
        "rounds": found.rounds,
        "search_seconds": round(found.seconds, 2),
        "fit_seconds": round(outcome.seconds, 2),
        "picture": outcome.picture,
    }


def _controlled(mask: Mask | None, e: Experiment) -> Mask | None:
    if e.control == "shuffled":
        return mask.shuffled(e.seed)
    return mask.same_density_random(e.seed) if e.control == "random" else mask


def _numbers(mask: Mask | None) -> dict[str, float]:
    if mask is None:
        return {}
    return {"kept": mask.kept, "density": mask.density, "collapsed": len(mask.collapsed())}

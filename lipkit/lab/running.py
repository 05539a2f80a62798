"""Run one experiment, on any device, and return its record as plain data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import metrics, mri
from ..errors import Error
from ..fitting import Fit, PosteriorMean, fit
from ..fitting.result import Snapshot
from ..fitting.stop import WMV
from ..masks import Mask
from ..prior import Prior
from .experiment import FRESH_SEED, TRAINED, Experiment, Problem, initial_prior, problem
from .kinds.classify import teach
from .search import Found, find_mask, not_interrupted, shortened

POINTS = 100  # of a recorded curve
CURVES = ("step", "loss", "psnr", "low", "high")


def run(
    experiment: Experiment,
    device: str | None = None,
    masks: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """The record of one experiment: numbers, curve, layers, seconds, or the reason of a failure.

    `masks` is a folder that keeps masks found, so that experiments that share one find it once.

    >>> record = run(Experiment("astronaut", 16, options={"levels": 2, "down": 4}, steps=4))
    >>> record["status"], sorted(record["numbers"])[:3], record["curve"]["step"]
    ('done', ['density', 'kept', 'last'], [1, 2, 3, 4])
    """
    began = time.perf_counter()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        experiment.check()
        results = _results(experiment, device, masks, progress)
    except Exception as problem:  # whatever it is: the experiments after it shall run
        return failure(experiment, problem, device, time.perf_counter() - began)
    record = _about(experiment, device, time.perf_counter() - began)
    return record | {"status": "done"} | results


def failure(
    experiment: Experiment, problem: BaseException, device: str = "cpu", seconds: float = 0.0
) -> dict[str, Any]:
    """The record of an experiment that failed.

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
        "device": torch.cuda.get_device_name(device) if "cuda" in device else device,
        "torch": str(torch.__version__),
        "seconds": round(seconds, 2),
    }


def _results(e: Experiment, device: str, masks, progress: bool) -> dict[str, Any]:
    if e.prior == TRAINED:
        from .kinds import generator as trial

        return trial.run(e, device, masks, progress)
    found = find_mask(e, device, masks, progress)
    mask = _controlled(found.mask, e)
    taught = e.task == "classify"
    made = teach(e, found.prior, mask) if taught else _fitted(e, found, mask, progress)
    numbers, layers = made.pop("numbers") | found.numbers, {}
    if mask is not None:
        numbers |= {"kept": mask.kept, "density": mask.density, "collapsed": len(mask.collapsed())}
        layers = {name: list(count) for name, count in mask.per_layer().items()}
    return made | {
        "numbers": {name: shortened(value) for name, value in numbers.items()},
        "layers": layers,
        "rounds": found.rounds,
        "search_seconds": round(found.seconds, 2),
    }


def _fitted(e: Experiment, found: Found, mask: Mask | None, progress: bool) -> dict[str, Any]:
    """The numbers and the curve of a restoration, and the picture."""
    task, prior, device = problem(e), found.prior, str(found.prior.z.device)
    if e.find_on or e.control == "fresh":  # the code belongs to the picture to restore
        prior = initial_prior(e, device, e.seed + FRESH_SEED if e.control == "fresh" else None)
        if e.control != "fresh":
            prior.net.load_state_dict(found.prior.net.state_dict())
    start = _untrained(prior, mask)
    watched = _Watched(WMV(**e.stop)) if e.stop else None
    seen: dict[str, Any] = {"reference": task.clean, "callback": _Bands(task.clean)}
    if e.task == "mri":  # its PSNR is that of magnitudes
        seen = {"callback": mri.Watch(task.score)}
    result = fit(
        prior, task.op, task.y, mask=mask, steps=e.steps, lr=e.lr, stop=watched,
        every=e.every or max(1, e.steps // POINTS), seed=e.seed, precision=e.precision,
        progress=progress, **seen, **_fit_options(e),
    )  # fmt: skip
    not_interrupted(result)
    if e.task == "mri":
        result.history["psnr"] = np.array(seen["callback"].values)
    else:
        result.history.update(seen["callback"].history())
    return {
        "reason": result.reason,
        "numbers": _numbers(e, result, task) | _start_numbers(start, e, task),
        "curve": {
            n: [shortened(v) for v in result.history[n]] for n in CURVES if n in result.history
        },
        "fit_seconds": round(result.seconds, 2),
        # kept by whoever writes the record, or not
        "picture": None if e.task == "mri" else result.image,
    }


def _numbers(e: Experiment, result: Fit, task: Problem) -> dict[str, float]:
    psnr, steps = result.history["psnr"], result.history["step"]
    numbers = {
        "stopped": task.score(result.image),
        "oracle": float(psnr.max()),
        "last": float(psnr[-1]),
        "tail": float(psnr[-5:].mean()),
        "oracle_step": int(steps[psnr.argmax()]),
        "loss": float(result.history["loss"][-1]),
        "weights": sum(int(p.count_nonzero()) for p in result.net.parameters()),
        "kept": sum(p.numel() for p in result.net.parameters()),
        "density": 1.0,
    }
    if e.task == "mri":
        if task.clean is not None:
            numbers["stopped_ssim"] = mri.scores(result.image * task.op.support, task.clean)["ssim"]
        return numbers
    if e.size >= 11:
        numbers["stopped_ssim"] = metrics.ssim(result.image, task.clean)
    if e.task == "sr" and not e.gray and e.size > 8:
        numbers["stopped_y"] = metrics.psnr_y(result.image, task.clean)
        numbers["oracle_y"] = metrics.psnr_y(result.best, task.clean)
    return numbers


def _start_numbers(start: Tensor, e: Experiment, task: Problem) -> dict[str, float]:
    """How the masked network looks untrained, and the measurement, beside the clean picture.

    Of MRI the zero-filled picture, and only where the object is: nothing else is measured.
    """
    numbers, pair = {"start": task.score(start)}, [start, task.clean]
    if e.task == "mri":
        numbers["noisy"] = task.score(mri.zero_filled(task.op, task.y))
        if task.clean is not None:
            pair = [x[:, task.op.support[0] > 0] for x in pair]
    elif task.y.shape == task.clean.shape:
        numbers["noisy"] = task.score(task.y)
    if task.clean is not None:
        likeness = torch.stack([x.flatten() for x in pair]).corrcoef()[0, 1]
        numbers["start_likeness"] = float(likeness)
    return numbers


@torch.no_grad()
def _untrained(prior: Prior, mask: Mask | None) -> Tensor:
    prior = prior.clone()
    if mask is not None:
        mask.apply(prior.net)
    return prior()[0].float().cpu()


def _controlled(mask: Mask | None, e: Experiment) -> Mask | None:
    if e.control == "shuffled":
        return mask.shuffled(e.seed)
    return mask.same_density_random(e.seed) if e.control == "random" else mask


def _fit_options(e: Experiment) -> dict[str, Any]:
    average = e.fit.get("average")
    return e.fit | {"average": PosteriorMean(**average) if isinstance(average, dict) else average}


class _Bands:
    """A callback that follows how much of the clean picture's low and high frequencies is there."""

    def __init__(self, clean: Tensor) -> None:
        self.clean = clean
        self.shares: list[tuple[float, float]] = []

    def __call__(self, now: Snapshot) -> None:
        self.shares.append(metrics.bands(now.image, self.clean))

    def history(self) -> dict[str, np.ndarray]:
        return dict(zip(("low", "high"), np.round(self.shares, 3).T, strict=True))


class _Watched:
    """A stop rule that picks its picture but lets the fit go on, so that curves are whole."""

    def __init__(self, rule: WMV) -> None:
        self.rule = rule

    def __repr__(self) -> str:
        return f"_Watched({self.rule!r})"

    def init(self, x: Tensor) -> dict[str, Tensor]:
        return self._hidden(self.rule.init(x))

    def update(self, state: dict[str, Tensor], step: int, x: Tensor) -> dict[str, Tensor]:
        return self._hidden(self.rule.update(state | {"done": state["fired"]}, step, x))

    def _hidden(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return state | {"fired": state["done"], "done": torch.zeros_like(state["done"])}

    def reason(self, steps: int, best_step: int | None) -> str:
        return self.rule.reason(steps, best_step)

"""Fit a prior to one measurement: what one step does, and what is noted of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import metrics
from ..engine import WORTH, GraphStep, forward_and_loss, install
from ..errors import Error, is_number
from ..formats import state
from ..masks import Mask
from ..prior import Prior
from . import loop
from .result import Fit, Snapshot
from .settings import EMA, PosteriorMean, Settings, check_parts, signature

BACKTRACK_EVERY = 100  # steps between two looks back, as published
COLUMNS = ("step", "loss", "psnr", "ssim", "psnr_raw")


def fit(
    prior: Prior,
    op,
    y: Tensor,
    *,
    steps: int = 2000,
    mask: Mask | None = None,
    lr: float = 0.01,
    input_noise: float = 0.0,
    average: EMA | PosteriorMean | float | None = None,
    stop=None,
    langevin: float = 0.0,
    weight_decay: float = 0.0,
    backtrack: float | None = None,
    reference: Tensor | None = None,
    every: int = 50,
    callback: Callable[[Snapshot], bool | None] | None = None,
    seed: int = 0,
    precision: str = "auto",
    engine: str = "auto",
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Fit:
    """Fit a prior to the measurement `y` of the operator `op` (anything with a method `A`).

    The prior itself stays as it is: a copy is trained, on the device where the prior is.

    Args:
        steps: the most optimizer (Adam) steps; `stop`, a rule of `lipkit.stop`, may end it earlier.
        mask: weights to keep; the others are exactly zero from start to end.
        input_noise: standard deviation of the noise added to the code anew at every step.
        average: `EMA(0.99)` (or just 0.99) or `PosteriorMean(...)` of the outputs.
        langevin: standard deviation of the noise added to the convolutions after every step;
            twice the learning rate makes the published SGLD.
        backtrack: every 100 steps, go back to the last good weights if the fit got worse by more
            than this many dB (5 is usual).
        reference: the clean picture; it is measured against and changes nothing.
        every: steps between two measurements and two calls of `callback`.
        precision: "auto" is single precision, like "fp32"; "bf16" computes the network in bfloat16,
            faster for wide networks on processors that have it, and not the same to 0.1 dB.
        engine: "auto" trains a masked network without what its picture does not depend on, and
            sparsely where that is faster, and on a GPU launches a step at once, as a CUDA graph;
            `Fit.engine` says what it chose. "plain" goes through the full network as it is, one
            operation after the other. The path is the same up to rounding.
        checkpoint: a file to resume from, and to save to now and then and when interrupted.

    >>> import lipkit as lk
    >>> clean = lk.testing.tiny_image()
    >>> op = lk.physics.Denoise(sigma=0.1)
    >>> fit = lk.fit(lk.testing.tiny_prior(), op, op.measure(clean), steps=20, reference=clean)
    >>> fit.image.shape, fit.steps, fit.reason
    (torch.Size([3, 16, 16]), 20, 'all 20 steps are done')
    """
    settings = Settings(
        steps, lr, input_noise, EMA(average) if is_number(average) else average,
        stop, langevin, weight_decay, backtrack, every, seed, precision, engine,
    )  # fmt: skip
    settings.check()
    check_parts(prior, op, y, mask, reference, callback)
    with torch.inference_mode(False), torch.enable_grad():  # wherever it is called from
        run = _Run(prior, op, y, mask, settings, reference)
        return run.go(callback, checkpoint, progress)


class _Run(loop.Work):
    """One fit under way: all that changes from step to step, to be saved and resumed."""

    def __init__(self, prior, op, y, mask, settings: Settings, reference) -> None:
        self.s = settings
        self.op = op
        self.prior = prior.clone()
        device = self.prior.z.device
        self.y = y.to(device)
        if mask is not None:
            mask.apply(self.prior.net)
        # on CPU and GPU the faster layout
        self.prior.z = self.prior.z.contiguous(memory_format=torch.channels_last)
        self.engine = install(
            self.prior.net,
            self.prior.z,
            mask,
            settings.engine,
            settings.precision,
            bool(settings.langevin),
        )
        self.prior.net = self.engine.net  # what is trained; `finish` brings the weights home
        self.signature = signature(prior, op, y, mask, settings)
        self.signature["engine"] = f"{self.engine.kind}{' bf16' if self.engine.half else ''}"
        self.reference = None if reference is None else reference.detach().to(device)
        parameters = list(self.prior.net.parameters())
        self.adam = torch.optim.Adam(
            parameters, settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.random = torch.Generator(device).manual_seed(settings.seed)
        self.steps = settings.steps
        self.mean = torch.zeros((), device=device)
        self.mean_count = 0
        self.stopper: dict[str, Tensor] = {}
        self.oracle: dict[str, Tensor] = {}
        self.good: dict[str, Tensor] = {}
        self.rows: list[list[Tensor | float]] = []
        self.x = torch.zeros((), device=device)
        self.predicted = self.x
        self.train = self._choose_step()
        self.path: Path | None = None

    def go(self, callback, checkpoint, progress: bool) -> Fit:
        """Do all steps, and return the fit."""

        def seen(measured: bool) -> None:
            if callback is not None and measured and not self.reason and callback(self._snapshot()):
                self.reason = f"the callback asked to stop at step {self.step}"
                self._check_finite(self.rows[-1])

        self.path = None if checkpoint is None else Path(checkpoint)
        return self._result(loop.run(self, self.path, progress=progress, seen=seen))

    def advance(self) -> bool:
        """Do one step, and ask the stop rule; returns whether it was one that is measured."""
        loss = self._update()
        self.reason = self._rule_fired()
        last = self.step == self.s.steps or bool(self.reason)
        due = last or self.step % self.s.every == 0
        if due:
            self._measure(loss)
        if last:
            self._check_finite(self.rows[-1])
        return due

    def parts(self) -> dict[str, state.Part]:
        """Name what changes from step to step, but for a few tensors."""
        return {
            "net": self.prior,
            "adam": self.adam,
            "random": self.random,
            "stopper": self.stopper,
            "oracle": self.oracle,
            "good": self.good,
        }

    def state(self) -> state.Tensors:
        """Return all that changes from step to step, as tensors."""
        rows = [[float(v) for v in row] for row in self.rows]
        return super().state() | {
            "x": self.x,
            "predicted": self.predicted,
            "mean": self.mean,
            "mean_count": torch.tensor(self.mean_count),
            "rows": torch.tensor(rows, dtype=torch.float64),
        }

    def restore(self, tensors: state.Tensors) -> None:
        """Take back what `state` returned."""
        device = self.prior.z.device
        for name in ("x", "predicted", "mean"):
            setattr(self, name, tensors[name].to(device))
        # the signature has the operator's name: ask itself, whatever it is made of
        if not torch.allclose(self.op.A(self.x), self.predicted, rtol=1e-4, atol=1e-5):
            raise state.another(self.path, self.kind, ["operator"])
        state.put_back(tensors, self.parts(), device)
        self.mean_count = int(tensors["mean_count"])
        self.rows = [list(row) for row in tensors["rows"].to(device).unbind()]
        self.train = self._choose_step()  # fewer are left

    def _choose_step(self) -> GraphStep:
        """Make the step a graph where the device has them, unless a reason speaks against."""
        reason = ""
        if self.s.engine == "plain":
            reason = "as asked for"
        elif self.s.backtrack is not None:
            reason = "backtracking looks at the loss in the middle of one"
        elif self.s.steps - self.step < WORTH:
            reason = f"there are fewer than {WORTH}"
        return GraphStep(self.prior.net, self.adam, self.random, reason)

    def _update(self) -> Tensor:
        """Change the weights: output, loss, gradients of kept weights, Adam, Langevin noise."""
        s = self.s
        x, self.predicted, loss = self.train(self._train)
        if s.langevin:
            self._add_langevin_noise()
        # in one memory layout, here and in a checkpoint: it decides the last bit of every mean
        self.x = x.contiguous()
        self.step += 1
        if s.average is not None:
            self.mean, self.mean_count = s.average.update(
                self.mean, self.mean_count, self.step, self.x
            )
        return loss

    def _train(self) -> tuple[Tensor, Tensor, Tensor]:
        """Do the part of a step that a graph can hold: output, measurement of it, and loss."""
        s = self.s
        prior = self.prior
        z = prior.z
        if s.input_noise:
            z = z + s.input_noise * torch.randn(z.shape, generator=self.random, device=z.device)
        x, predicted, loss = forward_and_loss(
            prior, z, self.op, self.y, self.reference, self.engine.half
        )
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        # pruned weights get no gradient, hence no momentum: they stay exactly zero
        for parameter, m in self.engine.pairs:
            parameter.grad.mul_(m)
        if s.backtrack is not None and self.step % BACKTRACK_EVERY == 0:
            self._look_back(loss.detach())
        self.adam.step()
        return x.detach(), predicted.detach(), loss.detach()

    def _look_back(self, loss: Tensor) -> None:
        """Restore the last good weights if the fit fell by more than the allowed drop."""
        if self.good and float(loss / self.good["loss"]) > 10 ** (self.s.backtrack / 10):
            with torch.no_grad():
                for i, parameter in enumerate(self.prior.net.parameters()):
                    parameter.copy_(self.good[str(i)])
                    parameter.grad.zero_()  # it belongs to the weights just discarded
            return
        self.good = {str(i): p.detach().clone() for i, p in enumerate(self.prior.net.parameters())}
        self.good["loss"] = loss.clone()

    @torch.no_grad()
    def _add_langevin_noise(self) -> None:
        masks = {id(parameter): m for parameter, m in self.engine.pairs}
        for p in self.prior.net.parameters():
            if p.ndim == 4:
                noise = torch.randn(p.shape, generator=self.random, device=p.device)
                if id(p) in masks:
                    noise.mul_(masks[id(p)])
                p.add_(noise, alpha=self.s.langevin)

    def _rule_fired(self) -> str:
        rule = self.s.stop
        if rule is None:
            return ""
        if not self.stopper:
            self.stopper = rule.init(self.x)
        self.stopper = rule.update(self.stopper, self.step, self.x)
        # reading the answer makes a GPU wait, so it is asked there only now and then; the rule
        # itself remembers when it fired
        if self.x.is_cuda and self.step % 10:
            return ""
        if not bool(self.stopper["done"]):
            return ""
        best = self.stopper.get("best_step")
        return rule.reason(self.step, None if best is None else int(best))

    @torch.no_grad()
    def _measure(self, loss: Tensor) -> None:
        """Append a row of tensors: they are read back only when somebody looks."""
        image = self._estimate()
        nan = torch.full_like(loss, torch.nan)
        row = [float(self.step), loss, nan, nan, nan]
        if self.reference is not None:
            psnr = metrics.psnr_tensor(image, self.reference)
            raw = psnr if image is self.x else metrics.psnr_tensor(self.x, self.reference)
            small = min(image.shape[-2:]) < 11
            row[2:] = [psnr, nan if small else metrics.ssim_tensor(image, self.reference), raw]
            if not self.oracle:
                self.oracle = {"psnr": psnr.clone(), "image": image.clone()}
            better = psnr > self.oracle["psnr"]
            self.oracle["psnr"] = torch.where(better, psnr, self.oracle["psnr"])
            self.oracle["image"] = torch.where(better, image, self.oracle["image"])
        self.rows.append(row)
        if len(self.rows) > 1:  # the row before this one is long computed: nothing waits
            self._check_finite(self.rows[-2])

    def _check_finite(self, row: list) -> None:
        if not np.isfinite(float(row[1])):
            raise Error(
                f"the loss is {float(row[1])} at step {int(row[0])}: the fit diverged; "
                f"try a smaller learning rate than lr={self.s.lr}"
            )

    def _estimate(self) -> Tensor:
        return self.mean if self.mean_count else self.x

    def _snapshot(self) -> Snapshot:
        step, loss, psnr, ssim, _ = (float(v) for v in self.rows[-1])
        # a copy: the average is updated in place
        image = self._estimate()[0].to("cpu", copy=True)
        return Snapshot(int(step), loss, image, psnr, ssim)

    def _result(self, end: loop.End) -> Fit:
        picked = self.stopper.get("image")
        image = picked if picked is not None and self.stopper["best_step"] > 0 else self._estimate()
        table = np.array([[float(v) for v in row] for row in self.rows]).reshape(-1, len(COLUMNS))
        history = {name: table[:, i] for i, name in enumerate(COLUMNS)}
        history["step"] = history["step"].astype(np.int64)
        best = self.oracle["image"][0].cpu() if self.oracle else None
        about = "; ".join(filter(None, (self.engine.about, self.train.about)))
        return Fit(
            image[0].cpu(), best, history, self.step, end.reason, self.seconds,
            self.engine.finish(), end.interrupted, about,
        )  # fmt: skip

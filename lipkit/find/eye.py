"""The search of `oes`: relaxed masks drawn over frozen weights, and the descent of their logits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checks import is_number, is_whole
from ..engine import boxed, forward_and_loss
from ..errors import Error, FileError, InputError
from ..fitting.checkpoint import signature
from ..fitting.interrupt import held_interrupts
from ..fitting.settings import PRECISIONS
from ..formats.atomic import write
from ..masks import covered
from ..prior import Prior
from . import passes
from .relaxed import PENALTIES, key_of

TRAVEL = 300.0  # lr="auto": lr * steps, as far as a logit can go
SURPLUS = 2.0  # lam="auto": the mean probability falls to this many times the density ...
ARRIVAL = 0.8  # ... in this part of the steps,
GAIN = 1.03  # steered by factors of this
FIRST_LAM = 1e-7
EVERY = 10  # steps between two entries of the history
COLUMNS = ("step", "loss", "penalty", "kept", "lam")


@dataclass(frozen=True)
class EyeSettings:
    """What a search is asked to do; two equal ones make equal searches."""

    density: float
    steps: int
    lr: float
    lam: float | str
    p0: float | dict[str, float]
    reg: str
    samples: int
    temperature: float
    scope: str
    seed: int
    precision: str


def eye_settings(density: float, steps, lr, lam, p0, *rest) -> EyeSettings:
    """The settings, checked."""
    if not is_whole(steps, least=1):
        raise InputError(f"steps must be a whole number of at least 1, got {steps!r}")
    if lr == "auto":
        lr = min(max(TRAVEL / steps, 0.01), 0.3)
    if not is_number(lr, least=0) or lr == 0:
        raise InputError(f"lr must be 'auto' or a number above 0, got {lr!r}")
    if lam != "auto" and not is_number(lam, least=0):
        raise InputError(f"lam must be 'auto' or a number of at least 0, got {lam!r}")
    p0 = density if p0 is None else dict(p0) if isinstance(p0, Mapping) else p0
    s = EyeSettings(density, steps, float(lr), lam, p0, *rest)
    if s.reg not in PENALTIES:
        raise InputError(f"reg must be one of {', '.join(PENALTIES)}, got {s.reg!r}")
    if not is_whole(s.samples, least=1):
        raise InputError(f"samples must be a whole number of at least 1, got {s.samples!r}")
    if not is_number(s.temperature, least=0) or s.temperature == 0:
        raise InputError(f"temperature must be a number above 0, got {s.temperature!r}")
    if not is_whole(s.seed):
        raise InputError(f"seed must be a whole number of at least 0, got {s.seed!r}")
    if s.precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {s.precision!r}")
    return s


class Eye:
    """One search under way. All parameters lie in one vector, of which the network has views."""

    def __init__(self, prior: Prior, op, y: Tensor, settings: EyeSettings) -> None:
        self.s, self.op, self.prior = settings, op, prior.clone().requires_grad_(False)
        self.signature = signature(prior, op, y, None, settings)
        self.prior.net = boxed(self.prior.net)
        self.prior.to(memory_format=torch.channels_last)
        self.names, self.parameters = zip(*covered(self.prior.net, settings.scope), strict=True)
        self.y = y.to(self.prior.z.device)
        self.theta = _roomy(
            torch.cat([_channels_last(p.detach()).flatten() for p in self.parameters])
        )
        self.passes = passes.best_for(self.theta)
        self.p0 = _roomy(self._targets())
        self.weights, self.slope, self.lever = (
            _roomy(torch.zeros_like(self.theta)) for _ in range(3)
        )
        views = zip(
            self.parameters, self._views(self.weights), self._views(self.slope), strict=True
        )
        for p, weight, slope in views:
            p.data = weight
            p.requires_grad_(True)
            p.grad = slope
        self.logits, *self.moments = (_roomy(torch.zeros_like(self.theta)) for _ in range(3))
        self.lam = FIRST_LAM if settings.lam == "auto" else settings.lam
        self.step, self.seconds, self.rows = 0, 0.0, []
        self.whole = True  # False in the middle of a step, when nothing must be saved

    def search(self, checkpoint: str | Path | None, progress: bool) -> bool:
        """All steps that are left; whether they were interrupted."""
        from tqdm import tqdm

        path = None if checkpoint is None else Path(checkpoint)
        if path is not None:
            self._load(path)
        interrupted = False
        silent = {} if progress else {"disable": True}  # else TQDM_DISABLE decides
        start = time.perf_counter() - self.seconds
        saved = time.perf_counter()
        bar = tqdm(total=self.s.steps, initial=self.step, desc="mask", leave=False, **silent)
        try:
            with held_interrupts() as release:
                while self.step < self.s.steps:
                    self.advance()
                    bar.update()
                    self.seconds = time.perf_counter() - start
                    if path is not None and time.perf_counter() - saved > 30:
                        self._save(path)
                        saved = time.perf_counter()
                    release()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            bar.close()
        if path is not None and self.whole:
            self._save(path)
        return interrupted

    def advance(self) -> None:
        """One step: the mean gradient over the draws, the penalty's, Adam."""
        s, self.whole = self.s, False
        more, losses = self._even_pull(), []
        for sample in range(s.samples):
            if sample > 0:
                more.append(self.slope * self.lever)
                self.slope.zero_()
            losses.append(self._draw(sample))
        kept = self.passes.descend(
            self.logits, self.slope, self.lever, self.moments,
            self.p0, self.lam if s.reg == "kl" else 0.0, s.lr, self.step + 1,
            _roomy(sum(more)) if more else None,
        )  # fmt: skip
        if s.lam == "auto" and s.reg != "none":
            self._steer(kept)
        self.step += 1
        if self.step % EVERY == 0 or self.step in (1, s.steps):
            self._note(sum(losses) / s.samples)
        self.whole = True

    def _draw(self, sample: int) -> Tensor:
        """Draw a mask, and find the gradient of its weights; returns its loss."""
        s = self.s
        key = key_of(s.seed, self.step * s.samples + sample)
        self.passes.draw_mask(
            self.logits, s.temperature, key, self.theta, self.weights, self.lever, 1 / s.samples
        )
        half = s.precision == "bf16"
        _, _, loss = forward_and_loss(self.prior, self.prior.z, self.op, self.y, half=half)
        loss.backward()
        return loss.detach()

    def _even_pull(self) -> list[Tensor]:
        """The gradient of a penalty that pulls at all probabilities alike."""
        if self.s.reg not in ("l1", "centred"):
            return []
        p = self.logits.sigmoid()
        sign = 1.0 if self.s.reg == "l1" else (p - self.p0).sum().sign()
        return [p * (1 - p) * (self.lam * sign)]

    def _steer(self, kept: Tensor | float) -> None:
        """More strength, or less; a tensor is not read, which a GPU would have to wait for."""
        behind = kept / self.logits.numel() > self._goal()
        more, less = self.lam * GAIN, self.lam / GAIN
        if isinstance(behind, Tensor):
            self.lam = torch.where(behind, more, less)
        else:
            self.lam = more if behind else less

    def _goal(self) -> float:
        """The mean probability that `lam="auto"` wants at this step."""
        way = min(1.0, self.step / (ARRIVAL * self.s.steps))
        return 0.5 * min(1.0, SURPLUS * self.s.density / 0.5) ** way

    @torch.no_grad()
    def _note(self, loss: Tensor) -> None:
        if not bool(torch.isfinite(loss)):
            raise Error(
                f"the loss is {float(loss)} at step {self.step}: the search diverged; "
                "check the values of the measurement and the operator"
            )
        penalty, value, kept = PENALTIES[self.s.reg], 0.0, 0.0
        whole = [(self.logits, self.p0)]
        # the divergence is a sum over pieces, the excess over a sum is none
        pieces = whole if self.s.reg == "centred" else passes.chunks(*whole[0])
        for v, p0 in pieces:
            p = v.sigmoid()
            kept += float(p.sum())
            value += 0.0 if penalty is None else float(penalty(p, p0))
        mean = kept / self.logits.numel()
        self.rows.append([float(self.step), float(loss), value, mean, float(self.lam)])

    def history(self) -> dict[str, np.ndarray]:
        """The columns noted so far."""
        table = np.array(self.rows).reshape(-1, len(COLUMNS))
        return dict(zip(COLUMNS, table.T, strict=True))

    def named_logits(self) -> dict[str, Tensor]:
        """The logits in the shapes of the parameters, on the CPU."""
        views = zip(self.names, self._views(self.logits), strict=True)
        return {name: view.cpu().contiguous().clone() for name, view in views}

    def _targets(self) -> Tensor:
        """The p0 of each weight, or one for all."""
        p0 = self.s.p0
        each = p0 if isinstance(p0, dict) else dict.fromkeys(self.names, p0)
        if set(each) != set(self.names):
            wrong = sorted(set(each) ^ set(self.names))[0]
            raise InputError(
                f"p0 must name every parameter in scope and no other: {wrong!r} is amiss"
            )
        for value in each.values():
            if not is_number(value) or not 0 < value < 1:
                raise InputError(f"p0 is a probability above 0 and below 1, got {value!r}")
        parts = zip(self.names, self.parameters, strict=True)
        return torch.cat([self.theta.new_full((p.numel(),), each[name]) for name, p in parts])

    def _views(self, flat: Tensor) -> Iterator[Tensor]:
        """The parts of a vector in the shapes of the parameters."""
        parts = flat.split([p.numel() for p in self.parameters])
        for part, p in zip(parts, self.parameters, strict=True):
            view = part.view(_channels_last(p).shape)
            yield view.movedim(-1, 1) if p.ndim == 4 else view

    def _save(self, path: Path) -> None:
        from safetensors.torch import save

        vectors = {"logits": self.logits, "first": self.moments[0], "second": self.moments[1]}
        tensors = {name: v.cpu().clone() for name, v in vectors.items()}
        tensors["rows"] = torch.tensor(self.rows, dtype=torch.float64).reshape(-1, len(COLUMNS))
        numbers = dict(step=self.step, seconds=self.seconds, lam=float(self.lam))
        about = {"signature": json.dumps(self.signature), "numbers": json.dumps(numbers)}
        write(path, save(tensors, about))

    def _load(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        if not path.exists():
            if not path.parent.is_dir():
                raise FileError(f"cannot write {path}: there is no folder {path.parent}")
            return
        try:
            with safe_open(path, "pt", device="cpu") as file:
                about = file.metadata() or {}
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            saved, numbers = (json.loads(about[k]) for k in ("signature", "numbers"))
            changed = [k for k, v in self.signature.items() if saved.get(k) != v]
            if not changed:
                self._restore(tensors, numbers)
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
            raise FileError(
                f"{path} is no checkpoint of a mask search ({error}); delete it to start anew"
            ) from None
        if changed:
            raise InputError(
                f"{path} is the checkpoint of another search: its {', '.join(changed)} differ; "
                "use another file name, or delete it to start anew"
            )

    def _restore(self, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
        for name, v in zip(
            ("logits", "first", "second"), (self.logits, *self.moments), strict=True
        ):
            v.copy_(tensors[name])
        self.rows = tensors["rows"].tolist()
        self.step, self.lam = int(numbers["step"]), float(numbers["lam"])
        self.seconds = float(numbers["seconds"])


def _roomy(vector: Tensor) -> Tensor:
    """A copy with room for a few numbers more behind it, for passes in whole lanes."""
    out = vector.new_zeros(vector.numel() + 64)[: vector.numel()]
    return out.copy_(vector)


def _channels_last(p: Tensor) -> Tensor:
    """A convolution's weights in the order in which they lie in memory, the faster layout."""
    return p.movedim(1, -1) if p.ndim == 4 else p

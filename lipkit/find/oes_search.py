"""The search of `oes`: relaxed masks drawn over frozen weights, and the descent of their logits.

In the symbols of chapter 5: `theta` are the initial weights, `v` the logits, p = sigmoid(v) the
probability of keeping a weight, m a relaxed mask, `w` = theta * m the masked weights. The logits
go down the gradient

    dloss/dv = dloss/dw * dw/dv + lam * dKL(p || p0)/dv.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..engine import boxed, forward_and_loss
from ..errors import Error, InputError, check_choice, check_positive, check_whole, is_number
from ..fitting import loop
from ..fitting.settings import PRECISIONS, signature
from ..masks import covered
from ..masks.relaxed import PENALTIES, key_of
from ..prior import Prior
from . import passes

TRAVEL = 300.0  # lr="auto": lr * steps, as far as a logit can go
SURPLUS = 2.0  # lam="auto": the mean probability falls to this many times the density ...
ARRIVAL = 0.8  # ... in this part of the steps,
GAIN = 1.03  # steered by factors of this
FIRST_LAM = 1e-7
EVERY = 10  # steps between two entries of the history
COLUMNS = ("step", "loss", "penalty", "kept", "lam")


@dataclass(frozen=True)
class OesSettings:
    """Settings of a search; two equal ones make equal searches."""

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


def oes_settings(density: float, steps, lr, lam, p0, *rest) -> OesSettings:
    """Check the settings, and fill in what is left to us."""
    check_whole("steps", steps, least=1)
    if lr == "auto":
        lr = min(max(TRAVEL / steps, 0.01), 0.3)
    if not is_number(lr, least=0) or lr == 0:
        raise InputError(f"lr must be 'auto' or a number above 0, got {lr!r}")
    if lam != "auto" and not is_number(lam, least=0):
        raise InputError(f"lam must be 'auto' or a number of at least 0, got {lam!r}")
    p0 = density if p0 is None else dict(p0) if isinstance(p0, Mapping) else p0
    s = OesSettings(density, steps, float(lr), lam, p0, *rest)
    check_whole("samples", s.samples, least=1)
    check_whole("seed", s.seed)
    check_positive("temperature", s.temperature)
    check_choice("reg", s.reg, PENALTIES)
    check_choice("precision", s.precision, PRECISIONS)
    return s


class OesSearch(loop.Work):
    """One search under way. All parameters lie in one vector, of which the network has views."""

    kind = "search"

    def __init__(self, prior: Prior, op, y: Tensor, settings: OesSettings) -> None:
        self.s = settings
        self.op = op
        self.signature = signature(prior, op, y, None, settings)
        self.prior = prior.clone().requires_grad_(False)
        self.prior.net = boxed(self.prior.net)
        self.prior.to(memory_format=torch.channels_last)
        self.names, self.parameters = zip(*covered(self.prior.net, settings.scope), strict=True)
        self.y = y.to(self.prior.z.device)
        self.theta = _with_room(
            torch.cat([_channels_last(p.detach()).flatten() for p in self.parameters])
        )
        self.passes = passes.best_for(self.theta)
        self.p0 = _with_room(self._targets())
        zeros = torch.zeros_like(self.theta)
        self.v = _with_room(zeros)
        self.moments = (_with_room(zeros), _with_room(zeros))  # of Adam
        self.w = _with_room(zeros)
        self.dloss_dw = _with_room(zeros)
        self.dw_dv = _with_room(zeros)
        views = zip(self._views(self.w), self._views(self.dloss_dw), strict=True)
        for p, (weight, gradient) in zip(self.parameters, views, strict=True):
            p.data = weight
            p.requires_grad_(True)
            p.grad = gradient
        self.lam = FIRST_LAM if settings.lam == "auto" else settings.lam
        self.steps = settings.steps
        self.rows: list[list[float]] = []

    def advance(self) -> None:
        """Do one step: the mean gradient over the draws, the penalty's, Adam."""
        s = self.s
        more = self._gradient_of_sums()
        losses = []
        for sample in range(s.samples):
            if sample > 0:
                more.append(self.dloss_dw * self.dw_dv)
                self.dloss_dw.zero_()
            losses.append(self._draw(sample))
        kept = self.passes.descend(
            self.v,
            self.dloss_dw,
            self.dw_dv,
            self.moments,
            self.p0,
            self.lam if s.reg == "kl" else 0.0,
            s.lr,
            self.step + 1,
            _with_room(sum(more)) if more else None,
        )
        if s.lam == "auto" and s.reg != "none":
            self._steer(kept)
        self.step += 1
        if self.step % EVERY == 0 or self.step in (1, s.steps):
            self._note(sum(losses) / s.samples)

    def _draw(self, sample: int) -> Tensor:
        """Draw a mask, and find the gradient of its weights; returns its loss."""
        s = self.s
        key = key_of(s.seed, self.step * s.samples + sample)
        self.passes.draw_mask(
            self.v, s.temperature, key, self.theta, self.w, self.dw_dv, 1 / s.samples
        )
        half = s.precision == "bf16"
        _, _, loss = forward_and_loss(self.prior, self.prior.z, self.op, self.y, half=half)
        loss.backward()
        return loss.detach()

    def _gradient_of_sums(self) -> list[Tensor]:
        """Return the gradient of the penalties that depend on the sum of the p alone."""
        if self.s.reg not in ("l1", "centred"):
            return []
        p = self.v.sigmoid()
        sign = 1.0 if self.s.reg == "l1" else (p - self.p0).sum().sign()
        return [p * (1 - p) * (self.lam * sign)]

    def _steer(self, kept: Tensor | float) -> None:
        """Raise or lower lam; a tensor is not read, which a GPU would have to wait for."""
        behind = kept / self.v.numel() > self._goal()
        more = self.lam * GAIN
        less = self.lam / GAIN
        if isinstance(behind, Tensor):
            self.lam = torch.where(behind, more, less)
        else:
            self.lam = more if behind else less

    def _goal(self) -> float:
        """Return the mean probability that `lam="auto"` wants at this step."""
        way = min(1.0, self.step / (ARRIVAL * self.s.steps))
        return 0.5 * min(1.0, SURPLUS * self.s.density / 0.5) ** way

    @torch.no_grad()
    def _note(self, loss: Tensor) -> None:
        if not bool(torch.isfinite(loss)):
            raise Error(
                f"the loss is {float(loss)} at step {self.step}: the search diverged; "
                "check the values of the measurement and the operator"
            )
        penalty = PENALTIES[self.s.reg]
        value = 0.0
        kept = 0.0
        whole = [(self.v, self.p0)]
        # the divergence is a sum over pieces, the excess over a sum is none
        pieces = whole if self.s.reg == "centred" else passes.chunks(*whole[0])
        for v, p0 in pieces:
            p = v.sigmoid()
            kept += float(p.sum())
            value += 0.0 if penalty is None else float(penalty(p, p0))
        mean = kept / self.v.numel()
        self.rows.append([float(self.step), float(loss), value, mean, float(self.lam)])

    def history(self) -> dict[str, np.ndarray]:
        """Return the columns noted so far."""
        table = np.array(self.rows).reshape(-1, len(COLUMNS))
        return dict(zip(COLUMNS, table.T, strict=True))

    def logits(self) -> dict[str, Tensor]:
        """Return the logits in the shapes of the parameters, on the CPU."""
        views = zip(self.names, self._views(self.v), strict=True)
        return {name: view.cpu().contiguous().clone() for name, view in views}

    def state(self) -> dict[str, Tensor]:
        """Return all that changes from step to step; noise follows from the step alone."""
        return {
            "logits": self.v,
            "first": self.moments[0],
            "second": self.moments[1],
            "lam": torch.tensor(float(self.lam), dtype=torch.float64),
            "rows": torch.tensor(self.rows, dtype=torch.float64).reshape(-1, len(COLUMNS)),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` returned."""
        self.v.copy_(tensors["logits"])
        self.moments[0].copy_(tensors["first"])
        self.moments[1].copy_(tensors["second"])
        self.lam = float(tensors["lam"])
        self.rows = tensors["rows"].tolist()

    def _targets(self) -> Tensor:
        """Return the p0 of each weight, whether one is given for all or one for each parameter."""
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
        """Yield the parts of a vector in the shapes of the parameters."""
        parts = flat.split([p.numel() for p in self.parameters])
        for part, p in zip(parts, self.parameters, strict=True):
            view = part.view(_channels_last(p).shape)
            yield view.movedim(-1, 1) if p.ndim == 4 else view


def _with_room(vector: Tensor) -> Tensor:
    """Return a copy with room for a few numbers behind it, for passes over whole vector lanes."""
    out = vector.new_zeros(vector.numel() + 64)[: vector.numel()]
    return out.copy_(vector)


def _channels_last(p: Tensor) -> Tensor:
    """View a convolution's weights in the order in which they lie in memory, the faster layout."""
    return p.movedim(1, -1) if p.ndim == 4 else p

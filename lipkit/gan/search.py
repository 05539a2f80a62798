"""Search the range of a generator for the picture that was measured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import (
    Error,
    InputError,
    check_choice,
    check_picture,
    check_positive,
    check_whole,
    kind_of,
)
from ..fitting import loop
from ..fitting.settings import check_operator
from ..physics import Denoise

LOSSES = ("l2", "l4", "mom")
SHUFFLES = ("fresh", "fixed")


@dataclass(frozen=True)
class Found:
    """The result of a search.

    `image` is that of the best restart, judged by its loss on the measurement, never by the
    reference; `images`, `z` and `losses` are those of all restarts. `history` has the arrays step
    [T], loss [T, restarts] and, with a reference, error and psnr [T, restarts]; `error` is the
    mean squared error of pictures from -1 to 1, as the papers count it: four times ours.
    """

    image: Tensor
    images: Tensor
    z: Tensor
    losses: np.ndarray
    history: dict[str, np.ndarray]
    steps: int
    reason: str
    seconds: float
    interrupted: bool = False

    def __repr__(self) -> str:
        c, h, w = self.image.shape
        return f"Found({c}x{h}x{w}, {self.steps} steps in {self.seconds:.1f} s: {self.reason})"


def picture(generator: nn.Module, z: Tensor) -> Tensor:
    """Return the pictures of latent vectors on the scale from 0 to 1, not clipped.

    >>> from lipkit.models import Generator
    >>> picture(Generator(4, 4, (4,)), torch.zeros(2, 4)).mean()
    tensor(0.5000, grad_fn=<MeanBackward0>)
    """
    return (generator(z) + 1) / 2


def search(
    generator: nn.Module,
    op,
    y: Tensor | Sequence[Tensor],
    *,
    loss: str = "l2",
    steps: int = 1500,
    lr: float = 0.01,
    restarts: int = 1,
    average: int = 0,
    blocks: int = 50,
    shuffle: str = "fresh",
    patience: int | None = None,
    reference: Tensor | Sequence[Tensor] | None = None,
    every: int = 50,
    seed: int = 0,
    progress: bool = True,
) -> Found | list[Found]:
    """Minimize over latent vectors the misfit of the generator's picture to the measurement `y`.

    Args:
        y: one measurement, or several of different pictures by the same operator: these are
            searched side by side, each as if it were alone, and a list is returned.
        loss: "l2", the mean of squared residuals; "l4", half the sum of their fourth powers, which
            published inpainting minimizes; "mom", a median of means, which stands corrupted data.
        restarts: latent vectors searched side by side, each as if it were alone.
        average: take the mean of the latent vectors of this many last steps instead of the last.
        blocks: of "mom": the residuals are split at random into this many blocks. A second latent
            vector plays against the first, and only the block where their difference in fit is the
            median one counts: with fewer than half as many corrupted residuals as blocks, that
            block has a clean difference below and above it.
        shuffle: of "mom": "fresh" blocks for each move of either player, or "fixed" ones, as in the
            original program (which also averaged the last 200 steps of 2 restarts).
        patience: stop when no restart's loss has fallen by a thousandth for this many steps.
        reference: the clean picture, or pictures; measured against, they change nothing.

    >>> import lipkit as lk
    >>> net = lk.models.build("pgan", latent=4, depth0=4, scales=(4, 4))
    >>> op = lk.physics.CompressedSensing((3, 16, 16), m=60, corrupted=4)
    >>> y = op.measure(lk.data.faces(1, size=16)[0])
    >>> lk.gan.search(net, op, y, loss="mom", blocks=12, steps=5).image.shape
    torch.Size([3, 16, 16])
    """
    settings = SearchSettings(
        loss, steps, lr, restarts, average, blocks, shuffle, patience, every, seed
    )
    alone = isinstance(y, Tensor)
    ys, references = (
        ([y], reference if reference is None else [reference]) if alone else (y, reference)
    )
    check_parts(generator, op, ys, references)
    with torch.inference_mode(False), torch.enable_grad():
        under_way = _Search(generator, op, ys, settings, references)
        end = loop.run(under_way, progress=progress, label="search")
        found = under_way.result(end)
    return found[0] if alone else found


def project(
    generator: nn.Module, image: Tensor | Sequence[Tensor], **settings
) -> Found | list[Found]:
    """Find the picture in the generator's range closest to `image`: what no search can beat.

    Takes several pictures, too, and the settings of `search`.

    >>> from lipkit.models import Generator
    >>> project(Generator(4, 4, (4, 4)), torch.rand(3, 16, 16), steps=3).steps
    3
    """
    return search(generator, Denoise(0.0), image, reference=image, **settings)


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search; each restart of each picture goes by the same."""

    loss: str
    steps: int
    lr: float
    restarts: int
    average: int
    blocks: int
    shuffle: str
    patience: int | None
    every: int
    seed: int

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, LOSSES)
        check_choice("shuffle", self.shuffle, SHUFFLES)
        for name in ("steps", "restarts", "blocks", "every"):
            check_whole(name, getattr(self, name), least=1)
        if self.patience is not None:
            check_whole("patience", self.patience, least=1)
        check_whole("average", self.average)
        check_whole("seed", self.seed)
        check_positive("lr", self.lr)


def check_parts(generator: nn.Module, op, ys, references) -> None:
    """Refuse what is not a generator, an operator, and pictures of one shape."""
    if not isinstance(generator, nn.Module) or not hasattr(generator, "latent"):
        raise InputError(
            "the generator must be a network with a latent width, such as "
            f"lipkit.models.build('pgan') or lipkit.gan.load(...), got {kind_of(generator)}"
        )
    check_operator(op)
    for name, pictures in (("measurement", ys), ("reference", references)):
        if pictures is None:
            continue
        for x in pictures:
            check_picture(name, x)
        if len(pictures) != len(ys) or len({x.shape for x in pictures}) != 1:
            raise InputError(
                f"several pictures need a {name} each, all of one shape, got "
                f"{', '.join(str(tuple(x.shape)) for x in pictures) or 'none'} "
                f"for {len(ys)} measurements"
            )


class _Search(loop.Work):
    """One search under way: a row for each restart of each picture, one picture after the other.

    `z` holds the latent vectors, `rival` those that play against them.
    """

    def __init__(self, generator: nn.Module, op, ys, s: SearchSettings, references) -> None:
        self.s = s
        self.op = op
        self.generator = copy.deepcopy(generator).requires_grad_(False)
        self.generator.to(memory_format=torch.channels_last)
        device = next(generator.parameters()).device
        self.y = self._rows_of(ys, device)
        self.reference = None if references is None else self._rows_of(references, device)
        draw = torch.Generator().manual_seed(s.seed)
        # one restart after the other: the first is the same however many there are
        pairs = [torch.randn(2, generator.latent, generator=draw) for _ in range(s.restarts)]
        each = torch.stack(pairs, 1).repeat(1, len(ys), 1).to(device)
        self.z, self.rival = (v.clone().requires_grad_() for v in each)
        self.adam = torch.optim.Adam([self.z], s.lr)
        self.rival_adam = torch.optim.Adam([self.rival], s.lr, maximize=True)
        self.random = torch.Generator().manual_seed(s.seed + 1)
        self.mean = torch.zeros_like(self.z, requires_grad=False)
        self.count = 0
        self.rows: list[list[Tensor]] = []
        self.order: Tensor | None = None
        self.steps = s.steps

    def _rows_of(self, pictures: Sequence[Tensor], device) -> Tensor:
        return torch.stack(list(pictures)).detach().to(device).repeat_interleave(self.s.restarts, 0)

    def advance(self) -> None:
        """Do one step, and measure it if it is one of those that are."""
        losses = self._move_all()
        self.step += 1
        if self.step > self.s.steps - self.s.average:
            self.count += 1
            self.mean += (self.z.detach() - self.mean) / self.count
        if self.step % self.s.every == 0 or self.step == self.s.steps:
            self._measure(losses)
            self.reason = self._settled()

    def _move_all(self) -> Tensor:
        """Move the latent vectors, and their rivals; the losses before the move."""
        if self.s.loss != "mom":
            losses = self._misfit(self._residuals(self.z))
            self._move(self.adam, losses.sum())
            return losses.detach()
        ours, theirs = (self._residuals(z).square() for z in (self.z, self.rival))
        blocks = self._blocks()
        losses = _median(blocks(ours.detach()))
        self._move(self.adam, _median(blocks(ours) - blocks(theirs.detach())).sum())
        with torch.no_grad():
            ours = self._residuals(self.z).square()
        blocks = self._blocks()
        self._move(self.rival_adam, _median(blocks(ours) - blocks(theirs)).sum())
        return losses

    def _move(self, adam: torch.optim.Adam, objective: Tensor) -> None:
        adam.zero_grad(set_to_none=True)
        objective.backward()
        adam.step()

    def _residuals(self, z: Tensor) -> Tensor:
        """Return what the pictures of `z` leave unexplained: [restarts, measurements]."""
        x = picture(self.generator, z)
        predicted = self.op.A(x)
        if not self.rows:
            self._check_shapes(x, predicted)
        return (predicted - self.y).abs().flatten(1)

    def _check_shapes(self, x: Tensor, predicted: Tensor) -> None:
        if predicted.shape != self.y.shape:
            raise InputError(
                f"the measurement has shape {tuple(self.y.shape[1:])}, but the operator makes "
                f"{tuple(predicted.shape[1:])} of the generator's pictures; "
                "measure a picture of the size that the generator makes"
            )
        if self.reference is not None and self.reference.shape != x.shape:
            raise InputError(
                f"the reference has shape {tuple(self.reference.shape[1:])}, the generator's "
                f"pictures {tuple(x.shape[1:])}; give the clean picture of that size"
            )

    def _misfit(self, residuals: Tensor) -> Tensor:
        if self.s.loss == "l4":
            return 0.5 * residuals.pow(4).sum(1)
        return residuals.square().mean(1)

    def _blocks(self) -> Callable[[Tensor], Tensor]:
        """Return how to take means over random blocks of equal size; a remainder sits out."""
        total = self.y[0].numel()
        if total < self.s.blocks:
            raise InputError(f"{total} measurements cannot be split into {self.s.blocks} blocks")
        if self.order is None or self.s.shuffle == "fresh":
            each = total // self.s.blocks
            order = torch.randperm(total, generator=self.random)[: each * self.s.blocks]
            self.order = order.to(self.y.device)
        order = self.order
        blocks = self.s.blocks
        return lambda squares: squares[:, order].unflatten(1, (blocks, -1)).mean(2)

    @torch.no_grad()
    def _measure(self, losses: Tensor) -> None:
        row = [torch.full_like(losses, self.step), losses]
        if self.reference is not None:
            error = picture(self.generator, self.z).clamp(0, 1) - self.reference
            row.append(error.square().flatten(1).mean(1))
        self.rows.append(row)
        if not bool(torch.isfinite(losses).all()):
            raise Error(
                f"the loss is not finite at step {self.step}: the search diverged; "
                f"try a smaller learning rate than lr={self.s.lr}"
            )

    def _settled(self) -> str:
        if self.s.patience is None:
            return ""
        losses = torch.stack([row[1] for row in self.rows]).cpu()
        steps = torch.stack([row[0][0] for row in self.rows]).cpu()
        recent = steps > steps[-1] - self.s.patience
        if recent.all() or (losses[recent].amin(0) < 0.999 * losses[~recent].amin(0)).any():
            return ""
        return f"no loss has fallen by a thousandth for {self.s.patience} steps"

    @torch.no_grad()
    def result(self, end: loop.End) -> list[Found]:
        """Return what was found for each picture."""
        z = self.mean if self.count else self.z.detach()
        residuals = self._residuals(z)
        robust = self.s.loss == "mom"
        losses = _median(self._blocks()(residuals.square())) if robust else self._misfit(residuals)
        images = picture(self.generator, z).clamp(0, 1).cpu()
        table = [torch.stack(column).cpu().numpy() for column in zip(*self.rows, strict=True)]
        found = []
        for first in range(0, len(z), self.s.restarts):
            own = slice(first, first + self.s.restarts)
            best = first + int(losses[own].argmin())
            found.append(
                Found(
                    images[best], images[own], z[own].cpu(), losses[own].cpu().numpy(),
                    _history(table, own), self.step, end.reason, self.seconds, end.interrupted,
                )
            )  # fmt: skip
        return found


def _history(table: list[np.ndarray], rows: slice) -> dict[str, np.ndarray]:
    """Name the columns of a table, of which `rows` belong to one picture."""
    if not table:
        return {}
    step, loss, *error = table
    history = {"step": step[:, 0].astype(np.int64), "loss": loss[:, rows]}
    if error:
        with np.errstate(divide="ignore"):
            psnr = -10 * np.log10(error[0][:, rows])
        history |= {"error": 4 * error[0][:, rows], "psnr": psnr}
    return history


def _median(means: Tensor) -> Tensor:
    """Return the upper median of each row, as published: the 26th of 50."""
    return means.kthvalue(means.shape[1] // 2 + 1, dim=1).values

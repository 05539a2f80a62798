"""Optimal Eye Surgeon: learn which initial weights to keep, without training any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..fitting import loop
from ..fitting.settings import check_parts
from ..masks import Mask, checked_density, covered
from ..prior import Prior
from .latents import PerImage, image_codes
from .multi import joined
from .oes_search import OesSearch, oes_settings

KEPT_PER_VALUE = 0.2  # density="auto": weights kept for each value of the picture


@dataclass(frozen=True, repr=False)
class Oes:
    """The result of a mask search: the logits of keeping each weight, and how they came about.

    `history` holds the arrays step, loss (of the sampled networks), penalty (before lam), kept
    (the mean probability of keeping a weight) and lam.
    """

    logits: dict[str, Tensor]
    density: float
    history: dict[str, np.ndarray]
    steps: int
    seconds: float
    interrupted: bool = False

    @property
    def mask(self) -> Mask:
        """The weights of highest logit, as many as the density asked for."""
        return self.at(self.density)

    def at(self, density: float) -> Mask:
        """Return the mask that the same logits give at another density."""
        return Mask.top(self.logits, checked_density(density))

    def probabilities(self) -> Tensor:
        """Return the probability of keeping each weight, as one vector."""
        return torch.cat([v.flatten() for v in self.logits.values()]).sigmoid()

    def __repr__(self) -> str:
        return (
            f"Oes({len(self.probabilities()):,} weights, density {100 * self.density:.3g} %, "
            f"{self.steps} steps in {self.seconds:.1f} s)"
        )


def auto_density(prior: Prior, scope: str = "all") -> float:
    """Return the density that keeps 0.2 weights a value of the picture, at most all of them.

    The published 3 to 5 % of a large network on a 512x512 picture is 0.11 to 0.19. Held at such a
    ratio a network neither overfits nor loses the picture; held at 5 % on a small one it overfits.

    >>> import lipkit as lk
    >>> round(auto_density(lk.Prior("oes", 128, levels=4)), 4)
    0.0092
    """
    with torch.no_grad():
        values = prior().numel()
    return min(1.0, KEPT_PER_VALUE * values / sum(p.numel() for _, p in covered(prior.net, scope)))


def oes(
    prior: Prior,
    op,
    y: Tensor,
    density: float | str = 0.05,
    *,
    steps: int = 1000,
    lr: float | str = "auto",
    lam: float | str = "auto",
    p0: float | Mapping[str, float] | None = None,
    reg: str = "kl",
    samples: int = 1,
    temperature: float = 0.2,
    scope: str = "all",
    seed: int = 0,
    precision: str = "auto",
    checkpoint: str | Path | None = None,
    details: bool = False,
    progress: bool = True,
) -> Mask | Oes:
    """Learn, as Optimal Eye Surgeon (Ghosh et al. 2024), a mask that shows the picture untrained.

    Each weight gets a logit v, kept with probability sigmoid(v), 1/2 at first. Every step draws a
    relaxed mask, compares the output of the masked initial network with the measurement, and moves
    the logits down the gradient (Adam). The weights of highest logit are kept.

    Args:
        density: the fraction to keep, or "auto": 0.2 weights for each value of the picture.
        lr: of the logits; "auto" makes `lr * steps` the same for searches of all lengths.
        lam: how strongly the penalty counts beside the mean squared error: it sets how fast weights
            that do not matter lose their odds. "auto" steers it so that the mean probability
            falls, step by step by the same factor, from 1/2 to twice the density, and gets there
            at four fifths of the steps, whatever their number and the size of the network.
            Published: `steps=60_000, lr=0.01, lam=1e-9`.
        p0: probability that the penalty pulls to, by default the density; or one for each
            parameter, by name.
        reg: "kl" towards p0; "l1", the sum of probabilities; "centred", the excess of that sum
            over p0 times their number; "none".
        samples: masks drawn for each step.
        scope: learn a mask for all parameters, as published, or for convolution weights only.
        seed: of the noise, which is the same on every device.
        checkpoint: a file to resume from, and to save to now and then and when interrupted.
        details: return an `Oes`, with logits and history, instead of its mask. Interrupted, it is
            returned half learned and says so; a mask alone could not, so that none is returned.

    >>> import lipkit as lk
    >>> prior, op, clean = lk.testing.tiny_prior(), lk.physics.Denoise(), lk.testing.tiny_image()
    >>> oes(prior, op, op.measure(clean), density=0.25, steps=20)
    Mask(969 of 3,879 weights kept, density 25 %, 46 layers)
    """
    check_parts(prior, op, y)
    if density == "auto":
        density = auto_density(prior, scope)
    settings = oes_settings(
        checked_density(density), steps, lr, lam, p0, reg, samples, temperature, scope, seed,
        precision,
    )  # fmt: skip
    with torch.inference_mode(False), torch.enable_grad():
        search = OesSearch(prior, op, y, settings)
        end = loop.run(search, checkpoint, progress=progress, label="mask")
    if end.interrupted and not details:
        hint = "; details=True returns what there is"
        raise loop.unfinished("the mask search", end, checkpoint, hint)
    found = Oes(
        search.logits(), settings.density, search.history(), search.step, search.seconds,
        end.interrupted,
    )  # fmt: skip
    return found if details else found.mask


def oes_multi(
    prior: Prior,
    ops,
    ys: Sequence[Tensor],
    density: float | str = 0.05,
    *,
    seed: int = 0,
    **options,
) -> Mask | Oes:
    """Do `oes` for several images at once: one mask, a code for each, the mean of their losses.

    Args:
        ops: an operator for each measurement in `ys`, or one for all.
        options: those of `oes`.

    >>> import lipkit as lk
    >>> op, clean = lk.physics.Denoise(sigma=0.1), lk.testing.tiny_image()
    >>> ys = [op.measure(clean, seed=0), op.measure(1 - clean, seed=1)]
    >>> oes_multi(lk.testing.tiny_prior(), op, ys, density=0.25, steps=10)
    Mask(969 of 3,879 weights kept, density 25 %, 46 layers)
    """
    joint, y = joined(prior, ops, ys)
    if density == "auto":
        density = auto_density(prior, options.get("scope", "all"))
    each = PerImage(prior, image_codes(prior, len(y), seed))
    return oes(each, joint, y, density, seed=seed, **options)

"""Sparse generators: iterative magnitude pruning against a critic, and random pruning."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError, check_choice, check_whole, is_number
from ..fitting import loop
from ..formats import state
from ..masks import Mask
from ..models import Critic, Generator
from .files import load, save
from .wgan import Duel

SCORES = ("raw", "effective")


@dataclass(frozen=True)
class Tickets:
    """Nested masks from dense to sparse, and the generator as it was fine-tuned under each.

    The ticket of the papers is `masked(generator, mask)`: the pre-trained weights under the mask.
    `finetuned` are other networks: what pruning ranked, for comparison.
    """

    masks: list[Mask]
    finetuned: list[Generator]
    log: list[dict[str, float]]


def convolutions(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that are pruned: of convolutions, not of the linear layer of the latent.

    >>> list(convolutions(Generator(4, 4, ())))
    ['to_rgb.0.weight', 'start.weight']
    """
    return {name: p for name, p in net.named_parameters() if p.ndim == 4}


def magnitude(
    net: nn.Module, density: float, score: str = "raw", within: Mask | None = None
) -> Mask:
    """Keep the largest convolution weights, as stored ("raw") or as they act ("effective").

    The layers of a progressive GAN are scaled by a gain of their own; the published program ranks
    without it.

    >>> magnitude(Generator(4, 4, (4,)), density=0.5)
    Mask(228 of 456 weights kept, density 50 %, 5 layers)
    """
    check_choice("score", score, SCORES)
    scores = {}
    for name, weight in convolutions(net).items():
        layer = net.get_submodule(name.removesuffix(".weight"))
        scores[name] = weight.detach().abs() * (layer.gain if score == "effective" else 1.0)
    return Mask.top(scores, density, within)


def random(net: nn.Module, density: float, seed: int = 0) -> Mask:
    """Keep convolution weights uniformly at random over all layers: the papers' control.

    >>> random(Generator(4, 4, (4,)), density=0.5).kept
    228
    """
    draw = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(p.shape, generator=draw) for name, p in convolutions(net).items()}
    return Mask.top(scores, density)


def masked(net: nn.Module, mask: Mask) -> nn.Module:
    """Copy a network with the pruned weights zero; of a pre-trained generator, its ticket.

    >>> net = Generator(4, 4, (4,))
    >>> sparse = masked(net, random(net, density=0.5))
    >>> int((sparse.start.weight == 0).sum()) > 0
    True
    """
    return mask.apply(copy.deepcopy(net))


def imp(
    generator: Generator,
    critic: Critic,
    pictures: Tensor,
    *,
    rounds: int = 6,
    rate: float = 0.2,
    steps: int = 1000,
    batch: int = 64,
    lr: float = 2e-4,
    score: str = "raw",
    prune_critic: bool = False,
    seed: int = 0,
    progress: bool = True,
    folder: str | Path | None = None,
) -> Tickets:
    """Fine-tune, prune a fraction `rate` of what is left, rewind to the pre-trained weights, again.

    `generator` and `critic` are the pre-trained pair and stay as they are; `pictures` [N, 3, H, W]
    with values from 0 to 1 are the subset to fine-tune on. The published program prunes the critic
    as well (`prune_critic`) and trains the generator on one latent vector a step; ours takes as
    many as there are pictures in a batch. `folder` keeps what each round has trained, and a search
    that finds rounds there, its own or those of a shorter one, goes on after them, and within the
    round that was interrupted.

    >>> pair = Generator(4, 4, (4,)), Critic(4, (4,))
    >>> found = imp(*pair, torch.rand(8, 3, 8, 8), rounds=2, steps=2, batch=4, progress=False)
    >>> [round(mask.density, 2) for mask in found.masks]
    [1.0, 0.8, 0.64]
    """
    _check_imp(generator, critic, pictures, rounds=rounds, steps=steps, batch=batch, rate=rate)
    masks = [magnitude(generator, 1.0)]
    theirs = magnitude(critic, 1.0)
    finetuned: list[Generator] = []
    log: list[dict[str, float]] = []
    signature: dict[str, str] = {}
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        settings = dict(rate=rate, batch=batch, lr=lr, score=score, prune_critic=prune_critic)
        signature = _signature(generator, critic, pictures, **settings, seed=seed)

    for i in range(rounds + 1):
        done = _kept(folder, i)
        if done is None:
            pair = masked(generator, masks[-1]), masked(critic, theirs)
            kept = masks[-1].pairs(pair[0]) + (theirs.pairs(pair[1]) if prune_critic else [])
            duel = Duel(*pair, lr=lr, seed=seed + i, pairs=kept)
            under_way = _Round(duel, pictures, batch, steps, signature)
            path = None if folder is None else Path(folder) / f"{i:02d}-under-way.safetensors"
            end = loop.run(under_way, path, progress=progress, label=f"round {i} of {rounds}")
            if end.interrupted:
                raise loop.unfinished(f"round {i} of {rounds}", end, folder)
            done = *pair, {name: float(value) for name, value in under_way.losses.items()}
            if path is not None:
                _keep(folder, i, *done)
                path.unlink()
        tuned, judge, losses = done
        log.append({"round": i, "density": masks[-1].density, **losses})
        finetuned.append(tuned)
        if i < rounds:
            density = (1 - rate) ** (i + 1)
            masks.append(magnitude(tuned, density, score, within=masks[-1]))
            if prune_critic:
                theirs = magnitude(judge, density, score, within=theirs)
    return Tickets(masks, finetuned, log)


class _Round(loop.Work):
    """One round under way: the masked pair, trained on."""

    kind = "round"

    def __init__(self, duel: Duel, pictures: Tensor, batch: int, steps: int, signature) -> None:
        self.duel = duel
        self.pictures = pictures
        self.batch = batch
        self.signature = signature
        self.steps = steps
        self.losses: dict[str, Tensor] = {}

    def advance(self) -> None:
        """Train both networks once, on pictures drawn at random."""
        chosen = torch.randint(len(self.pictures), (self.batch,), generator=self.duel.random)
        real = self.pictures[chosen].to(self.duel.generator.start.weight)
        self.losses = self.duel.step(real * 2 - 1)
        self.step += 1

    def parts(self) -> dict[str, state.Part]:
        """Name all that changes from step to step."""
        return self.duel.parts() | {"losses": self.losses}


def _signature(generator: Generator, critic: Critic, pictures: Tensor, **settings) -> dict:
    """Say what a round belongs to, setting by setting."""
    content = hashlib.sha256()
    for tensor in (*generator.state_dict().values(), *critic.state_dict().values(), pictures):
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    named = {name: repr(value) for name, value in settings.items()}
    return named | {"weights and pictures": content.hexdigest()}


def _kept(folder: str | Path | None, i: int) -> tuple[Generator, Critic, dict] | None:
    """Read what a round has trained, if the folder has it."""
    paths = [] if folder is None else _paths(folder, i)
    if not paths or not all(path.exists() for path in paths):
        return None
    tuned, judge = map(load, paths)
    return tuned, judge, tuned.note


def _keep(folder: str | Path, i: int, tuned: Generator, judge: Critic, losses: dict) -> None:
    for net, path in zip((tuned, judge), _paths(folder, i), strict=True):
        save(net, path, half=False, note=losses)


def _paths(folder: str | Path, i: int) -> list[Path]:
    return [Path(folder) / f"{i:02d}-{role}.safetensors" for role in ("generator", "critic")]


def _check_imp(
    generator: Generator, critic: Critic, pictures: Tensor, rate: float, **counts: int
) -> None:
    for name, value in counts.items():
        check_whole(name, value, least=1)
    if not is_number(rate) or not 0 < rate < 1:
        raise InputError(f"rate is the fraction pruned in a round, between 0 and 1, got {rate!r}")
    if critic.levels != generator.levels:
        raise InputError(
            f"the critic judges pictures of {4 * 2**critic.levels} pixels, the generator makes "
            f"{generator.side}; give the two that were trained together"
        )
    side = generator.side
    if pictures.ndim != 4 or pictures.shape[1:] != (3, side, side):
        raise InputError(
            f"pictures must be a batch [N, 3, {side}, {side}], the size that the generator makes; "
            f"got {tuple(pictures.shape)}"
        )

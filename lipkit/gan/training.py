"""A training of a progressive GAN: its plan, and one step after the other."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.faces import paint_faces, reduced
from ..errors import InputError, is_number, is_whole
from ..fitting import loop
from ..formats import state
from ..models import Critic, Encoder, Generator
from .cover import Cover
from .quality import HELD_OUT, against_faces
from .wgan import Duel

CALM = 0.2  # of the critic's rate: squared errors prefer a blur to a sharp guess


@dataclass(frozen=True)
class TrainingPlan:
    """All that a training is made from; equal plans on one device give equal networks.

    `steps` and `batch` have one entry for each scale, 4 pixels first. A new scale is faded in
    during its first `fade` of the steps. With `cover` above 0 an encoder and the generator learn at
    this rate to make the real pictures; at step `joins` the critic joins them at the rate `lr`, and
    they go on at a fifth of it. `half` computes most in bfloat16.

    >>> TrainingPlan(depth0=32, scales=(32, 16), steps=(100, 100, 200), batch=(16, 16, 16)).side
    16
    """

    latent: int = 96
    depth0: int = 96
    scales: tuple[int, ...] = (96, 96, 48, 24)
    steps: tuple[int, ...] = (1000, 2000, 3000, 4000, 6000)
    batch: tuple[int, ...] = (32, 32, 32, 16, 16)
    fade: float = 0.4
    faces: int = 20_000
    lr: float = 1e-3
    average: float = 0.999
    cover: float = 0.0
    joins: int = 0
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            values = getattr(self, name)
            if len(values) != len(self.scales) + 1 or not all(is_whole(v, 1) for v in values):
                raise InputError(
                    f"{name} needs one whole number for each of the {len(self.scales) + 1} scales, "
                    f"4 pixels first, got {values}"
                )
        for name, high in (("fade", 1), ("average", 1), ("lr", 1), ("cover", 1)):
            value = getattr(self, name)
            if not is_number(value, 0) or value > high:
                raise InputError(f"{name} must be a number from 0 to {high}, got {value!r}")
        if not isinstance(self.half, bool):
            raise InputError(f"half must be True or False, got {self.half!r}")
        if not is_whole(self.joins) or (self.joins and not self.cover):
            raise InputError(
                "joins is the step at which the critic joins, a whole number, and 0 without cover; "
                f"got joins={self.joins!r}, cover={self.cover!r}"
            )
        if not is_whole(self.faces, max(self.batch)) or not is_whole(self.seed):
            raise InputError(
                f"faces must be a whole number of at least the batch size and seed of at least 0, "
                f"got faces={self.faces!r}, seed={self.seed!r}"
            )

    @property
    def side(self) -> int:
        """Height and width of the pictures at the last scale."""
        return 4 * 2 ** len(self.scales)

    def at(self, step: int) -> tuple[int, float]:
        """Return the scale of a step (from 0), and the share `alpha` of the scale before.

        >>> plan = TrainingPlan()
        >>> plan.at(0), plan.at(1000), plan.at(1400)
        ((0, 0.0), (1, 1.0), (1, 0.5))
        """
        for scale, count in enumerate(self.steps):
            if step < count:
                fading = self.fade * count if scale else 0
                return scale, max(0.0, 1 - step / fading) if fading else 0.0
            step -= count
        raise InputError(f"the plan has {sum(self.steps)} steps")


class Training(loop.Work):
    """A training under way: the two networks, the moving average, and where it stands.

    >>> plan = TrainingPlan(4, 4, (4,), steps=(2, 2), batch=(4, 4), faces=8)
    >>> training = Training(plan)
    >>> training.advance()["penalty"] > 0, training.step
    (tensor(True), 1)
    """

    kind = "training"

    def __init__(self, plan: TrainingPlan, device: str = "cpu") -> None:
        self.plan = plan
        self.device = torch.device(device)
        self.signature = {name: repr(value) for name, value in asdict(plan).items()}
        self.steps = sum(plan.steps)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(plan.seed)
            generator = Generator(plan.latent, plan.depth0, plan.scales).to(self.device)
            critic = Critic(plan.depth0, plan.scales).to(self.device)
            encoder = Encoder(plan.latent, plan.depth0, plan.scales).to(self.device)
        for net in (generator, critic, encoder):  # a third faster on a CPU from 32 pixels on
            net.to(memory_format=torch.channels_last)
        self.duel = Duel(generator, critic, plan.lr, plan.seed, half=plan.half)
        self.cover: Cover | None = None
        if plan.cover:
            self.cover = Cover(generator, encoder, plan.cover, plan.seed, plan.half)
        self.average = copy.deepcopy(generator).requires_grad_(False)
        self.faces = paint_faces(plan.faces, plan.side, plan.seed, self.device)
        self._reals: dict[int, Tensor] = {}

    def advance(self) -> dict[str, Tensor]:
        """Do one step of both networks and of the average; returns the losses."""
        scale, alpha = self.plan.at(self.step)
        chosen = torch.randint(
            self.plan.faces, (self.plan.batch[scale],), generator=self.duel.random
        )
        real = self._at_scale(scale)[chosen.to(self.device)].float() / 127.5 - 1
        real = real.contiguous(memory_format=torch.channels_last)
        if alpha:  # fade in the details of the real pictures too
            coarse = F.interpolate(F.avg_pool2d(real, 2), scale_factor=2, mode="nearest")
            real = torch.lerp(real, coarse, alpha)
        losses = self._taught(real, scale, alpha)
        # at the start of a scale the average is young, or its new layers would long stay random
        age = self.step - sum(self.plan.steps[:scale])
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()),
                list(self.duel.generator.parameters()),
                1 - min(self.plan.average, (age + 1) / (age + 10)),
            )
        self.step += 1
        return losses

    def parts(self) -> dict[str, state.Part]:
        """Name all that changes from step to step."""
        more = {} if self.cover is None else self.cover.parts()
        return self.duel.parts() | {"average": self.average} | more

    def _taught(self, real: Tensor, scale: int, alpha: float) -> dict[str, Tensor]:
        """Let the encoder and the critic teach the generator in turn."""
        losses = {}
        joined = self.step >= self.plan.joins
        if self.cover is not None:
            for group in self.cover.adam.param_groups:
                group["lr"] = CALM * self.plan.lr if joined else self.plan.cover
            losses |= self.cover.step(real, scale, alpha)
        return losses | (self.duel.step(real, scale, alpha) if joined else {})

    @property
    def at_scale_end(self) -> bool:
        """Whether the last step was the last one of its scale."""
        ends = [sum(self.plan.steps[: i + 1]) for i in range(len(self.plan.steps))]
        return self.step in ends

    def _at_scale(self, scale: int) -> Tensor:
        """Return all faces at a scale, as bytes, and let go those of the scale before."""
        if scale not in self._reals:
            self._reals = {scale: reduced(self.faces, 4 * 2**scale)}
        return self._reals[scale]

    @torch.no_grad()
    def samples(self, n: int, seed: int = 0) -> Tensor:
        """Make pictures of the average, at the scale reached, from 0 to 1; one seed, one z."""
        scale, alpha = self.plan.at(max(0, self.step - 1))
        z = torch.randn(n, self.plan.latent, generator=torch.Generator().manual_seed(seed))
        parts = z.to(self.device).split(256)
        made = torch.cat([self.average(part, scale, alpha) for part in parts])
        return ((made + 1) / 2).clamp(0, 1)

    def judge(self) -> dict[str, dict[int, float]]:
        """Measure how far samples are from faces never trained on, and faces from faces."""
        return against_faces(self.samples(HELD_OUT, seed=1), self.plan.side, self.plan.seed + 1)

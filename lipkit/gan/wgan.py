"""The duel of a generator with its critic: Wasserstein loss with gradient penalty."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..formats import state
from ..models import Critic, Generator

PENALTY, DRIFT = 10.0, 1e-3


class Duel:
    """Both networks with their optimizers; `step` trains each once on a batch of real pictures.

    Pictures have values from -1 to 1. Masked weights, given as pairs of a parameter and its mask,
    get no gradient, hence no momentum: they stay exactly zero. `half` computes all but the penalty,
    whose second derivatives need the digits, in bfloat16. All randomness comes from one
    generator on the CPU, so that it can be saved and is the same on every device.

    >>> nets = Generator(4, 4, (4,)), Critic(4, (4,))
    >>> sorted(Duel(*nets, lr=1e-3).step(torch.zeros(4, 3, 8, 8)))
    ['critic', 'distance', 'generator', 'penalty']
    """

    def __init__(
        self,
        generator: Generator,
        critic: Critic,
        lr: float = 1e-3,
        seed: int = 0,
        pairs: Iterable[tuple[nn.Parameter, Tensor]] = (),
        half: bool = False,
    ) -> None:
        self.generator = generator
        self.critic = critic
        self.pairs = list(pairs)
        self.half = half
        settings = {"lr": lr, "betas": (0.0, 0.99), "fused": True}
        self.adams = {
            "generator": torch.optim.Adam(generator.parameters(), **settings),
            "critic": torch.optim.Adam(critic.parameters(), **settings),
        }
        self.random = torch.Generator().manual_seed(seed)

    def latents(self, n: int) -> Tensor:
        """Draw fresh normal latent vectors on the generator's device."""
        z = torch.randn(n, self.generator.latent, generator=self.random)
        return z.to(self.generator.start.weight.device)

    def step(self, real: Tensor, scale: int | None = None, alpha: float = 0.0) -> dict[str, Tensor]:
        """Train the critic, then the generator, and return their losses (not read back yet)."""
        where = {"scale": scale, "alpha": alpha}
        losses = self._train_critic(real, where)
        self.critic.requires_grad_(False)
        with precision(self.generator, self.half):
            verdict = self.critic(self.generator(self.latents(len(real)), **where), **where)
        losses["generator"] = -verdict.float().mean()
        self._update("generator", losses["generator"])
        self.critic.requires_grad_(True)
        return {name: value.detach() for name, value in losses.items()}

    def parts(self) -> dict[str, state.Part]:
        """Name all that changes from step to step."""
        return {
            "generator": self.generator,
            "critic": self.critic,
            "generator adam": self.adams["generator"],
            "critic adam": self.adams["critic"],
            "random": self.random,
        }

    def _train_critic(self, real: Tensor, where: dict) -> dict[str, Tensor]:
        with torch.no_grad(), precision(self.generator, self.half):
            fake = self.generator(self.latents(len(real)), **where).float()
        share = torch.rand(len(real), 1, 1, 1, generator=self.random).to(real)
        mixed = torch.lerp(fake, real, share).requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(mixed, **where).sum(), mixed, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        with precision(self.generator, self.half):
            verdicts = self.critic(real, **where), self.critic(fake, **where)
        on_real, on_fake = (verdict.float().mean() for verdict in verdicts)
        distance = on_real - on_fake
        loss = -distance + PENALTY * penalty + DRIFT * on_real.square()
        self._update("critic", loss)
        return {"critic": loss, "distance": distance, "penalty": penalty}

    def _update(self, which: str, loss: Tensor) -> None:
        self.adams[which].zero_grad(set_to_none=True)
        loss.backward()
        for parameter, m in self.pairs:
            if parameter.grad is not None:
                parameter.grad.mul_(m)
        self.adams[which].step()


def precision(net: nn.Module, half: bool) -> torch.autocast:
    """Products in bfloat16, sums and weights in single precision, where a network lies."""
    return torch.autocast(next(net.parameters()).device.type, torch.bfloat16, enabled=half)

"""An encoder that makes a generator answer for every real picture.

A critic asks that each generated picture look real, not that each real picture be generated. A
prior needs the second too: what it cannot generate, it cannot restore. Generator and encoder are
trained as a variational autoencoder, which asks for that and keeps the latent vectors of all real
pictures together spread like those that the generator is fed at random.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..formats import state
from ..models import Encoder, Generator
from .wgan import precision

PRICE = 5e-5  # of one nat of what a latent vector tells of its picture, in mean squared error


class Cover:
    """Trains a generator to make real pictures from the latent vectors that an encoder gives them.

    >>> nets = Generator(4, 4, (4,)), Encoder(4, 4, (4,))
    >>> list(Cover(*nets, lr=1e-3).step(torch.zeros(4, 3, 8, 8)))
    ['miss', 'nats']
    """

    def __init__(
        self,
        generator: Generator,
        encoder: Encoder,
        lr: float,
        seed: int = 0,
        half: bool = False,
    ) -> None:
        self.generator = generator
        self.encoder = encoder
        self.half = half
        both = [*generator.parameters(), *encoder.parameters()]
        self.adam = torch.optim.Adam(both, lr, betas=(0.9, 0.99), fused=True)
        self.random = torch.Generator().manual_seed(seed)

    def step(self, real: Tensor, scale: int | None = None, alpha: float = 0.0) -> dict[str, Tensor]:
        """Train both once; the squared error of the pictures, and what their vectors tell."""
        with precision(self.generator, self.half):
            mean, spread = self.encoder(real, scale, alpha)
            noise = torch.randn(mean.shape, generator=self.random).to(mean)
            made = self.generator(mean + spread * noise, scale, alpha)
        miss = (made.float() - real).square().mean()
        told = 0.5 * (mean.square() + spread.square() - 1) - spread.log()  # against normal vectors
        nats = told.sum(1).mean()
        self.adam.zero_grad(set_to_none=True)
        (miss + PRICE * nats).backward()
        self.adam.step()
        return {"miss": miss.detach(), "nats": nats.detach()}

    def parts(self) -> dict[str, state.Part]:
        """Name all that changes from step to step, but for the generator."""
        return {"encoder": self.encoder, "cover adam": self.adam, "blur": self.random}

"""What one step of the mask search costs beside a forward and backward pass of the same network.

Also measured: the loop as published, which copies the model at every step and draws two Gumbel
numbers for each weight, tensor by tensor.

    python benchmarks/mask_step.py
"""

from __future__ import annotations

import copy
import sys

import torch
from side_by_side import Row, main, take_turns

import lipkit as lk
from lipkit.find.oes_search import OesSearch, oes_settings

STEPS = {64: 20, 128: 6, 256: 2}  # a block
CASES = [dict(threads=t, size=s, levels=4) for t in (1, 2) for s in STEPS]


def as_published(prior: lk.Prior, y: torch.Tensor):
    """The published step: one logit tensor for each parameter, a copy of the model each time."""
    net, z = prior.net, prior.z
    logits = [torch.zeros_like(p, requires_grad=True) for p in net.parameters()]
    adam = torch.optim.Adam(logits, lr=0.01)

    def run(steps: int) -> None:
        for _ in range(steps):
            model, divergence = copy.deepcopy(net), 0.0
            for (name, p), v in zip(list(net.named_parameters()), logits, strict=True):
                keep = torch.sigmoid(v)
                g1, g0 = (-torch.log(-torch.log(torch.rand_like(v).clamp_min(1e-20))) for _ in "10")
                odds = torch.stack([torch.log(keep) + g1, torch.log(1 - keep) + g0])
                m = torch.softmax(odds / 0.2, dim=0)[0]
                owner = model.get_submodule(name.rpartition(".")[0])
                delattr(owner, name.rpartition(".")[2])
                setattr(owner, name.rpartition(".")[2], p.detach() * m)
                divergence = (
                    divergence
                    + (
                        keep * torch.log((keep + 1e-6) / 0.05)
                        + (1 - keep) * torch.log((1 - keep + 1e-6) / 0.95)
                    ).sum()
                )
            adam.zero_grad()
            (torch.nn.functional.mse_loss(model(z), y[None]) + 1e-9 * divergence).backward()
            adam.step()

    return run


def forward_and_backward(prior: lk.Prior, y: torch.Tensor):
    """The least that any step needs, in the layout that lipkit uses."""
    prior = prior.clone()
    prior.to(memory_format=torch.channels_last)

    def run(steps: int) -> None:
        for _ in range(steps):
            prior.net.zero_grad()
            torch.nn.functional.mse_loss(prior(), y[None]).backward()

    return run


def search(prior: lk.Prior, y: torch.Tensor):
    """Ours."""
    settings = oes_settings(0.05, 1000, 0.1, "auto", None, "kl", 1, 0.2, "all", 0, "auto")
    under_way = OesSearch(prior, lk.physics.Denoise(), y, settings)
    return lambda steps: [under_way.advance() for _ in range(steps)]


def measure(threads: int, size: int, levels: int) -> Row:
    """One size and number of threads."""
    prior = lk.Prior("oes", size, levels=levels)
    y = lk.physics.Denoise(0.1).measure(lk.testing.tiny_image((size, size)))
    makers = {"plain": forward_and_backward, "lipkit": search, "published": as_published}
    return take_turns({name: make(prior, y) for name, make in makers.items()}, STEPS[size])


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, measure, CASES))

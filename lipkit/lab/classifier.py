"""The hourglass as a classifier: carries tickets from restoring to classifying and back.

A `Classifier` has the layers of a prior's network, with its initial weights, so that a mask of one
is a mask of the other. Only the two convolutions that see the input differ, because pictures have
fewer channels than a prior's code: `carried` leaves them dense, as published, and the search here
spares them.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import models
from ..errors import Error, InputError, is_number, is_whole
from ..find.rounds import Imp, Round, in_rounds
from ..find.schedule import FIRST_CONVS, Exempt, exempt_names, keep_counts, prune
from ..masks import Mask
from ..prior import Prior, fitting_side
from ..tickets.initial import network_options

VARIANTS = ("standard", "published")

__all__ = ["VARIANTS", "Classifier", "accuracy", "carried", "imp", "train"]


class Classifier(nn.Module):
    """A prior's hourglass for pictures [N, C, H, W], flattened into one linear layer.

    Args:
        prior: where network and initial weights come from. The convolutions that see the picture
            and the linear layer get their own, drawn from the prior's seed.
        shape: of one picture, (C, H, W).
        variant: "published" has the handicaps of the published code. A sigmoid follows the linear
            layer, though cross-entropy expects logits; pictures are resized by nearest neighbour,
            not bilinearly; and `imp` does not rewind.
        side: pictures are resized to this; without it, to the smallest side of at least theirs
            that the network takes. Published: 50.

    >>> import lipkit as lk
    >>> images, labels = lk.data.labelled("digits", "test", first=4)
    >>> Classifier(lk.testing.tiny_prior(), images.shape[1:])(images).shape
    torch.Size([4, 10])
    """

    def __init__(
        self,
        prior: Prior,
        shape: Sequence[int],
        classes: int = 10,
        *,
        variant: str = "standard",
        side: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(prior, Prior) or not isinstance(prior.net, models.Hourglass):
            raise InputError(f"a classifier is made from a prior with an hourglass, got {prior!r}")
        if variant not in VARIANTS:
            raise InputError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
        channels, *sides = shape
        options = network_options(prior.recipe) | {"in_channels": channels, "sigmoid": False}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(prior.recipe.seed)
            self.net = models.build(prior.recipe.name, **options)
            self.side = fitting_side(self.net, side or max(sides))
            if side not in (None, self.side):
                raise InputError(f"this network takes a side of {self.side}, but not {side}")
            self.linear = nn.Linear(prior.net.head.out_channels * self.side**2, classes)
        weights = self.net.state_dict()
        initial = prior.net.state_dict()
        self.net.load_state_dict(
            {n: initial[n] if initial[n].shape == w.shape else w for n, w in weights.items()}
        )
        self.variant = variant
        self.loss = math.nan  # at the end of its training
        self.to(prior.z.device)

    def forward(self, images: Tensor) -> Tensor:
        """Return a number for each class, the largest for the likeliest."""
        published = self.variant == "published"
        resize = "nearest" if published else "bilinear"
        images = F.interpolate(images, (self.side, self.side), mode=resize)
        scores = self.linear(self.net(2 * images - 1).flatten(1))
        return scores.sigmoid() if published else scores


def train(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    mask: Mask | None = None,
    steps: int = 100,
    batch: int = 24,
    lr: float = 0.02,
    seed: int = 0,
) -> Classifier:
    """Train a copy on batches drawn with `seed`, by SGD with momentum and cross-entropy.

    As published: momentum 0.9, weight decay 2e-4, and a tenth of the learning rate after half of
    the steps, a tenth of that after three quarters. The mask is `carried` over, so that it may be
    one of a prior.

    >>> import lipkit as lk
    >>> images, labels = lk.data.labelled("digits", first=100)
    >>> classifier = Classifier(lk.testing.tiny_prior(), images.shape[1:])
    >>> trained = train(classifier, images, labels, steps=20)
    >>> accuracy(trained, images, labels) > accuracy(classifier, images, labels)
    True
    """
    if not is_whole(steps, least=1) or not is_whole(batch, least=2):
        raise InputError(f"steps is at least 1 and batch at least 2, got {steps!r} and {batch!r}")
    if not is_number(lr, least=0) or not is_whole(seed):
        raise InputError(f"lr and seed are numbers of at least 0, got {lr!r} and {seed!r}")
    if len(images) != len(labels) or len(images) < 2:
        raise InputError(f"there are {len(images)} images for {len(labels)} labels; give as many")
    net = copy.deepcopy(classifier).to(memory_format=torch.channels_last).train()
    mask = Mask.full(net.net) if mask is None else carried(mask, net.net)
    pairs = mask.pairs(mask.apply(net.net))
    sgd = torch.optim.SGD(net.parameters(), lr, momentum=0.9, weight_decay=2e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, [steps // 2, 3 * steps // 4])
    draw = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    device = net.linear.weight.device
    for _ in range(steps):
        while len(order) < batch:  # through all pictures before any comes again
            order = torch.cat([order, torch.randperm(len(images), generator=draw)])
        chosen = order[:batch]
        order = order[batch:]
        loss = F.cross_entropy(net(images[chosen].to(device)), labels[chosen].to(device))
        sgd.zero_grad()
        loss.backward()
        for parameter, keep in pairs:  # pruned weights are zero: without gradient they stay so
            parameter.grad.mul_(keep)
        sgd.step()
        schedule.step()
    if not bool(torch.isfinite(loss)):
        raise Error(f"the training diverged; try a smaller learning rate than lr={lr}")
    net.loss = float(loss.detach())
    return net


@torch.no_grad()
def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """Return the fraction of pictures whose likeliest class is right, with running averages.

    >>> import lipkit as lk
    >>> images, labels = lk.data.labelled("digits", "test")
    >>> accuracy(Classifier(lk.testing.tiny_prior(), images.shape[1:]), images, labels) < 0.3
    True
    """
    training = classifier.training
    device = classifier.linear.weight.device
    classifier.eval()
    batches = zip(images.split(256), labels.split(256), strict=True)
    right = sum(int((classifier(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in batches)
    classifier.train(training)
    return right / len(images)


def imp(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    rounds: int,
    rate: float = 0.2,
    exempt: Exempt = FIRST_CONVS,
    progress: bool = True,
    **training,
) -> Imp:
    """Prune a classifier by magnitude round by round, as `lipkit.find.imp` does a prior.

    Every round starts from the initial weights, but for the variant "published", which goes on
    training what is left.

    Args:
        exempt: the input's convolutions, which no prior shares.
        training: options of `train`, for every round.

    >>> import lipkit as lk
    >>> images, labels = lk.data.labelled("digits", first=100)
    >>> classifier = Classifier(lk.testing.tiny_prior(), images.shape[1:])
    >>> imp(classifier, images, labels, rounds=2, steps=2)
    Imp(2 rounds, density 64.8 %: all 2 rounds are done)
    """
    spared = exempt_names(exempt, classifier.net, "conv")
    trained = classifier

    def train_and_prune(number: int, mask: Mask, kept: int) -> Round:
        nonlocal trained
        began = time.perf_counter()
        start = trained if classifier.variant == "published" else classifier
        trained = train(start, images, labels, mask=mask, **training)
        pruned = prune(trained.net, mask, kept, spared)
        seconds = time.perf_counter() - began
        return Round(mask.density, trained.loss, math.nan, math.nan, seconds, pruned)

    dense = Mask.full(classifier.net)
    counts = keep_counts(dense, spared, 1.0, rate, rounds)
    found = tuple(in_rounds(dense, counts, train_and_prune, progress))
    return Imp(found, copy.deepcopy(classifier), f"all {rounds} rounds are done")


def carried(mask: Mask, net: nn.Module) -> Mask:
    """Carry a mask over to another network; convolutions of another shape stay dense.

    >>> import lipkit as lk
    >>> prior = lk.testing.tiny_prior()
    >>> digits = Classifier(prior, shape=(1, 8, 8))
    >>> carried(lk.find.random(prior, density=0.25), digits.net)
    Mask(914 of 3,410 weights kept, density 26.8 %, 11 layers)
    """
    full = Mask.full(net)
    shared = {n for n in full.names if n in mask.names and mask[n].shape == full[n].shape}
    if not shared:
        raise InputError("the mask and the network have no layer in common")
    return Mask({n: mask[n] if n in shared else full[n] for n in full.names})

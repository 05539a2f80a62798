"""Masks: which weights of a network are kept. One type for every way of finding them."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from ..errors import InputError
from ..formats import maskfile
from ..formats.atomic import write
from .select import checked_density, covered, top_of, unflatten


class LayerCollapseWarning(UserWarning):
    """A layer lost all its weights: nothing passes through it any more."""


class LayerCount(NamedTuple):
    """How many weights of a layer a mask keeps."""

    kept: int
    total: int

    @property
    def density(self) -> float:
        return self.kept / self.total


class Overlap(NamedTuple):
    """How many weights two masks share, beside what their layer densities alone would give."""

    common: int
    expected: float

    @property
    def ratio(self) -> float:
        """1 for masks that share nothing but how many weights each layer keeps."""
        return self.common / self.expected if self.expected else math.nan


class Mask:
    """True where a weight is kept, for each parameter named; parameters not named are untouched.

    Kept in `parameters()` order, which is that of the published flat masks. Immutable: set
    algebra and controls return new masks.

    >>> from lipkit.models import build
    >>> mask = Mask.random(build("deep-decoder", levels=2, width=8), density=0.25, seed=0)
    >>> mask
    Mask(54 of 216 weights kept, density 25 %, 4 layers)
    """

    def __init__(self, keep: Mapping[str, Tensor]) -> None:
        if not keep:
            raise InputError("a mask needs at least one parameter, got none")
        for name, value in keep.items():
            if not isinstance(value, Tensor) or value.dtype != torch.bool:
                kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise InputError(f"the mask of {name!r} must be a boolean tensor, got {kind}")
            if value.numel() == 0:
                raise InputError(f"the mask of {name!r} is empty")
        self._keep = {name: value.detach().cpu().clone() for name, value in keep.items()}

    # --- what it is -----------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The parameters that the mask covers."""
        return list(self._keep)

    def __getitem__(self, name: str) -> Tensor:
        return self._keep[name].clone()

    def named(self) -> dict[str, Tensor]:
        """Return the boolean tensor of each parameter, by name."""
        return {name: m.clone() for name, m in self._keep.items()}

    @property
    def kept(self) -> int:
        """How many weights are kept."""
        return sum(int(m.sum()) for m in self._keep.values())

    @property
    def total(self) -> int:
        """How many weights the mask covers."""
        return sum(m.numel() for m in self._keep.values())

    @property
    def density(self) -> float:
        """Fraction of the covered weights that is kept."""
        return self.kept / self.total

    @property
    def sparsity(self) -> float:
        """Fraction of the covered weights that is removed."""
        return 1 - self.density

    def per_layer(self) -> dict[str, LayerCount]:
        """Count the kept and all weights of each parameter."""
        return {n: LayerCount(int(m.sum()), m.numel()) for n, m in self._keep.items()}

    def collapsed(self) -> list[str]:
        """List the convolutions without a single weight left."""
        return [n for n, m in self._keep.items() if m.ndim > 1 and not m.any()]

    def flat(self) -> Tensor:
        """Return one boolean vector, in the order of the published flat masks."""
        return torch.cat([m.flatten() for m in self._keep.values()])

    def digest(self) -> str:
        """Hash names, shapes and values."""
        text = hashlib.sha256()
        for name, m in self._keep.items():
            text.update(f"{name}{tuple(m.shape)}".encode())
            text.update(m.numpy().tobytes())
        return text.hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask) or self.names != other.names:
            return False
        return all(
            m.shape == other._keep[n].shape and torch.equal(m, other._keep[n])
            for n, m in self._keep.items()
        )

    def __hash__(self) -> int:
        return hash(self.digest())

    def __repr__(self) -> str:
        return (
            f"Mask({self.kept:,} of {self.total:,} weights kept, "
            f"density {100 * self.density:.3g} %, {len(self._keep)} layers)"
        )

    # --- how it is made -------------------------------------------------------------------

    @classmethod
    def full(cls, net: nn.Module, scope: str = "conv") -> Mask:
        """Keep everything: the start of every iterative method."""
        return cls({n: torch.ones_like(p, dtype=torch.bool) for n, p in covered(net, scope)})

    @classmethod
    def random(cls, net: nn.Module, density: float, scope: str = "conv", seed: int = 0) -> Mask:
        """Keep exactly `density` of all covered weights, uniformly at random."""
        draw = torch.Generator().manual_seed(seed)
        scores = {n: torch.rand(p.shape, generator=draw) for n, p in covered(net, scope)}
        return cls.top(scores, density)

    @classmethod
    def top(
        cls,
        scores: Mapping[str, Tensor],
        density: float,
        within: Mask | None = None,
        per_layer: bool = False,
    ) -> Mask:
        """Keep the highest scores: exactly `count(density, total)` of them, ties in order.

        What `within` has pruned stays pruned, whatever its score. `per_layer` applies the density
        to each layer instead of to all at once.

        >>> Mask.top({"w": torch.tensor([1.0, 1.0, 3.0, 1.0])}, density=0.5)["w"]
        tensor([ True, False,  True, False])
        """
        density = checked_density(density)
        bad = [n for n, s in scores.items() if not bool(torch.isfinite(s).all())]
        if bad:
            raise InputError(f"the scores of {bad[0]!r} are not all finite; nothing can be ranked")
        allowed = {n: torch.ones_like(s, dtype=torch.bool) for n, s in scores.items()}
        if within is not None:
            _check_covers(within, scores)
            allowed = {n: within._keep[n] for n in scores}
        groups = [[n] for n in scores] if per_layer else [list(scores)]
        keep: dict[str, Tensor] = {}
        for group in groups:
            keep |= top_of(group, scores, allowed, density)
        mask = cls({n: keep[n] for n in scores})
        mask.warn_if_collapsed()
        return mask

    @classmethod
    def from_flat(cls, vector: Tensor, like: nn.Module) -> Mask:
        """Split a vector over all parameters of `like`, or over its convolution weights only."""
        return cls(unflatten(vector, like))

    @classmethod
    def load(cls, path: str | Path, like: nn.Module | None = None) -> Mask:
        """Read a lipkit mask or ticket, or a published mask.

        Published are the pickled flat vectors of OES and the dictionaries of `*.weight_mask` of
        LIP. They are read without running the pickle. `like` is the network they are for, by
        default "oes" and "dip". A file's name may promise another density than `mask.density`,
        which is counted: the "3 %" mask of the OES demonstration keeps 3.52 %. LIP's masks cover
        `skip0.conv` and `down0a.conv` too, which its own scripts then left dense.
        """
        from . import published  # late: its reader of pickles would slow down `import lipkit`

        path = Path(path)
        like = getattr(like, "net", like)  # of a prior, its network
        if published.is_published(path):
            return cls(published.read(path, like))
        mask = cls(maskfile.read(path).keep)
        if like is not None:
            mask.pairs(like)
        return mask

    def save(self, path: str | Path) -> None:
        """Write a lipkit file, without the initial weights' recipe; `lipkit.Ticket` keeps both.

        >>> import tempfile
        >>> mask = Mask({"head.weight": torch.tensor([[True, False]])})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mask.save(f"{folder}/a.mask")
        ...     Mask.load(f"{folder}/a.mask") == mask
        True
        """
        about = {"made_with": maskfile.versions()}
        write(path, maskfile.pack(maskfile.MASK, self.named(), about))

    # --- set algebra and controls ---------------------------------------------------------

    def __and__(self, other: Mask) -> Mask:
        self._check_same_layers(other)
        return Mask({n: m & other._keep[n] for n, m in self._keep.items()})

    def __or__(self, other: Mask) -> Mask:
        self._check_same_layers(other)
        return Mask({n: m | other._keep[n] for n, m in self._keep.items()})

    def overlap(self, other: Mask) -> Overlap:
        """Count weights kept by both, and how many chance would give with these densities."""
        common = (self & other).kept
        theirs = other.per_layer()
        pairs = ((a, theirs[n]) for n, a in self.per_layer().items())
        return Overlap(common, sum(a.kept * b.kept / a.total for a, b in pairs))

    def shuffled(self, seed: int, within: str = "layer") -> Mask:
        """Move the kept weights, as many as before, within each layer or within each filter.

        Within a layer it equals, in law, `same_density_random`. Within a filter every output
        channel keeps its number of weights too, so that no channel is emptied by the shuffle.
        """
        if within not in ("layer", "filter"):
            raise InputError(f"within must be 'layer' or 'filter', got {within!r}")
        draw = torch.Generator().manual_seed(seed)
        out = {}
        for name, m in self._keep.items():
            rows = m.reshape(1, -1) if within == "layer" or m.ndim == 1 else m.flatten(1)
            order = torch.rand(rows.shape, generator=draw, dtype=torch.float64).argsort(dim=1)
            out[name] = rows.gather(1, order).reshape(m.shape)
        return Mask(out)

    def same_density_random(self, seed: int) -> Mask:
        """Draw a fresh random mask that keeps as many weights in each layer as this one."""
        draw = torch.Generator().manual_seed(seed)
        out = {}
        for name, m in self._keep.items():
            chosen = torch.randperm(m.numel(), generator=draw)[: int(m.sum())]
            flat = torch.zeros(m.numel(), dtype=torch.bool)
            flat[chosen] = True
            out[name] = flat.reshape(m.shape)
        return Mask(out)

    # --- use ------------------------------------------------------------------------------

    def pairs(self, net: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each covered parameter of `net` with its mask, as numbers like the parameter's."""
        parameters = dict(net.named_parameters())
        for name, m in self._keep.items():
            if name not in parameters:
                raise InputError(
                    f"the mask covers {name!r}, which this network does not have; "
                    "it belongs to another network"
                )
            if parameters[name].shape != m.shape:
                raise InputError(
                    f"the mask of {name!r} has shape {tuple(m.shape)}, the network's weights "
                    f"{tuple(parameters[name].shape)}; it belongs to another width or depth"
                )
        # same memory layout as the weights: they are multiplied at every step
        return [
            (parameters[n], torch.empty_like(parameters[n]).copy_(m)) for n, m in self._keep.items()
        ]

    def apply(self, net: nn.Module) -> nn.Module:
        """Set the pruned weights of `net` to zero, in place."""
        with torch.no_grad():
            for parameter, m in self.pairs(net):
                parameter.mul_(m)
        return net

    def to_prune(self, net: nn.Module) -> nn.Module:
        """Prune `net` in place as `torch.nn.utils.prune` does, for programs that are built on it.

        Its `weight` becomes `weight_orig * weight_mask`. `lipkit.fit` takes masks as they are and
        networks that are not pruned so: the way back is `Mask.from_prune` and `prune.remove`.

        >>> net = nn.Conv2d(2, 3, 1)
        >>> mask = Mask.random(net, density=0.5)
        >>> Mask.from_prune(mask.to_prune(net)) == mask
        True
        """
        for name, m in zip(self.names, [m for _, m in self.pairs(net)], strict=True):
            module, _, parameter = name.rpartition(".")
            prune.custom_from_mask(net.get_submodule(module), parameter, m)
        return net

    @classmethod
    def from_prune(cls, net: nn.Module) -> Mask:
        """Take the mask of a network that `torch.nn.utils.prune` has pruned, in any way."""
        masks = {n.removesuffix("_mask"): m for n, m in net.named_buffers() if n.endswith("_mask")}
        names = [n.removesuffix("_orig") for n, _ in net.named_parameters() if n.endswith("_orig")]
        if not names or not set(names) <= set(masks):
            raise InputError("the network is not pruned by torch.nn.utils.prune: it has no mask")
        return cls({name: masks[name] != 0 for name in names})

    def warn_if_collapsed(self) -> None:
        """Warn, by name, of convolutions that lost every weight."""
        empty = self.collapsed()
        if empty:
            names = ", ".join(empty[:4]) + (", ..." if len(empty) > 4 else "")
            warnings.warn(
                f"layer collapse: {len(empty)} of {len(self._keep)} layers keep no weight "
                f"({names}); no signal passes through them",
                LayerCollapseWarning,
                stacklevel=3,
            )

    def _check_same_layers(self, other: Mask) -> None:
        mine = {n: m.shape for n, m in self._keep.items()}
        if mine != {n: m.shape for n, m in other._keep.items()}:
            raise InputError(
                "the two masks cover different parameters or shapes; they belong to different "
                "networks or scopes"
            )


def _check_covers(mask: Mask, scores: Mapping[str, Tensor]) -> None:
    for name, score in scores.items():
        if name not in mask.names or mask._keep[name].shape != score.shape:
            raise InputError(
                f"the mask to stay within does not cover {name!r} of shape {tuple(score.shape)}; "
                "it belongs to another network or scope"
            )

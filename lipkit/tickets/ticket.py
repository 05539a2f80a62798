"""Tickets: a mask and the recipe of the initial weights it belongs to, in one small file."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import Error, FileError, InputError, printable
from ..formats import maskfile
from ..formats.atomic import write
from ..masks import Mask
from ..prior import OWN, Prior, Recipe, checked_size
from .initial import (
    Fingerprint,
    check_fits,
    fingerprint,
    fingerprint_of,
    initial_net,
    kept_values,
    put_kept_values,
    skeleton,
)


class Ticket:
    """A mask with the initial weights that it was found for, and what it was found on.

    Two ways to use one. *Ticket*: `prior()` has the original initial weights. *Mask only*:
    `fresh(seed=...)` has others, of the same network. Both are fitted with `mask=ticket.mask`.

    The weights are not stored but drawn again from the recipe, and compared: `prior` and `load`
    refuse weights that are not the ones the mask belongs to. Only a ticket that was rewound to
    weights after some training has these in its file, as far as the mask keeps them, and so has
    one of a network of your own (`lipkit.Prior.of`), which is given again to use it:
    `ticket.prior(of=lipkit.Prior.of(net, z))`.

    Args:
        mask: which weights are kept.
        recipe: `prior.recipe` of the prior that the mask was found for.
        note: plain data on how it was found: image hash, operator, steps, method, density.
        start: the network, or prior, with the weights to begin with if they are not the recipe's:
            `found.start` of `lipkit.find.imp(rewind=0.05, ...)`. Of a network of your own, always.

    >>> import tempfile
    >>> import lipkit as lk
    >>> prior = lk.testing.tiny_prior(seed=3)
    >>> mask = lk.Mask.random(prior.net, density=0.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lk.Ticket(mask, prior.recipe, note={"method": "random"}).save(f"{folder}/a.ticket")
    ...     ticket = lk.Ticket.load(f"{folder}/a.ticket")
    >>> ticket.prior(size=(24, 32))().shape, ticket.mask == mask
    (torch.Size([1, 3, 24, 32]), True)
    """

    def __init__(
        self,
        mask: Mask,
        recipe: Recipe,
        note: dict[str, Any] | None = None,
        start: nn.Module | Prior | None = None,
    ) -> None:
        if not isinstance(mask, Mask) or not isinstance(recipe, Recipe):
            raise InputError(
                "a ticket is made of a Mask and the recipe of its prior: "
                f"Ticket(mask, prior.recipe), got {type(mask).__name__} and {type(recipe).__name__}"
            )
        check_fits(mask, recipe)
        values = None if start is None else kept_values(getattr(start, "net", start), mask)
        if recipe.name == OWN:
            if values is None:
                raise InputError(
                    "a ticket of a network of your own stores its initial weights: "
                    "Ticket(mask, prior.recipe, start=prior)"
                )
            weights = fingerprint_of([values])
        else:
            initial = initial_net(recipe)
            weights = fingerprint(initial)
            if values is not None:
                empty = skeleton(recipe).to_empty(device="cpu")
                put_kept_values(empty, mask, values)  # refuses those of another network
                if torch.equal(values, kept_values(initial, mask)):
                    values = None
        self._set(mask, recipe, _plain(note or {}), weights, values)
        self.made_with = maskfile.versions()

    def _set(
        self, mask: Mask, recipe: Recipe, note: dict, weights: Fingerprint, start: Tensor | None
    ) -> None:
        self.mask = mask
        self.recipe = recipe
        self.note = note
        self.weights = weights
        self.start = start  # the weights it begins with, if they are not those of the recipe

    # --- files ----------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Return the content of its file; equal tickets give equal bytes."""
        about = {
            "recipe": self.recipe.as_dict(),
            "note": self.note,
            "made_with": self.made_with,
            "weights_sha256": self.weights.sha256,
        }
        return maskfile.pack(
            maskfile.TICKET, self.mask.named(), about, probe=self.weights.probe, start=self.start
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, complete or not at all."""
        write(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path, verify: bool = True) -> Ticket:
        """Read a ticket and check that its initial weights can be drawn again.

        `verify=False` leaves the check to `prior`; the mask itself is good on any machine.
        """
        content = maskfile.read(path)
        mask = Mask(content.keep)
        name = Path(path).name
        if content.kind != maskfile.TICKET:
            raise FileError(
                f"{name} is a mask without initial weights, not a ticket; "
                "load it with lipkit.Mask.load"
            )
        ticket = cls.__new__(cls)
        try:
            about = content.about
            recipe = Recipe.from_dict(about["recipe"])
            weights = Fingerprint(str(about["weights_sha256"]), content.probe)
            check_fits(mask, recipe)
            ticket._set(mask, recipe, dict(about["note"]), weights, content.start)
            if content.start is not None and recipe.name != OWN:
                put_kept_values(initial_net(recipe), mask, content.start)  # refuses others
            ticket.made_with = {str(k): str(v) for k, v in about["made_with"].items()}
            if content.probe is None:
                raise KeyError("probe")
            if content.start is None and recipe.name == OWN:
                raise KeyError("start")
        except KeyError as error:
            raise FileError(f"{name} is no complete ticket: it lacks {error}") from None
        except (Error, AttributeError, TypeError, ValueError) as error:
            raise FileError(f"{name} is no ticket that can be used: {error}") from None
        if verify:
            ticket.verify()
        return ticket

    # --- use ------------------------------------------------------------------------------

    def prior(self, size: int | tuple[int, int] | None = None, *, of: Prior | None = None) -> Prior:
        """Make the prior with the original initial weights; a `size` changes the code only.

        For a ticket of a network of your own, `of` is a prior of such a network, whatever its
        weights, size and code: a copy of it is returned, with the ticket's weights.
        """
        if self.recipe.name == OWN:
            if of is None:
                raise InputError(
                    "this ticket is of a network that lipkit cannot build: give a prior of it, "
                    "ticket.prior(of=lipkit.Prior.of(net, z))"
                )
            prior = of.clone()
        else:
            if of is not None:
                raise InputError("this ticket builds its own network: ticket.prior(size)")
            prior = _resized(self.recipe, size).prior()
            self._compare(fingerprint(prior.net))
        if self.start is not None:
            put_kept_values(prior.net, self.mask, self.start)
        return prior

    def fresh(self, *, seed: int, size: int | tuple[int, int] | None = None) -> Prior:
        """Make a prior of the same network with other initial weights, for the mask alone."""
        if seed == self.recipe.seed:
            raise InputError(
                f"seed {seed} is the ticket's own and gives its original initial weights; "
                "take another seed, or ticket.prior() if they are meant"
            )
        return replace(_resized(self.recipe, size), seed=seed).prior()

    def verify(self) -> bool:
        """Return True if the weights are drawn again bit for bit, False if but for rounding.

        Weights that differ by more are an `Error`.
        """
        if self.recipe.name == OWN:
            return True  # they were stored, with a checksum
        return self._compare(fingerprint(initial_net(self.recipe)))

    def _compare(self, found: Fingerprint) -> bool:
        if found.sha256 == self.weights.sha256:
            return True
        if found.close_to(self.weights):
            warnings.warn(
                "the ticket's initial weights are drawn again but for rounding, as happens on "
                "another kind of processor; results will be close, not equal to the bit",
                stacklevel=3,
            )
            return False
        raise Error(
            "the initial weights drawn from the ticket's recipe are not the ones it belongs to "
            f"(made with torch {self.made_with.get('torch', '?')}, this is "
            f"{maskfile.versions()['torch']}); its mask alone can still be used: "
            "lipkit.Mask.load(path)"
        )

    def describe(self) -> str:
        """Write a text for people: network, density, kept weights per layer, origin, use."""
        recipe = self.recipe
        mask = self.mask
        options = ", ".join(f"{k}={v}" for k, v in recipe.options.items()) or "none"
        hashed = f"sha256 {self.weights.sha256[:16]}…"
        if recipe.name == OWN:
            network = f"network: one of your own, options: {options}"
            weights = [f"initial weights: {self.start.numel():,} stored, {hashed}"]
            prior = "ticket.prior(of=lipkit.Prior.of(net, z))"
        else:
            parameters = sum(p.numel() for p in skeleton(recipe).parameters())
            network = f"network: {recipe.name}, {parameters:,} parameters, options: {options}"
            weights = [f"initial weights: seed {recipe.seed}, {hashed}"]
            if self.start is not None:
                weights.append(f"rewound to: {self.start.numel():,} stored weights")
            prior = "ticket.prior(size)"
        lines = [
            "ticket: a mask and the initial weights it belongs to",
            network,
            *weights,
            f"found for pictures of {recipe.size[0]} x {recipe.size[1]} (height x width)",
            "made with: " + ", ".join(f"{k} {v}" for k, v in self.made_with.items()),
            "found on: " + ("nothing noted" if not self.note else ""),
            *(f"  {key}: {value}" for key, value in _flat(self.note)),
            *describe_mask(mask).splitlines(),
            "use, with ticket = lipkit.Ticket.load(...):",
            f"  ticket     lipkit.fit({prior}, op, y, mask=ticket.mask)",
        ]
        if recipe.name != OWN:
            fresh = "ticket.fresh(seed=1, size=size)"
            lines.append(f"  mask only  lipkit.fit({fresh}, op, y, mask=ticket.mask)")
        return "\n".join(printable(line).rstrip() for line in lines)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ticket) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def __repr__(self) -> str:
        return f"Ticket({self.mask!r}, {self.recipe.name!r}, seed={self.recipe.seed})"


def describe_mask(mask: Mask) -> str:
    """Write density, and a table of the weights kept in each layer.

    >>> import torch
    >>> print(describe_mask(Mask({"head.weight": torch.tensor([[True, False]])})))
    mask: 1 of 2 weights kept (density 50 %, sparsity 50 %)
      layer        shape  kept  of  density
      head.weight    1x2     1   2  50.00 %
    """
    rows = [("layer", "shape", "kept", "of", "density")]
    for name, (kept, total) in mask.per_layer().items():
        shape = "x".join(map(str, mask[name].shape))
        rows.append(
            (printable(name), shape, f"{kept:,}", f"{total:,}", f"{100 * kept / total:.2f} %")
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"mask: {mask.kept:,} of {mask.total:,} weights kept "
        f"(density {100 * mask.density:.4g} %, sparsity {100 * mask.sparsity:.4g} %)"
    ]
    for first, *rest in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        lines.append(f"  {first:{widths[0]}}  " + "  ".join(cells))
    if empty := mask.collapsed():
        lines.append(f"  layer collapse: no weight left in {', '.join(map(printable, empty))}")
    return "\n".join(lines)


def image_hash(image: Tensor) -> str:
    """Hash shape and float32 values, to note what a ticket was found on.

    >>> import torch
    >>> image_hash(torch.zeros(1, 2, 2))[:8]
    '56f46952'
    """
    values = image.detach().cpu().float().contiguous()
    return hashlib.sha256(str(tuple(values.shape)).encode() + values.numpy().tobytes()).hexdigest()


def _resized(recipe: Recipe, size: int | tuple[int, int] | None) -> Recipe:
    return recipe if size is None else replace(recipe, size=checked_size(size))


def _plain(note: dict[str, Any]) -> dict[str, Any]:
    """Return the note as JSON gives it back, so that saving and loading change nothing."""

    def simple(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # numpy and torch numbers
            return value.item()
        raise TypeError(f"{type(value).__name__} is no plain data")

    try:
        if not isinstance(note, dict):
            raise TypeError(f"{type(note).__name__} is no dict")
        return json.loads(json.dumps(note, default=simple, sort_keys=True, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"the note of a ticket is a dict of texts, finite numbers, lists and dicts ({error})"
        ) from None


def _flat(note: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """List nested entries as `outer.inner`."""
    rows: list[tuple[str, Any]] = []
    for key, value in note.items():
        nested = isinstance(value, dict) and value
        rows += _flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return rows

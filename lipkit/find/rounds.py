"""The rounds of a search: what each one found, and the folder that lets a search go on later."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from ..errors import FileError
from ..fitting import loop
from ..formats import maskfile, state
from ..formats.atomic import write
from ..masks import Mask
from ..prior import Prior


@dataclass(frozen=True)
class Round:
    """One training, and the pruning after it.

    `density` is that of the weights in training; `mask` is what the pruning left of them.
    """

    density: float
    loss: float
    psnr: float
    best_psnr: float
    seconds: float
    mask: Mask


@dataclass(frozen=True, repr=False)
class Imp:
    """The result of iterative magnitude pruning.

    Round `i` trains with `masks[i - 1]` (round 0 the dense network), ends at `losses[i]`, and its
    pruning leaves `masks[i]`. The last mask has not been trained.

    `start` is the prior that the masks belong to: a copy of the one given, or with `rewind` the
    same after its first steps. `rising` holds the first and last round of the run of rising losses
    that ended the search, if one did.
    """

    rounds: tuple[Round, ...]
    start: Prior
    reason: str
    rising: tuple[int, int] | None = None
    interrupted: bool = False

    @property
    def mask(self) -> Mask:
        """The last mask; if rising losses ended the search, the first of the two candidates."""
        return self.candidates[0] if self.candidates else self.masks[-1]

    @property
    def candidates(self) -> tuple[Mask, Mask] | None:
        """The masks trained in the first and in the last round of the rising run."""
        if self.rising is None:
            return None
        first, last = self.rising
        return self.masks[first - 1], self.masks[last - 1]

    @property
    def masks(self) -> list[Mask]:
        """What each pruning left, each within the one before."""
        return [r.mask for r in self.rounds]

    @property
    def densities(self) -> np.ndarray:
        """Fraction of the weights that each round trained (1 in round 0)."""
        return np.array([r.density for r in self.rounds])

    @property
    def losses(self) -> np.ndarray:
        """Training loss at the last step of each round."""
        return np.array([r.loss for r in self.rounds])

    @property
    def psnrs(self) -> np.ndarray:
        """PSNR of the picture that each round gives (NaN without a reference)."""
        return np.array([r.psnr for r in self.rounds])

    @property
    def best_psnrs(self) -> np.ndarray:
        """Highest PSNR measured in each round, the oracle's (NaN without a reference)."""
        return np.array([r.best_psnr for r in self.rounds])

    @property
    def seconds(self) -> float:
        """Training time of all rounds."""
        return sum(r.seconds for r in self.rounds)

    def __repr__(self) -> str:
        density = f"density {100 * self.mask.density:.3g} %"
        return f"Imp({len(self.rounds)} rounds, {density}: {self.reason})"


def in_rounds(
    first: Mask,
    counts: Sequence[int],
    train_and_prune: Callable[[int, Mask, int], Round | None],
    progress: bool = True,
) -> Iterator[Round]:
    """Yield round after round, each under the mask that the one before left.

    `train_and_prune(number, mask, kept)` does one, and gives None to end them.
    """
    mask = first
    for number, kept in enumerate(loop.bar(progress, "rounds", iterable=counts)):
        found = train_and_prune(number, mask, kept)
        if found is None:
            return
        yield found
        mask = found.mask


class Folder:
    """Files of one search: a mask for each finished round, the rewind weights, the fit under way.

    The masks are files like those of `Mask.save`, in which the round's numbers ride along.
    """

    def __init__(self, path: str | Path, signature: Mapping[str, str]) -> None:
        self.path = Path(path)
        self._signature = dict(signature)
        text = json.dumps(self._signature, indent=1, sort_keys=True)
        self._digest = hashlib.sha256(text.encode()).hexdigest()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot use {path} as a folder: {error.strerror or error}") from None
        claim = self.path / "search.safetensors"
        if state.read(claim, "search", self._signature) is None:  # refuses another search
            state.write(claim, "search", self._signature, {}, {})

    def checkpoint(self, name: str) -> Path:
        """Return where the fit under way of a round, or of "rewind", is saved."""
        return self.path / f"{name}.fit.safetensors"

    def save_round(self, name: str, found: Round, trained: Mask) -> None:
        """Write a finished round."""
        about = dict(
            made_with=maskfile.versions(),
            search=self._digest,
            trained=trained.digest(),
            numbers={k: v for k, v in vars(found).items() if k != "mask" and not math.isnan(v)},
        )
        about["checksum"] = _checksum(about, found.mask)
        write(self._finished(name), maskfile.pack(maskfile.MASK, found.mask.named(), about))
        self.checkpoint(name).unlink(missing_ok=True)

    def load_round(self, name: str, trained: Mask, kept: int) -> Round | None:
        """Read the round, if it was saved, began with `trained` and left so many weights."""
        path = self._finished(name)
        if not path.exists():
            return None
        content = maskfile.read(path)
        about = content.about
        wrong = ""
        try:
            measured = dict.fromkeys(("psnr", "best_psnr"), math.nan) | about["numbers"]
            found = Round(mask=Mask(content.keep), **{k: float(v) for k, v in measured.items()})
            if about["search"] != self._digest:
                wrong = "it belongs elsewhere"
            elif about.pop("checksum", None) not in (None, _checksum(about, found.mask)):
                wrong = "its checksum differs"  # files of before have none
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            wrong = f"{error}"[:120]
        if wrong:
            raise FileError(
                f"{path} is not from this search ({wrong}); delete it, and it will be made again"
            )
        # a search may be asked for fewer or more rounds than before: those that fit are kept
        same = about.get("trained") == trained.digest() and found.mask.kept == kept
        return found if same else None

    def save_weights(self, net: nn.Module) -> None:
        """Write the rewind weights."""
        state.write(self._finished("rewind"), "search", self._signature, net.state_dict(), {})
        self.checkpoint("rewind").unlink(missing_ok=True)

    def load_weights(self, net: nn.Module) -> bool:
        """Put the rewind weights into `net`; False if there are none yet."""
        found = state.read(self._finished("rewind"), "search", self._signature)
        if found is not None:
            net.load_state_dict(found[0])
        return found is not None

    def _finished(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"


def _checksum(about: Mapping, mask: Mask) -> str:
    """Sum up all that a round's file says, but for its checksum."""
    text = json.dumps([about, mask.digest()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

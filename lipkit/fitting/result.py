"""What a fit shows on its way and gives in the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import Error, FileError, InputError, check_file
from ..formats import state
from ..prior import Prior

_KIND = "result"
_COLUMN = "history."
_FACTS = ("steps", "reason", "seconds", "interrupted", "engine")


@dataclass(frozen=True)
class Snapshot:
    """What a callback sees: return True from it to stop the fit."""

    step: int
    loss: float
    image: Tensor
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Fit:
    """The result of a fit.

    `image` is what a user gets: the stop rule's choice, else the average, else the last output.
    `best` is the oracle's: the output of highest PSNR to the reference among those measured, or
    None without a reference. `history` holds the arrays step, loss, psnr, ssim (of the estimate)
    and psnr_raw (of the single output). `engine` says how the steps were computed.

    >>> import tempfile
    >>> import lipkit as lk
    >>> clean = lk.testing.tiny_image()
    >>> op = lk.physics.Denoise(sigma=0.1)
    >>> prior = lk.testing.tiny_prior()
    >>> fit = lk.fit(prior, op, op.measure(clean), steps=20, reference=clean, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fit.save(f"{folder}/a.fit")
    ...     again = Fit.load(f"{folder}/a.fit", prior)
    >>> again.reason, torch.allclose(again.net(prior.z), fit.net(prior.z), atol=1e-4)
    ('all 20 steps are done', True)
    """

    image: Tensor
    best: Tensor | None
    history: dict[str, np.ndarray]
    steps: int
    reason: str
    seconds: float
    net: nn.Module
    interrupted: bool = False
    engine: str = ""

    def __repr__(self) -> str:
        c, h, w = self.image.shape
        return f"Fit({c}x{h}x{w}, {self.steps} steps in {self.seconds:.1f} s: {self.reason})"

    def save(self, path: str | Path) -> None:
        """Write all of it to one safetensors file with a checksum, whole or not at all."""
        images = {"image": self.image} | ({} if self.best is None else {"best": self.best})
        history = {_COLUMN + name: torch.from_numpy(v) for name, v in self.history.items()}
        tensors = images | history | state.collect({"net": self.net})
        facts = {name: getattr(self, name) for name in _FACTS}
        state.write(Path(path), _KIND, {}, tensors, facts)

    @classmethod
    def load(cls, path: str | Path, prior: Prior) -> Fit:
        """Read what `save` wrote; `prior` is one of the same network, whatever its weights."""
        path = Path(path)
        check_file(path)
        try:
            tensors, facts = state.read(path, _KIND, {})
            net = prior.clone().net
            state.put_back(tensors, {"net": net})
            columns = [name for name in tensors if name.startswith(_COLUMN)]
            history = {name.removeprefix(_COLUMN): tensors[name].numpy() for name in columns}
            known = {name: facts[name] for name in _FACTS}
            return cls(tensors["image"], tensors.get("best"), history, net=net, **known)
        except RuntimeError:
            raise InputError(
                f"{path} holds the weights of another network than this prior's; "
                "give a prior of the same name, options and channels"
            ) from None
        except (Error, KeyError):
            raise FileError(
                f"{path} is no whole file as Fit.save writes it; get a complete copy"
            ) from None

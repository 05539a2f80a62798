"""What a search of a generator's range is asked to do, checked before anything is run."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..checks import check_picture, is_number, is_whole
from ..errors import InputError

LOSSES = ("l2", "l4", "mom")
SHUFFLES = ("fresh", "fixed")


@dataclass(frozen=True)
class SearchSettings:
    """The numbers and names of a search; each restart of each picture goes by the same."""

    loss: str
    steps: int
    lr: float
    restarts: int
    average: int
    blocks: int
    shuffle: str
    patience: int | None
    every: int
    seed: int

    def __post_init__(self) -> None:
        for name, known in (("loss", LOSSES), ("shuffle", SHUFFLES)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        least = {"steps": 1, "restarts": 1, "average": 0, "blocks": 1, "every": 1, "seed": 0}
        if self.patience is not None:
            least["patience"] = 1
        for name, bound in least.items():
            if not is_whole(getattr(self, name), bound):
                raise InputError(
                    f"{name} must be a whole number of at least {bound}, "
                    f"got {getattr(self, name)!r}"
                )
        if not is_number(self.lr) or self.lr <= 0:
            raise InputError(f"lr must be a number above 0, got {self.lr!r}")


def check_parts(generator: nn.Module, op, ys, references) -> None:
    if not isinstance(generator, nn.Module) or not hasattr(generator, "latent"):
        raise InputError(
            "the generator must be a network with a latent width, such as "
            f"lipkit.models.build('pgan') or lipkit.gan.load(...), got a {type(generator).__name__}"
        )
    if not callable(getattr(op, "A", None)):
        raise InputError(
            "op must be an operator with a method A, such as lipkit.physics.Denoise(), "
            f"got a {type(op).__name__}"
        )
    for name, pictures in (("measurement", ys), ("reference", references)):
        for x in [] if pictures is None else pictures:
            check_picture(name, x)
        if pictures is not None and (
            len(pictures) != len(ys) or len({x.shape for x in pictures}) != 1
        ):
            raise InputError(
                f"several pictures need a {name} each, all of one shape, got "
                f"{', '.join(str(tuple(x.shape)) for x in pictures) or 'none'} "
                f"for {len(ys)} measurements"
            )

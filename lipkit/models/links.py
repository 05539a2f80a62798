"""How a network hangs together: its convolutions in order, what each reads, and what comes behind.

`net.links()` says it once. `Hourglass.forward` follows it, and so does `lipkit.engine`, which
leaves channels out of a network or computes it in another way.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Norm:
    """Batch norm, then an activation; without a module only the activation."""

    module: str
    activation: str = "none"  # "none", "leaky" or "relu"


@dataclass(frozen=True)
class Double:
    """Twice the height and width."""

    mode: str  # "nearest" or "bilinear"


Step = Norm | Double


@dataclass(frozen=True)
class Link:
    """A convolution of a network, between the ones that it reads and the ones that read it.

    What it reads goes through `doubled` (the last of several alone), is cropped to the smallest,
    joined and normalized; its output goes through `pool` and `behind`.
    """

    module: str  # the convolution, or the block that it begins
    conv: str
    reads: tuple[str, ...] = ()  # convolutions; none: the code
    doubled: str = ""  # the mode of `Double`
    joined_norm: str = ""
    pool: str = ""  # "", "avg" or "max", 2 x 2
    behind: tuple[Step, ...] = ()

    @property
    def norm(self) -> str:
        """The batch norm behind, "" for none."""
        modules = [step.module for step in self.behind if isinstance(step, Norm)]
        return "".join(modules)

"""A prior and a fit as one function of measurement and operator, as deepinv calls its methods."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor

from ..errors import InputError
from ..prior import Prior
from . import fit

_OWN = ("prior", "op", "y", "reference", "checkpoint")  # what differs from picture to picture
_FIT_OPTIONS = [name for name in inspect.signature(fit).parameters if name not in _OWN]


class Reconstructor:
    """`reconstructor(y, physics)` fits a fresh prior to each measurement of a batch `y` [N, ...].

    `physics` is any operator with `A`, deepinv's among them. The size of the pictures [C, H, W]
    is that of `physics.A_adjoint(y)`, or is given as `size`. `seed` is for prior and fit alike,
    so that a picture comes out the same alone and in a batch; the other options are those of
    `lipkit.fit`.

    >>> import lipkit as lk
    >>> small = dict(levels=2, down=8, up=8, skip=2)
    >>> restore = Reconstructor("dip", prior_options=small, steps=5, progress=False)
    >>> restore(torch.rand(2, 3, 16, 16), lk.physics.Denoise(0.1)).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        prior: str = "dip",
        *,
        size: tuple[int, int, int] | None = None,
        seed: int = 0,
        prior_options: dict | None = None,
        **fit_options,
    ) -> None:
        unknown = sorted(set(fit_options) - set(_FIT_OPTIONS))
        if unknown:
            raise InputError(
                f"a Reconstructor has no option {', '.join(map(repr, unknown))}; it takes size, "
                f"prior_options and these of lipkit.fit: {', '.join(_FIT_OPTIONS)}"
            )
        if size is not None and (not isinstance(size, (tuple, list)) or len(size) != 3):
            raise InputError(f"size must be (channels, height, width), got {size!r}")
        self.prior = prior
        self.size = size
        self.seed = seed
        self.prior_options = prior_options or {}
        self.fit_options = fit_options

    def __call__(self, y: Tensor, physics) -> Tensor:
        """Return the pictures [N, C, H, W] behind the measurements `y` [N, ...]."""
        if not isinstance(y, Tensor) or y.ndim < 2 or len(y) == 0:
            got = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
            raise InputError(
                f"the measurements must be one tensor with a batch axis first, got {got}"
            )
        y = y.detach()
        channels, *size = self._picture_shape(y, physics)
        options = {"out_channels": channels} | self.prior_options
        prior = Prior(self.prior, tuple(size), self.seed, **options).to(y.device)
        fits = (
            fit(prior, physics, y[i : i + 1], seed=self.seed, **self.fit_options)
            for i in range(len(y))
        )
        return torch.stack([one.image for one in fits]).to(y.device)

    def _picture_shape(self, y: Tensor, physics) -> tuple[int, ...]:
        if self.size is not None:
            return tuple(self.size)
        if not hasattr(physics, "A_adjoint"):
            raise InputError(
                f"a {type(physics).__name__} has no A_adjoint that would tell the size of its "
                "pictures; give it: Reconstructor(size=(channels, height, width))"
            )
        shape = tuple(physics.A_adjoint(y).shape[1:])
        if len(shape) != 3:
            raise InputError(
                f"A_adjoint makes something of shape {shape}, where a picture is (channels, "
                "height, width); give the measurements a batch axis"
            )
        return shape

    def __repr__(self) -> str:
        options = "".join(f", {k}={v!r}" for k, v in self.fit_options.items())
        return f"Reconstructor({self.prior!r}{options})"

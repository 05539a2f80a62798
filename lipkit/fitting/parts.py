"""Check the parts of a fit: prior, operator, mask and callback."""

from __future__ import annotations

from ..checks import kind_of
from ..errors import InputError
from ..masks import Mask
from ..prior import Prior


def check_parts(prior, op, mask, callback) -> None:
    """Refuse what is not a prior, an operator, a mask, a function."""
    if not isinstance(prior, Prior):
        raise InputError(
            f"prior must be a lipkit.Prior, got {kind_of(prior)}; Prior('dip') makes one"
        )
    if not callable(getattr(op, "A", None)):
        raise InputError(
            "op must be an operator with a method A, such as lipkit.physics.Denoise(), "
            f"got {kind_of(op)}"
        )
    if mask is not None and not isinstance(mask, Mask):
        raise InputError(
            f"mask must be a lipkit.Mask, got {kind_of(mask)}; Mask.from_flat(vector, prior.net) "
            "makes one of a 0/1 vector"
        )
    if callback is not None and not callable(callback):
        raise InputError(f"callback must be a function of one argument, got {kind_of(callback)}")

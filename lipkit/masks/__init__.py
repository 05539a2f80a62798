"""Masks: which weights of a network are kept. One type for every way of finding them."""

from __future__ import annotations

from .mask import LayerCollapseWarning, LayerCount, Mask, Overlap
from .select import SCOPES, checked_density, count, covered

__all__ = [
    "SCOPES",
    "LayerCollapseWarning",
    "LayerCount",
    "Mask",
    "Overlap",
    "checked_density",
    "count",
    "covered",
]

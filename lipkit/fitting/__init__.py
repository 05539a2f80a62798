"""Fit a prior to a measurement: the loop, what it is asked to do, when it stops, what it gives."""

from __future__ import annotations

from .descent import fit
from .result import Fit, Snapshot
from .settings import EMA, PosteriorMean

__all__ = ["EMA", "Fit", "PosteriorMean", "Snapshot", "fit"]

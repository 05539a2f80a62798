"""Sparse image priors between over- and under-parameterization."""

from __future__ import annotations

import importlib
import os

from ._version import __version__

# Threads that wait for each other spin for a while before they sleep. GNU OpenMP's 300,000 turns
# make a step ten times slower beside another busy program; a thirtieth of it costs nothing when
# alone. Read once, when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from . import engine, masks, metrics, models, physics
from .errors import Error, FileError, InputError
from .fitting import EMA, Fit, PosteriorMean, fit, stop
from .masks import Mask
from .prior import Prior
from .workers import parallel

# The rest is loaded on first use, so that `import lipkit` costs little more than `import torch`.
_LATER = {
    "Reconstructor": "fitting.reconstructor:Reconstructor",
    "Ticket": "tickets:Ticket",
    "book": "book",
    "data": "data",
    "find": "find",
    "gan": "gan",
    "lab": "lab",
    "mri": "mri",
    "testing": "testing",
    "tickets": "tickets",
}
# Names that moved behind the two doors `lab` and `book`: kept for one release.
_MOVED = {
    "chapter": "book.chapter",
    "claims": "lab.claims",
    "classify": "lab.classifier",
    "experiment": "lab.experiment",
    "grid": "lab.grid",
    "papers": "lab.papers",
    "plots": "book.plots",
    "records": "lab.records",
    "sweep": "lab.sweep",
    "tables": "lab.tables",
    "trial": "lab.running",
    "widgets": "book.widgets",
}

__all__ = [
    "EMA",
    "Error",
    "Fit",
    "FileError",
    "InputError",
    "Mask",
    "PosteriorMean",
    "Prior",
    "__version__",
    "engine",
    "fit",
    "masks",
    "metrics",
    "models",
    "parallel",
    "physics",
    "stop",
    *_LATER,
]


def __getattr__(name: str):
    place = _LATER.get(name) or _MOVED.get(name)
    if place is None:
        raise AttributeError(f"module 'lipkit' has no attribute {name!r}")
    module, _, member = place.partition(":")
    found = importlib.import_module(f".{module}", __name__)
    return getattr(found, member) if member else found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

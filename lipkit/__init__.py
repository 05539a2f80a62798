"""Sparse image priors between over- and under-parameterization."""

from __future__ import annotations

import importlib
import os

__version__ = "0.1.0"

# Threads that wait for each other spin for a while before they sleep. GNU OpenMP's 300,000 turns
# make a step ten times slower beside another busy program; a thirtieth of it costs nothing when
# alone. Read once, when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from . import engine, metrics, models, physics, stop
from .errors import Error, FileError, InputError
from .fit import EMA, Fit, PosteriorMean, fit
from .masks import Mask
from .parallel import parallel
from .prior import Prior

# The rest is loaded on first use, so that `import lipkit` costs little more than `import torch`.
_LAZY_OBJECTS = {"Ticket": "tickets", "Reconstructor": "reconstructor"}
_LAZY_MODULES = (
    "book", "chapter", "claims", "classify", "data", "experiment", "find", "gan", "grid", "masks",
    "mri", "papers", "plots", "prior", "records", "sweep", "tables", "testing", "tickets", "trial",
    "widgets",
)  # fmt: skip

__all__ = [
    "EMA",
    "Error",
    "FileError",
    "Fit",
    "InputError",
    "Mask",
    "PosteriorMean",
    "Prior",
    "engine",
    "fit",
    "metrics",
    "models",
    "parallel",
    "physics",
    "stop",
    *_LAZY_OBJECTS,
    *_LAZY_MODULES,
]


def __getattr__(name: str):
    if name in _LAZY_OBJECTS:
        return getattr(importlib.import_module(f".{_LAZY_OBJECTS[name]}", __name__), name)
    if name in _LAZY_MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'lipkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The evidence: experiments as data, grids and sweeps of them, their records, and the claims.

`Experiment` says what is restored and how, `run` runs one and returns its record, `Records` keeps
them, `Grid` and `sweep` run many. `run_arms` runs what a chapter compares, over seeds. `papers`
holds the published tables, `claims` what becomes of each claim, `tables` the tables of chapters,
`gaps` who is ahead in them, `classical` what needs no network, `classifier` the transfer to
classes.
"""

from __future__ import annotations

import importlib

_MODULES = (
    "claims", "classical", "classifier", "experiment", "gaps", "grid", "papers", "paths", "records",
    "sweep", "tables", "verify",
)  # fmt: skip
_MEMBERS = {
    "Experiment": "experiment",
    "Gap": "gaps",
    "Grid": "grid",
    "Records": "records",
    "gap": "gaps",
    "run": "running",
    "run_arms": "tables",
}

__all__ = [*_MEMBERS, *_MODULES]


def __getattr__(name: str):
    # loaded on first use: a chapter that draws a table need not wait for the sweeps
    if name in _MEMBERS:
        return getattr(importlib.import_module(f".{_MEMBERS[name]}", __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'lipkit.lab' has no attribute {name!r}")

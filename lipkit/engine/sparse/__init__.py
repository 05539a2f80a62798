"""The sparse step: forward and backward of a masked network at the cost of its kept weights."""

from __future__ import annotations

__all__ = ["SparseNetwork", "sparse_network", "why_not"]


def __getattr__(name: str):
    # loaded on first use, for a dozen files are behind it: `import lipkit` is to stay quick
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import network

    return getattr(network, name)

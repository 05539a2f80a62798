"""The sparse step: forward and backward of a masked network at the cost of its kept weights."""

from __future__ import annotations

from .network import SparseNetwork, sparse_network, why_not

__all__ = ["SparseNetwork", "sparse_network", "why_not"]

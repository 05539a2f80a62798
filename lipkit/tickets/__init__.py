"""Tickets: a mask and the recipe of the initial weights it belongs to, in one small file."""

from __future__ import annotations

from ..masks import Mask
from .ticket import Ticket, describe_mask, image_hash

load_mask, save_mask = Mask.load, Mask.save  # their old names, for one release

__all__ = ["Ticket", "describe_mask", "image_hash"]

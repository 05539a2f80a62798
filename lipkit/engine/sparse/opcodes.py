"""What a program tells the compiled function: its records, field by field, and what numbers mean.

Each record is one row of a table; in compiled code its fields are read by name. Places count single
numbers in the memory, or in the index where that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LANES = 16  # numbers in a vector
GATHER, COMBINE, FORWARD, BACKWARD, CORRELATE, SCATTER = range(6)  # tasks
LOAD, NORM, DOUBLE, CROP, WRITE, OUT = range(6)  # operations of a chain
PLAIN, PHASES, MAXIMUM = range(3)  # how a chain reads what a convolution wrote
REFLECT, REPLICATE, ZEROS = range(3)  # padding
ACTIVATIONS = {"none": 0, "leaky": 1, "relu": 2}
SLOPES = (1.0, 0.2, 0.0)  # of these, below zero


class TaskRow(NamedTuple):
    """A piece of work for one thread."""

    kind: int
    which: int  # row of the table of convolutions, of products or of chains
    plane: int = 0  # FORWARD, BACKWARD: the channel's number among those in use ...
    channel: int = 0  # ... and among all
    start: int = 0  # COMBINE: the first pixel ...
    vectors: int = 0  # ... and how many vectors of them
    first: int = 0  # COMBINE, CORRELATE: the first plane ...
    last: int = 0  # ... and the one behind the last


class ConvRow(NamedTuple):
    """A convolution: its weights in every order, and the gradients of them."""

    values: int  # the first kept weight among the values
    kept: int  # how many there are
    taps: int  # distinct ones: as many, or sums of them
    slots: int  # in the index: to which tap each kept weight belongs; -1: taps are the weights
    weights: int  # of the taps
    ahead: int  # the same in the order in which forward reads them
    ahead_order: int  # in the index
    back: int  # and backward
    back_order: int
    grad: int  # gradients of the taps, in groups of eight
    grad_slots: int  # in the index, as `slots`, among those groups
    rows: int  # in the index: where the taps of each output plane start ...
    rows8: int  # ... in groups of eight
    offsets8: int  # in the index: what the taps in groups of eight read
    cuts: int  # in the index: the rows in groups of eight, block by block of input planes
    blocks: int
    planes: int  # output planes
    u: int  # input planes
    gz: int  # gradients of the output planes
    gz_stride: int  # from one to the next
    vectors: int  # of pixels of an output plane
    at_once: int  # of which so many are summed up before the next tap


class ProductRow(NamedTuple):
    """Planes as weighted sums of shifted planes: a convolution, or the one that sends back."""

    source: int
    rows: int  # in the index: where the taps of each plane start, block by block
    offsets: int  # in the index
    weights: int
    out: int
    stride: int  # between the planes of `out`
    blocks: int  # of the planes of `source`
    planes: int  # of `out`


class ChainRow(NamedTuple):
    """The operations from one convolution to those that read it, and scratch memory for them."""

    first: int  # operation
    last: int  # the one behind the last
    again: int  # the one behind the last that backward has to compute again
    images: int
    g: int  # two buffers for gradients
    other: int


class OpRow(NamedTuple):
    """An operation on one channel; `into` and `source` are places in scratch memory."""

    code: int
    into: int = 0  # LOAD, NORM, DOUBLE, CROP
    source: int = 0  # all but LOAD
    h: int = 0  # all but NORM and OUT: of the picture before
    w: int = 0
    size: int = 0  # NORM: pixels of all images; OUT: of one
    # LOAD and WRITE: the planes of a convolution
    planes: int = 0  # those that it wrote, or that it reads
    grads: int = 0  # their gradients
    channel: int = 0  # from a channel's first plane to the next channel's
    phase: int = 0  # from a channel's plane to its next one
    pitch: int = 0  # from row to row
    image: int = 0  # from image to image
    # LOAD
    mode: int = 0
    grads_channel: int = 0  # as `channel` and `phase`, of the gradients
    grads_phase: int = 0
    lead: int = 0  # zeros in front of gradients; 0 also for the code, which has none around
    all_there: int = 0  # whether channels not in use have planes too
    # WRITE
    split: int = 0  # into four planes by parity
    box: int = 0  # of means of 2 x 2 pixels
    pad: int = 0
    padding: int = 0
    # NORM
    normed: int = 0  # or only an activation
    activation: int = 0
    scale: int = 0  # of channel 0, among the vectors
    shift: int = 0
    stats: int = 0
    # DOUBLE
    bilinear: int = 0
    # CROP
    top: int = 0
    left: int = 0
    new_h: int = 0
    new_w: int = 0
    # OUT
    bias: int = 0  # among the vectors; -1: none
    channels: int = 0


def table(kind: type[NamedTuple], rows: Sequence[NamedTuple]) -> np.ndarray:
    """Return rows as records whose fields compiled code reads by name.

    >>> table(ProductRow, [ProductRow(0, 1, 2, 3, 4, 5, 6, 7)])[0]["stride"]
    np.int64(5)
    """
    record = np.dtype([(name, np.int64) for name in kind._fields], align=True)
    return np.array(rows, record) if rows else np.zeros(1, record)

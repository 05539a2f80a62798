"""How a step of a fit is computed fast; the page for whoever works on it.

`lk.fit` hands its network, masked already, to `install`, trains `Engine.net` in its place, and asks
`Engine.finish` for the network with the trained weights. Whatever the choice, the same weights are
trained along the same path, up to rounding; `Fit.engine` says which it was, and `engine="plain"` is
the network as it is. The annex imports `models`, `masks` and `errors` alone, and others
import from this face alone. (`lipkit.find` borrows the vector instructions of `sparse` too, for
compiled passes of its own.)

**The way of a step.** `fit` calls `forward_and_loss`, which calls `Engine.net`:

- *plain*, *dense* or *compact*: PyTorch's modules, of which `boxed` ones pool before they convolve,
  and which may have fewer channels than the network that was given (`drop_channels`).
- *sparse*: `SparseNetwork`, one operation of autograd with one flat parameter, the kept weights.
  Its forward runs a *program* for the picture's size: a list of tasks such as "sum these planes" or
  "lead this channel through its norm to the planes of the next convolution". One compiled function
  works them off, stage by stage, on as many threads as torch uses. Backward runs another program,
  over the planes that forward left in memory.

Then the loss, the gradients and the optimizer are PyTorch's again. On a GPU `GraphStep` captures
the whole of the step, once it was seen to do the same, and launches it at once.

**Which file does what.** ::

    choose.py         install: which way, for what reason, and how the weights come home
    cost.py           multiply-adds of a network and of its kept weights
    dense.py          pooling first; forward and loss
    influence.py      which channels have an influence on the picture
    drop_channels.py  the network without the others
    cuda_graph.py     a step as a CUDA graph
    sparse/network.py   the module with the kept weights, and its operation of autograd
           read.py      what the network does, from `net.links()`: convolutions, chains between
           taps.py      each kept weight as a shift within the planes of a convolution
           layout.py    sizes and places of all planes
           lower.py     the program: tables of convolutions, chains and operations, and tasks
           opcodes.py   the records of these tables, field by field
           run.py       the compiled function, and what it does for convolutions
           channels.py  the same for what happens to a channel between two convolutions
           planes.py, pictures.py   loops over the planes of one channel, and over its picture
           vector.py    the innermost loops in vector instructions
           team.py      compiling once for a machine; threads
    relaxed_masks.py  the two passes over all logits of a mask search, compiled
    lanes.py          arithmetic and elementary functions for them, in vector instructions

**What is exact.** Leaving channels out, pooling first and the sparse step compute the same numbers
in exact arithmetic, gradients of kept weights included; in floating point they add in another order
and differ in the last bits, which training makes larger. A weight without influence keeps its
value: weight decay, which moves it in the plain network, does not.

**Which bits are guaranteed.** On one machine with the same libraries a fit gives the same bits
every time. The sparse step does so for any number of threads and whatever was compiled before: each
task adds in one order, no sum is reordered and no product fused unless the code says so. Between
processors last bits differ, as those of PyTorch do. There is one trap: behind a hole in a mask a
channel is constant up to rounding, and each batch norm multiplies that rounding by 316. Whoever
compares networks there compares rounding (see `tests/engine/constants.py`).
"""

from __future__ import annotations

from . import sparse
from .choose import EVEN, Engine, install
from .cost import Cost, cost
from .cuda_graph import WORTH, GraphStep
from .dense import boxed, forward_and_loss
from .drop_channels import Smaller, drop_channels

compact = drop_channels  # its name in chapters, kept for one release

__all__ = [
    "EVEN",
    "WORTH",
    "Cost",
    "Engine",
    "GraphStep",
    "Smaller",
    "SparseNetwork",
    "boxed",
    "cost",
    "drop_channels",
    "forward_and_loss",
    "install",
    "sparse_network",
    "why_not",
]


def __getattr__(name: str):
    return getattr(sparse, name)  # SparseNetwork and its two functions, loaded on first use

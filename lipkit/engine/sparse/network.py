"""The sparse step: forward and backward of a masked network at the cost of its kept weights.

All kept values are one flat parameter, and the whole network is one step of autograd, so that
loss and optimizer stay the user's own. Needs numba; everything else of lipkit works without it.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InputError
from ...masks import Mask
from .lower import Program
from .read import NetworkGraph, NotSupported, Out, read_network

PATIENCE = 4  # seconds, after which a first call says why it takes so long


def why_not(net: nn.Module, mask: Mask) -> str:
    """Say why there is no sparse step for this network and mask; "" if there is one.

    >>> import lipkit as lk
    >>> why_not(net := nn.Sequential(nn.Conv2d(3, 3, 1)), Mask.full(net))
    'Sequential networks have no sparse step'
    """
    try:
        _read(net, mask)
    except NotSupported as error:
        return str(error)
    return ""


def sparse_network(net: nn.Module, mask: Mask) -> SparseNetwork | None:
    """Return the masked network with a sparse step, or None where `why_not` gives a reason.

    Beside dense convolutions in single precision it pays up to a density of a half or so, beside
    those in bfloat16 on a processor that has units for it up to a quarter.

    >>> import lipkit as lk
    >>> net = lk.models.build("oes", levels=2)
    >>> sparse_network(net, Mask.random(net, density=0.05))
    SparseNetwork(3,588 values)
    """
    try:
        return SparseNetwork(_read(net, mask), mask)
    except NotSupported:
        return None


def _read(net: nn.Module, mask: Mask) -> NetworkGraph:
    graph = read_network(net, mask)
    try:
        import numba  # noqa: F401  # here, as it takes a second to load
    except ImportError as error:  # not there, or at odds with the other libraries
        raise NotSupported(
            f"the sparse step needs numba ({error}; pip install 'lipkit[fast]')"
        ) from None
    return graph


class SparseNetwork(nn.Module):
    """Computes what the masked network computes in train mode, from the flat parameter `values`.

    `values` holds the kept weights of the convolutions, layer after layer, and behind them (from
    `weights` on) the parameters of the norms and the output's bias. Left out is what has no effect
    on the output: convolutions' biases in front of a norm, and channels that nobody reads.
    """

    def __init__(self, graph: NetworkGraph, mask: Mask) -> None:
        super().__init__()
        self.graph = graph
        parameters = dict(graph.net.named_parameters())
        self._starts: dict[str, int] = {}
        parts = []
        n = 0
        for name, conv in graph.convs.items():
            self._starts[name] = n
            parts.append(conv.module.weight.detach()[torch.from_numpy(conv.keep)])
            n += parts[-1].numel()
        self.weights = n
        names = [f"{norm}.{kind}" for norm in graph.norms() for kind in ("weight", "bias")]
        self._vector_names = names + (["head.bias"] if "head.bias" in parameters else [])
        lengths = [parameters[name].numel() for name in self._vector_names]
        first = np.cumsum([0, *lengths])
        self._vector_starts = dict(zip(self._vector_names, first.tolist(), strict=False))
        self._kept = torch.cat(
            [_mask_of(mask, name, parameters[name]) for name in self._vector_names]
        )
        dense = torch.cat([parameters[name].detach().flatten() for name in self._vector_names])
        self.values = nn.Parameter(torch.cat([*parts, dense[self._kept]]))
        self.sigmoid = any(isinstance(op, Out) and op.sigmoid for op in graph.chains["head"].ops)
        self._forget()

    def _forget(self) -> None:
        self._steps: dict[tuple, _Step] = {}

    def __getstate__(self) -> dict:
        """Without what is only scratch, which copies make anew."""
        return {k: v for k, v in self.__dict__.items() if k != "_steps"}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._forget()

    def extra_repr(self) -> str:
        return f"{self.values.numel():,} values"

    def forward(self, z: Tensor) -> Tensor:
        """The picture for a code [N, C, H, W]."""
        if not self.training:
            raise InputError(
                "the sparse network runs in train mode only; after write_back() the full network "
                "has its values"
            )
        if z.ndim != 4 or z.dtype != torch.float32 or z.is_cuda:
            raise InputError(
                f"the code must be a float32 tensor [N, C, H, W] on the CPU, "
                f"got {z.dtype} {list(z.shape)} on {z.device}"
            )
        channels = self.graph.chains[""].channels
        if z.shape[1] != channels:
            raise InputError(f"the code must have {channels} channels, got {z.shape[1]}")
        return _Apply.apply(z, self.values, self)

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the values to the network that this one was made from."""
        parameters = dict(self.graph.net.named_parameters())
        for name, conv in self.graph.convs.items():
            keep = torch.from_numpy(conv.keep)
            start = self._starts[name]
            n = int(keep.sum())
            conv.module.weight[keep] = self.values[start : start + n]
        dense = torch.cat([parameters[name].flatten() for name in self._vector_names])
        dense[self._kept] = self.values[self.weights :]
        for name in self._vector_names:
            start = self._vector_starts[name]
            p = parameters[name]
            p.copy_(dense[start : start + p.numel()])

    def _step(self, shape: tuple, into_code: bool) -> _Step:
        """Program and memory for codes of a shape; made at the first use."""
        team = torch.get_num_threads()
        key = (tuple(shape), team, into_code)
        if key not in self._steps:
            self._steps = {key: _Step(self, *key)}  # only the last one: they are large
        return self._steps[key]


def _mask_of(mask: Mask, name: str, parameter: Tensor) -> Tensor:
    if name in mask.names:
        return mask[name].flatten()
    return torch.ones(parameter.numel(), dtype=torch.bool)


class _Step:
    """A program with its memory."""

    def __init__(self, net: SparseNetwork, shape: tuple, team: int, into_code: bool) -> None:
        from .run import widths  # when used: numba takes a second to load

        self.net = net
        self.team = team
        starts = (net._starts, net._vector_starts)
        self.program = Program(net.graph, shape, *starts, team, into_code, widths())
        size = self.program.memory.size
        space = np.zeros(size + 4096, np.float32)  # reads may go a little over the end
        skip = -space.ctypes.data % 64 // 4
        self.memory = space[skip:]
        self.index = self.program.index.array()
        n = net._kept.numel()
        self.vectors, self.vectors_grad = np.zeros((2, n), np.float32)
        self.stats = np.zeros((n, 2))
        self.code: tuple[Tensor, int] | None = None
        self.calls = 0
        self._get_ready()

    def forward(self, z: Tensor, values: Tensor) -> Tensor:
        self.calls += 1
        p = self.program
        kept = self.net._kept.numpy()
        self.vectors[kept] = values.detach().numpy()[self.net.weights :]
        out = torch.empty(p.output)
        if not self._is_loaded(z):
            self.memory[p.at.code : p.at.code + z.numel()] = z.detach().contiguous().numpy().ravel()
            self._run(p.load_code, values, values, out)
            self.code = z.detach(), z._version
        self._run(p.forward, values, values, out)
        return out

    def _is_loaded(self, z: Tensor) -> bool:
        """Whether the code is the tensor of the last step, unchanged."""
        if self.code is None:
            return False
        last, version = self.code
        same = last.data_ptr() == z.data_ptr() and last.stride() == z.stride()
        return same and version == z._version

    def backward(self, values: Tensor, given: Tensor) -> tuple[Tensor | None, Tensor]:
        p = self.program
        grad = torch.empty_like(values)
        self._run(p.backward, values, grad, given.contiguous())
        kept = self.net._kept.numpy()
        grad.numpy()[self.net.weights :] = self.vectors_grad[kept]
        if not p.into_code:
            return None, grad
        n = int(np.prod(p.shape))
        code = self.memory[p.at.code_grad : p.at.code_grad + n].reshape(p.shape)
        return torch.from_numpy(code.copy()), grad

    def _get_ready(self) -> None:
        """Compile the step, or load it; the first time on a machine this takes a while."""
        announce = threading.Timer(PATIENCE, _announce)
        nothing = torch.empty(0)
        announce.start()
        try:
            self._run((self.program.forward[0], np.zeros(1, np.int64)), nothing, nothing, nothing)
        finally:
            announce.cancel()

    def _run(self, packed: tuple, values: Tensor, grad: Tensor, picture: Tensor) -> None:
        """Work off a list of tasks, with as many threads as torch uses."""
        from .run import run_alone, run_together  # when used, as above
        from .team import as_team

        p = self.program
        tasks, stages = packed
        shared = np.zeros(2 * stages.size, np.int64)  # tasks taken and done, stage by stage
        tables = (p.convs, p.products, p.chains, p.ops)
        data = (
            self.memory,
            self.index,
            values.detach().numpy(),
            grad.detach().numpy(),
            self.vectors,
            self.vectors_grad,
            self.stats,
            picture.detach().numpy().ravel(),
        )
        work = (tasks, stages, shared, tables, data, p.scratch)
        if self.team == 1:
            run_alone(*work)
        else:
            as_team(self.team, run_together, self.team, p.scratch_size, *work)


@cache
def _announce() -> None:
    from tqdm import tqdm

    if not os.environ.get("TQDM_DISABLE"):  # as progress bars
        tqdm.write("compiling the sparse step for this machine, once; it takes a while", sys.stderr)


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor, values: Tensor, net: SparseNetwork) -> Tensor:
        step = net._step(z.shape, ctx.needs_input_grad[0])
        out = step.forward(z, values)
        if net.sigmoid:
            out.sigmoid_()
        ctx.step = step
        ctx.call = step.calls
        ctx.sigmoid = net.sigmoid
        ctx.save_for_backward(z, values, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, given: Tensor):
        z, values, out = ctx.saved_tensors
        if ctx.step.calls != ctx.call:  # its intermediate values were overwritten since
            ctx.step.forward(z, values)
            ctx.call = ctx.step.calls
        if ctx.sigmoid:
            given = torch.ops.aten.sigmoid_backward(given, out)
        return *ctx.step.backward(values, given), None

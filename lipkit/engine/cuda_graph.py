"""A step as one CUDA graph: hundreds of small kernels, launched at once.

A graph does again, in the same memory, what was launched while it was captured. It is used only
where it was seen to do what the step itself does; elsewhere steps go on one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Outputs = tuple[Tensor, Tensor, Tensor]  # picture, what is measured of it, loss
State = dict[str, list[Tensor]]

WORTH = 50  # steps: fewer than these do not repay a capture
WARM_UP = 3  # steps before a capture, as PyTorch asks for
TOLERANCE = 0.01  # of what a step changes: TF32 keeps three digits, and sums change their order


class CudaGraph:
    """PyTorch's recipe for a capture, on a stream of its own."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.graph = torch.cuda.CUDAGraph()
        self.stream = torch.cuda.Stream(generator.device)
        self.outputs: tuple[Tensor, ...] = ()

    def warm_up(self, step: Callable[[], Outputs]) -> Outputs:
        """Do a step on the stream of the capture."""
        usual = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(usual)
        with torch.cuda.stream(self.stream):
            outputs = step()
        usual.wait_stream(self.stream)
        return outputs

    def capture(self, step: Callable[[], Outputs]) -> None:
        """Record a step, which computes nothing yet."""
        usual = torch.cuda.current_stream()
        self.graph.register_generator_state(self.generator)
        # "thread_local": other threads may do with the device meanwhile what they like
        how = {"stream": self.stream, "capture_error_mode": "thread_local"}
        try:
            with torch.cuda.graph(self.graph, **how):
                self.outputs = step()
        except BaseException:
            torch.cuda.set_stream(usual)  # a capture that cannot end does not leave its stream ...
            torch.cuda.synchronize(self.stream.device)
            default = torch.cuda.default_generators[self.stream.device.index]
            for generator in (self.generator, default):  # ... and generators believe it goes on
                generator.graphsafe_set_state(generator.clone_state())
            raise

    def replay(self) -> Outputs:
        """Do the step; returns copies, since the next replay writes to the same memory."""
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)


GRAPHS: dict[str, type] = {"cuda": CudaGraph}  # by the type of the device


class GraphStep:
    """A step that becomes a graph after a few calls, if the graph is seen to do the same.

    The first calls are steps like all others, so that nothing has to be undone after them. On a
    device without graphs all of them are, and there is nothing to be said `about` it.
    """

    def __init__(
        self,
        net: nn.Module,
        adam: torch.optim.Adam,
        generator: torch.Generator,
        why_not: str = "",
    ) -> None:
        self.net = net
        self.adam = adam
        self.generator = generator
        kind = GRAPHS.get(generator.device.type)
        self.graph = kind(generator) if kind else None
        self.about = ""
        self.calls = 0
        self.watch = Watch()
        if why_not:
            self._give_up(why_not)

    def __call__(self, step: Callable[[], Outputs]) -> Outputs:
        """Do the step, always the same one; it is not kept, as it may well belong to our owner."""
        if self.graph is None:
            return step()
        self.calls += 1
        if self.calls < WARM_UP:
            return self.graph.warm_up(step)
        if self.calls == WARM_UP:
            return self._warm_up_watched(step)
        return self._capture(step) if self.calls == WARM_UP + 1 else self.graph.replay()

    def _give_up(self, reason: str) -> None:
        if self.graph is not None:
            self.graph = None
            self.about = f"steps one by one: {reason}"

    def _warm_up_watched(self, step: Callable[[], Outputs]) -> Outputs:
        """The last step before the capture: all is now in the places where it will be."""
        with self.watch:
            outputs = self.graph.warm_up(step)
        if self.watch.waits:  # found out now, since a capture that fails leaves disorder
            self._give_up(f"{self.watch.waits} makes the host wait")
        return outputs

    def _capture(self, step: Callable[[], Outputs]) -> Outputs:
        """Capture the step, and do it both ways from the same state; the second way counts."""
        before = self._state()
        replayed = {}
        graph = self.graph
        try:
            graph.capture(partial(self._captured, step))
            replayed = self._done(before, graph.replay())
        except Exception as error:
            self._give_up(_first_line(error))
        self._put(before)
        outputs = step()
        if self.graph is not None:
            self._compare(replayed, self._done(before, outputs))
        return outputs

    def _captured(self, step: Callable[[], Outputs]) -> Outputs:
        """The step, as Adam lets itself be captured; told so always, it would warn of it."""
        for group in self.adam.param_groups:
            group["capturable"] = True
        try:
            return step()
        except Exception as error:  # it says more than that of the capture it spoils
            self._give_up(_first_line(error))
            raise
        finally:
            for group in self.adam.param_groups:
                group["capturable"] = False

    def _compare(self, replayed: dict[str, Tensor], stepped: dict[str, Tensor]) -> None:
        self.about = "the step is one CUDA graph"
        for name, want in stepped.items():
            error = float((replayed[name] - want).norm())
            size = float(want.norm())
            if not error <= TOLERANCE * size:
                self._give_up(f"the graph's {name} is off by {error:.2g} of {size:.2g}")

    def _tensors(self) -> State:
        """What a step changes in place."""
        moments = list(self.adam.state.values())
        names = ("step", "exp_avg", "exp_avg_sq")
        tensors = {"weights": list(self.adam.state), "statistics": list(self.net.buffers())}
        return tensors | {name: [entry[name] for entry in moments] for name in names}

    def _state(self) -> State:
        copies = {k: [t.detach().clone() for t in v] for k, v in self._tensors().items()}
        return copies | {"noise": [self.generator.get_state()]}

    @torch.no_grad()
    def _put(self, state: State) -> None:
        for name, tensors in self._tensors().items():
            for tensor, saved in zip(tensors, state[name], strict=True):
                tensor.copy_(saved)
        self.generator.set_state(state["noise"][0])

    def _done(self, before: State, outputs: Outputs) -> dict[str, Tensor]:
        """What a step gave, and how far it moved each part of the state."""
        now = self._state()
        ways = {
            name: torch.cat([(t.double() - b.double()).flatten() for t, b in pairs])
            for name in now
            if (pairs := list(zip(now[name], before[name], strict=True)))
        }
        # Adam moves a weight without influence, such as a bias before a norm, as far as any, by
        # rounding alone: a way counts as much as the slope does
        ways["weights"] *= torch.cat([t.flatten() for t in now["exp_avg_sq"]]).sqrt()
        return ways | dict(zip(("picture", "measurement", "loss"), outputs, strict=True))


class Watch(TorchDispatchMode):
    """Sees what is computed: notes where the host waits, and holds what is read from outside.

    A graph goes on reading the memory of its capture when nobody else holds it any more: an
    operator that moves its mask to another device would leave it with whatever comes there next.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits = ""  # the name of an operation
        self.read: dict[int, torch.UntypedStorage] = {}
        self.made: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = _tensors_in((args, kwargs))
        self.read.update((k, v) for k, v in _memory(given).items() if k not in self.made)
        result = function(*args, **(kwargs or {}))
        made = _tensors_in(result)
        self.made.update(_memory(made).keys() - self.read.keys())
        if _asks(function, given) or _crosses(given, made):
            self.waits = function._schema.name.removeprefix("aten::")
        return result


def _asks(function, given: list[Tensor]) -> bool:
    """Whether the host needs to know numbers: for itself, or for the size of the result."""
    if "index" in function._schema.name:  # by numbers it asks for none
        return any(t.dtype in (torch.bool, torch.uint8) for t in given[1:])
    kinds = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
    return any(kind in function.tags for kind in kinds)


def _crosses(given: list[Tensor], made: list[Tensor]) -> bool:
    """Whether numbers go from device to device; a single one on the CPU is passed by value."""
    whole = {t.device for t in given if t.ndim}
    new = {t.device for t in made} - {t.device for t in given}
    return len(whole) > 1 or bool(given and new)


def _tensors_in(tree) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _memory(tensors: list[Tensor]) -> dict[int, torch.UntypedStorage]:
    storages = [t.untyped_storage() for t in tensors]
    return {storage.data_ptr(): storage for storage in storages}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]

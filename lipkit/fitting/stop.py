"""When to stop a fit: small objects that see one output a step.

A rule has `init(x)`, which makes its state (a dict of tensors, so that it can be saved), and
`update(state, step, x)`, which returns the new state. The state holds `done`, and for rules that
pick an iterate `image` and `best_step`. `reason(steps, best_step)` says in a sentence why it fired.
Nothing is read back to the host here: on a GPU the loop would have to wait for it at every step.
It asks for `done` only now and then, so `done` stays true once it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError, check_whole, is_number

State = dict[str, Tensor]


@dataclass(frozen=True)
class MaxSteps:
    """Stop after a number of steps: what `fit(steps=...)` does by itself.

    >>> rule = MaxSteps(10)
    >>> rule.update(rule.init(torch.zeros(1)), 10, torch.zeros(1))["done"]
    tensor(True)
    """

    steps: int

    def __post_init__(self) -> None:
        check_whole("steps", self.steps, least=1)

    def init(self, x: Tensor) -> State:
        return {"done": torch.zeros((), dtype=torch.bool, device=x.device)}

    def update(self, state: State, step: int, x: Tensor) -> State:
        return {"done": torch.full_like(state["done"], step >= self.steps)}

    def reason(self, steps: int, best_step: int | None) -> str:
        return f"the {self.steps} steps of MaxSteps are done"


@dataclass(frozen=True)
class WMV:
    """Windowed moving variance: stop when the outputs have not been calmer for `patience` steps.

    Returns the last iterate of the window of least variance, as the published code does. Holds
    `window` pictures in memory.

    >>> WMV(window=100, patience=1000)
    WMV(window=100, patience=1000)
    """

    window: int = 100
    patience: int = 1000

    def __post_init__(self) -> None:
        check_whole("window", self.window, least=1)
        check_whole("patience", self.patience, least=1)

    def init(self, x: Tensor) -> State:
        x = x.detach()
        return {
            "ring": x.new_zeros((self.window, *x.shape)),
            "sum": torch.zeros_like(x, dtype=torch.float64),
            "squares": x.new_zeros((), dtype=torch.float64),
            **_picker(x),
        }

    def update(self, state: State, step: int, x: Tensor) -> State:
        ring = state["ring"]
        slot = (step - 1) % self.window
        new = x.double()
        old = ring[slot].double()
        # variance from running sums, in double: the window is not walked at every step
        total = state["sum"] + (new - old)
        squares = state["squares"] + (new.square().sum() - old.square().sum())
        ring[slot] = x
        state = state | {"sum": total, "squares": squares}
        if step < self.window:
            return state
        # divided at the end, so that equal variances are equal to the bit
        variance = (self.window * squares - total.square().sum()) / (self.window**2 * x.numel())
        return state | _pick(state, variance, step, x, self.patience)

    def reason(self, steps: int, best_step: int | None) -> str:
        return (
            f"the windowed variance has not fallen for {self.patience} steps; "
            f"its least was at step {best_step}"
        )


@dataclass(frozen=True)
class EMV:
    """Exponential moving variance: as WMV, from two running averages instead of a window.

    Returns the averaged picture, as the published code does.

    >>> EMV(weight=0.1, patience=1000)
    EMV(weight=0.1, patience=1000, warmup=100)
    """

    weight: float = 0.1
    patience: int = 1000
    warmup: int = 100

    def __post_init__(self) -> None:
        check_whole("patience", self.patience, least=1)
        check_whole("warmup", self.warmup)
        if not is_number(self.weight) or not 0 < self.weight < 1:
            raise InputError(f"weight must lie between 0 and 1, got {self.weight!r}")

    def init(self, x: Tensor) -> State:
        x = x.detach()
        return {"mean": x.clone(), "variance": x.new_zeros(()), **_picker(x)}

    def update(self, state: State, step: int, x: Tensor) -> State:
        delta = x - state["mean"]
        mean = (state["mean"] + self.weight * delta).clamp(0, 1)
        variance = (1 - self.weight) * (state["variance"] + self.weight * delta.square().sum())
        state = state | {"mean": mean, "variance": variance}
        if step <= self.warmup:
            return state
        return state | _pick(state, variance, step, mean, self.patience)

    def reason(self, steps: int, best_step: int | None) -> str:
        return (
            f"the moving variance has not fallen for {self.patience} steps; "
            f"its least was at step {best_step}"
        )


def _picker(x: Tensor) -> State:
    def number(value: float, dtype: torch.dtype) -> Tensor:
        return torch.tensor(value, dtype=dtype, device=x.device)

    return {
        "image": x.clone(),
        "least": number(float("inf"), torch.float64),
        "best_step": number(0, torch.int64),
        "done": number(False, torch.bool),
    }


def _pick(state: State, value: Tensor, step: int, x: Tensor, patience: int) -> State:
    """Keep `x` if `value` is the least so far; done when it has not been for `patience` steps."""
    better = (value < state["least"]) & ~state["done"]
    best_step = torch.where(better, step, state["best_step"])
    return {
        "image": torch.where(better, x, state["image"]),
        "least": torch.where(better, value.double(), state["least"]),
        "best_step": best_step,
        "done": state["done"] | (step - best_step >= patience),
    }

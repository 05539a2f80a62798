"""A machine for the pickles that tensors are kept in; see `lipkit._unpickle` for why.

A pickle is a small program for a stack machine. This one knows the two dozen instructions that a
file of tensors is made of and a closed list of names. A name stands on its stack as a plain word
(`Name`), never as the object it means elsewhere, so nothing is imported and nothing foreign called.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import IO, Any

import torch

MAX_BYTES = 2**31
MAX_STEPS = 1_000_000  # a checkpoint of a thousand tensors takes some 50,000

DTYPES = {
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.ShortStorage": torch.int16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
}


class Refusal(Exception):
    """The rest of the sentence that began with the file's name."""


@dataclass
class Storage:
    """Raw memory and the type of its elements; tensors are views of it."""

    memory: torch.Tensor  # uint8, one axis
    dtype: torch.dtype

    def __len__(self) -> int:
        return self.memory.numel() // self.dtype.itemsize

    def check(self) -> None:
        if self.dtype is torch.bool and len(self) and self.memory.max() > 1:
            raise Refusal("holds truth values other than 0 and 1; it is damaged")


@dataclass
class Budget:
    """What one file may cost: its data fit in the file, its program has an end."""

    bytes_left: int
    steps_left: int = MAX_STEPS

    def step(self) -> None:
        self.steps_left -= 1
        if self.steps_left < 0:
            raise Refusal(f"has more than {MAX_STEPS:,} instructions; no file of tensors needs so")

    def storage(self, tag: Any, count: Any) -> Storage:
        if not isinstance(tag, Name) or tag.text not in DTYPES or not is_count(count):
            raise Refusal("describes a storage in a way that PyTorch never does; refused")
        dtype = DTYPES[tag.text]
        self.bytes_left -= count * dtype.itemsize
        if self.bytes_left < 0:
            raise Refusal("claims to hold more data than the file is long; it is damaged")
        return Storage(torch.empty(count * dtype.itemsize, dtype=torch.uint8), dtype)


@dataclass
class Inert:
    """Stands for an object of a class that was allowed by name: keeps its state, does nothing."""

    kind: str
    args: tuple = ()
    state: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Name:
    """A global name in the pickle: a word with a meaning in `Machine`, never an object."""

    text: str


class _AnyClass:
    """Contains every name; what it allows is narrowed in `Machine._call`."""

    def __contains__(self, name: object) -> bool:
        return True


ANY_CLASS = _AnyClass()
_PUBLIC_MODULES = {"posix": "os", "nt": "os", "__builtin__": "builtins"}
_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"}
_LITERALS = _NUMBERS | _TEXTS | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}


class Machine:
    """Runs one pickle. `calls` gives the names that may be called, `fetch` finds a storage."""

    def __init__(
        self,
        budget: Budget,
        calls: dict[str, Callable] | None = None,
        fetch: Callable[[Any], Storage] | None = None,
        inert: Collection[str] | _AnyClass = (),
    ):
        self.budget, self.fetch, self.inert = budget, fetch, inert
        self.calls = {"collections.OrderedDict": _new_dict} | (calls or {})
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: IO[bytes]) -> Any:
        for opcode, argument, _ in pickletools.genops(file):
            self.budget.step()
            if opcode.name == "STOP":
                break
            self._step(opcode.name, argument)
        (result,) = self.stack
        return result

    def _step(self, op: str, arg: Any) -> None:
        push, pop = self.stack.append, self.stack.pop
        if op in _LITERALS:
            push(arg)
        elif op in _CONSTANTS:
            push(_CONSTANTS[op])
        elif op in _EMPTY:
            push(_EMPTY[op]())
        elif op in _TUPLES:
            push(tuple(reversed([pop() for _ in range(_TUPLES[op])])))
        elif op == "TUPLE":
            push(tuple(self._pop_to_mark()))
        elif op == "MARK":
            push(_MARK)
        elif op in ("APPEND", "APPENDS"):
            values = [pop()] if op == "APPEND" else self._pop_to_mark()
            list.extend(self.stack[-1], values)  # a TypeError unless it is a list
        elif op in ("SETITEM", "SETITEMS"):
            pairs = [pop(), pop()][::-1] if op == "SETITEM" else self._pop_to_mark()
            self._set_items(pairs)
        elif op in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if op == "MEMOIZE" else arg] = self.stack[-1]
        elif op in ("BINGET", "LONG_BINGET"):
            push(self.memo[arg])
        elif op == "GLOBAL":
            push(self._name(arg.replace(" ", ".", 1)))
        elif op == "STACK_GLOBAL":
            name, module = pop(), pop()
            push(self._name(".".join((module, name))))  # a TypeError unless both are strings
        elif op in ("REDUCE", "NEWOBJ"):
            arguments, name = pop(), pop()
            push(self._call(name, arguments, op))
        elif op == "BUILD":
            self._set_state(pop())
        elif op == "BINPERSID" and self.fetch:
            push(self.fetch(pop()))
        elif op not in ("PROTO", "FRAME"):
            raise Refusal(f"uses the pickle instruction {op}, which tensors never need; refused")

    def _pop_to_mark(self) -> list[Any]:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, (str, int)):  # hashing nested tuples can take for ever
                raise Refusal(f"has a key of type {type(key).__name__}, expected a name; refused")
            dict.__setitem__(target, key, value)  # a TypeError unless it is a dict

    def _name(self, text: str) -> Name:
        if text not in self.calls and text not in DTYPES and text not in self.inert:
            raise Refusal(
                f"refers to {_shown(text)}, which a file of tensors never needs; refused, nothing "
                "of it was run"
            )
        return Name(text)

    def _call(self, name: Any, arguments: Any, op: str) -> Any:
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise Refusal("calls something that is not a name; refused")
        if op == "REDUCE" and name.text in self.calls:
            return self.calls[name.text](*arguments)
        # of a class nobody knows only the plain attributes are taken, nothing that it computes
        plain = op == "NEWOBJ" and not arguments
        if name.text in self.inert and (plain or self.inert is not ANY_CLASS):
            return Inert(name.text, arguments)
        raise Refusal(f"builds an object of {_shown(name.text)}, which tensors never need; refused")

    def _set_state(self, state: Any) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert) and isinstance(state, dict):
            target.state = state
        elif type(target) is not dict:  # a state dict carries version notes; they are left out
            raise Refusal(f"sets attributes of an object of type {type(target).__name__}; refused")


def is_count(value: Any) -> bool:
    """A whole number that could be a length within the largest file that is read."""
    return type(value) is int and 0 <= value <= MAX_BYTES


def _shown(text: str) -> str:
    """A name out of the file, fit for a message: the module's public name, no control codes."""
    module, _, name = text.partition(".")
    text = f"{_PUBLIC_MODULES.get(module, module)}.{name}"
    return text if text.isprintable() and len(text) < 100 else repr(text[:100])


def _new_dict() -> dict:
    """Takes no argument: items arrive one by one, so that each key is checked."""
    return {}

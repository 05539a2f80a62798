"""Read tensors out of pickled files, and nothing else.

A pickle is a small program, and Python's reader lets it import and call whatever it names.
Published masks and weights come as pickles all the same. Here that reader is cut down to the
instructions that a file of tensors is made of and to a closed list of names. A name stands on its
stack as a word (`_Name`) with a meaning fixed here, never as the object it means elsewhere: nothing
is imported and nothing foreign called. No GPU is needed (data saved from one are read into main
memory), and what a file claims is checked against its size before memory is set aside.

Three layouts are read: ``torch.save`` as a zip archive, ``torch.save`` as it was before
PyTorch 1.6, and a plain ``pickle.dump`` of a tensor (protocol 3 or later), which holds the second
layout as a string of bytes.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..errors import FileError, check_file

MAX_BYTES = 2**31
MAX_STEPS = 1_000_000  # a checkpoint of a thousand tensors takes some 50,000
_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a torch.save file in the old layout
_LEGACY_PROTOCOL = 1001

_DTYPES = {
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
_INSTRUCTIONS = """
    PROTO FRAME STOP MARK BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET NONE NEWTRUE NEWFALSE
    BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINSTRING
    SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD
"""
_PUBLIC_MODULES = {"posix": "os", "nt": "os", "__builtin__": "builtins"}


def read_tensors(
    path: str | os.PathLike, allow_objects: bool = False
) -> torch.Tensor | dict[str, Any]:
    """Return the tensor, or the dictionary of tensors, that a pickled file holds, on the CPU.

    Args:
        path: a file written by ``torch.save`` or by ``pickle.dump`` of a tensor.
        allow_objects: whether objects may lie beside the tensors, of any class and with plain
            attributes; they become `Inert`. Otherwise such a file is refused.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"conv.weight_mask": torch.ones(2)}, f"{folder}/mask.pt")
    ...     read_tensors(f"{folder}/mask.pt")
    {'conv.weight_mask': tensor([1., 1.])}
    """
    path = Path(path)
    check_file(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read() if size <= MAX_BYTES else b""
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror or error}).") from error
    try:
        if size > MAX_BYTES:
            raise _Refusal(f"has {size:,} bytes, more than the {MAX_BYTES:,} that are read")
        content = _read(io.BytesIO(data), _Budget(size, allow_objects))
        if not isinstance(content, (torch.Tensor, dict)):
            kind = type(content).__name__
            raise _Refusal(f"holds an object of type {kind}, not a tensor or a dict of tensors")
    except _Refusal as refusal:
        raise FileError(f"{path.name} {refusal}.") from None
    except Exception as error:  # a file made to confuse can fail at any instruction
        raise FileError(
            f"{path.name} is damaged or cut short, or no file of tensors; get a complete copy."
        ) from error
    return content


@dataclass
class Inert:
    """Stands for an object in a pickle: keeps the name of its class and its attributes."""

    kind: str
    state: dict = field(default_factory=dict)


class _Refusal(Exception):
    """The rest of the sentence that began with the file's name."""


@dataclass(frozen=True)
class _Name:
    """A global name in a pickle, and what it means here: a number type, a function, or nothing."""

    text: str
    meaning: torch.dtype | Callable | None


@dataclass
class _Storage:
    """Raw memory and the type of its elements; tensors are views of it."""

    memory: torch.Tensor  # uint8, one axis
    dtype: torch.dtype

    def __len__(self) -> int:
        return self.memory.numel() // self.dtype.itemsize

    def fill(self, data: bytes) -> None:
        if len(data) != len(self.memory):
            raise _Refusal("holds less or more data than it claims; get a complete copy")
        memoryview(self.memory.numpy())[:] = data
        if self.dtype is torch.bool and data and self.memory.max() > 1:
            raise _Refusal("holds truth values other than 0 and 1; it is damaged")


@dataclass
class _Budget:
    """What one file may cost: its data fit in the file, its programs have an end."""

    bytes_left: int
    allow_objects: bool
    steps_left: int = MAX_STEPS

    def storage(
        self,
        storages: dict[str, _Storage],
        data_of: Callable[[str], bytes] | None,
        reference: Any,
    ) -> _Storage:
        """Find what a reference means, or set memory aside for it and fill that, if data are there.

        A reference is ('storage', type, key, place[, view]); the place, a GPU or not, is ignored.
        """
        kind, name, key, _, count, *view = reference
        dtype = _DTYPES.get(name.text)
        if kind != "storage" or not dtype or not isinstance(key, str) or view not in ([], [None]):
            raise _Refusal("refers to data in a way that PyTorch has not since 0.4; save it again")
        if key not in storages:
            size = dtype.itemsize * count if _is_count(count) else self.bytes_left + 1
            self.bytes_left -= size
            if self.bytes_left < 0:
                raise _Refusal("claims to hold more data than the file is long; it is damaged")
            storages[key] = _Storage(torch.empty(size, dtype=torch.uint8), dtype)
            if data_of:
                storages[key].fill(data_of(key))
        return storages[key]

    def run(
        self,
        stream: io.BytesIO,
        calls: dict[str, Callable] | None = None,
        fetch: Callable[[Any], _Storage] | None = None,
    ) -> Any:
        """Look the program that begins here through, then run it.

        `calls` gives the names that may be called, `fetch` finds the storage of a reference.
        """
        known = set(_INSTRUCTIONS.split()) | ({"BINPERSID"} if fetch else set())
        start = stream.tell()
        for opcode, _, _ in pickletools.genops(stream):
            self.steps_left -= 1
            if self.steps_left < 0:
                raise _Refusal(f"has more than {MAX_STEPS:,} instructions; tensors need fewer")
            if opcode.name not in known:
                raise _Refusal(
                    f"uses the pickle instruction {opcode.name}, which tensors never need; refused"
                )
        stream.seek(start)
        return _Reader(stream, calls or {}, fetch, self.allow_objects).load()


# The standard library has this reader twice, in C and in Python. Here it is the one in Python, as
# its instructions can be replaced: they hash any key (which takes for ever if it is made of tuples
# in tuples), set attributes of anything, and call anything.
class _Reader(pickle._Unpickler):
    """Python's reader with harmless instructions, for a program that was looked through before."""

    def __init__(
        self,
        stream: io.BytesIO,
        calls: dict[str, Callable],
        fetch: Callable[[Any], _Storage] | None,
        allow_objects: bool,
    ) -> None:
        super().__init__(stream, encoding="latin-1")
        self.known = _DTYPES | {"collections.OrderedDict": _empty_dict} | calls
        self.persistent_load = fetch
        self.allow_objects = allow_objects

    def find_class(self, module: str, name: str) -> _Name:
        text = f"{module}.{name}"
        if text not in self.known and not self.allow_objects:
            raise _Refusal(
                f"refers to {_shown(text)}, which a file of tensors never needs; refused, nothing "
                "of it was run"
            )
        return _Name(text, self.known.get(text))

    def call(self) -> None:
        arguments = self.stack.pop()
        name = self.stack.pop()
        if not isinstance(name, _Name) or not callable(name.meaning):
            raise _Refusal(f"calls {_shown(name)}, which tensors never need; refused")
        self.stack.append(name.meaning(*arguments))

    def new_object(self) -> None:
        arguments = self.stack.pop()
        name = self.stack.pop()
        if not isinstance(name, _Name) or name.meaning is not None or arguments != ():
            raise _Refusal(f"builds an object of {_shown(name)}, which is not plain; refused")
        self.stack.append(Inert(name.text))

    def set_state(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert) and isinstance(state, dict):
            target.state = state
        elif type(target) is not dict:  # a state dict carries version notes; they are left out
            raise _Refusal(f"sets attributes of an object of type {type(target).__name__}; refused")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise _Refusal(f"has a key of type {type(key).__name__}, expected a name; refused")
            dict.__setitem__(target, key, value)  # a TypeError unless it is a dict

    dispatch = pickle._Unpickler.dispatch | {
        pickle.REDUCE[0]: call,
        pickle.NEWOBJ[0]: new_object,
        pickle.BUILD[0]: set_state,
        pickle.SETITEM[0]: lambda self: self.set_items([self.stack.pop(), self.stack.pop()][::-1]),
        pickle.SETITEMS[0]: lambda self: self.set_items(self.pop_mark()),
    }


def _read(stream: io.BytesIO, budget: _Budget) -> Any:
    """Tell the three layouts apart and read."""
    head = stream.read(4)
    stream.seek(0)
    if head == b"PK\x03\x04":
        return _read_zip(stream, budget)
    if head[:1] != b"\x80":
        raise _Refusal("is not a file of tensors: neither torch.save nor pickle begins like this")

    def load_from_bytes(data: bytes) -> _Storage:
        inner = io.BytesIO(data)
        if budget.run(inner) != _MAGIC:
            raise _Refusal("holds a tensor in an unknown form; refused")
        return _read_legacy(inner, budget)

    first = budget.run(stream, _TENSOR_CALLS | {"torch.storage._load_from_bytes": load_from_bytes})
    if isinstance(first, int) and first == _MAGIC:
        return _read_legacy(stream, budget)
    if stream.read(1):
        raise _Refusal("goes on after its first pickled object; expected exactly one")
    return first


def _read_legacy(stream: io.BytesIO, budget: _Budget) -> Any:
    """Read what follows the magic number: protocol, system, content, storage keys, raw data."""
    protocol = budget.run(stream)
    system = budget.run(stream)
    if protocol != _LEGACY_PROTOCOL or system.get("little_endian") is not True:
        raise _Refusal("was written by an unknown version of PyTorch or with swapped bytes")
    storages: dict[str, _Storage] = {}
    content = budget.run(stream, _TENSOR_CALLS, partial(budget.storage, storages, None))
    keys = budget.run(stream)
    # texts, or else it could take for ever to compare them
    if not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise _Refusal("lists other storages than it uses; it is damaged")
    for key in keys:
        if stream.read(8) != struct.pack("<q", len(storages[key])):
            raise _Refusal("holds less or more data than it claims; get a complete copy")
        storages[key].fill(stream.read(len(storages[key].memory)))
    return content


def _read_zip(stream: io.BytesIO, budget: _Budget) -> Any:
    """Read a zip archive with one pickle, <folder>/data.pkl, and members <folder>/data/<key>."""
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > budget.bytes_left:
            raise _Refusal("unpacks to more than its own size, which torch.save never does")
        # what a compressed member says of its size is no promise
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise _Refusal("is a compressed archive, which torch.save never writes")
        names = archive.namelist()
        programs = [name for name in names if name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise _Refusal("is a zip archive, but not one that torch.save writes")
        folder = programs[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise _Refusal("was written with swapped bytes")
        fetch = partial(budget.storage, {}, lambda key: archive.read(f"{folder}data/{key}"))
        return budget.run(io.BytesIO(archive.read(programs[0])), _TENSOR_CALLS, fetch)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    """Return a view of a storage that stays inside it, without gradient flag and hooks."""
    kinds = (type(storage), type(size), type(stride))
    if kinds != (_Storage, tuple, tuple) or not all(map(_is_count, (offset, *size, *stride))):
        raise _Refusal("describes a tensor in a way that PyTorch never does; refused")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > len(storage) or (0 not in size and last >= len(storage)):
        raise _Refusal(f"claims a tensor of shape {size} in {len(storage):,} stored values")
    return storage.memory.view(storage.dtype).as_strided(size, stride, offset)


def _empty_dict() -> dict:
    """Take no argument: items arrive one by one, so that each key is checked."""
    return {}


_TENSOR_CALLS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
}


def _is_count(value: Any) -> bool:
    """Tell whether this could be a length within the largest file that is read."""
    return type(value) is int and 0 <= value <= MAX_BYTES


def _shown(name: Any) -> str:
    """Make a name out of the file fit for a message: its public module, no control codes."""
    if isinstance(name, _Name):
        name = name.text
    if not isinstance(name, str):
        return f"an object of type {type(name).__name__}"
    module, _, rest = name.partition(".")
    text = f"{_PUBLIC_MODULES.get(module, module)}.{rest}"
    return text if text.isprintable() and len(text) < 100 else repr(text[:100])

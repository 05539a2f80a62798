"""Read tensors out of pickled files without running a pickle.

A pickle is a small program, and Python's own reader lets that program import and call whatever it
names. Published masks and weights come as pickles all the same. This module therefore has a
machine of its own: it knows the two dozen instructions that a file of tensors is made of, and a
closed list of names, each with a meaning fixed here. Nothing is imported, no GPU is needed (data
saved from one is read into main memory), and what a file claims is checked against its size before
memory is set aside.

Three layouts are read: ``torch.save`` as a zip archive, ``torch.save`` as it was before
PyTorch 1.6, and a plain ``pickle.dump`` of a tensor (protocol 3 or later), which holds the second
layout as a string of bytes.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import FileError
from .pickle_machine import ANY_CLASS, MAX_BYTES, Budget, Inert, Machine, Refusal, Storage, is_count

__all__ = ["ANY_CLASS", "Inert", "read_tensors"]

_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a torch.save file in the old layout
_LEGACY_PROTOCOL = 1001
_LOAD_FROM_BYTES = "torch.storage._load_from_bytes"


def read_tensors(
    path: str | os.PathLike, allow_inert: Collection[str] = ()
) -> torch.Tensor | dict[str, Any]:
    """The tensor, or the dictionary of tensors, that a pickled file holds, on the CPU.

    Args:
        path: a file written by ``torch.save`` or by ``pickle.dump`` of a tensor.
        allow_inert: full names of classes that may occur beside the tensors; their objects
            become `Inert` records of the stored state. Everything else is refused by name.
            `ANY_CLASS` allows objects of every class that hold plain attributes and no more.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"conv.weight_mask": torch.ones(2)}, f"{folder}/mask.pt")
    ...     read_tensors(f"{folder}/mask.pt")
    {'conv.weight_mask': tensor([1., 1.])}
    """
    path = Path(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror or error}).") from error
    with file:
        try:
            return _read_checked(file, allow_inert)
        except Refusal as refusal:
            raise FileError(f"{path.name} {refusal}.") from None
        except Exception as error:  # a file made to confuse can fail at any instruction
            raise FileError(
                f"{path.name} is damaged or cut short, or no file of tensors; get a complete copy."
            ) from error


def _read_checked(file: IO[bytes], inert: Collection[str]) -> torch.Tensor | dict[str, Any]:
    size = os.fstat(file.fileno()).st_size
    if size > MAX_BYTES:
        raise Refusal(f"has {size:,} bytes, more than the {MAX_BYTES:,} that are read")
    content = _read(file, Budget(size), inert)
    if not isinstance(content, (torch.Tensor, dict)):
        kind = type(content).__name__
        raise Refusal(f"holds an object of type {kind}, not a tensor or a dict of tensors")
    return content


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    """A view of a storage that stays inside it (gradient flag and hooks are left out)."""
    well_formed = (
        isinstance(storage, Storage)
        and isinstance(size, tuple)
        and isinstance(stride, tuple)
        and len(size) == len(stride) <= 64
        and all(map(is_count, (offset, *size, *stride)))
    )
    if not well_formed:
        raise Refusal("describes a tensor in a way that PyTorch never does; refused")
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count *= length
        last += (length - 1) * step
    if count > len(storage) or (count and last >= len(storage)):
        raise Refusal(f"claims a tensor of shape {size} in {len(storage):,} stored values; damaged")
    return storage.memory.view(storage.dtype).as_strided(size, stride, offset)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


_TENSOR_CALLS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}


def _read(file: IO[bytes], budget: Budget, inert: Collection[str]) -> Any:
    """Tell the three layouts apart and read."""
    head = file.read(4)
    file.seek(0)
    if head == b"PK\x03\x04":
        return _read_zip(file, budget, inert)
    if head[:1] != b"\x80":
        raise Refusal("is not a file of tensors: neither torch.save nor pickle begins like this")

    def load_from_bytes(data: bytes) -> Storage:
        inner = io.BytesIO(data)
        if Machine(budget).run(inner) != _MAGIC:
            raise Refusal("holds a tensor in an unknown form; refused")
        return _read_legacy(inner, budget, ())

    calls = _TENSOR_CALLS | {_LOAD_FROM_BYTES: load_from_bytes}
    first = Machine(budget, calls, inert=inert).run(file)
    if isinstance(first, int) and first == _MAGIC:
        return _read_legacy(file, budget, inert)
    if file.read(1):
        raise Refusal("goes on after its first pickled object; expected exactly one")
    return first


def _read_legacy(file: IO[bytes], budget: Budget, inert: Collection[str]) -> Any:
    """What follows the magic number: protocol, system, content, storage keys, raw data."""
    protocol = Machine(budget).run(file)
    system = Machine(budget).run(file)
    if protocol != _LEGACY_PROTOCOL or system.get("little_endian") is not True:
        raise Refusal("was written by an unknown version of PyTorch or with swapped bytes")
    storages: dict[str, Storage] = {}

    def fetch(reference: Any) -> Storage:
        tag, key, count, view = _parse_reference(reference)
        if view is not None:
            raise Refusal("shares storages in the way of PyTorch before 0.4; save it again")
        if key not in storages:
            storages[key] = budget.storage(tag, count)
        return storages[key]

    content = Machine(budget, _TENSOR_CALLS, fetch, inert).run(file)
    keys = Machine(budget).run(file)
    if sorted(keys) != sorted(storages):
        raise Refusal("lists other storages than it uses; it is damaged")
    for key in keys:
        storage = storages[key]
        (count,) = struct.unpack("<q", file.read(8))
        view = memoryview(storage.memory.numpy())
        if count != len(storage) or file.readinto(view) != len(view):
            raise Refusal("ends before its data do; get a complete copy")
        storage.check()
    return content


def _read_zip(file: IO[bytes], budget: Budget, inert: Collection[str]) -> Any:
    """A zip archive with one pickle, <folder>/data.pkl, and a member <folder>/data/<key> each."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if sum(info.file_size for info in archive.infolist()) > budget.bytes_left:
            raise Refusal("unpacks to more than its own size, which torch.save never does")
        programs = [name for name in members if name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise Refusal("is a zip archive, but not one that torch.save writes")
        folder = programs[0].removesuffix("data.pkl")
        if members.get(f"{folder}byteorder") and archive.read(f"{folder}byteorder") != b"little":
            raise Refusal("was written with swapped bytes")
        storages: dict[str, Storage] = {}

        def fetch(reference: Any) -> Storage:
            tag, key, count, _ = _parse_reference(reference)
            if key not in storages:
                storage = storages[key] = budget.storage(tag, count)
                data = archive.read(f"{folder}data/{key}")
                if len(data) != storage.memory.numel():
                    raise Refusal("holds less or more data than it claims; it is damaged")
                memoryview(storage.memory.numpy())[:] = data
                storage.check()
            return storages[key]

        program = io.BytesIO(archive.read(programs[0]))
        return Machine(budget, _TENSOR_CALLS, fetch, inert).run(program)


def _parse_reference(reference: Any) -> tuple[Any, str, Any, Any]:
    """('storage', type, key, location, count[, view]); the location, cuda or not, is ignored."""
    kind, tag, key, _, count, *view = reference
    if kind != "storage" or not isinstance(key, str) or len(view) > 1:
        raise Refusal("refers to data in a way that PyTorch never does; refused")
    return tag, key, count, view[0] if view else None

"""Published pickles: tensors come out, and nothing that a file says is ever run."""

from __future__ import annotations

import builtins
import collections
import contextlib
import io
import os
import pickle
import struct
import time
import warnings
import zipfile

import numpy as np
import pytest
import torch

import lipkit as lk
from lipkit.models import pickled
from lipkit.models.pickled import MAX_STEPS, Inert, read_tensors

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
    torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
]  # fmt: skip


def layouts(content, folder) -> dict:
    """The same content in each layout that is read."""
    torch.save(content, folder / "zip.pt")
    torch.save(content, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    paths = {"zip": folder / "zip.pt", "legacy": folder / "legacy.pt"}
    for protocol in (3, 4, 5):
        paths[f"pickle{protocol}"] = folder / f"p{protocol}.pkl"
        paths[f"pickle{protocol}"].write_bytes(pickle.dumps(content, protocol))
    return paths


def moved_to_cuda(saved: bytes) -> bytes:
    """A torch.save file of the old layout as a GPU would have written it."""
    cpu, cuda = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    assert saved.count(cpu) >= 1
    return saved.replace(cpu, cuda)


class FromBytes:
    """Pickles as the call torch.storage._load_from_bytes(saved), like a storage does."""

    def __init__(self, saved: bytes):
        self.saved = saved

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.saved,)


class PickledTensor:
    """Pickles as a tensor does: _rebuild_tensor_v2 over the given storage."""

    def __init__(self, storage, size, stride, offset=0):
        hooks = collections.OrderedDict()
        self.arguments = (storage, offset, size, stride, False, hooks)

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


class Call:
    """Pickles as a call of any function, which is how hostile files are made."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def saved_storage(tensor: torch.Tensor) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # typed storages, which published files hold
        storage = tensor.storage()
    torch.save(storage, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def refusal(path, **options) -> str:
    with pytest.raises(lk.Error) as caught:
        read_tensors(path, **options)
    text = str(caught.value)
    assert isinstance(caught.value, OSError)
    assert text.startswith((path.name, str(path))) and text.endswith(".") and "\n" not in text
    return text


# --- what must be read --------------------------------------------------------------------------


def test_published_oes_mask_from_a_gpu(tmp_path):
    """pickle.dump of a CUDA bool vector with one entry for each parameter, protocol 3."""
    mask = torch.rand(3_008_867, generator=torch.Generator().manual_seed(0)) < 0.05
    saved = moved_to_cuda(saved_storage(mask))
    path = tmp_path / "mask_0.05.pkl"
    path.write_bytes(pickle.dumps(PickledTensor(FromBytes(saved), (mask.numel(),), (1,)), 3))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):  # what a user meets without this module
            pickle.loads(path.read_bytes())
    got = read_tensors(path)
    assert got.dtype == torch.bool and got.device.type == "cpu" and torch.equal(got, mask)


@pytest.mark.parametrize("legacy", [True, False])
def test_published_lip_masks_from_a_gpu(tmp_path, legacy):
    masks = collections.OrderedDict(
        {f"{i}.0.1.1.weight_mask": (torch.rand(8, 4, 3, 3) < 0.2).float() for i in range(5)}
    )
    file = io.BytesIO()
    torch.save(masks, file, _use_new_zipfile_serialization=not legacy)
    path = tmp_path / "mask.pth"
    if legacy:
        path.write_bytes(moved_to_cuda(file.getvalue()))
    else:
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                data = old.read(name)
                new.writestr(name, moved_to_cuda(data) if name.endswith("data.pkl") else data)
    got = read_tensors(path)
    assert list(got) == list(masks)
    assert all(torch.equal(got[name], masks[name]) for name in masks)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_in_every_layout(tmp_path, dtype):
    tensor = torch.arange(24).reshape(2, 3, 4).to(dtype)
    for path in layouts(tensor, tmp_path).values():
        got = read_tensors(path)
        assert got.dtype == dtype and torch.equal(got, tensor)


def test_shapes_views_parameters_and_state_dicts(tmp_path):
    base = torch.randn(6, 8)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    content = {
        "transposed": base.T,
        "part": base[2:4, 1::2],
        "number": torch.tensor(3.5),
        "empty": torch.zeros(0, 5),
        "parameter": torch.nn.Parameter(base[0].clone()),
        "net": net.state_dict(),  # an OrderedDict with a _metadata attribute
        "step": 7,
        "big": 2**80,
        "rate": 0.1,
        "note": "grüße",
        "list": [1, None, True, (base,)],
        3: "key",
    }
    for path in layouts(content, tmp_path).values():
        got = read_tensors(path)
        assert list(got) == list(content)
        for name in ("transposed", "part", "number", "empty", "parameter"):
            assert torch.equal(got[name], content[name].detach())
        assert all(torch.equal(got["net"][name], net.state_dict()[name]) for name in got["net"])
        assert got["list"][:3] == [1, None, True] and torch.equal(got["list"][3][0], base)
        assert [got[k] for k in ("step", "big", "rate", "note", 3)] == [
            7, 2**80, 0.1, "grüße", "key",
        ]  # fmt: skip


def test_equal_to_torch_load(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 2))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(5)).sum().backward()
    optimizer.step()
    for legacy in (False, True):
        path = tmp_path / "state.pt"
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, path, _use_new_zipfile_serialization=not legacy)
        torch.testing.assert_close(read_tensors(path), torch.load(path, weights_only=True))


class BaseConfig:
    """Stands in for a settings object that a published checkpoint carries."""

    def __init__(self):
        self.depth, self.scales = 512, [512, 256]

    def __setstate__(self, state):
        pytest.fail("a method of a pickled class was run")


@pytest.mark.parametrize("layout", ["zip", "legacy", "pickle3", "pickle4"])
def test_inert_objects_only_where_allowed(tmp_path, layout):
    path = layouts({"config": BaseConfig(), "net": torch.ones(2)}, tmp_path)[layout]
    name = f"{BaseConfig.__module__}.BaseConfig"
    assert f"refers to {name}, which" in refusal(path)
    got = read_tensors(path, allow_objects=True)
    assert got["config"] == Inert(name, {"depth": 512, "scales": [512, 256]})
    assert torch.equal(got["net"], torch.ones(2))


# --- hostile files ------------------------------------------------------------------------------


def hostile_calls(canary) -> dict:
    """Name in the message -> an object whose pickle would create the file `canary`."""
    return {
        "os.system": Call(os.system, f"touch {canary}"),
        "builtins.eval": Call(builtins.eval, f"open({str(canary)!r}, 'w')"),
        "builtins.exec": Call(builtins.exec, f"open({str(canary)!r}, 'w')"),
        "builtins.getattr": Call(getattr, "x", "upper"),
        "torch.serialization.load": Call(torch.load, str(canary)),
        "builtins.bytearray": Call(bytearray, 10**12),
    }


@pytest.mark.parametrize("name", hostile_calls(""))
@pytest.mark.parametrize("where", ["alone", "zip", "legacy", "pickle3", "pickle4", "inner"])
def test_hostile_calls_are_refused_by_name_and_not_run(tmp_path, name, where):
    canary = tmp_path / "canary"
    call = hostile_calls(canary)[name]
    if where == "alone":
        path = tmp_path / "evil.pkl"
        path.write_bytes(pickle.dumps(call, 3))
    elif where == "inner":
        file = io.BytesIO()
        torch.save({"a": call}, file, _use_new_zipfile_serialization=False)
        path = tmp_path / "evil.pkl"
        path.write_bytes(pickle.dumps(PickledTensor(FromBytes(file.getvalue()), (1,), (1,)), 3))
    else:
        path = layouts({"good": torch.ones(3), "evil": call}, tmp_path)[where]
    assert f"refers to {name}, which a file of tensors never needs" in refusal(path)
    assert not canary.exists()


@pytest.mark.parametrize("name", hostile_calls(""))
def test_allowed_objects_are_never_called(tmp_path, name):
    """What a class computes from arguments is not taken, whatever its name."""
    canary = tmp_path / "canary"
    for path in layouts(
        {"good": torch.ones(3), "evil": hostile_calls(canary)[name]}, tmp_path
    ).values():
        assert f"calls {name}, which tensors never need" in refusal(path, allow_objects=True)
    path = tmp_path / "new.pkl"
    path.write_bytes(b"\x80\x02}K\x01cposix\nsystem\nX\x07\x00\x00\x00touch x\x85\x81s.")
    assert "builds an object of os.system, which is not plain" in refusal(path, allow_objects=True)
    assert not canary.exists()


def test_the_canary_would_have_sung(tmp_path):
    """The hostile file is a real one: Python's own reader runs it."""
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(Call(os.system, f"touch {canary}")))
    assert canary.exists()


def test_allowed_names_cannot_be_abused(tmp_path):
    path = tmp_path / "evil.pkl"
    load = torch.storage._load_from_bytes
    evil = {
        "not bytes": Call(load, "text"),
        "not a torch file": Call(load, pickle.dumps(5, 3)),
        "a zip inside": Call(load, b"PK\x03\x04"),
        "storage called": Call(torch.BoolStorage, 10**12),
        "dict of nested keys": Call(collections.OrderedDict, [((1, 2), 3)]),
        "no storage": PickledTensor([1, 2], (2,), (1,)),
        "tensor as storage": PickledTensor(torch.ones(2), (2,), (1,)),
    }
    for what, call in evil.items():
        for protocol in (2, 3, 4):
            path.write_bytes(pickle.dumps({"a": call}, protocol))
            assert refusal(path, allow_objects=True), what


def test_building_on_classes_and_functions_is_refused(tmp_path):
    """BUILD can set attributes; on a shared function that would change this program."""
    path = tmp_path / "evil.pkl"
    target = b"ctorch._utils\n_rebuild_tensor_v2\n"
    path.write_bytes(b"\x80\x02" + target + b"}X\x01\x00\x00\x00aK\x01sb.")
    assert "sets attributes" in refusal(path)
    path.write_bytes(pickle.dumps(torch.ones(2), 3)[:-1] + b"}b.")
    assert "sets attributes of an object of type Tensor" in refusal(path)


def test_instructions_outside_the_list_are_refused(tmp_path):
    path = tmp_path / "evil.pkl"
    programs = {
        b"\x80\x02(S'touch x'\nios\nsystem\n.": "instruction STRING",
        b"\x80\x02(ios\nsystem\n.": "instruction INST",
        b"\x80\x02\x82\x01.": "instruction EXT1",
        b"\x80\x02K\x01Q.": "instruction BINPERSID",
        b"\x80\x04\x8f.": "instruction EMPTY_SET",
        b"\x80\x02K\x012.": "instruction DUP",
    }
    for program, part in programs.items():
        path.write_bytes(program)
        assert part in refusal(path)


def test_a_name_with_control_codes_is_shown_safely(tmp_path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"\x80\x02c\x1b[2Jos\nsystem\n.")
    assert "\x1b" not in refusal(path)
    path.write_bytes(b"\x80\x02c" + b"a" * 10_000 + b"\nsystem\n.")
    assert len(refusal(path)) < 300


# --- bombs --------------------------------------------------------------------------------------


def test_claims_are_checked_before_memory_is_set_aside(tmp_path, monkeypatch):
    path = tmp_path / "claim.pt"
    torch.save(torch.zeros(300, dtype=torch.bool), path, _use_new_zipfile_serialization=False)
    honest = path.read_bytes()
    length = b"M" + struct.pack("<H", 300)
    claimed = honest.replace(length, b"J" + struct.pack("<i", 2**31 - 1))
    path.write_bytes(claimed)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: pytest.fail("memory was set aside"))
    assert "claims to hold more data than the file is long" in refusal(path)


def test_one_storage_loaded_again_and_again_is_refused(tmp_path):
    saved = FromBytes(saved_storage(torch.zeros(1000)))
    again = [Call(torch.storage._load_from_bytes, saved.saved) for _ in range(3)]
    path = tmp_path / "again.pkl"
    path.write_bytes(pickle.dumps({"a": again}, 3))
    assert "claims to hold more data" in refusal(path)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((11,), (1,), 0),
        ((10,), (1,), 1),
        ((2, 5), (6, 1), 0),
        ((10**9,), (0,), 0),
        ((10,), (-1,), 9),
        ((10,), (1,), -1),
        ((10, 1), (1,), 0),
        ((2.0,), (1,), 0),
        ((0, 10**30), (1, 1), 0),
        ((True,), (1,), 0),
        ([10], (1,), 0),
    ],
)
def test_a_tensor_must_lie_inside_its_storage(tmp_path, size, stride, offset):
    storage = FromBytes(saved_storage(torch.arange(10.0)))
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(PickledTensor(storage, size, stride, offset), 3))
    assert "tensor" in refusal(path)


def test_bombs_end_quickly(tmp_path):
    path = tmp_path / "bomb.pkl"
    nested = b"\x80\x02}K\x01" + b"q\x00h\x00\x86" * 200 + b"K\x01s."  # a key: tuples 200 deep
    programs = {
        "key of type tuple": nested,
        "instructions": b"\x80\x02" + b"N" * (MAX_STEPS + 10) + b".",
        "damaged": b"\x80\x02K\x01r\xff\xff\xff\xffj\xff\xff\xff\xfej\x00\x00\x00\x00.",
    }
    start = time.perf_counter()
    for part, program in programs.items():
        path.write_bytes(program)
        assert part in refusal(path)
    assert time.perf_counter() - start < 20


def test_lists_of_storages_that_would_be_compared_for_ever(tmp_path):
    deep = b")" + b"q\0h\0\x86" * 60  # tuples 60 deep, each of the one before twice
    parts = [
        b"\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little"),
        b"M\xe9\x03",
        b"}X\x0d\0\0\0little_endian\x88s",
        b"}",
        b"](" + deep + deep + b"e",
    ]
    path = tmp_path / "hang.pkl"
    path.write_bytes(b"".join(b"\x80\x02" + part + b"." for part in parts))
    assert "lists other storages" in refusal(path)


def test_zip_bombs_are_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("a/data.pkl", b"\0" * 10_000_000)
        assert "unpacks to more than its own size" in refusal(path)
        data = bytearray(path.read_bytes())  # as if it were stored as large as it is packed
        entry = data.rfind(b"PK\x01\x02")
        data[entry + 24 : entry + 28] = data[entry + 20 : entry + 24]
        path.write_bytes(data)
        assert "is a compressed archive" in refusal(path)


def test_oversized_files_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "big.pkl"
    path.write_bytes(pickle.dumps(torch.ones(100)))
    monkeypatch.setattr(pickled, "MAX_BYTES", 100)
    assert "more than the 100 that are read" in refusal(path)


# --- damaged and foreign files ------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["zip", "legacy", "pickle3", "pickle4"])
def test_every_truncation_is_noticed(tmp_path, layout):
    path = layouts({"a": torch.arange(5.0), "b": torch.ones(3, dtype=torch.bool)}, tmp_path)[layout]
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 7), *range(len(whole) - 30, len(whole))}:
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.parametrize("layout", ["zip", "legacy", "pickle3", "pickle4"])
def test_flipped_bytes_never_raise_anything_else(tmp_path, layout):
    path = layouts({"a": torch.arange(5.0), "b": [torch.ones(3).bool()]}, tmp_path)[layout]
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(whole)
        for position in generator.integers(0, len(whole), size=generator.integers(1, 4)):
            damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        # Damage within the numbers themselves cannot be seen; any other must end in our error.
        with contextlib.suppress(lk.Error):
            read_tensors(path)


def test_truth_values_other_than_0_and_1(tmp_path):
    path = tmp_path / "mask.pt"
    torch.save(torch.ones(9, dtype=torch.bool), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert "truth values other than 0 and 1" in refusal(path)


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "mask.pkl"
    contents = {
        b"": "is not a file of tensors",
        b"just some text\n": "is not a file of tensors",
        b"\x89PNG\r\n\x1a\n": "is not a file of tensors",
        pickle.dumps([1, 2], 3): "of type list",
        pickle.dumps("text", 4): "of type str",
        pickle.dumps(torch.ones(2)) + b"more": "goes on after",
        pickle.dumps(np.ones(3)): "refers to numpy",
        b"\x80\x02K\x01\x80\x02.": "of type int",
    }
    for content, part in contents.items():
        path.write_bytes(content)
        assert part in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not one that torch.save writes" in refusal(path)
    assert "cannot be read" in refusal(tmp_path / "missing.pkl")
    assert "is a folder" in refusal(tmp_path)


def test_a_whole_module_is_refused_by_the_name_of_its_class(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "refers to torch.nn.modules.linear.Linear" in refusal(path)

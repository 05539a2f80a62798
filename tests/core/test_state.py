"""The file from which everything goes on: whole, of this computation, or refused."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import lipkit as lk
from lipkit.find import imp, oes
from lipkit.formats import state
from lipkit.models import Generator
from lipkit.testing import tiny_prior
from tests.support.tiny_fit import CLEAN, EVERYTHING, OP, Y, assert_same_fit, quick

SETTINGS = {"lr": "0.01", "prior": "p" * 200}


def written(path: Path) -> bytes:
    tensors = {"x": torch.arange(3.0), "count": torch.tensor(7)}
    state.write(path, "fit", SETTINGS, tensors, {"step": 3, "reason": "", "seconds": 0.5})
    return path.read_bytes()


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def some_bits(data: bytes, count: int) -> list[int]:
    """Bits from all over a file, half of them in its header."""
    draw = random.Random(0)
    header = 8 * (8 + int.from_bytes(data[:8], "little"))
    first = [draw.randrange(header) for _ in range(count // 2)]
    return first + [draw.randrange(8 * len(data)) for _ in range(count // 2)]


def one_sentence(error: BaseException) -> bool:
    text = str(error)
    return "\n" not in text and len(text) < 400 and "delete it" in text


def test_no_bit_of_a_file_changes_unnoticed(tmp_path):
    path = tmp_path / "state"
    data = written(path)
    for bit in range(0, 8 * len(data), 7):  # one in every byte
        path.write_bytes(flipped(data, bit))
        with pytest.raises(lk.FileError) as caught:
            state.read(path, "fit", SETTINGS)
        assert one_sentence(caught.value), bit
    path.write_bytes(data)
    tensors, numbers = state.read(path, "fit", SETTINGS)
    assert torch.equal(tensors["x"], torch.arange(3.0)) and numbers["step"] == 3


@pytest.mark.parametrize("what", ["fit", "oes"])
def test_a_flipped_bit_never_gives_another_result(tmp_path, what):
    path = tmp_path / "half"
    run = {
        "fit": lambda: quick(steps=4, checkpoint=path, reference=CLEAN, **EVERYTHING),
        "oes": lambda: oes(tiny_prior(), OP, Y, 0.1, steps=3, checkpoint=path, progress=False),
    }[what]
    run()
    data = path.read_bytes()
    for bit in some_bits(data, 60):
        broken = flipped(data, bit)
        path.write_bytes(broken)
        with pytest.raises(lk.FileError) as caught:
            run()
        assert one_sentence(caught.value), bit
        assert path.read_bytes() == broken  # a refused file is left alone


def test_a_flipped_bit_in_the_files_of_a_search_is_refused_or_changes_nothing(tmp_path):
    def search():
        return imp(
            tiny_prior(), OP, Y, rounds=2, steps=3, rewind=0.5, reference=CLEAN, folder=tmp_path
        )

    def told(found):
        numbers = [found.losses, found.psnrs, found.best_psnrs]
        weights = [v.numpy().tobytes() for v in found.start.state_dict().values()]
        return found.masks, [n.tolist() for n in numbers], weights, found.reason

    whole = told(search())
    refused = 0
    for name in ("round-00.safetensors", "round-01.safetensors", "rewind.safetensors"):
        path = tmp_path / name
        data = path.read_bytes()
        for bit in some_bits(data, 60):
            path.write_bytes(flipped(data, bit))
            try:
                assert told(search()) == whole, (name, bit)
            except lk.FileError as error:
                refused += "\n" not in str(error)
        path.write_bytes(data)
    assert refused > 150
    assert told(search()) == whole


def test_a_flipped_bit_never_gives_another_generator(tmp_path):
    net = Generator(4, 4, (4,))
    path = lk.gan.save(net, tmp_path / "net.safetensors", half=False, note={"distance": 0.25})
    data = path.read_bytes()
    for bit in some_bits(data, 200):
        path.write_bytes(flipped(data, bit))
        try:
            again = lk.gan.load(path)
        except lk.FileError:
            continue
        # a bit in the name of the checksum: the file then says nothing else than before
        assert again.note == {"distance": 0.25}
        pairs = zip(net.parameters(), again.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_file_of_something_else_is_refused_by_name(tmp_path):
    path = tmp_path / "state"
    written(path)
    with pytest.raises(lk.InputError, match="checkpoint of a fit, not of a search"):
        state.read(path, "search", SETTINGS)
    changed = r"another fit: its lr, prior differ \(lr was 0.01, now 0.1\); use another file"
    with pytest.raises(lk.InputError, match=changed):
        state.read(path, "fit", {"lr": "0.1", "prior": "q" * 200})
    assert state.read(tmp_path / "none", "fit", SETTINGS) is None
    with pytest.raises(lk.FileError, match="there is no folder"):
        state.read(tmp_path / "no" / "state", "fit", SETTINGS)


@pytest.mark.parametrize(
    "about",
    [
        {"format": "lipkit checkpoint 1", "signature": "{}", "numbers": "{}"},
        {"signature": "{}", "numbers": "{}"},
        {"format": "lipkit gan training 1", "plan": "{}", "progress": "{}"},
        {"lipkit": json.dumps({"format": "lipkit mask 1"})},
    ],
)
def test_files_of_before_are_refused_with_a_sentence(tmp_path, about):
    path = tmp_path / "old"
    save_file({"logits": torch.zeros(3)}, path, about)
    with pytest.raises(lk.FileError, match="not a checkpoint of this version.*delete it to start"):
        quick(checkpoint=path)


def test_a_second_ctrl_c_while_it_is_written_leaves_the_file_of_before(tmp_path, monkeypatch):
    options = EVERYTHING | {"checkpoint": tmp_path / "c", "reference": CLEAN}
    quick(steps=6, **options)
    before = hashlib.sha256((tmp_path / "c").read_bytes()).hexdigest()

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quick(steps=9, **options)
    assert hashlib.sha256((tmp_path / "c").read_bytes()).hexdigest() == before
    assert_same_fit(quick(steps=9, **options), quick(steps=9, **options | {"checkpoint": None}))

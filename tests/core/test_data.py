"""Pictures, masks and fetched files: what comes in, and the sentence for what cannot."""

from __future__ import annotations

import functools
import hashlib
import http.server
import re
import socket
import threading
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import lipkit as lk
from lipkit.data import registry

RAMP = np.arange(16 * 12, dtype=np.uint8).reshape(16, 12)
COLOR = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1)


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """uint8 [H,W] or [H,W,C] as the image it stands for."""
    array = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(array.astype(np.float32).transpose(2, 0, 1).copy()) / 255


def assert_one_sentence(error: BaseException) -> None:
    text = str(error)
    assert "\n" not in text and 20 < len(text) < 600 and text.endswith("."), text


# --- bundled pictures ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(registry.bundled()))
def test_every_bundled_picture_loads(name):
    image = lk.data.image(name)
    assert image.dtype == torch.float32 and image.shape[0] in (1, 3) and image.is_contiguous()
    assert 0 <= image.min() < image.max() <= 1


def test_drawn_pictures_have_the_size_that_is_asked_for_and_are_always_the_same():
    for name in ("noise", "checkers", "shuffled:coffee"):
        image = lk.data.image(name, size=(40, 48))
        assert image.shape[1:] == (40, 48) and torch.equal(image, lk.data.image(name, (40, 48)))
        assert lk.data.image(name, 16, gray=True).shape == (1, 16, 16)
    noise, board = lk.data.image("noise", 128), lk.data.image("checkers", 64)
    assert noise.mean() == pytest.approx(0.5, abs=0.01) and noise.var() == pytest.approx(
        1 / 12, 0.02
    )
    assert torch.equal(board[0, :8, :8].unique(), torch.tensor([0.2])) and board[0, 8, 0] == 0.8
    coffee, order = (lk.data.image(n, 40) for n in ("coffee", "shuffled:coffee"))
    assert not torch.equal(coffee, order)
    pixels = [sorted(map(tuple, x.flatten(1).T.tolist())) for x in (coffee, order)]
    assert pixels[0] == pixels[1]  # whole pixels have moved, colours and all
    with pytest.raises(lk.InputError, match="'noise' has no file"):
        lk.data.file("noise")


def test_names_say_where_each_comes_from():
    names = lk.data.names()
    assert {"camera", "set5/baby", "dip/kate_mask", "mri/brain_8ch_ksp.npy"} <= set(names)
    assert all(sentence.endswith(".") and len(sentence) > 30 for sentence in names.values())
    assert "01a754fd76" in names["set14/pepper"] and "CC0" in names["camera"]


def test_registry_is_well_formed():
    for key, entry in registry.entries().items():
        assert re.fullmatch(r"[\w/-]+\.(png|jpg|npy|tar\.gz|pth)", key)
        pinned = re.fullmatch(r"[0-9a-f]{40}", entry.get("commit", ""))
        assert pinned or entry["url"].startswith("https://")
        whole = not key.startswith("pgan/")  # of these the beginning is published, no more
        assert re.fullmatch(r"[0-9a-f]{64}" if whole else r"[0-9a-f]{8}", entry["sha256"])
        assert entry["bytes"] > 0 if whole else entry["sha256"] in key


# --- arrays, tensors, PIL -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        RAMP,
        RAMP[..., None],
        RAMP[None],
        RAMP.astype(np.int64),
        RAMP.astype(np.uint16) * 257,
        RAMP / 255,
        (RAMP / 255).astype(np.float16),
        torch.from_numpy(RAMP),
        torch.from_numpy(RAMP / 255).to(torch.bfloat16),
        torch.from_numpy(RAMP / 255).requires_grad_(),
        PIL.Image.fromarray(RAMP),
    ],
    ids=lambda array: f"{type(array).__name__}-{getattr(array, 'dtype', 'L')}",
)
def test_grey_sources_agree(array):
    got = lk.data.image(array)
    assert got.dtype == torch.float32 and not got.requires_grad
    tolerance = 4e-3 if "16" in str(getattr(array, "dtype", "")) else 1e-6
    torch.testing.assert_close(got, as_tensor(RAMP), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "array",
    [COLOR, COLOR.transpose(2, 0, 1), torch.from_numpy(COLOR), PIL.Image.fromarray(COLOR)],
    ids=["HWC", "CHW", "tensor", "PIL"],
)
def test_colour_sources_agree(array):
    torch.testing.assert_close(lk.data.image(array), as_tensor(COLOR))


def test_the_result_does_not_share_memory_with_the_source():
    source = torch.full((1, 8, 8), 0.5)
    lk.data.image(source).zero_()
    assert source.min() == 0.5


def test_a_width_of_three_is_not_taken_for_channels():
    tensor = torch.rand(3, 20, 3)
    with pytest.raises(lk.Error, match="3 × 20 pixels"):  # read as [C,H,W], then too narrow
        lk.data.image(tensor)


def test_bool_array():
    assert lk.data.image(np.eye(8, dtype=bool)).sum() == 8


def test_rounding_errors_of_floats_are_clipped():
    array = np.full((8, 8), 1 + 1e-7)
    assert lk.data.image(array).max() == 1


# --- files --------------------------------------------------------------------------------------


def written(path, picture, **options):
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "tiff", "bmp", "webp", "ppm"])
def test_lossless_files(tmp_path, ending):
    options = {"lossless": True} if ending == "webp" else {}
    path = written(tmp_path / f"a.{ending}", PIL.Image.fromarray(COLOR), **options)
    torch.testing.assert_close(lk.data.image(path), as_tensor(COLOR))
    torch.testing.assert_close(lk.data.image(str(path)), as_tensor(COLOR))


def test_jpeg_grey_colour_and_cmyk(tmp_path):
    smooth = np.broadcast_to(np.linspace(40, 200, 64, dtype=np.uint8), (64, 64))
    for mode in ("L", "RGB", "CMYK"):
        picture = PIL.Image.fromarray(smooth.copy()).convert("RGB").convert(mode)
        image = lk.data.image(written(tmp_path / f"{mode}.jpg", picture, quality=95))
        assert image.shape == (1 if mode == "L" else 3, 64, 64)
        assert (image - as_tensor(smooth)).abs().max() < 0.03


def test_npy_file(tmp_path):
    np.save(tmp_path / "a.npy", COLOR)
    torch.testing.assert_close(lk.data.image(tmp_path / "a.npy"), as_tensor(COLOR))


def test_sixteen_bit_png(tmp_path):
    values = RAMP.astype(np.uint16) * 257
    path = written(tmp_path / "deep.png", PIL.Image.fromarray(values))
    torch.testing.assert_close(lk.data.image(path), as_tensor(RAMP))


def test_palette_and_one_bit_files(tmp_path):
    palette = PIL.Image.fromarray(COLOR).quantize(256)
    expected = as_tensor(np.asarray(palette.convert("RGB")))
    torch.testing.assert_close(lk.data.image(written(tmp_path / "p.png", palette)), expected)
    bits = PIL.Image.fromarray(RAMP > 90)
    image = lk.data.image(written(tmp_path / "b.png", bits))
    torch.testing.assert_close(image, torch.from_numpy(RAMP > 90)[None].float())


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_over_white(tmp_path, mode):
    picture = PIL.Image.new(mode, (10, 10), (0, 0, 0, 64) if mode == "RGBA" else (0, 64))
    image = lk.data.image(written(tmp_path / "a.png", picture))
    assert image.shape[0] == (3 if mode == "RGBA" else 1)
    torch.testing.assert_close(image, torch.full_like(image, 1 - 64 / 255))


def test_alpha_of_an_array_and_of_a_palette(tmp_path):
    rgba = np.zeros((9, 9, 4), np.uint8)
    assert lk.data.image(rgba).min() == 1
    see_through = PIL.Image.new("P", (9, 9), 0)
    see_through.putpalette([10, 20, 30])
    path = written(tmp_path / "p.png", see_through, transparency=0)
    assert lk.data.image(path).min() == 1


def test_exif_orientation_is_applied(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    path = written(tmp_path / "turned.png", PIL.Image.fromarray(RAMP), exif=exif)
    torch.testing.assert_close(lk.data.image(path), as_tensor(np.rot90(RAMP, -1)))


def test_gray_is_the_luma_of_pil():
    expected = as_tensor(np.asarray(PIL.Image.fromarray(COLOR).convert("L")))
    assert (lk.data.image(COLOR, gray=True) - expected).abs().max() < 1 / 255


# --- size ---------------------------------------------------------------------------------------


def test_size_crops_centrally_and_does_not_stretch():
    picture = np.zeros((40, 100), np.float32)
    picture[:, 30:70] = 1  # exactly the central square
    assert lk.data.image(picture, size=40).min() == 1
    assert lk.data.image(picture, size=20).shape == (1, 20, 20)
    assert lk.data.image(picture, size=20).mean() > 0.98
    assert lk.data.image(picture, size=(40, 100)).mean() == pytest.approx(0.4)
    assert lk.data.image(picture, size=(20, 50)).mean() == pytest.approx(0.4, abs=1e-3)


def test_resizing_is_antialiased_and_stays_in_range():
    checkers = np.indices((128, 128)).sum(0) % 2 == 0
    small = lk.data.image(checkers, size=32)
    assert (small - 0.5).abs().max() < 0.1
    assert 0 <= lk.data.image(checkers, size=200).min() <= lk.data.image(checkers).max() <= 1


@pytest.mark.parametrize("size", [0, -3, 7, 20_000, 1.5, "64", (64,), (64, 64, 3), True, (64, 2)])
def test_bad_sizes(size):
    with pytest.raises(lk.data.images.InputError, match="size=") as caught:
        lk.data.image("camera", size=size)
    assert_one_sentence(caught.value)


# --- bad input ----------------------------------------------------------------------------------


def bad_files(folder) -> dict[str, str]:
    """What is wrong -> part of the sentence; each file is made under its name in `folder`."""
    PIL.Image.fromarray(COLOR).resize((200, 200)).save(folder / "truncated.png")
    whole = (folder / "truncated.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "header_only.png").write_bytes(whole[:20])
    (folder / "text.png").write_text("this is not a picture\n" * 10)
    (folder / "empty.png").write_bytes(b"")
    PIL.Image.new("L", (1, 1)).save(folder / "dot.png")
    PIL.Image.new("1", (40_000, 10)).save(folder / "wide.png")
    PIL.Image.new("1", (12_000, 12_000)).save(folder / "many.png")
    PIL.Image.new("1", (16_000, 16_000)).save(folder / "bomb.png")
    np.save(folder / "objects.npy", np.array([{}, "x"], dtype=object), allow_pickle=True)
    np.save(folder / "long.npy", np.zeros((8, 30_000), np.uint8))
    np.save(folder / "short.npy", COLOR)
    (folder / "short.npy").write_bytes((folder / "short.npy").read_bytes()[:200])
    (folder / "zip.npy").write_bytes(b"PK\x03\x04xx")
    whole = (folder / "long.npy").read_bytes()
    (folder / "header.npy").write_bytes(whole.replace(b"'fortran", b"(fortran"))
    (folder / "folder.png").mkdir()
    return {
        "truncated.png": "damaged or cut short",
        "header_only.png": "header_only.png is",
        "text.png": "not a picture that can be read",
        "empty.png": "not a picture that can be read",
        "dot.png": "1 × 1 pixels; an image needs at least 8",
        "wide.png": "40000 × 10 pixels; at most 16384 a side",
        "many.png": "12000 × 12000 pixels; at most",
        "bomb.png": "more than 100 megapixels",
        "objects.npy": "not a complete .npy file of plain numbers",
        "long.npy": "30000 × 8 pixels; at most",
        "short.npy": "not a complete .npy file",
        "zip.npy": "not a complete .npy file",
        "header.npy": "not a complete .npy file",
        "folder.png": "is not a file",
        "missing.png": "does not exist",
    }


def test_bad_files_get_one_clear_sentence(tmp_path):
    for name, part in bad_files(tmp_path).items():
        with pytest.raises(lk.data.registry.FileError, match=re.escape(part)) as caught:
            lk.data.image(tmp_path / name)
        assert name in str(caught.value)
        assert_one_sentence(caught.value)


BAD_ARRAYS = {
    "NaN": (np.full((9, 9), np.nan), "NaN or infinite"),
    "inf": (np.full((9, 9), np.inf), "NaN or infinite"),
    "one NaN": (np.where(np.eye(9) > 0, np.nan, 0.5), "NaN or infinite"),
    "300": (np.full((9, 9), 300), "from 300 to 300; expected 0 to 255"),
    "negative": (np.full((9, 9), -1, np.int8), "from -1 to -1"),
    "float of 255": (np.full((9, 9), 255.0), "divide by the largest possible value"),
    "negative float": (np.full((9, 9), -0.5), "expected 0 to 1"),
    "five channels": (np.zeros((5, 9, 9)), "channels"),
    "two channels": (np.zeros((9, 9, 2)), "channels"),
    "batch": (torch.zeros(1, 3, 9, 9), "[C,H,W]"),
    "one axis": (np.zeros(9), "[H,W]"),
    "number": (np.array(0.5), "[H,W]"),
    "empty": (np.zeros((0, 9)), "is empty"),
    "complex": (np.zeros((9, 9), complex), "holds complex128"),
    "complex tensor": (torch.zeros(9, 9, dtype=torch.complex64), "holds complex64"),
    "text": (np.full((9, 9), "x"), "expected bool, integers or floats"),
    "objects": (np.full((9, 9), None), "holds object"),
    "tiny": (np.zeros((1, 1)), "1 × 1 pixels"),
    "wide": (np.zeros((8, 40_000), np.uint8), "40000 × 8 pixels"),
    "list": ([[0, 1]], "not list"),
    "None": (None, "not NoneType"),
}


@pytest.mark.parametrize("what", BAD_ARRAYS)
def test_bad_arrays_get_one_clear_sentence(what):
    array, part = BAD_ARRAYS[what]
    with pytest.raises(ValueError, match=re.escape(part)) as caught:
        lk.data.image(array)
    assert isinstance(caught.value, lk.Error)
    assert_one_sentence(caught.value)


@pytest.mark.parametrize(
    ("name", "close"),
    [("camerra", "'camera'"), ("set5/bady", "'set5/baby'"), ("Pepper", "'set14/pepper'")],
)
def test_a_misspelt_name_gets_a_suggestion(name, close):
    with pytest.raises(lk.Error, match=f"did you mean .*{close}") as caught:
        lk.data.image(name)
    assert_one_sentence(caught.value)
    with pytest.raises(ValueError, match=close):
        lk.data.file(name)


def test_a_name_like_nothing_points_to_the_list():
    with pytest.raises(lk.Error, match=r"'qqqqqq'; lipkit\.data\.names\(\) lists all"):
        lk.data.image("qqqqqq")


# --- masks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [1, 255, 1.0, True])
def test_mask_takes_zero_one_and_zero_255(tmp_path, top):
    pattern = np.eye(16)
    array = (pattern * top).astype(np.float64 if isinstance(top, float) else np.uint8)
    expected = torch.eye(16)[None]
    assert torch.equal(lk.data.mask(array), expected)
    assert torch.equal(lk.data.mask(torch.from_numpy(array)), expected)
    if array.dtype == np.uint8:
        path = written(tmp_path / "mask.png", PIL.Image.fromarray(array))
        assert torch.equal(lk.data.mask(path), expected)


def test_mask_is_binary_after_resizing_and_from_colour():
    mask = lk.data.mask("coffee", size=(50, 70))
    assert mask.shape == (1, 50, 70) and set(mask.unique().tolist()) == {0.0, 1.0}
    assert lk.data.mask(np.zeros((9, 9))).sum() == 0


# --- save ---------------------------------------------------------------------------------------


def test_save_rounds_clips_and_comes_back(tmp_path):
    image = torch.tensor([-0.2, 0.0, 0.4999 / 255, 0.5001 / 255, 0.7, 1.0, 1.3, 1.0])
    image = image.expand(8, 8)[None].repeat(3, 1, 1)
    path = lk.data.save(image, tmp_path / "out.png")
    expected = torch.tensor([0, 0, 0, 1, 178, 255, 255, 255]) / 255
    torch.testing.assert_close(lk.data.image(path)[0, 0], expected, atol=1 / 510, rtol=0)
    assert lk.data.image(path)[0, 0, 3] == 1 / 255
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]


def test_save_then_load_is_exact_for_8_bit(tmp_path):
    for array in (RAMP, COLOR):
        path = lk.data.save(as_tensor(array), tmp_path / "a.png")
        assert torch.equal(lk.data.image(path), lk.data.image(array))


BAD_SAVES = {
    "jpg": (torch.zeros(1, 8, 8), "out.jpg", "name the file .png"),
    "shape": (torch.zeros(2, 8, 8), "out.png", "shape"),
    "integers": (torch.zeros(1, 8, 8, dtype=torch.int64).numpy(), "out.png", "not int64"),
    "NaN": (torch.full((1, 8, 8), torch.nan), "out.png", "NaN"),
    "no folder": (torch.zeros(1, 8, 8), "nowhere/out.png", "cannot be written"),
    "not an image": ("camera", "out.png", "not str"),
}


@pytest.mark.parametrize("what", BAD_SAVES)
def test_bad_saves_leave_nothing_behind(tmp_path, what):
    image, name, part = BAD_SAVES[what]
    with pytest.raises(lk.Error, match=re.escape(part)) as caught:
        lk.data.save(image, tmp_path / name)
    assert_one_sentence(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = lk.data.save(as_tensor(RAMP), tmp_path / "a.png")
    before = path.read_bytes()

    def full_disk(self, data):
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(lk.Error, match="No space left"):
        lk.data.save(as_tensor(RAMP) / 2, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# --- fetched files ------------------------------------------------------------------------------


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A registry of one made-up picture, a server that has it, and an empty cache folder."""
    served, cache = tmp_path / "served", tmp_path / "cache"
    served.mkdir()
    content = lk.data.save(as_tensor(COLOR), served / "made_up.png").read_bytes()
    entry = {
        "repo": "someone/pictures",
        "commit": "0" * 40,
        "path": "made_up.png",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("LIPKIT_DATA", str(cache))
    monkeypatch.setattr(registry, "entries", lambda: {"test/made_up.png": entry})
    address = f"http://127.0.0.1:{server.server_port}/{{path}}"
    monkeypatch.setattr(registry, "_url", lambda entry: address.format(**entry))
    yield served / "made_up.png", cache / "test" / "made_up.png"
    server.shutdown()
    server.server_close()


def test_fetch_once_then_from_the_cache(made_up):
    served, cached = made_up
    for name in ("test/made_up", "test/made_up.png"):
        torch.testing.assert_close(lk.data.image(name), as_tensor(COLOR))
        served.unlink(missing_ok=True)  # the second name is answered from the cache
    assert lk.data.file("test/made_up") == cached
    assert [entry.name for entry in cached.parent.iterdir()] == ["made_up.png"]


def test_a_file_placed_by_hand_needs_no_network(made_up, monkeypatch):
    served, cached = made_up
    cached.parent.mkdir(parents=True)
    cached.write_bytes(served.read_bytes())
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("went to the network"))
    torch.testing.assert_close(lk.data.image("test/made_up"), as_tensor(COLOR))


def test_a_wrong_file_in_the_cache_is_neither_used_nor_overwritten(made_up):
    _, cached = made_up
    cached.parent.mkdir(parents=True)
    lk.data.save(as_tensor(RAMP), cached)
    before = cached.read_bytes()
    with pytest.raises(lk.Error, match="sha256") as caught:
        lk.data.image("test/made_up")
    assert str(cached) in str(caught.value) and cached.read_bytes() == before
    assert_one_sentence(caught.value)


def test_a_wrong_file_from_the_server_is_not_kept(made_up):
    served, cached = made_up
    served.write_bytes(b"something else")
    with pytest.raises(lk.Error, match="another sha256"):
        lk.data.image("test/made_up")
    assert list(cached.parent.iterdir()) == []


def test_offline_says_what_from_where_and_how_by_hand(made_up, monkeypatch):
    _, cached = made_up

    def offline(*_):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", offline)
    with pytest.raises(lk.Error) as caught:
        lk.data.image("test/made_up")
    assert_one_sentence(caught.value)
    for part in ("made_up.png", "http://127.0.0.1", str(cached), "LIPKIT_DATA"):
        assert part in str(caught.value)

"""Tickets and masks as files: the same bytes, the same weights, and nothing else gets in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import struct
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save as safetensors_bytes

import lipkit as lk
from lipkit.formats import maskfile
from lipkit.tickets import image_hash, initial

PRIOR = lk.testing.tiny_prior(seed=3)
NOTE = {"method": "random", "density": 0.3, "image": {"sha256": "ab", "size": (16, 16)}}

pytestmark = pytest.mark.filterwarnings("ignore::lipkit.masks.LayerCollapseWarning")


def tiny_ticket(density: float = 0.3, scope: str = "conv", seed: int = 0) -> lk.Ticket:
    return lk.Ticket(lk.Mask.random(PRIOR.net, density, scope, seed), PRIOR.recipe, note=NOTE)


@pytest.fixture
def path(tmp_path):
    tiny_ticket().save(tmp_path / "a.ticket")
    return tmp_path / "a.ticket"


def weights(net) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def parts(path) -> tuple[dict[str, np.ndarray], dict]:
    with safe_open(path, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in ("mask", "probe")}
        return tensors, json.loads(file.metadata()["lipkit"])


def rewrite(path, tensors: dict[str, np.ndarray], about: dict) -> None:
    path.write_bytes(safetensors_bytes(tensors, {"lipkit": json.dumps(about)}))


# --- what a file keeps --------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    density=st.floats(0.001, 1), scope=st.sampled_from(["conv", "all"]), seed=st.integers(0, 10**6)
)
def test_save_load_save_is_byte_identical(tmp_path_factory, density, scope, seed):
    folder = tmp_path_factory.mktemp("tickets")
    ticket = tiny_ticket(density, scope, seed)
    ticket.save(folder / "a")
    again = lk.Ticket.load(folder / "a")
    again.save(folder / "b")
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes() == ticket.to_bytes()
    assert (again, again.mask, again.recipe) == (ticket, ticket.mask, PRIOR.recipe)
    assert sorted(os.listdir(folder)) == ["a", "b"]

    ticket.mask.save(folder / "c")
    lk.Mask.load(folder / "c").save(folder / "d")
    assert (folder / "c").read_bytes() == (folder / "d").read_bytes()
    assert lk.Mask.load(folder / "c") == lk.Mask.load(folder / "a") == ticket.mask


def test_what_a_file_was_made_with_is_kept(path):
    ticket = lk.Ticket.load(path)
    ticket.made_with = {"lipkit": "0.0.7", "torch": "2.6.0"}
    ticket.save(path)
    assert lk.Ticket.load(path).made_with == {"lipkit": "0.0.7", "torch": "2.6.0"}


def test_three_million_weights_take_less_than_400_000_bytes(tmp_path):
    prior = lk.Prior("oes", size=512, levels=6)
    ticket = lk.Ticket(lk.Mask.random(prior.net, 0.05, "all"), prior.recipe, note=NOTE)
    ticket.save(tmp_path / "oes.ticket")
    assert (tmp_path / "oes.ticket").stat().st_size <= 400_000
    loaded = lk.Ticket.load(tmp_path / "oes.ticket")
    assert loaded.mask == ticket.mask and loaded.mask.total == 3_008_867
    assert torch.equal(weights(loaded.prior(size=64).net), weights(prior.net))


def test_a_rewound_ticket_brings_the_weights_it_was_rewound_to(tmp_path):
    op, clean = lk.physics.Denoise(0.1), lk.testing.tiny_image()
    found = lk.find.imp(PRIOR, op, op.measure(clean), density=0.5, steps=10, rewind=0.3)
    ticket = lk.Ticket(found.mask, PRIOR.recipe, NOTE, start=found.start)
    ticket.save(tmp_path / "a")
    loaded = lk.Ticket.load(tmp_path / "a")
    assert loaded == ticket and "rewound to:" in loaded.describe()
    back, wanted = loaded.prior(), found.start.clone()
    for prior in (back, wanted):
        found.mask.apply(prior.net)
    assert torch.equal(weights(back.net), weights(wanted.net))
    assert not torch.equal(weights(back.net)[:50], weights(PRIOR.net)[:50])
    assert torch.equal(back.z, PRIOR.z)
    same = lk.Ticket(found.mask, PRIOR.recipe, NOTE, start=PRIOR)  # nothing to store
    assert same == lk.Ticket(found.mask, PRIOR.recipe, NOTE)


def test_stored_weights_are_those_of_the_mask(path):
    ticket = lk.Ticket(tiny_ticket().mask, PRIOR.recipe, start=lk.testing.tiny_prior(seed=4))
    ticket.save(path)
    tensors, about = parts(path)
    for wrong in (ticket.start[1:].numpy(), np.full_like(ticket.start.numpy(), np.nan)):
        rewrite(path, tensors | {"start": wrong}, about)
        with pytest.raises(lk.FileError, match="its checksum differs"):
            lk.Ticket.load(path)
        resealed = about | {"start_sha256": hashlib.sha256(wrong.tobytes()).hexdigest()}
        rewrite(path, tensors | {"start": wrong}, resealed)
        with pytest.raises(lk.FileError, match="not the [0-9,]+ finite numbers that the mask"):
            lk.Ticket.load(path)
    unsealed = {k: v for k, v in about.items() if k != "start_sha256"}
    rewrite(path, tensors | {"start": ticket.start.numpy()}, unsealed)
    with pytest.raises(lk.FileError, match="lacks 'start_sha256'"):
        lk.Ticket.load(path)
    other = lk.Prior("dip", 16, levels=2, down=4, up=8, skip=2, in_channels=4)
    with pytest.raises(lk.InputError):
        lk.Ticket(tiny_ticket().mask, PRIOR.recipe, start=other)


def test_notes_are_plain_data(path):
    assert lk.Ticket.load(path).note == json.loads(json.dumps(NOTE))
    mask = tiny_ticket().mask
    note = {"psnr": np.float32(30.5), "steps": torch.tensor(7)}
    assert lk.Ticket(mask, PRIOR.recipe, note=note).note == {"psnr": 30.5, "steps": 7}
    for bad in ({"loss": float("nan")}, {"fit": object()}, ["a", "list"]):
        with pytest.raises(lk.InputError, match="the note of a ticket is a dict of"):
            lk.Ticket(mask, PRIOR.recipe, note=bad)


def test_a_ticket_needs_a_mask_and_a_recipe_that_fit():
    mask = tiny_ticket().mask
    with pytest.raises(lk.InputError, match=r"Ticket\(mask, prior.recipe\), got Mask and Prior"):
        lk.Ticket(mask, PRIOR)
    other = lk.Prior("deep-decoder", (32, 32), levels=2, width=8)
    with pytest.raises(lk.InputError, match="belongs to another network"):
        lk.Ticket(mask, other.recipe)
    with pytest.raises(lk.InputError, match="another width or depth"):
        lk.Ticket(mask, lk.Prior("dip", 16, levels=2, down=4, up=8, skip=2, in_channels=4).recipe)


def test_the_description_says_what_matters(path):
    text = lk.Ticket.load(path).describe()
    for part in (
        "network: dip, 3,879 parameters",
        "seed 3",
        "density 29.98 %",
        "image.sha256: ab",
        "down0a.conv.weight",
        f"torch {torch.__version__.split('+')[0]}",
        "ticket.fresh(",
    ):
        assert part in text
    empty = lk.Mask({n: torch.zeros_like(p, dtype=torch.bool) for n, p in _conv_weights()})
    assert "layer collapse: no weight left in skip0" in lk.Ticket(empty, PRIOR.recipe).describe()


def _conv_weights():
    return [(n, p) for n, p in PRIOR.net.named_parameters() if p.ndim > 1]


def test_the_hash_of_an_image_knows_shape_and_values():
    image = lk.testing.tiny_image()
    assert image_hash(image) == image_hash(image.clone()) == image_hash(image.double())
    assert image_hash(image) != image_hash(image.reshape(3, 8, 32))
    assert image_hash(image) != image_hash(image + 1e-6)


# --- the weights it belongs to ------------------------------------------------------------------


@pytest.mark.parametrize("name", lk.models.PRESETS)
def test_the_network_is_drawn_before_the_code(name):
    """So the initial weights depend neither on the size nor on the kind of code."""
    known = lk.models.options(name)
    tiny = {option: n for option, n in (("levels", 2), ("width", 4)) if option in known}
    recipe = lk.Prior(name, size=(33, 40), seed=5, code_scale=0.3, **tiny).recipe
    assert torch.equal(weights(initial.initial_net(recipe)), weights(recipe.prior().net))


def test_a_ticket_gives_back_its_prior(path):
    ticket = lk.Ticket.load(path)
    before = torch.random.get_rng_state()
    same, larger = ticket.prior(), ticket.prior(size=(24, 40))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(weights(same.net), weights(PRIOR.net)) and torch.equal(same.z, PRIOR.z)
    assert torch.equal(weights(larger.net), weights(PRIOR.net))
    assert larger().shape == (1, 3, 24, 40) and larger.recipe.seed == 3
    with pytest.raises(lk.InputError, match="size must be"):
        ticket.prior(size=0)


def test_fresh_weights_are_others(path):
    ticket = lk.Ticket.load(path)
    fresh = ticket.fresh(seed=4, size=(24, 40))
    assert fresh().shape == (1, 3, 24, 40)
    assert fresh.recipe.options == PRIOR.recipe.options
    assert not torch.equal(weights(fresh.net), weights(PRIOR.net))
    with pytest.raises(lk.InputError, match="seed 3 is the ticket's own"):
        ticket.fresh(seed=3)


def test_a_fit_with_a_ticket_keeps_its_mask(path):
    ticket = lk.Ticket.load(path)
    y = lk.testing.tiny_image((24, 24))
    op = lk.physics.Denoise(0.0)
    fit = lk.fit(ticket.prior(size=24), op, y, steps=5, mask=ticket.mask, progress=False)
    kept = dict(fit.net.named_parameters())
    for name in ticket.mask.names:
        assert bool((kept[name][~ticket.mask[name]] == 0).all())
        assert bool((kept[name][ticket.mask[name]] != 0).all())


def test_other_weights_are_refused_and_the_mask_is_not(path):
    ticket = lk.Ticket.load(path)
    ticket.weights = initial.fingerprint(lk.testing.tiny_prior(seed=4).net)
    ticket.made_with = {"torch": "1.0"}
    ticket.save(path)
    with pytest.raises(lk.Error, match=r"are not the ones .* torch 1\.0, .* lipkit\.Mask\.load"):
        lk.Ticket.load(path)
    assert lk.Mask.load(path) == ticket.mask
    unverified = lk.Ticket.load(path, verify=False)
    unverified.fresh(seed=9)
    with pytest.raises(lk.Error, match="are not the ones"):
        unverified.prior()


def test_weights_that_differ_by_rounding_are_accepted_with_a_warning(path):
    """Processors disagree on the last bit of what one seed draws."""
    ticket = lk.Ticket.load(path)
    near = [p * (1 + 1e-7) for p in PRIOR.net.parameters()]
    sha256 = "0" * 64
    probe = torch.cat([v.detach().flatten()[:: -(-v.numel() // 4)] for v in near])
    ticket.weights = initial.Fingerprint(sha256, probe)
    ticket.save(path)
    with pytest.warns(UserWarning, match="but for rounding"):
        again = lk.Ticket.load(path)
    with pytest.warns(UserWarning, match="but for rounding"):
        assert again.verify() is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tiny_ticket().verify() is True


# --- files that are none ------------------------------------------------------------------------


def test_a_ticket_cut_short_is_refused_wherever_it_is_cut(path, tmp_path):
    data = path.read_bytes()
    cut = tmp_path / "cut"
    for length in [*range(0, 40), *range(40, len(data), 37), len(data) - 1]:
        cut.write_bytes(data[:length])
        for load in (lk.Ticket.load, lk.Mask.load):
            with pytest.raises(lk.FileError, match="get a complete copy"):
                load(cut)


@pytest.mark.filterwarnings("ignore:the ticket's initial weights")  # a flip in their checksum
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_an_error_or_does_no_harm(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "a"
    ticket = tiny_ticket()
    raw = bytearray(ticket.to_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    with contextlib.suppress(lk.Error):
        found = lk.Ticket.load(path)  # the flip was in the note or a version
        assert found.mask == ticket.mask
        assert torch.equal(weights(found.prior().net), weights(PRIOR.net))


def _claim(**changes):
    def change(tensors, about):
        about |= changes

    return change


def _tensors(**changes):
    def change(tensors, about):
        tensors |= changes

    return change


def _options(**changes):
    def change(tensors, about):
        about["recipe"]["options"] |= changes

    return change


LAYER = "down0a.conv.weight"
LIES = {
    "a layer of 10^18 weights": (_claim(layers=[[LAYER, [10**6] * 3]]), "it claims 1,000,000,000,"),
    "a layer of no size": (_claim(layers=[[LAYER, [0, 3]]]), "impossible shape"),
    "a layer of -1": (_claim(layers=[[LAYER, [-1, -454 * 8]]]), "impossible shape"),
    "a layer of 3.0": (_claim(layers=[[LAYER, [3.0]]]), "impossible shape"),
    "a layer twice": (_claim(layers=[[LAYER, [4]], [LAYER, [4]]]), "no name of its own"),
    "too few layers": (_claim(layers=[[LAYER, [8, 8]]]), "it claims 64 weights"),
    "no list of layers": (_claim(layers=7), "damaged mask or ticket"),
    "another checksum": (_claim(mask_sha256="0"), "its checksum differs"),
    "another format": (_claim(format="lipkit ticket 99"), "does not know; update lipkit"),
    "no recipe": (_claim(recipe=[]), "no recipe of a prior"),
    "no note": (_claim(note=3), "no ticket that can be used"),
    "a million levels": (_options(levels=10**9), "beyond all measure"),
    "a long list": (_options(down=[8] * 1000), "beyond all measure"),
    "widths that add up": (_options(down=4096, up=4096), "more than a ticket can be for"),
    "an option unknown": (_options(colour=1), "no option 'colour'"),
    "another width": (_options(down=4), "another width or depth"),
    "bits as numbers": (_tensors(mask=np.zeros(454, np.float32)), "not packed in bytes"),
    "a third tensor": (_tensors(more=np.zeros(1, np.uint8)), "holds other tensors"),
}


@pytest.mark.parametrize(("change", "sentence"), LIES.values(), ids=LIES)
def test_a_file_that_lies_is_refused_in_one_sentence(path, change, sentence):
    tensors, about = parts(path)
    change(tensors, about)
    rewrite(path, tensors, about)
    with pytest.raises(lk.FileError, match=sentence) as caught:
        lk.Ticket.load(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_a_seed_that_is_none(path):
    tensors, about = parts(path)
    for seed in (-1, 2**70, 1.5, "1", True, None):
        about["recipe"]["seed"] = seed
        rewrite(path, tensors, about)
        with pytest.raises(lk.FileError, match="the seed of a recipe is a whole number"):
            lk.Ticket.load(path)


def other_files(folder) -> dict[str, tuple[bytes, str]]:
    weights = safetensors_bytes({"w": np.zeros(3, np.float32)}, {"format": "pt"})
    deep = safetensors_bytes({"mask": np.zeros(1, np.uint8)}, {"lipkit": "[" * 100_000})
    lk.data.save(lk.testing.tiny_image(), folder / "picture.png")
    return {
        "empty": (b"", "is empty"),
        "text": (b"this is a text, not a ticket at all", "no file of a mask or ticket"),
        "html": (b"<!DOCTYPE html><html></html>", "no file of a mask or ticket"),
        "picture": ((folder / "picture.png").read_bytes(), "no file of a mask or ticket"),
        "weights": (weights, "holds other tensors"),
        "deep json": (deep, "damaged mask or ticket"),
        "huge header": (struct.pack("<Q", 2**60) + b"{}" + bytes(100), "no file of a mask"),
    }


def test_files_of_another_kind_are_refused(tmp_path):
    for name, (content, sentence) in other_files(tmp_path).items():
        file = tmp_path / f"{name}.ticket"
        file.write_bytes(content)
        for load in (lk.Ticket.load, lk.Mask.load):
            with pytest.raises(lk.FileError, match=sentence):
                load(file)


def test_missing_files_folders_and_masks_alone(tmp_path):
    with pytest.raises(lk.FileError, match="cannot be read"):
        lk.Ticket.load(tmp_path / "missing")
    with pytest.raises(lk.FileError, match="is a folder"):
        lk.Mask.load(tmp_path)
    tiny_ticket().mask.save(tmp_path / "mask")
    with pytest.raises(lk.FileError, match=r"is a mask without initial weights.*Mask\.load"):
        lk.Ticket.load(tmp_path / "mask")


def test_a_file_beyond_all_size_is_refused_unread(tmp_path):
    file = tmp_path / "huge.ticket"
    with file.open("wb") as handle:  # takes no room on disk
        handle.write(struct.pack("<Q", 8) + b"{}      ")
        handle.truncate(2**34)
    with pytest.raises(lk.FileError, match="more than the"):
        lk.Ticket.load(file)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, monkeypatch, tmp_path):
    old = path.read_bytes()

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(maskfile.Path, "write_bytes", full)
    with pytest.raises(lk.FileError, match="cannot be written"):
        tiny_ticket(0.5).save(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [path.name]
    with pytest.raises(lk.FileError, match="cannot be written"):
        tiny_ticket().save(tmp_path / "no" / "folder")


# --- published masks ----------------------------------------------------------------------------


class Hostile:
    def __init__(self, canary):
        self.command = f"touch {canary}"

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_hostile_pickle_runs_nothing(tmp_path):
    canary = tmp_path / "canary"
    contents = [
        *(pickle.dumps(Hostile(canary), protocol) for protocol in (2, 3, 4, 5)),
        pickle.dumps({"1.0.1.1.weight_mask": Hostile(canary)}, 3),
    ]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.pkl").write_bytes(content)
    torch.save({"9.1.weight_mask": Hostile(canary)}, tmp_path / "zip.pkl")
    files = sorted(tmp_path.glob("*.pkl"))
    assert len(files) == 6
    for file in files:
        for load in (lk.Mask.load, lk.Ticket.load):
            with pytest.raises(lk.FileError):
                load(file)
        with pytest.raises(lk.FileError, match=r"refers to (os|posix|nt)\.system"):
            lk.Mask.load(file)
    assert not canary.exists()


def test_a_flat_mask_as_published(tmp_path):
    """Pickle protocol 3 of one vector over all 3,008,867 parameters."""
    net = lk.models.build("oes")
    mask = lk.Mask.random(net, 0.0352, "all", seed=1)
    for kind, vector in (("bool", mask.flat()), ("float", mask.flat().float())):
        with (tmp_path / f"mask_{kind}.pkl").open("wb") as file:
            pickle.dump(vector, file, protocol=3)
        assert lk.Mask.load(tmp_path / f"mask_{kind}.pkl") == mask
    assert lk.Mask.load(tmp_path / "mask_bool.pkl", like=net).density == pytest.approx(0.0352, 1e-4)


def test_a_flat_mask_of_another_network(tmp_path):
    mask = tiny_ticket(scope="all").mask
    torch.save(mask.flat(), tmp_path / "flat.pt")
    with pytest.raises(lk.InputError, match=r"does not say of which network.*like="):
        lk.Mask.load(tmp_path / "flat.pt")
    assert lk.Mask.load(tmp_path / "flat.pt", like=PRIOR.net) == mask
    assert lk.Mask.load(tmp_path / "flat.pt", like=PRIOR) == mask
    with pytest.raises(lk.InputError, match="is it for another network"):
        lk.Mask.load(tmp_path / "flat.pt", like=lk.models.build("deep-decoder", width=8))
    torch.save(torch.full((3_008_867,), 0.5), tmp_path / "half.pt")
    with pytest.raises(lk.InputError, match="holds only 0 and 1"):
        lk.Mask.load(tmp_path / "half.pt")


def published_dictionary(mask: lk.Mask, net, prefix: str = "") -> dict[str, torch.Tensor]:
    theirs = lk.models.reference_names(net)
    names = {n: f"{prefix}{theirs[n.removesuffix('.weight')]}.weight_mask" for n in mask.names}
    return {names[n]: mask[n].float() for n in reversed(mask.names)}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_dictionary_of_masks_as_published(tmp_path, prefix):
    net = lk.models.build("dip")
    mask = lk.Mask.random(net, 0.2, seed=2)
    content = published_dictionary(mask, net, prefix)
    assert f"{prefix}1.0.1.1.weight_mask" in content and len(content) == 26
    torch.save(content, tmp_path / "mask.pt")
    assert lk.Mask.load(tmp_path / "mask.pt") == mask
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert lk.Mask.load(tmp_path / "old.pt", like=net) == mask


def test_a_dictionary_of_something_else(tmp_path):
    mask = tiny_ticket().mask
    good = published_dictionary(mask, PRIOR.net)
    name = next(iter(good))
    wrong = {
        "holds '1.0.1.1.weight_orig'": good | {"1.0.1.1.weight_orig": torch.ones(1)},
        "holds 'epoch'": good | {"epoch": torch.ones(1)},
        "holds more than 0 and 1": good | {name: good[name] + 0.5},
        "the layer": good | {name: torch.ones(2)},
        "holds no mask": {},
    }
    for sentence, content in wrong.items():
        torch.save(content, tmp_path / "mask.pt")
        with pytest.raises(lk.FileError, match=sentence):
            lk.Mask.load(tmp_path / "mask.pt", like=PRIOR.net)
    torch.save(good, tmp_path / "mask.pt")
    assert lk.Mask.load(tmp_path / "mask.pt", like=PRIOR.net) == mask
    with pytest.raises(lk.FileError, match=r"pass its network: Mask\.load\(path, like=\.\.\.\)"):
        lk.Mask.load(tmp_path / "mask.pt")


def test_a_lipkit_mask_of_another_network_is_refused(path):
    assert lk.Mask.load(path, like=PRIOR.net) == lk.Ticket.load(path).mask
    with pytest.raises(lk.InputError, match="another width or depth"):
        lk.Mask.load(path, like=lk.models.build("dip"))

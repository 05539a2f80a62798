"""`lipkit restore`, `find` and `ticket`: pictures in, pictures out, one line for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import lipkit as lk
from lipkit.cli import estimate, main
from lipkit.cli.task import Problem

OPTIONS = dict(levels=2, down=8, up=8, skip=2, in_channels=4)
SMALL = [text for name, value in OPTIONS.items() for text in ("-o", name, str(value))]
CLEAN = lk.testing.tiny_image((32, 40))

pytestmark = pytest.mark.filterwarnings("ignore::lipkit.masks.LayerCollapseWarning")


def lipkit(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return end.value.code, out, err


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A noisy picture, a grey one, a mask, a ticket, and files that are no pictures."""
    monkeypatch.chdir(tmp_path)
    noisy = lk.physics.Denoise(0.1).measure(CLEAN)
    lk.data.save(noisy, "noisy.png")
    lk.data.save(lk.testing.tiny_image((24, 32), channels=1), "gray.png")
    lk.data.save(
        (noisy < 2).float()[:1] * torch.ones(32, 1).index_fill(0, torch.arange(9), 0), "mask.png"
    )
    prior = lk.Prior("dip", (32, 40), 3, **OPTIONS)
    lk.Ticket(lk.Mask.random(prior.net, 0.4), prior.recipe).save("my.ticket")
    (tmp_path / "text.png").write_text("this is a text")
    (tmp_path / "cut.png").write_bytes((tmp_path / "noisy.png").read_bytes()[:200])
    return tmp_path


def same_files(folder, before: set[str]) -> bool:
    return set(os.listdir(folder)) == before


# --- restore ------------------------------------------------------------------------------------


def test_denoise_writes_the_picture_that_fit_gives(capsys, folder):
    code, out, _ = lipkit(
        capsys,
        "restore",
        "noisy.png",
        "out.png",
        "--task",
        "denoise",
        "--steps",
        12,
        *SMALL,
        "--json",
    )
    result = json.loads(out)
    assert code == 0
    assert (result["steps"], result["size"], result["out"]) == (12, [32, 40], "out.png")
    assert result["reason"] == "all 12 steps are done"
    prior = lk.Prior("dip", (32, 40), **OPTIONS)
    fit = lk.fit(
        prior, lk.physics.Denoise(0.0), lk.data.image("./noisy.png"), steps=12,
        input_noise=1 / 30, average=0.99, stop=lk.stop.WMV(), progress=False,
    )  # fmt: skip
    lk.data.save(fit.image, "ours.png")
    assert (folder / "ours.png").read_bytes() == (folder / "out.png").read_bytes()


def test_denoising_takes_noise_away(capsys, folder):
    code, _, _ = lipkit(
        capsys, "restore", "noisy.png", "out.png", "--task", "denoise", "--steps", 200,
        "--sigma", 0.1, *SMALL,
    )  # fmt: skip
    assert code == 0
    before, after = (
        float(lk.metrics.psnr(lk.data.image(f"./{name}.png"), CLEAN)) for name in ("noisy", "out")
    )
    assert after > before + 1


def test_inpainting_leaves_what_is_known(capsys, folder):
    code, out, _ = lipkit(
        capsys, "restore", "noisy.png", "out.png", "--task", "inpaint", "--mask", "mask.png",
        "--steps", 8, *SMALL,
    )  # fmt: skip
    assert code == 0
    assert out.startswith("out.png: 8 steps in ")
    before, after = lk.data.image("./noisy.png"), lk.data.image("./out.png")
    assert torch.equal(before[:, 9:], after[:, 9:])
    assert not torch.equal(before[:, :9], after[:, :9])


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_super_resolution_is_so_much_larger(capsys, folder, factor):
    code, _, _ = lipkit(
        capsys, "restore", "gray.png", "out.png", "--task", "sr", "--factor", factor,
        "--steps", 3, *SMALL,
    )  # fmt: skip
    assert code == 0
    assert lk.data.image("./out.png").shape == (1, 24 * factor, 32 * factor)


def test_size_shrinks_to_the_longer_side_and_never_enlarges(capsys, folder):
    for size, shape in ((20, (3, 16, 20)), (999, (3, 32, 40))):
        code, _, _ = lipkit(
            capsys, "restore", "noisy.png", "out.png", "--task", "denoise", "--size", size,
            "--steps", 2, *SMALL,
        )  # fmt: skip
        assert code == 0
        assert lk.data.image("./out.png").shape == shape


def test_a_mask_shrinks_with_its_picture(capsys, folder):
    code, _, _ = lipkit(
        capsys, "restore", "noisy.png", "out.png", "--task", "inpaint", "--mask", "mask.png",
        "--size", 20, "--steps", 2, *SMALL,
    )  # fmt: skip
    assert code == 0
    assert lk.data.image("./out.png").shape == (3, 16, 20)


def test_a_ticket_brings_network_weights_and_mask(capsys, folder):
    arguments = [*DENOISE.split(), "--steps", 6, "--stop", "none"]
    assert lipkit(capsys, *arguments, "--ticket", "my.ticket")[0] == 0
    ticket = lk.Ticket.load("my.ticket")
    fit = lk.fit(
        ticket.prior((32, 40)), lk.physics.Denoise(0.0), lk.data.image("./noisy.png"), steps=6,
        mask=ticket.mask, input_noise=1 / 30, average=0.99, progress=False,
    )  # fmt: skip
    lk.data.save(fit.image, "ours.png")
    original = (folder / "out.png").read_bytes()
    assert (folder / "ours.png").read_bytes() == original
    assert lipkit(capsys, *arguments, "--ticket", "my.ticket", "--fresh", "--seed", 8)[0] == 0
    assert (folder / "out.png").read_bytes() != original


def test_the_universal_ticket_needs_no_search(capsys, folder):
    code, out, _ = lipkit(capsys, *DENOISE.split(), "--ticket", "universal", "--steps", 3, "--json")
    assert code == 0 and json.loads(out)["steps"] == 3
    prior = lk.Prior("oes", (32, 40), levels=2)
    fit = lk.fit(
        prior, lk.physics.Denoise(0.0), lk.data.image("./noisy.png"), steps=3,
        mask=lk.find.universal(prior), progress=False,
    )  # fmt: skip
    lk.data.save(fit.image, folder / "same.png")
    assert (folder / "out.png").read_bytes() == (folder / "same.png").read_bytes()


def test_a_rewound_ticket_begins_where_it_was_rewound_to(capsys, folder):
    ticket = lk.Ticket.load("my.ticket")
    start = ticket.fresh(seed=9)
    lk.Ticket(ticket.mask, ticket.recipe, start=start).save("rewound.ticket")
    pictures = []
    for name in ("my.ticket", "rewound.ticket"):
        arguments = (*DENOISE.split(), "--steps", 2, "--ticket", name)
        assert lipkit(capsys, *arguments)[0] == 0
        pictures.append((folder / "out.png").read_bytes())
    assert pictures[0] != pictures[1]


def test_a_colour_ticket_restores_a_grey_picture(capsys, folder):
    code, _, _ = lipkit(
        capsys, "restore", "gray.png", "out.png", "--task", "denoise", "--steps", 3,
        "--ticket", "my.ticket",
    )  # fmt: skip
    assert code == 0
    assert lk.data.image("./out.png").shape == (1, 24, 32)


def test_a_grey_ticket_refuses_a_colour_picture(capsys, folder):
    prior = lk.testing.tiny_prior(channels=1)
    lk.Ticket(lk.Mask.random(prior.net, 0.5), prior.recipe).save("gray.ticket")
    code, _, err = lipkit(
        capsys, "restore", "noisy.png", "out.png", "--task", "denoise", "--ticket", "gray.ticket"
    )
    assert code == 2
    assert "makes pictures of 1 channels, but IN has 3" in err


def test_a_checkpoint_is_gone_on_from(capsys, folder):
    arguments = ["restore", "noisy.png", "out.png", "--task", "denoise", *SMALL, "--json"]
    arguments += ["--stop", "none"]
    lipkit(capsys, *arguments, "--steps", 20)
    straight = (folder / "out.png").read_bytes()
    lipkit(capsys, *arguments, "--steps", 10, "--checkpoint", "half.safetensors")
    assert (folder / "out.png").read_bytes() != straight
    _, out, _ = lipkit(capsys, *arguments, "--steps", 20, "--checkpoint", "half.safetensors")
    assert json.loads(out)["steps"] == 20
    assert (folder / "out.png").read_bytes() == straight


@pytest.mark.skipif(os.name == "nt", reason="no POSIX signals")
def test_ctrl_c_writes_nothing_and_says_how_to_go_on(folder):
    before = set(os.listdir(folder))
    command = [sys.executable, "-m", "lipkit", "restore", "noisy.png", "out.png"]
    command += ["--task", "denoise", "--steps", "1000000", "--stop", "none", *SMALL]
    command += ["--checkpoint", "half.safetensors"]
    environment = os.environ | {"TQDM_DISABLE": "", "TQDM_MININTERVAL": "0"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as process:
        seen = b""
        while b"50/1000000" not in seen.replace(b" ", b""):  # the fit is under way
            seen += process.stderr.read1()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().decode()
        assert process.wait(timeout=60) == 130
    assert "interrupted at step " in rest
    assert "the same command goes on from half.safetensors" in rest
    assert "Traceback" not in rest
    assert same_files(folder, before | {"half.safetensors"})


# --- what is wrong ------------------------------------------------------------------------------

DENOISE = "restore noisy.png out.png --task denoise"
INPAINT = "restore noisy.png out.png --task inpaint"
FIND = "find noisy.png new.ticket --task denoise"
WRONG = [
    ("restore noisy.png out.png", "Missing option '--task'"),
    ("restore noisy.png out.png --task deblur", "'deblur' is not one of"),
    ("restore missing.png out.png --task denoise", "no file and no picture called 'missing.png'"),
    ("restore cut.png out.png --task denoise", "cut.png is damaged or cut short"),
    ("restore text.png out.png --task denoise", "text.png is not a picture"),
    ("restore noisy.png out.jpg --task denoise", "OUT must end in .png, got 'out.jpg'"),
    ("restore noisy.png no/out.png --task denoise", "there is no folder 'no'"),
    ("restore noisy.png noisy.png --task denoise", "would overwrite an input"),
    ("restore noisy.png ./noisy.png --task denoise", "would overwrite an input"),
    (f"{DENOISE} --checkpoint noisy.png", "would overwrite an input"),
    (f"{DENOISE} --checkpoint no/half", "there is no folder 'no'"),
    (f"{DENOISE} --checkpoint text.png --steps 3", "is no readable checkpoint"),
    (f"{DENOISE} --steps 0", "0 is not in the range x>=1"),
    (f"{DENOISE} --steps many", "'many' is not a valid integer"),
    (f"{DENOISE} --sigma -0.1", "-0.1 is not in the range"),
    (f"{DENOISE} --sigma 25", "25.0 is not in the range 0<=x<=1"),
    (f"{DENOISE} --size 7", "7 is not in the range x>=8"),
    (f"{DENOISE} --seed -1", "-1 is not in the range 0<=x<=2147483647"),
    (f"{DENOISE} --prior dipp", "unknown network 'dipp'"),
    (f"{DENOISE} -o levls 2", "has no option 'levls' (did you mean 'levels'?)"),
    (f"{DENOISE} -o levels 0", "levels must be a whole number of at least 1"),
    (f"{DENOISE} -o out_channels 2", "out_channels is that of the picture"),
    (f"{DENOISE} --mask mask.png", "--mask is for --task inpaint, not for denoise"),
    (f"{DENOISE} --factor 4", "--factor is for --task sr, not for denoise"),
    (f"{DENOISE} --ticket my.ticket --prior oes", "leave out --prior and --option"),
    (f"{DENOISE} --ticket noisy.png", "noisy.png is no file of a mask or ticket"),
    (f"{DENOISE} --ticket missing", "missing cannot be read"),
    (f"{DENOISE} --fresh", "--fresh is for --ticket"),
    (f"{DENOISE} --ticket universal --fresh", "--fresh is for --ticket FILE"),
    (f"{DENOISE} --ticket universal --prior dip", "is for the network oes"),
    (f"{DENOISE} --ticket universal -o levels 1", "for 2, 3, 4, 5, 6 levels, not for 1"),
    (f"{DENOISE} --ticket my.ticket --fresh --seed 3", "give another --seed"),
    (INPAINT, "needs --mask FILE"),
    (f"{INPAINT} --mask gray.png", "the mask is 32 x 24 pixels, the picture 40 x 32"),
    (f"{INPAINT} --mask missing.png", "no file and no picture called 'missing.png'"),
    (f"{INPAINT} --mask white.png", "keeps every pixel"),
    (f"{INPAINT} --mask black.png", "keeps no pixel"),
    (f"{INPAINT} --mask mask.png --sigma 0.1", "--sigma is for --task denoise"),
    ("restore noisy.png out.png --task sr --factor 3", "'3' is not one of"),
    (FIND, "Missing option '--method'"),
    (f"{FIND} --method lottery", "'lottery' is not one of"),
    (f"{FIND} --method snip --density 0", "density is the fraction of weights kept"),
    (f"{FIND} --method snip --density 1.5", "density is the fraction of weights kept"),
    (f"{FIND} --method imp --density -1", "density is the fraction of weights kept"),
    (f"{FIND} --method imp --rate 2", "rate is the fraction removed"),
    (f"{FIND} --method imp --variant paper", "--variant is for methods of one shot"),
    (f"{FIND} --method imp --density half", "--density is a number or auto, got 'half'"),
    (f"{FIND} --method oes --variant paper", "--variant is for methods of one shot"),
    (f"{FIND} --method oes --rate 0.2", "--rate is for --method imp"),
    (f"{FIND} --method snip --steps 10", "--steps is for --method imp and oes"),
    (f"{FIND} --method snip --folder there", "--folder is for --method imp"),
    ("find noisy.png no/new.ticket --task denoise --method snip", "there is no folder 'no'"),
    ("find noisy.png noisy.png --task denoise --method snip", "would overwrite an input"),
    ("ticket show missing", "missing cannot be read"),
    ("ticket show text.png", "text.png is no file of a mask or ticket"),
    ("ticket show .", "is a folder"),
    ("ticket hide my.ticket", "No such command 'hide'"),
]


@pytest.mark.parametrize(("line", "sentence"), WRONG, ids=[line for line, _ in WRONG])
def test_bad_input_is_one_sentence_and_writes_nothing(capsys, folder, line, sentence):
    lk.data.save(torch.ones(1, 32, 40), "white.png")
    lk.data.save(torch.zeros(1, 32, 40), "black.png")
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    code, out, err = lipkit(capsys, *line.split())
    assert (code, out) == (2, "")
    assert err.startswith("lipkit: error: ") and err.count("\n") == 1
    assert sentence in err
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before


def test_an_output_that_is_a_folder(capsys, folder):
    (folder / "out.png").mkdir()
    code, _, err = lipkit(capsys, *DENOISE.split())
    assert (code, err) == (2, "lipkit: error: OUT is a folder, not a file: out.png\n")


def test_from_the_shell_there_is_no_traceback(folder):
    command = [sys.executable, "-m", "lipkit", *DENOISE.split(), "--ticket", "cut.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lipkit: error: cut.png is no file of a mask or ticket")
    assert done.stderr.count("\n") == 1


# --- large pictures -----------------------------------------------------------------------------


def announced(capsys, monkeypatch, free: int | None, device: str = "cpu") -> str:
    monkeypatch.setattr(estimate, "available_memory", lambda device: free)
    y = torch.zeros(3, 1000, 1200)
    picture = Problem("denoise", y, lk.physics.Denoise(0.0), (1000, 1200))
    recipe = lk.prior.Recipe("dip", (1000, 1200), 0, OPTIONS)
    estimate.announce(picture, recipe, 1000, 100, device)
    return capsys.readouterr().err


def test_a_large_picture_is_announced(capsys, monkeypatch):
    text = announced(capsys, monkeypatch, free=2**40)
    assert text.startswith("1200 x 1000 pixels: about ")
    assert " GB of memory and at most " in text
    assert "--size 600 would take a quarter" in text
    assert announced(capsys, monkeypatch, free=None) != ""
    assert "at most" not in announced(capsys, monkeypatch, free=None, device="cuda")


def test_a_picture_beyond_memory_is_refused_with_a_size_that_fits(capsys, monkeypatch):
    with pytest.raises(lk.InputError, match=r"GB are free; .*--size (\d+), or use --stop emv"):
        announced(capsys, monkeypatch, free=2**29)


def test_the_estimate_of_memory_is_of_the_right_size():
    """Against the sizes of the tensors of a net of two convolutions, counted by hand."""
    recipe = lk.prior.Recipe("deep-decoder", (128, 128), 0, {"levels": 1, "width": 16})
    stored, seconds = estimate.probe(recipe)
    # kept at least: each norm's input and output at 16 channels, and the picture; at 4 bytes
    least, most = 4 * (2 * 16 + 3), 4 * (2 * 16 * 6 + 16)
    assert least <= stored <= most
    assert 0 < seconds < 1e-3
    assert estimate.available_memory("cpu") > 2**20


# --- find and ticket ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["imp", "snip", "grasp", "synflow", "magnitude", "random"])
def test_find_saves_a_ticket_that_restore_takes(capsys, folder, method):
    arguments = ["find", "noisy.png", "new.ticket", "--task", "denoise", "--method", method]
    arguments += ["--density", 0.5, *SMALL, "--json"]
    arguments += ["--steps", 4] if method == "imp" else []
    code, out, _ = lipkit(capsys, *arguments)
    assert code == 0
    found = json.loads(out)
    ticket = lk.Ticket.load("new.ticket")
    assert found["kept"] == ticket.mask.kept == lk.masks.count(0.5, ticket.mask.total)
    assert ticket.note == found["note"]
    assert ticket.note["method"] == method and ticket.note["image"]["name"] == "noisy.png"
    image = lk.data.image("./noisy.png")
    assert ticket.note["image"]["sha256"] == lk.tickets.image_hash(image)
    if method in ("imp", "random"):
        first = (folder / "new.ticket").read_bytes()
        lipkit(capsys, *arguments)
        assert (folder / "new.ticket").read_bytes() == first
    code, _, _ = lipkit(capsys, *DENOISE.split(), "--steps", 2, "--ticket", "new.ticket")
    assert code == 0


def test_find_equals_the_library(capsys, folder):
    lipkit(
        capsys, "find", "gray.png", "new.ticket", "--task", "sr", "--factor", 2, "--method", "snip",
        "--density", 0.3, "--scope", "all", "--variant", "published", "--seed", 5, *SMALL,
    )  # fmt: skip
    ticket = lk.Ticket.load("new.ticket")
    assert ticket.recipe.size == (48, 64) and ticket.recipe.options["out_channels"] == 1
    assert ticket.mask == lk.find.snip(
        ticket.prior(), lk.physics.SuperResolution(2), lk.data.image("./gray.png"), 0.3,
        scope="all", variant="published", seed=5,
    )  # fmt: skip


def test_find_learns_a_mask_of_automatic_density(capsys, folder):
    command = ["find", "noisy.png", "new.ticket", "--task", "denoise", "--method", "oes"]
    code, _, err = lipkit(capsys, *command, "--steps", 3, "--density", "auto", *SMALL)
    assert code == 0, err
    ticket = lk.Ticket.load("new.ticket")
    assert ticket.note["scope"] == "all" and ticket.note["steps"] == 3
    density = lk.find.auto_density(ticket.prior())
    op, y = lk.physics.Denoise(0.0), lk.data.image("./noisy.png")
    assert ticket.mask == lk.find.oes(ticket.prior(), op, y, density, steps=3)


def test_find_warns_of_a_collapsed_layer_in_one_line(capsys, folder):
    arguments = ["find", "noisy.png", "new.ticket", "--task", "denoise", "--method", "magnitude"]
    code, _, err = lipkit(capsys, *arguments, "--density", 0.01, *SMALL)
    assert code == 0
    assert err.startswith("lipkit: warning: layer collapse: ") and err.count("\n") == 1


def test_show_a_ticket(capsys, folder):
    code, out, _ = lipkit(capsys, "ticket", "show", "my.ticket")
    assert code == 0
    assert lk.Ticket.load("my.ticket").describe() in out
    assert "drawn again bit for bit on this machine" in out
    _, out, _ = lipkit(capsys, "ticket", "show", "my.ticket", "--json")
    found, mask = json.loads(out), lk.Mask.load("my.ticket")
    assert (found["density"], found["kept"]) == (mask.density, mask.kept)
    assert found["recipe"]["seed"] == 3
    assert sum(kept for kept, _ in found["layers"].values()) == mask.kept


def test_show_masks_alone_and_published_ones(capsys, folder):
    mask = lk.Mask.load("my.ticket")
    mask.save("my.mask")
    net = lk.models.build("dip")
    theirs = lk.models.reference_names(net)
    published = lk.Mask.random(net, 0.25)
    torch.save(
        {f"{theirs[n.removesuffix('.weight')]}.weight_mask": published[n] for n in published.names},
        "published.pt",
    )
    for name, kept in (("my.mask", mask.kept), ("published.pt", published.kept)):
        code, out, _ = lipkit(capsys, "ticket", "show", name)
        assert code == 0
        assert out.startswith(f"mask: {kept:,} of ")
        assert json.loads(lipkit(capsys, "ticket", "show", name, "--json")[1])["kept"] == kept


def test_show_says_when_weights_cannot_be_drawn_again(capsys, folder):
    ticket = lk.Ticket.load("my.ticket")
    ticket.weights = ticket.weights._replace(sha256="0", probe=ticket.weights.probe + 1)
    ticket.save("other.ticket")
    code, out, _ = lipkit(capsys, "ticket", "show", "other.ticket")
    assert code == 0
    assert "are not the ones it belongs to" in out
    code, _, err = lipkit(capsys, *DENOISE.split(), "--ticket", "other.ticket")
    assert code == 2
    assert "are not the ones it belongs to" in err
    code, _, _ = lipkit(
        capsys, *DENOISE.split(), "--ticket", "other.ticket", "--fresh", "--steps", 2
    )
    assert code == 0

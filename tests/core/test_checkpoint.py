"""Interrupted and resumed is the same, bit for bit, as never interrupted."""

from __future__ import annotations

import signal
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

import lipkit as lk
from lipkit.testing import tiny_prior
from tests.support.tiny_fit import (
    CLEAN,
    EVERYTHING,
    MASK,
    OP,
    Garbage,
    PressesCtrlC,
    assert_same_fit,
    quick,
)

RESUMED = {
    "plain": {},
    "everything": EVERYTHING | {"stop": lk.stop.WMV(4, 100), "mask": MASK},
    "posterior mean": {"langevin": 0.02, "average": lk.PosteriorMean(2, 2)},
    "EMV": {"stop": lk.stop.EMV(0.1, 100, 2), "input_noise": 0.03},
    "a rule that fires": {"stop": lk.stop.WMV(2, 3), "lr": 0.3, "langevin": 0.1, "steps": 60},
    "bf16": {"precision": "bf16"},
    "inpainting": {"op": lk.physics.Inpaint.random((3, 16, 16), 0.5)},
}


def interrupt_at(step: int):
    """A callback that does what Ctrl-C does."""

    def callback(snapshot):
        if snapshot.step == step:
            raise KeyboardInterrupt

    return callback


@pytest.mark.parametrize("options", RESUMED.values(), ids=RESUMED)
@pytest.mark.parametrize("at", [1, 7])
def test_resumed_equals_uninterrupted(tmp_path, options, at):
    options = {"steps": 20, "reference": CLEAN} | options
    path = tmp_path / "fit.safetensors"
    whole = quick(**options)
    part = quick(checkpoint=path, callback=interrupt_at(at), **options)
    assert part.steps == at and part.reason == f"interrupted at step {at} of {options['steps']}"
    resumed = quick(checkpoint=path, **options)
    assert_same_fit(resumed, whole)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_interrupted_again_and_again(tmp_path):
    options = EVERYTHING | {"steps": 20, "reference": CLEAN, "checkpoint": tmp_path / "c"}
    for at in (3, 4, 11, 20):
        quick(callback=interrupt_at(at), **options)
    assert_same_fit(quick(**options), quick(**(options | {"checkpoint": None})))


def test_backtracking_remembers_the_good_weights_over_an_interruption(tmp_path):
    options = dict(steps=130, every=10, backtrack=5.0)
    whole = quick(op=Garbage(at=101), **options)
    path = tmp_path / "c"
    quick(op=Garbage(at=101), checkpoint=path, callback=interrupt_at(60), **options)
    resumed = quick(op=Garbage(at=101 - 60 + 1), checkpoint=path, **options)
    assert_same_fit(resumed, whole)
    assert not torch.equal(whole.image, quick(steps=130, every=10).image)


def test_an_interrupted_fit_gives_what_there_is():
    part = quick(steps=30, callback=interrupt_at(5), reference=CLEAN)
    assert torch.equal(part.image, quick(steps=5).image)
    assert part.history["step"].tolist() == [1, 2, 3, 4, 5] and part.best is not None


def test_a_finished_fit_is_read_back_and_more_steps_can_follow(tmp_path):
    path = tmp_path / "c"
    options = EVERYTHING | {"op": Garbage(at=-1), "checkpoint": path}
    done = quick(steps=10, **options)
    again = quick(steps=10, **options)
    assert_same_fit(again, done)
    assert options["op"].calls == 10 + 1  # nothing left to do but to ask which operator it is
    assert_same_fit(quick(steps=20, **options), quick(steps=20, **(options | {"checkpoint": None})))


# --- Ctrl-C in the middle of a step -------------------------------------------------------------


def test_ctrl_c_waits_for_the_end_of_the_step(tmp_path):
    options = EVERYTHING | {"steps": 20, "every": 5, "checkpoint": tmp_path / "c"}
    handler = signal.getsignal(signal.SIGINT)
    part = quick(op=PressesCtrlC(at=7), **options)
    assert part.steps == 7 and part.reason == "interrupted at step 7 of 20"
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = quick(op=PressesCtrlC(at=-1), **options)
    assert_same_fit(resumed, quick(**(options | {"checkpoint": None})))


def test_a_second_ctrl_c_does_not_wait_and_spoils_no_checkpoint(tmp_path):
    options = EVERYTHING | {"steps": 20, "checkpoint": tmp_path / "c"}
    quick(op=PressesCtrlC(at=4), **options)
    saved = (tmp_path / "c").read_bytes()
    part = quick(op=PressesCtrlC(at=3, times=2), **options)
    # its first call finds out whether it is the same operator, the third is the middle of step 6
    assert part.reason == "interrupted at step 5 of 20"
    assert (tmp_path / "c").read_bytes() == saved
    resumed = quick(op=PressesCtrlC(at=-1), **options)
    assert_same_fit(resumed, quick(**(options | {"checkpoint": None})))


def test_ctrl_c_before_the_first_picture_is_an_ordinary_interrupt():
    with pytest.raises(KeyboardInterrupt):
        quick(op=PressesCtrlC(at=1, times=2))
    assert quick(op=PressesCtrlC(at=1)).steps == 1


def test_a_handler_of_the_program_is_left_alone():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        assert quick(op=PressesCtrlC(at=4)).steps == 12
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [1]


def test_fits_run_in_threads_too():
    fits = []
    thread = threading.Thread(target=lambda: fits.append(quick()))
    thread.start()
    thread.join()
    assert_same_fit(fits[0], quick())


# --- refusals -----------------------------------------------------------------------------------

ANOTHER = {
    "lr": {"lr": 0.02},
    "seed": {"seed": 1},
    "input_noise": {"input_noise": 0.1},
    "langevin": {"langevin": 0.1},
    "average": {"average": 0.5},
    "stop": {"stop": lk.stop.WMV()},
    "mask": {"mask": MASK},
    "prior": {"prior": tiny_prior(seed=1)},
    "measurement": {"y": OP.measure(CLEAN, seed=1)},
    "operator": {"op": lk.physics.SuperResolution(2), "y": torch.rand(3, 8, 8)},
}


@pytest.mark.parametrize(("part", "change"), ANOTHER.items(), ids=ANOTHER)
def test_the_checkpoint_of_another_fit_is_refused(tmp_path, part, change):
    path = tmp_path / "c"
    quick(steps=3, checkpoint=path)
    saved = path.read_bytes()
    with pytest.raises(lk.InputError, match=rf"checkpoint of another fit: its .*{part}.* differ"):
        quick(steps=3, checkpoint=path, **change)
    assert path.read_bytes() == saved


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lk.physics.SuperResolution(2), lk.physics.SuperResolution(2, kernel="lanczos3")),
        (
            lk.physics.Inpaint.random((3, 16, 16), 0.5, seed=0),
            lk.physics.Inpaint.random((3, 16, 16), 0.5, seed=1),
        ),
    ],
)
def test_the_operator_counts_with_its_mask_and_kernel(tmp_path, one, other):
    path, y = tmp_path / "c", one.measure(CLEAN)
    quick(op=one, y=y, steps=3, checkpoint=path)
    quick(op=one, y=y, steps=3, checkpoint=path)
    with pytest.raises(lk.InputError, match="its operator differ"):
        quick(op=other, y=y, steps=3, checkpoint=path)


@pytest.mark.parametrize("length", [0, 5, 100, 5000, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path, length):
    path = tmp_path / "c"
    quick(steps=3, checkpoint=path)
    cut = path.read_bytes()[:length]
    path.write_bytes(cut)
    with pytest.raises(lk.FileError, match=r"no readable checkpoint .*delete it to start anew"):
        quick(steps=3, checkpoint=path)
    assert path.read_bytes() == cut


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "c"
    path.write_text("not a checkpoint at all, just some words")
    with pytest.raises(lk.FileError, match="no readable checkpoint"):
        quick(checkpoint=path)
    save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(lk.FileError, match="not a checkpoint of this version"):
        quick(checkpoint=path)
    with pytest.raises(lk.FileError, match="is a folder; give the name of a file"):
        quick(checkpoint=tmp_path)


def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path):
    from safetensors import safe_open

    path = tmp_path / "c"
    quick(steps=3, checkpoint=path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    for lost in ("net.net.head.weight", "rows", "random.state"):
        assert lost in tensors
        save_file({k: v for k, v in tensors.items() if k != lost}, path, metadata)
        with pytest.raises(lk.FileError, match="no readable checkpoint"):
            quick(steps=5, checkpoint=path)


def test_a_checkpoint_that_cannot_be_written_is_known_before_the_fit(tmp_path):
    op = Garbage(at=-1)
    with pytest.raises(lk.FileError, match=r"there is no folder .*missing"):
        quick(op=op, checkpoint=tmp_path / "missing" / "c")
    assert op.calls == 0

"""Generators by name, methods without a network, and experiments on a generator's range."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import lipkit as lk
from lipkit.gan.train import train
from lipkit.gan.training import TrainingPlan
from lipkit.lab import Experiment, Grid, Records, run
from lipkit.lab.experiment import VERSIONS
from lipkit.lab.kinds import generator
from lipkit.lab.kinds.generator import pictures
from lipkit.lab.records import check, state
from lipkit.lab.sweep import run as sweep
from lipkit.physics import CompressedSensing

PLAN = TrainingPlan(4, 8, (8, 4), steps=(2, 2, 2), batch=(4, 4, 4), faces=16)
HOW = {"steps": 2, "batch": 4, "lr": 0.01, "pictures": 8}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(PLAN, folder, progress=False)
    return folder


@pytest.fixture
def given(trained) -> dict:
    return {
        "image": "faces", "size": 16, "prior": "pgan", "options": {"weights": str(trained)},
        "task": "sensing", "strength": 60, "task_options": {"corrupted": 4, "pictures": 3},
        "steps": 4, "lr": 0.1,
    }  # fmt: skip


# --- by name --------------------------------------------------------------------------------------


def test_the_shipped_generator_is_what_its_note_says():
    net, critic = lk.gan.generator(), lk.gan.critic()
    assert net.side == 64 and critic.levels == net.levels
    note = net.note
    assert note["steps"] == sum(note["plan"]["steps"][:-1]) + note["steps_at_64"]
    found = lk.gan.judge(net)
    for name in ("distance_to_faces", "floor"):
        for level, value in note[name].items():
            assert found[name][int(level)] == pytest.approx(value, rel=0.02)
    assert found["distance_to_faces"][64] < 3 * found["floor"][64]
    files = list(Path(lk.gan.__file__).with_name("faces-64").iterdir())
    assert sum(file.stat().st_size for file in files) < 6e6


def test_its_faces_are_better_than_the_mean_face_and_than_noise():
    held_out, net = lk.data.faces(4, 64, seed=100), lk.gan.generator()
    found = lk.gan.project(net, list(held_out), steps=40, lr=0.1, progress=False)
    error = np.mean([float((f.image - x).square().mean()) for f, x in zip(found, held_out)])  # noqa: B905
    mean_face = (held_out - lk.data.faces(64, 64, seed=1).mean(0)).square().mean()
    assert error < 0.6 * float(mean_face)


def test_a_training_is_a_generator_too(trained):
    assert lk.gan.generator(trained).side == lk.gan.generator(f"{trained}").side == 16
    assert lk.gan.critic(trained / "critic.safetensors").levels == 2


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("faces", "no generator 'faces'; did you mean 'faces-64'"),
        ("nowhere.safetensors", "cannot be read"),
        (64, "by name or path, not by 64"),
    ],
)
def test_unknown_generators_get_a_sentence(name, sentence):
    with pytest.raises(lk.Error, match=sentence):
        lk.gan.generator(name)


def test_a_critic_is_no_generator(trained):
    with pytest.raises(lk.FileError, match="holds a critic, not a generator"):
        lk.gan.generator(trained / "critic.safetensors")


def test_published_checkpoints_are_read_from_the_registry(tmp_path, monkeypatch):
    from lipkit.gan import generators

    made = lk.models.build("pgan", latent=512, depth0=512, scales=[4])
    names = lk.models.reference_names(made)
    state = {f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v
             for k, v in made.state_dict().items()}  # fmt: skip
    torch.save({"netG": state, "avgG": state}, tmp_path / "net.pth")
    monkeypatch.setitem(generators.PUBLISHED, "celebahq-256", ("pgan/net.pth", (4,)))
    monkeypatch.setattr(lk.data, "file", lambda name: tmp_path / Path(name).name)
    net = lk.gan.generator("celebahq-256")
    assert torch.equal(net.start.weight, made.start.weight)


# --- without a network ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", [lk.gan.total_variation, lk.gan.wavelet])
def test_enough_measurements_give_the_picture(method):
    op = lk.physics.CompressedSensing((3, 16, 16), m=700, corrupted=0, sigma=0)
    x = lk.data.faces(2, 16, seed=3)
    found = method(op, op.measure(x), strength=1e-3, iterations=300)
    assert (found - x).square().mean() < 0.05 * (x - x.mean()).square().mean()
    torch.testing.assert_close(method(op, op.measure(x[0]), 1e-3, 300), found[0], atol=1e-3, rtol=0)


def test_their_penalties_are_minimized():
    """Nothing near the result has a lower objective."""
    op = lk.physics.CompressedSensing((1, 16, 16), m=100, corrupted=0)
    x = torch.zeros(1, 16, 16)
    x[:, 4:12, 4:12] = 0.8
    y, s = op.measure(x), 0.02

    def objective(image):
        down, right = (torch.zeros_like(image) for _ in range(2))
        down[:, :-1], right[:, :, :-1] = image.diff(dim=1), image.diff(dim=2)
        edges = (down.square() + right.square()).sum(0).sqrt().sum()
        return float(0.5 * (op.A(image) - y).square().sum() + s * edges)

    found = lk.gan.total_variation(op, y, s, iterations=600)
    for seed in range(5):
        noise = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(seed))
        assert objective(found) < objective((found + 0.01 * noise).clamp(0, 1))
    assert objective(found) < objective(x)


# --- experiments ----------------------------------------------------------------------------------


def test_an_experiment_measures_held_out_faces(given, trained):
    record = run(Experiment.of(given))
    assert record["status"] == "done", record["reason"]
    numbers = record["numbers"]
    faces = lk.data.faces(3, 16, seed=100)
    op = lk.physics.CompressedSensing((3, 16, 16), m=60, corrupted=4)
    ys = [op.measure(x, seed=i) for i, x in enumerate(faces)]
    net = lk.gan.generator(trained)
    found = lk.gan.search(net, op, ys, steps=4, lr=0.1, progress=False)
    error = np.mean(
        [float((f.image - x).square().mean()) for f, x in zip(found, faces, strict=True)]
    )
    assert numbers["error"] == pytest.approx(4 * error, rel=1e-4)
    assert numbers["last"] <= numbers["oracle"] and len(record["curve"]["step"]) == 4
    assert record["versions"] == {"gan": VERSIONS["gan"]}


def test_tickets_share_their_rounds_and_start_from_the_trained_weights(given, trained, tmp_path):
    e = Experiment.of(given | {"method": "imp", "density": 0.64, "find": HOW})
    net = lk.gan.generator(trained)

    def ticket(e: Experiment):
        found = generator.find(e.search(), "cpu", tmp_path, progress=False)
        return found.mask, generator.sparse(e, found), found.rounds

    mask, sparse, rounds = ticket(e)
    assert len(rounds) == 3 and mask.density == pytest.approx(0.64, abs=1e-3)
    assert torch.equal(sparse.start.weight, net.start.weight * mask["start.weight"])
    kept = sorted(path.name for path in next(tmp_path.iterdir()).iterdir())
    assert len(kept) == 6
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    sparser = Experiment.of(e.given() | {"density": 0.512, "task": "inpaint", "strength": 0.5,
                                         "task_options": {}})  # fmt: skip
    again, *_ = ticket(sparser)
    assert again & mask == again
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert len(list(tmp_path.rglob("*.safetensors"))) == 8
    tuned = Experiment.of(e.given() | {"control": "finetuned"})
    same, other, _ = ticket(tuned)
    assert same == mask and not torch.equal(other.start.weight, sparse.start.weight)
    assert not other.start.weight[~mask["start.weight"]].any()
    random = run(Experiment.of(e.given() | {"control": "random"}), masks=tmp_path)
    assert random["layers"] == {name: list(count) for name, count in mask.per_layer().items()}


def test_a_grid_is_swept_and_recorded(given, tmp_path):
    arms = {"dense": {"density": 1}, "random": {"method": "random"},
            "one-shot": {"method": "magnitude", "find": {"score": "effective"}},
            "ticket": {"method": "imp", "find": HOW}}  # fmt: skip
    grid = Grid.of("tiny", {"common": given, "axes": {"density": [0.8, 0.64]}, "arms": arms})
    records = Records(tmp_path)
    summary = sweep(grid, records, serial=True, masks=tmp_path / "masks", say=lambda _: None)
    assert (summary.done, summary.failed) == (7, 0)
    for line in (tmp_path / "tiny.jsonl").read_text().splitlines():
        check(json.loads(line))
        assert state(json.loads(line)) == "done"


def test_an_interrupted_search_is_no_record(given, monkeypatch):
    """Else a sweep would count it as done, and claims would be judged by it."""
    step = CompressedSensing.A
    calls = []

    def pressing(op, x):
        calls.append(x)
        if len(calls) == 6:  # each of the three pictures was measured once before
            os.kill(os.getpid(), signal.SIGINT)
        return step(op, x)

    monkeypatch.setattr(CompressedSensing, "A", pressing)
    with pytest.raises(KeyboardInterrupt):
        run(Experiment.of(given | {"steps": 20}))
    assert len(calls) < 20


def test_a_folder_of_pictures_is_split_in_two(given, tmp_path):
    for i in range(10):
        lk.data.save(torch.full((3, 20, 20), i / 10), tmp_path / f"{i}.png")
    e = Experiment.of(given | {"image": str(tmp_path)})
    assert pictures(e, 16, held_out=False, count=9)[:, 0, 0, 0].mul(10).round().tolist() == [
        0,
        1,
        2,
        3,
    ]
    assert pictures(e, 16, held_out=True)[:, 0, 0, 0].mul(10).round().tolist() == [4, 5, 6]
    lost = run(Experiment.of(given | {"image": "nowhere"}))
    assert lost["status"] == "failed" and "no folder of enough pictures" in lost["reason"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"method": "snip", "density": 0.5}, "no method for a trained generator"),
        ({"task": "sr", "strength": 2}, "no task for a trained generator"),
        ({"fit": {"langevin": 1}}, "no option of a search"),
        ({"options": {"levels": 3}}, "no network option"),
        ({"stop": {"window": 3}}, "takes no 'stop'"),
        ({"method": "random", "density": 0.5, "find": {"steps": 3}}, "no option of 'random'"),
        ({"method": "random", "density": 0.5, "control": "finetuned"}, "only method 'imp'"),
        ({"density": 0.5}, "method 'dense' has no mask"),
    ],
)
def test_what_a_generator_cannot_do_is_refused_before(given, wrong, sentence):
    with pytest.raises(lk.InputError, match=sentence):
        Experiment.of(given | wrong)


def test_untrained_networks_sense_too():
    e = Experiment("coffee", 16, "sensing", 200, {"corrupted": 0}, steps=3,
                   options={"levels": 2, "down": 4})  # fmt: skip
    assert run(e)["status"] == "done"

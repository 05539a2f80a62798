"""Latent search, tickets of generators, and their training."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import lipkit as lk
from lipkit.fitting import loop
from lipkit.gan.cover import Cover
from lipkit.gan.search import _median as median
from lipkit.gan.train import CHECKPOINT, main, train
from lipkit.gan.training import Training, TrainingPlan
from lipkit.gan.wgan import Duel
from lipkit.models import Critic, Encoder, Generator
from lipkit.physics import CompressedSensing, Denoise, Inpaint
from tests.support.tiny_fit import PressesCtrlC

PLAN = TrainingPlan(6, 6, (6, 4), steps=(3, 4, 5), batch=(8, 8, 4), faces=16, lr=1e-3)
COVERED = replace(PLAN, cover=2e-3, joins=6, half=True)


def tiny_generator() -> lk.models.Generator:
    """Untrained, yet with a smooth range within [0, 1]."""
    torch.manual_seed(1)
    net = lk.models.build("pgan", latent=3, depth0=16, scales=(16, 8))
    with torch.no_grad():
        for layer in net.to_rgb:
            layer.weight.mul_(0.25)
    return net


GENERATOR = tiny_generator()
with torch.no_grad():
    CODE = torch.randn(1, 3, generator=torch.Generator().manual_seed(5))
    TARGET = lk.gan.picture(GENERATOR, CODE)[0]
SMALL = {"latent": 4, "depth0": 8, "scales": (8, 4)}
SEARCH = {"steps": 140, "lr": 0.05, "restarts": 4, "progress": False}


def error(found: lk.gan.Found) -> float:
    return float((found.image - TARGET).square().mean())


# --- compressed sensing ---------------------------------------------------------------------------


@pytest.mark.parametrize("corruption", ["ones", "heavy"])
def test_sensing_is_linear_with_a_true_adjoint(corruption):
    op = CompressedSensing((3, 8, 4), m=30, corrupted=5, corruption=corruption)
    lk.testing.check_linear(op, (3, 8, 4))
    lk.testing.check_adjoint(op, (2, 3, 8, 4))


def test_sensing_is_the_published_problem_halved():
    """On pictures from -1 to 1, as published, every residual is twice ours."""
    op = CompressedSensing((3, 16, 16), m=1000, corrupted=20, sigma=0.0, seed=3)
    x, other = torch.rand(2, 3, 16, 16)
    signed, rows = (2 * x - 1).flatten(), op.matrix
    assert abs(float(rows[:980].std() * 980**0.5) - 1) < 0.01 and (rows[980:] == 1).all()
    published = torch.cat([rows[:980] @ signed, torch.full((20,), 10_000.0)])
    residual = published - rows @ (2 * other - 1).flatten()
    torch.testing.assert_close(2 * (op.measure(x) - op.A(other)), residual, rtol=1e-4, atol=1e-3)


def test_heavy_rows_and_noise_have_heavy_tails():
    op = CompressedSensing((3, 32, 32), m=40, corrupted=8, corruption="heavy", sigma=0.005)
    clean = op.matrix[:32].flatten() * 3072**0.5
    assert abs(clean.abs().median() - 0.741) < 0.01  # of Student's t, four degrees of freedom
    assert (clean.abs() > 5).double().mean() == pytest.approx(0.0075, rel=0.15)
    torch.testing.assert_close(op.matrix[32:], torch.full((8, 3072), 8**-0.5))
    x = torch.rand(3, 32, 32)
    published = 1 - op.matrix[-1] @ (2 * x - 1).flatten()
    torch.testing.assert_close(2 * (op.measure(x) - op.A(x))[-1], published, rtol=1e-4, atol=1e-3)
    many = torch.stack([(op.measure(x, seed) - op.A(x))[:32] for seed in range(40)])
    assert many.abs().median() == pytest.approx(0.005 * 0.8165, rel=0.15)


def test_sensing_repeats_itself_and_says_what_is_wrong():
    first, again = (CompressedSensing((1, 4, 4), m=9, corrupted=2, seed=4) for _ in range(2))
    x = torch.rand(1, 4, 4)
    assert torch.equal(first.measure(x, seed=1), again.measure(x, seed=1))
    assert first.measure(torch.rand(2, 1, 4, 4)).shape == (2, 9)
    assert not torch.equal(CompressedSensing((1, 4, 4), m=9, corrupted=2).matrix, first.matrix)
    for wrong in ({"corrupted": 9}, {"m": 0}, {"corruption": "some"}, {"sigma": -1}):
        with pytest.raises(lk.InputError):
            CompressedSensing((1, 4, 4), **({"m": 9, "corrupted": 2} | wrong))
    with pytest.raises(lk.InputError, match="build it for the shape"):
        first.A(torch.rand(1, 4, 5))


def test_the_matrix_exists_once():
    """At 1000 x 196,608 it has 786 MB: with a second one, 2 GB would hardly do."""
    program = """if True:
        import pathlib, torch, lipkit as lk
        def peak():  # of this program alone; getrusage would begin with that of the one before
            lines = pathlib.Path("/proc/self/status").read_text().splitlines()
            return 1024 * next(int(s.split()[1]) for s in lines if s.startswith("VmHWM"))
        net = lk.models.build("pgan", latent=4, depth0=4, scales=(4,) * 6)
        lk.gan.project(net, torch.rand(3, 256, 256), restarts=2, steps=1, progress=False)
        before = peak()
        op = lk.physics.CompressedSensing((3, 256, 256), m=1000, corrupted=20)
        y = op.measure(torch.rand(3, 256, 256))
        lk.gan.search(net, op, y, loss="mom", restarts=2, steps=1, progress=False)
        print((peak() - before) / op.matrix.numpy().nbytes, peak())
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    matrices, peak = map(float, done.stdout.split())
    assert 0.9 < matrices < 1.2 and peak < 2e9


# --- search ---------------------------------------------------------------------------------------


def test_a_picture_in_the_range_is_found():
    found = lk.gan.project(GENERATOR, TARGET, **SEARCH)
    assert error(found) < 1e-5 and found.history["error"][-1].min() < 4e-5
    assert found.losses.argmin() == found.history["error"][-1].argmin()
    assert found.reason == "all 140 steps are done" and found.images.shape == (4, 3, 16, 16)


def test_median_of_means_resists_outliers_where_least_squares_does_not():
    op = CompressedSensing(tuple(TARGET.shape), m=200, corrupted=4, seed=1)
    y = op.measure(TARGET, seed=2)
    squares = lk.gan.search(GENERATOR, op, y, **SEARCH)
    robust = lk.gan.search(GENERATOR, op, y, loss="mom", blocks=20, **SEARCH)
    assert error(robust) < 1e-3 < 1e-2 < error(squares)
    original = {"shuffle": "fixed", "average": 50, "restarts": 2}
    fixed = lk.gan.search(GENERATOR, op, y, loss="mom", blocks=20, **SEARCH | original)
    assert error(fixed) < 1e-3


def test_the_median_block_is_the_upper_one_of_the_differences():
    means = torch.arange(50.0)[torch.randperm(50)]
    assert median(torch.stack([means, -means])).tolist() == [25.0, -24.0]


@pytest.mark.parametrize("loss", ["l2", "l4"])
def test_inpainting(loss):
    op = Inpaint.random(tuple(TARGET.shape), density=0.5, seed=1)
    found = lk.gan.search(GENERATOR, op, op.measure(TARGET), loss=loss, **SEARCH)
    assert error(found) < 1e-3
    left = ((op.A(lk.gan.picture(GENERATOR, found.z)) - op.A(TARGET)) ** 2).flatten(1)
    want = left.mean(1) if loss == "l2" else 0.5 * left.square().sum(1)
    np.testing.assert_allclose(found.losses, want.detach(), rtol=1e-3, atol=1e-9)


def test_denoising():
    noisy = Denoise(sigma=0.2).measure(TARGET)
    assert error(lk.gan.search(GENERATOR, Denoise(), noisy, **SEARCH)) < 0.1 * 0.2**2


def test_restarts_do_not_see_each_other():
    op = CompressedSensing(tuple(TARGET.shape), m=60, corrupted=4)
    y = op.measure(TARGET)
    for loss in ("l2", "mom"):
        settings = {"loss": loss, "blocks": 12, "steps": 20, "progress": False, "every": 5}
        one = lk.gan.search(GENERATOR, op, y, **settings)
        three = lk.gan.search(GENERATOR, op, y, restarts=3, **settings)
        torch.testing.assert_close(three.z[:1], one.z, rtol=1e-3, atol=1e-4)
        assert three.history["loss"].shape == (4, 3)


def test_several_pictures_are_searched_as_if_alone():
    op = CompressedSensing(tuple(TARGET.shape), m=60, corrupted=4)
    pictures = [TARGET, TARGET.flip(-1), 1 - TARGET]
    ys = [op.measure(x) for x in pictures]
    for loss in ("l2", "mom"):
        settings = {"loss": loss, "blocks": 12, "steps": 20, "progress": False, "restarts": 2}
        together = lk.gan.search(GENERATOR, op, ys, reference=pictures, **settings)
        for y, x, found in zip(ys, pictures, together, strict=True):
            alone = lk.gan.search(GENERATOR, op, y, reference=x, **settings)
            torch.testing.assert_close(found.z, alone.z, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(found.losses, alone.losses, rtol=1e-3)
            np.testing.assert_allclose(found.history["psnr"], alone.history["psnr"], rtol=1e-3)
    with pytest.raises(lk.InputError, match="need a reference each, all of one shape"):
        lk.gan.search(GENERATOR, op, ys, reference=pictures[:2], steps=1)
    with pytest.raises(lk.InputError, match="need a measurement each"):
        lk.gan.search(GENERATOR, op, [], steps=1)


def test_the_reference_changes_nothing():
    settings = {"loss": "mom", "blocks": 10, "steps": 8, "progress": False}
    op = CompressedSensing(tuple(TARGET.shape), m=40, corrupted=2)
    y = op.measure(TARGET)
    blind = lk.gan.search(GENERATOR, op, y, **settings)
    seen = lk.gan.search(GENERATOR, op, y, reference=TARGET.flip(-1), **settings)
    assert torch.equal(blind.z, seen.z) and torch.equal(blind.image, seen.image)
    assert set(seen.history) - set(blind.history) == {"error", "psnr"}
    np.testing.assert_allclose(
        seen.history["psnr"], -10 * np.log10(seen.history["error"] / 4), rtol=1e-5
    )


def test_the_average_of_the_last_steps_and_the_stop_rule():
    settings = {"steps": 40, "every": 1, "progress": False}
    last = lk.gan.project(GENERATOR, TARGET, **settings)
    mean = lk.gan.project(GENERATOR, TARGET, average=2, **settings)
    before = lk.gan.project(GENERATOR, TARGET, **settings | {"steps": 39})
    torch.testing.assert_close(mean.z, (last.z + before.z) / 2)
    still = lk.gan.project(GENERATOR, TARGET, patience=10, lr=1e-9, **settings)
    assert still.steps == 11 and still.reason == "no loss has fallen by a thousandth for 10 steps"


def test_an_interrupted_search_says_so():
    found = lk.gan.search(GENERATOR, PressesCtrlC(3), TARGET, steps=9, progress=False)
    assert found.interrupted and found.steps == 3
    assert found.reason == "interrupted at step 3 of 9"
    pair = lk.gan.search(GENERATOR, PressesCtrlC(3), [TARGET] * 2, steps=9, progress=False)
    assert all(one.interrupted for one in pair)
    assert not lk.gan.search(GENERATOR, Denoise(), TARGET, steps=2, progress=False).interrupted


def test_the_generator_stays_as_it_is():
    before = {k: v.clone() for k, v in GENERATOR.state_dict().items()}
    lk.gan.project(GENERATOR, TARGET, steps=2, progress=False)
    assert all(torch.equal(v, before[k]) for k, v in GENERATOR.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in GENERATOR.parameters())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"loss": "l1"}, "loss must be one of l2, l4, mom"),
        ({"shuffle": "none"}, "shuffle must be one of fresh, fixed"),
        ({"steps": 0}, "steps must be a whole number of at least 1"),
        ({"lr": 0}, "lr must be a number above 0"),
        ({"loss": "mom", "blocks": 900}, "768 measurements cannot be split into 900 blocks"),
        ({"lr": 1e30, "steps": 5, "every": 1}, "diverged"),
    ],
)
def test_bad_settings_get_a_sentence(wrong, sentence):
    with pytest.raises(lk.Error, match=sentence):
        lk.gan.search(GENERATOR, Denoise(), TARGET, progress=False, **wrong)


def test_bad_parts_get_a_sentence():
    with pytest.raises(lk.InputError, match="measure a picture of the size"):
        lk.gan.project(GENERATOR, torch.rand(3, 8, 8), progress=False)
    with pytest.raises(lk.InputError, match="network with a latent width"):
        lk.gan.project(lk.models.build("dip"), TARGET)
    with pytest.raises(lk.InputError, match="op must be an operator"):
        lk.gan.search(GENERATOR, "denoise", TARGET)
    with pytest.raises(lk.InputError, match="the reference has shape"):
        lk.gan.search(GENERATOR, Denoise(), TARGET, reference=TARGET[:1], progress=False)
    with pytest.raises(lk.InputError, match="scale must be a whole number from 0 to 2"):
        GENERATOR(CODE, scale=3)
    pair = GENERATOR, lk.models.build("pgan-critic", depth0=4, scales=(4,))
    with pytest.raises(lk.InputError, match="critic judges pictures of 8 pixels"):
        lk.gan.imp(*pair, torch.rand(4, 3, 16, 16))


# --- tickets --------------------------------------------------------------------------------------


def test_only_convolutions_are_pruned_raw_or_as_they_act():
    torch.manual_seed(0)
    net = lk.models.build("pgan", **SMALL)
    raw, effective = (lk.gan.magnitude(net, 0.4, score) for score in ("raw", "effective"))
    assert "format.weight" not in raw.names and not any(n.endswith("bias") for n in raw.names)
    assert raw.kept == effective.kept == int(0.4 * raw.total) and raw != effective
    # stored weights are alike in all layers, gains are not: 1x1 convolutions act most
    assert raw.per_layer()["to_rgb.0.weight"].density < 0.7
    assert effective.per_layer()["to_rgb.0.weight"].density > 0.7
    other = lk.gan.random(net, 0.4, seed=1)
    assert other.kept == raw.kept and other != lk.gan.random(net, 0.4, seed=2)


def test_a_ticket_is_the_pretrained_weights_under_the_mask():
    net = lk.models.build("pgan", **SMALL)
    mask = lk.gan.random(net, 0.3)
    sparse = lk.gan.masked(net, mask)
    for name, p in net.named_parameters():
        want = p * mask[name] if name in mask.names else p
        assert torch.equal(dict(sparse.named_parameters())[name], want)
    assert not torch.equal(sparse.start.weight, net.start.weight)


@pytest.mark.parametrize("prune_critic", [False, True])
def test_imp_prunes_exactly_and_rewinds(prune_critic):
    net, critic = (
        lk.models.build("pgan", **SMALL),
        lk.models.build("pgan-critic", depth0=8, scales=(8, 4)),
    )
    before = [p.detach().clone() for p in (*net.parameters(), *critic.parameters())]
    found = lk.gan.imp(
        net, critic, lk.data.faces(12, size=16), rounds=3, steps=3, batch=4,
        prune_critic=prune_critic, progress=False,
    )  # fmt: skip
    total = found.masks[0].total
    assert [m.kept for m in found.masks] == [int(total * 0.8**i + 1e-6) for i in range(4)]
    for inner, outer in zip(found.masks[1:], found.masks, strict=False):
        assert inner & outer == inner
    for mask, tuned in zip(found.masks, found.finetuned, strict=True):
        weights = dict(tuned.named_parameters())
        for name in mask.names:
            assert not weights[name][~mask[name]].any()  # pruned weights never come back
        assert not torch.equal(tuned.start.weight, lk.gan.masked(net, mask).start.weight)
    after = (*net.parameters(), *critic.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert [round(line["density"], 3) for line in found.log] == [1.0, 0.8, 0.64, 0.512]


@pytest.mark.parametrize("prune_critic", [False, True])
def test_an_interrupted_round_goes_on_to_the_same_bits(tmp_path, monkeypatch, prune_critic):
    pair = (
        lk.models.build("pgan", **SMALL),
        lk.models.build("pgan-critic", depth0=8, scales=(8, 4)),
    )
    faces = lk.data.faces(12, size=16)
    how = dict(rounds=2, steps=4, batch=4, prune_critic=prune_critic, progress=False)
    whole = lk.gan.imp(*pair, faces, **how)
    step = Duel.step
    calls = []

    def pressing(duel, real):
        calls.append(real)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return step(duel, real)

    monkeypatch.setattr(Duel, "step", pressing)
    with pytest.raises(KeyboardInterrupt, match="round 1 of 2 was interrupted at step 2 of 4; "):
        lk.gan.imp(*pair, faces, folder=tmp_path, **how)
    with pytest.raises(lk.InputError, match="another round: its lr differ"):
        lk.gan.imp(*pair, faces, folder=tmp_path, lr=0.1, **how)
    again = lk.gan.imp(*pair, faces, folder=tmp_path, **how)
    assert len(calls) == 3 * 4
    assert again.masks == whole.masks and again.log == whole.log
    for one, other in zip(again.finetuned, whole.finetuned, strict=True):
        weights = zip(one.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in weights)
    assert not list(tmp_path.glob("*under-way*"))


# --- training -------------------------------------------------------------------------------------


def test_training_brings_the_critics_distance_down_and_pictures_closer():
    plan = TrainingPlan(
        8, 16, (), steps=(200,), batch=(16,), faces=64, lr=3e-3, average=0.9, seed=1
    )
    training = Training(plan)
    reals = training._at_scale(0).float() / 255

    def gap() -> float:
        made = training.samples(64)
        return float((made.mean(0) - reals.mean(0)).abs().mean())

    before = gap()
    distances = [float(training.advance()["distance"]) for _ in range(200)]
    assert gap() < 0.4 * before
    assert np.mean(distances[-50:]) < 0.7 * np.max(distances)


def test_the_average_is_young_at_the_start_of_a_scale():
    """Else layers that were random until then would stay so for a thousand steps."""
    training = Training(
        TrainingPlan(4, 4, (4,), steps=(3, 60), batch=(4, 4), faces=8, average=0.999)
    )
    layer = training.average.to_rgb[1].weight
    at_first = layer.clone()
    while training.step < 63:
        training.advance()
    now = training.duel.generator.to_rgb[1].weight
    assert (layer - now).norm() < 0.5 * (at_first - now).norm()


@pytest.mark.parametrize("plan", [PLAN, COVERED], ids=["duel", "cover"])
def test_resuming_is_bit_identical(tmp_path, plan):
    whole = train(plan, tmp_path / "whole", progress=False, every=2)

    folder = tmp_path / "parts"
    train(plan, folder, minutes=0, progress=False)  # saved before the first step
    for stop in (5, 9):
        training = train(plan, folder, minutes=0, progress=False)
        while training.step < stop:
            training.advance()
        loop.save(training, folder / CHECKPOINT)
    resumed = train(plan, folder, progress=False, every=2)
    for a, b in zip(whole.average.parameters(), resumed.average.parameters(), strict=True):
        assert torch.equal(a, b)
    files = [tmp_path / name / "critic.safetensors" for name in ("whole", "parts")]
    a, b = (lk.gan.load(path).state_dict() for path in files)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_an_interrupted_training_is_saved_and_goes_on(tmp_path, monkeypatch):
    whole = train(PLAN, tmp_path / "whole", progress=False)
    step = Training.advance

    def pressing(training):
        if training.step == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return step(training)

    monkeypatch.setattr(Training, "advance", pressing)
    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt, match="at step 7 of 12; .*parts goes on from there"):
        train(PLAN, folder, progress=False)
    resumed = train(PLAN, folder, progress=False)
    assert resumed.step == 12
    for a, b in zip(whole.average.parameters(), resumed.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_encoder_makes_the_generator_cover_the_real_pictures():
    plan = TrainingPlan(8, 16, (), (300,), (16,), faces=64, average=0.9, cover=1e-2, joins=250)
    training = Training(plan)
    reals = training._at_scale(0).float() / 127.5 - 1
    critic = copy.deepcopy(training.duel.critic.state_dict())

    def miss() -> float:
        with torch.no_grad():
            return float((training.average(training.cover.encoder(reals)[0]) - reals).var())

    before = miss()
    losses = [training.advance() for _ in range(250)]
    assert miss() < 0.3 * float((reals - reals.mean(0)).var()) < before
    assert all(set(loss) == {"miss", "nats"} for loss in losses)
    now = training.duel.critic.state_dict()
    assert all(torch.equal(critic[name], now[name]) for name in critic)  # it has not joined yet
    assert training.cover.adam.param_groups[0]["lr"] == plan.cover
    assert set(training.advance()) > {"miss", "nats", "distance"}
    assert training.cover.adam.param_groups[0]["lr"] == pytest.approx(plan.lr / 5)


def test_where_telling_has_a_high_price_latent_vectors_tell_nothing(monkeypatch):
    monkeypatch.setattr("lipkit.gan.cover.PRICE", 1.0)
    training = Training(TrainingPlan(4, 8, (), (200,), (16,), faces=64, cover=1e-2, joins=200))
    nats = [float(training.advance()["nats"]) for _ in range(200)]
    assert nats[-1] < 0.2


def test_what_latent_vectors_tell_is_their_divergence_from_normal_ones():
    nets = Generator(4, 4, (4,)), Encoder(4, 4, (4,))
    faces = torch.rand(8, 3, 8, 8)
    normal = torch.distributions.Normal
    told = torch.distributions.kl_divergence(normal(*nets[1](faces)), normal(0, 1))
    nats = Cover(*nets, lr=1e-3).step(faces)["nats"]
    assert float(nats) == pytest.approx(told.sum(1).mean().item(), rel=1e-5)


def test_half_precision_takes_nearly_the_same_step():
    losses = []
    for half in (False, True):
        torch.manual_seed(0)
        duel = Duel(Generator(4, 8, (8,)), Critic(8, (8,)), half=half)
        losses.append({k: float(v) for k, v in duel.step(torch.ones(8, 3, 8, 8)).items()})
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.1, abs=0.02)


def test_the_folder_of_a_training(tmp_path):
    train(PLAN, tmp_path, progress=False, every=4)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "penalty" in line] == [3, 4, 7, 8, 12]
    assert lines[-1]["floor"].keys() == {"16"}
    assert lines[-1]["distance_to_faces"]["16"] > 2 * lines[-1]["floor"]["16"]
    assert lk.data.image(tmp_path / "samples_000012.png").shape == (3, 128, 128)
    net = lk.gan.load(tmp_path / "generator.safetensors")
    assert net.side == 16 and net.note["plan"]["steps"] == [3, 4, 5]
    with pytest.raises(
        lk.InputError, match="another training: its lr differ .lr was 0.001, now 0.01"
    ):
        train(TrainingPlan(**{**PLAN.__dict__, "lr": 0.01}), tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(lk.FileError, match="no readable checkpoint"):
        train(PLAN, tmp_path)
    with pytest.raises(lk.FileError, match="no network that lipkit.gan.save wrote"):
        lk.gan.load(tmp_path / CHECKPOINT)


def test_the_plan_fades_in_every_scale_but_the_first():
    plan = TrainingPlan(4, 4, (4,), steps=(2, 10), batch=(4, 4), fade=0.5, faces=8)
    assert [plan.at(i) for i in (0, 1, 2, 3, 7, 11)] == [
        (0, 0.0), (0, 0.0), (1, 1.0), (1, 0.8), (1, 0.0), (1, 0.0),
    ]  # fmt: skip
    with pytest.raises(lk.InputError, match="has 12 steps"):
        plan.at(12)


def test_the_command(tmp_path, capsys):
    arguments = ["--latent=4", "--depth0=4", "--faces=8", "--scales", "4", "--steps", "1", "1"]
    arguments += ["--batch", "4", "4", "--half", "--cover", "0.001", "--joins", "1"]
    main([str(tmp_path), *arguments, "--device", "cpu"])
    assert json.loads(capsys.readouterr().out)["step"] == 2
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), *arguments, "--faces", "1"])
    message = capsys.readouterr().err
    assert message.startswith("lipkit: error: faces must be") and message.count("\n") == 1


def test_the_judge_tells_faces_from_blurred_ones():
    a, b = lk.data.faces(256, 32, seed=1), lk.data.faces(256, 32, seed=2)
    blurred = torch.nn.functional.avg_pool2d(b, 5, 1, 2)
    floor, far = lk.gan.sliced_wasserstein(a, b), lk.gan.sliced_wasserstein(a, blurred)
    assert list(floor) == [32, 16] and far[32] > 3 * floor[32]
    darker = lk.gan.sliced_wasserstein(a, b * 0.8)
    assert darker[16] > 1.5 * floor[16]

"""Experiments as data, what running one gives, and the records that are kept of it."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch

import lipkit as lk
from lipkit.lab import Experiment, Records, classifier, kinds, results, run, untrained
from lipkit.lab import experiment as experiments
from lipkit.lab import records as records_module
from lipkit.lab.kinds import restore
from lipkit.workers import processor_name

SMALL = dict(image="astronaut", size=24, options={"levels": 2, "down": 8, "up": 8}, steps=12)


def small(**changes) -> Experiment:
    return Experiment.of(SMALL | changes)


def prior(seed: int = 0) -> lk.Prior:
    return lk.Prior("dip", 24, seed, **SMALL["options"])


def test_the_hash_is_that_of_the_content():
    assert small().digest == "20c1d88c22046fb8"  # on every machine, in every version
    same = dict(strength=25.0, control="none", options={"up": 8, "down": 8.0, "levels": 2})
    assert small(**same).digest == small().digest and small(**same) == small()
    changes = [
        {"seed": 1}, {"strength": 12}, {"steps": 13}, {"fit": {"average": 0.9}}, {"size": 32},
        {"method": "snip", "density": 0.5}, {"options": {"levels": 2}}, {"precision": "bf16"},
    ]  # fmt: skip
    assert len({small(**change).digest for change in [{}, *changes]}) == 1 + len(changes)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sigma": 25}, "no experiment field 'sigma'; there are: image, size"),
        ({"metod": "imp"}, "did you mean 'method'"),
        ({"method": "impp"}, "no method 'impp'; did you mean 'imp'"),
        ({"task": "deblur"}, "no task 'deblur'"),
        ({"task_options": {"kernel": "pil"}}, "option of task 'denoise': 'kernel'; there are none"),
        ({"task": "sr", "strength": 2, "task_options": {"kernal": 3}}, "did you mean 'kernel'"),
        ({"prior": "dipp"}, "no network 'dipp'; did you mean 'dip'"),
        ({"options": {"level": 2}}, "no option of network 'dip': 'level'; did you mean 'levels'"),
        ({"fit": {"lr": 1}}, "no fit option 'lr'"),
        ({"steps": 0.5}, "steps of an experiment must be int, got 0.5"),
        ({"seed": -1}, "seed of an experiment must be int, got -1"),
        ({"gray": 1}, "gray of an experiment must be bool"),
        ({"density": 0.5}, "'dense' has no mask"),
        ({"control": "shuffled"}, "no mask to make the control 'shuffled' of"),
        ({"method": "imp", "find_on": {"picture": "a"}}, "no experiment field 'picture'"),
        ({"image": ["coffee", "moon"]}, "for method 'imp_multi' only"),
        ({"initial": {"law": "he"}}, "no law of initial weights 'he'"),
        ({"initial": {"scale": -1}}, "a number of at least 0"),
        ({"image": "shuffled:coffee", "stretch": True}, "'shuffled:coffee' is drawn at its size"),
        ({"task": "classify", "task_options": {"sides": 9}}, "variant, side, batch, not 'sides'"),
        ({"task": "classify", "method": "snip", "density": 0.5}, "find masks by random, imp"),
        ({"task": "classify", "control": "fresh"}, "takes no fit, stop"),
        ({"task": "mri", "strength": 4, "method": "imp", "density": 0.5,
          "find": {"until_oracle": True}}, "only where there is a clean picture"),
        ({"method": "imp", "density": 0.5, "find_on": {"prior": "pgan", "options": {}}},
         "a mask found on a trained generator is not for a picture"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_in_a_sentence(change, sentence):
    with pytest.raises(lk.InputError, match=sentence):
        small(**change)
    with pytest.raises(lk.InputError, match="needs 'size'"):
        Experiment.of({"image": "coffee"})


def test_a_search_is_shared_by_all_that_use_its_mask():
    found = small(method="imp", density=0.5, find={"steps": 5})
    same = small(method="imp", density=0.5, find={"steps": 5}, steps=99, control="fresh", lr=0.1)
    assert found.search() == same.search() != found
    other = small(method="imp", density=0.5, find={"steps": 5}, find_on={"image": "coffee"})
    assert other.search().image == "coffee" and other.search() != found.search()


def test_a_run_is_lipkits_own_fit_and_search():
    record = run(small(method="snip", density=0.3, stop={"window": 3, "patience": 4}))
    clean, op = lk.data.image("astronaut", size=24), lk.physics.Denoise(25 / 255)
    y = op.measure(clean, seed=0)
    mask = lk.find.snip(prior(), op, y, density=0.3)
    options = dict(steps=12, mask=mask, reference=clean, every=1, progress=False)
    whole = lk.fit(prior(), op, y, **options)
    stopped = lk.fit(prior(), op, y, stop=lk.stop.WMV(3, 4), **options)
    numbers = record["numbers"]
    assert record["status"] == "done" and record["layers"] == {
        name: list(count) for name, count in mask.per_layer().items()
    }
    assert numbers["last"] == pytest.approx(whole.history["psnr"][-1], abs=1e-4)
    assert numbers["oracle"] == pytest.approx(whole.history["psnr"].max(), abs=1e-4)
    assert numbers["stopped"] == pytest.approx(lk.metrics.psnr(stopped.image, clean), abs=1e-4)
    assert len(record["curve"]["step"]) == 12  # the stop rule picks, but does not cut the curve
    assert numbers["noisy"] == pytest.approx(lk.metrics.psnr(y, clean), abs=1e-4)
    assert (numbers["kept"], numbers["density"]) == (mask.kept, pytest.approx(0.3, abs=1e-3))
    json.dumps({k: v for k, v in record.items() if k != "picture"}, allow_nan=False)


def test_controls_keep_the_layers_and_change_what_they_say(tmp_path):
    ticket = dict(method="imp", density=0.5, find={"steps": 4})
    runs = {
        control: run(small(**ticket, control=control), masks=tmp_path)
        for control in untrained.CONTROLS
    }
    assert len({json.dumps(made["layers"]) for made in runs.values()}) == 1
    assert len({made["numbers"]["last"] for made in runs.values()}) == 4
    # the search was done once: its rounds are read from the folder of masks
    assert all(made["rounds"] == runs["none"]["rounds"] for made in runs.values())
    shorter = ticket | {"find": {"steps": 4, "rounds": 2}}
    rounds = run(small(**shorter), masks=tmp_path)["rounds"]
    assert rounds == runs["none"]["rounds"][:2] and len(list(tmp_path.glob("*.lock"))) == 1
    assert len(runs["none"]["rounds"]) == 4 and runs["none"]["rounds"][0]["density"] == 1
    fresh = lk.Prior("dip", 24, untrained.FRESH_SEED, **SMALL["options"])
    clean, op = lk.data.image("astronaut", size=24), lk.physics.Denoise(25 / 255)
    y = op.measure(clean, seed=0)
    mask = lk.find.imp(prior(), op, y, density=0.5, steps=4, progress=False).mask
    last = lk.fit(fresh, op, y, mask=mask, steps=12, reference=clean, progress=False).history
    assert runs["fresh"]["numbers"]["last"] == pytest.approx(last["psnr"][-1], abs=1e-3)


def test_masks_of_another_picture_or_task_and_from_the_folder(tmp_path):
    transfer = small(method="snip", density=0.3, find_on={"image": "coffee", "strength": 0})
    first, again = (run(transfer, masks=tmp_path) for _ in range(2))
    assert again["numbers"] == first["numbers"] and again["search_seconds"] == 0
    clean = lk.data.image("coffee", size=24)
    mask = lk.find.snip(prior(), lk.physics.Denoise(0), clean, density=0.3)
    assert lk.Mask.load(next(tmp_path.glob("*.mask"))) == mask
    enlarged = run(small(task="sr", strength=4, method="snip", density=0.3,
                               find_on={"task": "denoise", "strength": 25}))  # fmt: skip
    assert enlarged["status"] == "done" and "stopped_y" in enlarged["numbers"]


def test_other_initial_weights_are_those_of_the_law_and_of_the_scale():
    def drawn(**initial):
        return restore.initial_prior(small(initial=initial), "cpu")

    plain, larger, xavier = prior(), drawn(scale=5), drawn(law="xavier")
    assert torch.equal(plain.z, larger.z) and torch.equal(plain.z, xavier.z)
    states = [made.net.state_dict().items() for made in (plain, larger, xavier)]
    for (name, w), (_, five), (_, other) in zip(*states, strict=True):
        assert torch.equal(five, 5 * w if w.ndim == 4 else w), name
        if w.ndim == 4 and w.numel() > 1000:
            fans = torch.nn.init._calculate_fan_in_and_fan_out(w)
            assert float(other.std()) == pytest.approx((2 / sum(fans)) ** 0.5, rel=0.1)


def test_curves_say_how_much_of_the_picture_is_there():
    decoder = dict(prior="deep-decoder", options={"levels": 3, "width": 16}, steps=150)
    curve = run(small(strength=0, **decoder))["curve"]
    assert len(curve["low"]) == len(curve["high"]) == len(curve["step"])
    assert curve["low"][-1] > 0.8 > curve["high"][-1] > curve["high"][0]  # details come later
    clean = lk.data.image("astronaut", size=24)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    assert lk.metrics.bands(noisy, clean) == pytest.approx((1, 1), abs=0.1)


def test_a_search_leaves_its_numbers_with_its_mask(tmp_path):
    eye = dict(method="oes", density=0.1, steps=2, find={"steps": 60, "lam": 1e-2})
    first, again = (run(small(**eye), masks=tmp_path)["numbers"] for _ in range(2))
    clean, op = lk.data.image("astronaut", size=24), lk.physics.Denoise(25 / 255)
    how = dict(details=True, progress=False, **eye["find"])
    found = lk.find.oes(prior(), op, op.measure(clean, seed=0), 0.1, **how)
    odds = found.history["kept"]
    assert again == first and first["odds"] == pytest.approx(float(odds[-1]), rel=1e-4)
    logits = torch.cat([v.flatten() for v in found.logits.values()])
    assert first["spread"] == pytest.approx(float(logits.std()), rel=1e-4)
    away = found.history["step"][abs(odds - odds[-1]) > odds[-1] / 10]
    assert 0 < first["still"] == 60 - away[-1]


def test_rounds_may_end_where_the_oracle_would(tmp_path):
    ends = small(method="imp", density=0.5, find={"steps": 40, "until_oracle": True})
    first, again = (run(ends, masks=tmp_path) for _ in range(2))
    dense = run(small(steps=40, every=10))["numbers"]["oracle_step"]
    assert first["numbers"]["round_steps"] == dense == again["numbers"]["round_steps"]
    plain = run(small(method="imp", density=0.5, find={"steps": int(dense)}))
    assert (
        plain["rounds"] == first["rounds"] and plain["numbers"]["last"] == first["numbers"]["last"]
    )


def test_tickets_go_to_a_classifier_and_back(tmp_path):
    lesson = dict(task="classify", image="digits", strength=200, task_options={"batch": 20})
    made = small(**lesson, method="imp", density=0.5, find={"steps": 4}, steps=60, lr=0.02)
    record = run(made, masks=tmp_path)
    images, labels = lk.data.labelled("digits", first=200)
    pupil = classifier.Classifier(prior(), (1, 8, 8))
    found = classifier.imp(pupil, images, labels, rounds=4, steps=4, batch=20, seed=0)
    mask = classifier.carried(found.mask, prior().net)
    assert record["layers"] == {n: list(c) for n, c in mask.per_layer().items()}
    taught = classifier.train(pupil, images, labels, mask=mask, steps=60, batch=20, lr=0.02)
    accuracy = classifier.accuracy(taught, *lk.data.labelled("digits", "test"))
    assert record["numbers"]["accuracy"] == pytest.approx(accuracy) and accuracy > 0.2
    restored = small(method="imp", density=0.5, find={"steps": 4}, find_on=lesson)
    assert run(restored, masks=tmp_path)["layers"] == record["layers"]
    assert len(list(tmp_path.glob("*.mask"))) == 1  # found once
    pictures = {"task": "denoise", "image": "coffee", "strength": 25, "task_options": {}}
    back = small(**lesson, method="snip", density=0.5, find_on=pictures)
    records = Records(tmp_path / "records")
    records.add(run(back), "some")
    assert Records(records.path).all[0]["numbers"]["accuracy"] > 0


def test_a_task_without_an_operator_is_no_super_resolution():
    with pytest.raises(lk.InputError, match="no operator restores pictures of task 'mri'"):
        restore.operator(small(task="mri", strength=2), (3, 24, 24))


def test_every_method_runs_under_its_name():
    for method in experiments.METHODS:
        more = {"imp": {"steps": 2}, "oes": {"steps": 2}, "synflow": {"rounds": 2}}
        find = more.get(method.removesuffix("_multi"), {})
        given = {} if method == "dense" else {"method": method, "density": 0.7, "find": find}
        if method == "imp_multi":
            given["find_on"] = {"image": ["astronaut", "coffee"]}
        if method == "universal":
            given |= {"prior": "oes", "options": {"levels": 2}}
        record = run(small(**given | {"steps": 2}))
        assert record["status"] == "done", record["reason"]
    decoder = dict(prior="deep-decoder", options={"levels": 2, "width": 8}, steps=2)
    sgld = dict(fit={"langevin": 0.02, "average": {"burn_in": 1, "every": 1}}, steps=3)
    for given in (decoder, sgld, {"image": "camera", "gray": True}, {"stretch": True}):
        assert run(small(**given))["status"] == "done"


def test_another_kind_is_one_more_entry(monkeypatch):
    """A kind is asked to check, to find a mask for the search, and to run; nothing else asks."""
    asked = []

    def check(e):
        asked.append(("check", e.strength))

    def find(search, device, folder, progress):
        asked.append(("find", device, search.strength))
        return results.Found(lk.Mask({"layer": torch.tensor([True, False])}), "started here")

    def run_it(e, found, progress):
        asked.append(("run", found.start, found.mask.kept))
        return results.Outcome("told so", {"last": 1 / 3}, {"step": [1, 2]}, seconds=1.5)

    another = SimpleNamespace(MASKS_ARE_OF="words", check=check, find=find, run=run_it)
    monkeypatch.setitem(kinds.OF_TASK, "guess", another)
    guess = Experiment.of({"image": "coffee", "size": 8, "task": "guess", "strength": 7})
    record = run(guess, device="cpu")
    assert record["status"] == "done", record["reason"]
    assert asked == [("check", 7), ("check", 7), ("find", "cpu", 7), ("run", "started here", 1)]
    assert record["numbers"] == {"last": 0.333333, "kept": 1, "density": 0.5, "collapsed": 0}
    assert (record["reason"], record["curve"]) == ("told so", {"step": [1, 2]})
    with pytest.raises(lk.InputError, match="a mask found on words is not for a picture"):
        small(method="snip", density=0.5, find_on={"task": "guess"})


def test_a_failure_is_a_record_with_a_sentence():
    record = run(small(image="set14/nobody"))
    assert record["status"] == "failed" and "nobody" in record["reason"]
    assert "numbers" not in record and record["hash"] == small(image="set14/nobody").digest


@pytest.fixture
def done(tmp_path) -> Records:
    records = Records(tmp_path / "records")
    records.add(run(small(steps=2)), "some")
    return records


def test_records_are_kept_and_found_again(done):
    again = Records(done.path)
    found = again.get(small(steps=2))
    assert found["numbers"] == done.all[0]["numbers"] and again.get(small()) is None
    assert found["commit"] and found["made"].endswith("Z") and found["lipkit"] == lk.__version__
    assert found["processor"] == processor_name() and found["threads"] == torch.get_num_threads()
    row = records_module.flat(found)
    assert row["state"] == "done" and row["stopped"] == found["numbers"]["stopped"]
    assert len(list(records_module.where(again.all, {"image": "astronaut", "seed": 0}))) == 1
    assert not list(records_module.where(again.all, {"image": "coffee"}))


def test_a_line_cut_short_is_left_out_and_written_over(done):
    path = done.path / "some.jsonl"
    path.write_bytes(path.read_bytes() + b'{"hash": "12')
    assert len(Records(done.path).all) == 1
    done.add(run(small(steps=3)), "some")
    assert [r["experiment"]["steps"] for r in Records(done.path).all] == [2, 3]
    path.write_text('{"hash": 1}\n' + path.read_text())
    with pytest.raises(lk.FileError, match="some.jsonl, line 1: this is no record"):
        Records(done.path)


def test_a_record_must_be_that_of_its_experiment(done):
    path = done.path / "some.jsonl"
    record = json.loads(path.read_text())
    for change, sentence in (
        ({"experiment": record["experiment"] | {"seed": 7}}, "its hash is"),
        ({"numbers": None}, "its 'numbers' is missing"),
        ({"numbers": record["numbers"] | {"last": 40.0}}, "its seal is broken"),
        ({"seal": None}, "its 'seal' is missing"),
        ({"threads": "2"}, "its 'threads' is missing or of another kind"),
        ({"status": "fine"}, "a status, done or failed"),
    ):
        path.write_text(json.dumps(record | change) + "\n")
        with pytest.raises(lk.FileError, match=sentence):
            Records(done.path)


def test_records_of_before_processors_were_named_are_read_and_decide(done):
    path = done.path / "some.jsonl"
    record = json.loads(path.read_text())
    for name in records_module.NEWER:
        del record[name]
    path.write_text(json.dumps(record | {"seal": records_module.seal(record)}) + "\n")
    assert Records(done.path).get(small(steps=2))["numbers"] == record["numbers"]


def test_an_older_version_of_a_method_makes_its_records_stale(done, monkeypatch):
    monkeypatch.setitem(experiments.VERSIONS, "dense", 2)
    assert records_module.state(done.all[0]) == "stale" and done.get(small(steps=2)) is None


def test_only_pictures_of_free_licence_leave_a_thumbnail(done):
    assert done.all[0]["thumbnail"].startswith("data:image/webp;base64,")
    for image in ("set14/pepper", "motorcycle", "moon", ["coffee", "astronaut"]):
        assert not records_module._may_be_shown(image)
    assert "picture" not in done.all[0]
    assert len(records_module.thumbnail(torch.rand(1, 200, 100))) > 100


def test_numbers_that_cannot_be_measured_are_null():
    assert [results.shortened(x) for x in (math.nan, math.inf, 2.0, 1 / 3)] == [
        None,
        None,
        2,
        0.333333,
    ]

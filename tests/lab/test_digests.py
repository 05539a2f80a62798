"""Hashes of experiments never change: a record whose hash changed would be lost."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from lipkit.lab import Experiment, Records
from lipkit.lab.kinds import OF_PRIOR, OF_TASK, kind_of
from lipkit.lab.paths import records_folder

# Every field but image and size, as it was when the first record was made.
DEFAULTS = {
    "task": "denoise", "strength": 25, "task_options": {}, "gray": False, "stretch": False,
    "prior": "dip", "options": {}, "initial": {}, "method": "dense", "density": 1, "find": {},
    "find_on": {}, "control": "none", "steps": 3000, "lr": 0.01, "fit": {}, "stop": {},
    "every": None, "seed": 0, "precision": "auto",
}  # fmt: skip

# Hashes and kinds of experiments, computed before kinds were files.
PINNED = [
    ("ebbee64aeef98188", "restore", dict(image="astronaut", size=64)),
    (
        "93c4c014ff7d4d39",
        "restore",
        dict(image="coffee", size=128, task="inpaint", strength=0.5, seed=2, steps=5000, every=50),
    ),
    (
        "192b76ca43c66736",
        "restore",
        dict(
            image="set5/baby", size=256, task="sr", strength=4, prior="oes", options={"levels": 6},
            task_options={"kernel": "bicubic"},
        ),
    ),
    (
        "c428762a0bf580af",
        "restore",
        dict(
            image="camera", size=32, gray=True, task="sensing", strength=200,
            task_options={"corrupted": 0}, precision="bf16",
        ),
    ),
    (
        "cf6e5f07a410dd7f",
        "restore",
        dict(
            image="noise", size=64, prior="deep-decoder", options={"levels": 5, "width": 128},
            stop={"window": 6, "patience": 15},
        ),
    ),
    (
        "7d9f162403d38829",
        "restore",
        dict(
            image="moon", size=64, stretch=True, initial={"law": "xavier", "scale": 2},
            fit={"average": {"burn_in": 100, "every": 10}, "langevin": 0.005},
        ),
    ),
    (
        "f5bff8cca831fe44",
        "restore",
        dict(
            image="astronaut", size=64, method="imp", density=0.17, control="shuffled",
            find={"steps": 400, "until_oracle": True},
        ),
    ),
    (
        "9618a1d251eac897",
        "restore",
        dict(
            image="astronaut", size=64, method="snip", density=0.2,
            find={"variant": "published", "scope": "all"},
            find_on={"image": "coffee", "strength": 0},
        ),
    ),
    (
        "5d8e914b6c151395",
        "restore",
        dict(
            image="coffee", size=32, method="imp_multi", density=0.5,
            find_on={"image": ["coffee", "chelsea"]},
        ),
    ),
    (
        "8bf393997ad102e5",
        "mri",
        dict(
            image="slice-1", size=96, task="mri", strength=4,
            task_options={"pattern": "equispaced", "sigma": 0.05},
        ),
    ),
    (
        "4efe8b986b4ca904",
        "mri",
        dict(
            image="slice-3", size=96, task="mri", strength=8, method="oes", density=0.05,
            find={"steps": 1000, "lam": 1e-9}, find_on={"image": "slice-1", "strength": 4},
        ),
    ),
    (
        "49b965b4d7da064b",
        "classify",
        dict(
            image="digits", size=32, task="classify", strength=500, steps=100, lr=0.02,
            task_options={"variant": "published", "batch": 20}, method="imp", density=0.5,
        ),
    ),
    (
        "3f16be03e8e49171",
        "restore",
        dict(
            image="coffee", size=32, method="imp", density=0.5,
            find_on={"task": "classify", "image": "digits", "strength": 200},
        ),
    ),
    (
        "e8892a94f462c40b",
        "generator",
        dict(
            image="faces", size=64, prior="pgan", task="sensing", strength=60, steps=200, lr=0.1,
            task_options={"pictures": 4}, fit={"loss": "mom"}, method="imp", density=0.64,
            control="finetuned",
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("digest", "kind", "given"), PINNED)
def test_hashes_stay_whether_defaults_are_written_out_or_not(digest, kind, given):
    made = Experiment.of(given)
    assert made.digest == digest
    assert Experiment.of(DEFAULTS | given).digest == digest
    assert made.given() == {k: v for k, v in given.items() if DEFAULTS.get(k) != v}
    assert kind_of(made).__name__ == f"lipkit.lab.kinds.{kind}"


def test_every_kind_and_every_field_is_pinned():
    kinds = {kind.__name__ for kind in [*OF_PRIOR.values(), *OF_TASK.values()]}
    assert {f"lipkit.lab.kinds.{kind}" for _, kind, _ in PINNED} == kinds
    assert {f.name for f in fields(Experiment)} == {"image", "size", *DEFAULTS}
    assert {name for *_, given in PINNED for name in given} == {"image", "size", *DEFAULTS}


def test_every_field_counts():
    plain = Experiment("astronaut", 64)
    others = {name: 7 if value is None else [value] for name, value in DEFAULTS.items()}
    others |= {"image": "coffee", "size": 65}
    found = {replace(plain, **{name: value}).digest for name, value in others.items()}
    assert len(found | {plain.digest}) == len(others) + 1


def test_every_record_of_the_book_has_the_hash_of_its_experiment():
    lines = [
        json.loads(line)
        for file in sorted(records_folder().glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    assert len(lines) == len(Records().all) >= 806
    for line in lines:
        made = Experiment.of(line["experiment"])  # what ran once can be run again
        assert made.digest == line["hash"]
        assert made.given() == line["experiment"]

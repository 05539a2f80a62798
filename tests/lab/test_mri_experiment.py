"""MRI through experiments, records and grids; and what the paper says of masked networks in MRI."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import lipkit as lk
from lipkit.lab import Experiment, Grid, Records, claims, run
from lipkit.physics import sampling_mask

OPTIONS = {"levels": 2, "down": 8, "up": 8}
SMALL = dict(
    image="slice-1", size=32, task="mri", strength=4, options=OPTIONS, steps=12,
    task_options={"pattern": "equispaced", "sigma": 0.05},
)  # fmt: skip


def small(**changes) -> Experiment:
    return Experiment.of(SMALL | changes)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"strength": 0.5}, "an acceleration of at least 1"),
        ({"gray": True}, "no gray and no stretch"),
        ({"task_options": {"noise": 1}}, "no option of task 'mri': 'noise'; there are: pattern"),
        (dict(method="snip", density=0.5, find_on={"task": "denoise", "strength": 25}),
         "a mask found on a picture is not for MRI"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_in_a_sentence(change, sentence):
    with pytest.raises(lk.InputError, match=sentence):
        small(**change)


def test_a_run_is_lipkits_own_fit_scored_as_fastmri_does():
    record = run(small(seed=3, method="snip", density=0.5, stop={"window": 3, "patience": 4}))
    assert record["status"] == "done", record["reason"]
    scan = lk.data.scan("slice-1", 32, sigma=0.05, seed=3)
    lines = sampling_mask((32, 32), 4, "equispaced", seed=3)
    op, y, score = lk.mri.judged(scan, lines)
    prior = lk.Prior("dip", 32, 3, out_channels=2, sigmoid=False, **OPTIONS)
    mask = lk.find.snip(prior, op, y, density=0.5)
    how = dict(steps=12, mask=mask, seed=3, progress=False)
    last, numbers = lk.fit(prior, op, y, **how).image, record["numbers"]
    assert numbers["last"] == pytest.approx(score(last), abs=1e-3)
    assert numbers["last"] == pytest.approx(lk.mri.psnr(last * op.support, scan.target), abs=1e-3)
    stopped = lk.fit(prior, op, y, stop=lk.stop.WMV(3, 4), **how).image
    assert numbers["stopped"] == pytest.approx(score(stopped), abs=1e-3)
    want = lk.mri.scores(stopped * op.support, scan.target)["ssim"]
    assert numbers["stopped_ssim"] == pytest.approx(want, abs=1e-3)
    assert numbers["noisy"] == pytest.approx(score(lk.mri.zero_filled(op, y)), abs=1e-4)
    assert numbers["oracle"] == max(record["curve"]["psnr"]) >= numbers["last"]
    assert len(record["curve"]["psnr"]) == 12 and record["picture"] is None
    json.dumps(record, allow_nan=False)


def test_a_mask_of_one_scan_is_used_on_another_and_kept(tmp_path):
    other = small(image="slice-3", strength=8, method="oes", density=0.3, find={"steps": 4},
                  find_on={"image": "slice-1", "strength": 4})  # fmt: skip
    own = small(method="oes", density=0.3, find={"steps": 4})
    first, second = (run(e, masks=tmp_path) for e in (own, other))
    assert own.search() == other.search() and second["search_seconds"] == 0
    assert first["layers"] == second["layers"] and first["numbers"] != second["numbers"]
    (mask,) = tmp_path.glob("*.mask")
    assert lk.Mask.load(mask).kept == first["numbers"]["kept"]


@pytest.mark.parametrize("strength", [1, 2])
def test_a_scan_with_gaps_is_judged_by_samples_that_were_not_used(tmp_path, strength):
    full = lk.data.scan("slice-2", 48)
    disc = sampling_mask((48, 48), 3, "poisson", calibration=14)
    np.save(tmp_path / "k.npy", (full.kspace * disc).numpy())
    file = dict(image=str(tmp_path / "k.npy"), size=48, strength=strength)
    records = Records(tmp_path / "records")
    records.add(run(small(**file)), "mine")
    (record,) = records.all
    assert record["status"] == "done" and "thumbnail" not in record, record["reason"]
    assert not {"start_likeness", "stopped_ssim"} & set(record["numbers"])  # there is no target
    scan = lk.data.scan(tmp_path / "k.npy", 48)
    lines = None if strength == 1 else sampling_mask((48, 48), 2, "equispaced")
    op, y, score = lk.mri.judged(scan, lines)
    assert record["numbers"]["noisy"] == pytest.approx(score(lk.mri.zero_filled(op, y)), abs=1e-3)
    unused = scan.sampling - op.sampling
    assert unused.min() == 0 and unused.any() and not (y * unused).any()
    assert score(lk.mri.total_variation(op, y)) > record["numbers"]["noisy"] + 3
    with pytest.raises(lk.Error, match="none is left to judge by"):
        lk.mri.judged(scan, torch.ones(48))


def test_a_masked_network_shows_structure_untrained_and_removes_aliasing():
    """C-OES-33, on a scan and a seed that no record has."""
    scan = lk.data.scan("slice-2", 48, sigma=0.02, seed=11)
    op, y, score = lk.mri.judged(scan, sampling_mask((48, 48), 4, "equispaced", seed=11))
    how = dict(levels=3, down=32, up=32, out_channels=2, sigmoid=False)
    prior = lk.Prior("dip", 48, 11, **how)
    mask = lk.find.oes(prior, op, y, 0.1, steps=200, scope="conv", seed=11, progress=False)

    def likeness(prior: lk.Prior) -> float:
        pair = [x[:, op.support[0] > 0].flatten() for x in (prior()[0].detach(), scan.target)]
        return float(torch.stack(pair).corrcoef()[0, 1])

    dense = likeness(prior)
    found = lk.fit(prior, op, y, steps=200, mask=mask, lr=0.02, progress=False).image
    mask.apply(prior.net)
    assert likeness(prior) > max(0.5, dense + 0.2)
    assert score(found) > score(lk.mri.zero_filled(op, y)) + 2


def test_the_claims_about_mri_are_tested_on_grids_that_exist():
    found = {claim.id: claim for claim in claims.ledger()}
    for name in ("C-OES-30", "C-OES-33"):
        asked = {finding.source for finding in found[name].findings}
        assert {"mri-slices", "mri-paper"} <= asked and not found[name].why_not
    scenarios = {(p.arm, p.place["image"]) for p in Grid.load("mri-slices").points}
    assert len(scenarios) == 16  # two networks, four scans, two accelerations

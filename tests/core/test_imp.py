"""Iterative magnitude pruning: counts, rewinding, interruptions, several images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lipkit as lk
from lipkit.find import FIRST_CONVS, densities, image_codes, imp, imp_multi, rounds_to
from lipkit.find.latents import PerImage, fresh_code
from lipkit.find.multi import Joint
from lipkit.find.schedule import keep_counts, prune, rising_run
from lipkit.masks import Mask, count, covered
from lipkit.testing import tiny_image, tiny_prior

CLEAN = tiny_image()
OP = lk.physics.Denoise(sigma=0.1)
Y = OP.measure(CLEAN)
STEPS = 8

pytestmark = pytest.mark.filterwarnings("ignore::lipkit.masks.LayerCollapseWarning")


def prior(seed: int = 0, size: tuple[int, int] = (16, 16)) -> lk.Prior:
    return lk.Prior("dip", size, seed, levels=1, down=4, up=4, skip=2, in_channels=2)


def search(**options) -> lk.find.Imp:
    return imp(prior(), OP, Y, **dict(steps=STEPS, rounds=3, input_noise=0.03) | options)


def same(a: lk.find.Imp, b: lk.find.Imp) -> bool:
    weights = zip(a.start.state_dict().values(), b.start.state_dict().values(), strict=True)
    return (
        a.masks == b.masks
        and np.array_equal(a.losses, b.losses)
        and np.array_equal(a.best_psnrs, b.best_psnrs, equal_nan=True)
        and all(torch.equal(v, w) for v, w in weights)
        and (a.reason, a.rising) == (b.reason, b.rising)
    )


class Counted(lk.physics.Denoise):
    """Counts its calls, one a step, and sends this process a signal at one of them."""

    def __init__(self, at: int | None = None, kind: int = signal.SIGINT) -> None:
        super().__init__(0.1)
        self.calls, self.at, self.kind = 0, at, kind

    def A(self, x):
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), self.kind)
        return x


# --- which weights -------------------------------------------------------------------------------


def test_masks_are_nested_and_keep_exact_counts():
    found = search(rounds=6)
    total = found.mask.total
    assert [m.kept for m in found.masks] == [count(d, total) for d in densities(0.2, 6)]
    assert found.densities == pytest.approx([1, *(m.density for m in found.masks[:-1])])
    for before, after in zip(found.masks, found.masks[1:], strict=False):
        assert before & after == after
    assert found.reason == "all 6 rounds are done"
    assert found.mask == found.masks[-1] and found.candidates is None


@settings(max_examples=60, deadline=None)
@given(density=st.floats(0.01, 0.999), rate=st.floats(0.05, 0.9), spare=st.booleans())
def test_the_counts_end_exactly_at_the_density(density, rate, spare):
    start = Mask.full(tiny_prior().net)
    exempt = ("head.weight",) if spare else ()
    spared = start["head.weight"].numel() if spare else 0
    total = start.total
    if not spared < count(density, total) < total:
        return
    kept = keep_counts(start, exempt, density, rate, None)
    assert kept[-1] == count(density, total)
    left = np.array([total, *kept]) - spared
    assert (np.diff(left) < 0).all()
    # the published share in each round, but for the last, which may take a tenth of a round more
    rounds = rounds_to(left[-1] / left[0], rate)
    whole = [count(d, total - spared) for d in densities(rate, rounds - 1)]
    assert left[1:-1].tolist() == [k for k in dict.fromkeys(whole) if left[-1] < k < left[0]]
    assert left[-1] >= int((total - spared) * (1 - rate) ** (rounds + 0.1))


def test_rounds_and_densities_of_the_published_settings():
    assert densities(0.2, 16)[-1] == pytest.approx(0.0281, abs=1e-4)  # 97.19 % removed
    assert densities(0.2, 24)[-1] == pytest.approx(1 - 0.9953, abs=1e-4)
    assert densities(0.2, 13)[-1] == pytest.approx(0.0549764, abs=1e-6)  # OES: 13 prunings
    for rounds in range(1, 30):
        assert rounds_to(densities(0.2, rounds)[-1]) == rounds


def test_the_smallest_of_all_layers_go():
    net = prior().net
    full = Mask.full(net)
    mask = prune(net, full, kept=full.total // 3, exempt=())
    sizes = torch.cat([p.detach().abs().flatten() for _, p in covered(net, "conv")])
    assert sizes[mask.flat()].min() > sizes[~mask.flat()].max()
    assert mask.kept == full.total // 3


def test_a_round_is_a_fit_and_a_pruning():
    found = search(rounds=2)
    mask = Mask.full(prior().net)
    for number, kept in enumerate(keep_counts(mask, (), 0.05, 0.2, 2)):
        result = lk.fit(
            prior(), OP, Y, steps=STEPS, mask=mask, input_noise=0.03, seed=number, progress=False
        )
        for parameter, keep in mask.pairs(result.net):
            assert (parameter[keep == 0] == 0).all()
        mask = prune(result.net, mask, kept, ())
        assert found.masks[number] == mask
        assert found.losses[number] == result.history["loss"][-1]


@pytest.mark.parametrize("exempt", [FIRST_CONVS, lambda name: name in FIRST_CONVS])
def test_exempt_layers_stay_whole_and_count(exempt):
    found = search(rounds=None, density=0.2, exempt=exempt)
    for mask in found.masks:
        assert all(mask[name].all() for name in FIRST_CONVS)
    assert found.mask.kept == count(0.2, found.mask.total)
    assert found.mask.total == Mask.full(prior().net).total


def test_first_convs_are_the_published_two():
    layers = Mask.full(lk.models.build("dip")).per_layer()
    assert [layers[name].total for name in FIRST_CONVS] == [128, 36_864]


def test_within_leaves_pruned_what_was_and_gives_the_published_start():
    net = prior().net
    nonzero = Mask({n: p != 0 for n, p in net.named_parameters()})  # all but shifts of batch norm
    found = search(scope="all", within=nonzero, rounds=2)
    assert nonzero.kept < nonzero.total
    assert found.densities[0] == nonzero.density
    assert found.masks[0].kept == count(0.8, nonzero.kept)
    assert all(mask & nonzero == mask for mask in found.masks)


# --- where each round starts ---------------------------------------------------------------------


def test_rewind_takes_the_weights_of_the_dense_fit_at_that_step(tmp_path):
    options = dict(steps=12, input_noise=0.03, langevin=0.001)
    found = search(**options, rewind=0.25)
    # weights at step 3 from which going on gives the whole fit are the ones the fit went through
    go = dict(input_noise=0.03, langevin=0.001, progress=False, checkpoint=tmp_path / "fit")
    early = lk.fit(prior(), OP, Y, steps=3, **go).net.state_dict()
    late = lk.fit(prior(), OP, Y, steps=12, **go)
    at_once = lk.fit(prior(), OP, Y, steps=12, **go | {"checkpoint": None})
    assert all(torch.equal(v, early[k]) for k, v in found.start.net.state_dict().items())
    for a, b in zip(late.net.parameters(), at_once.net.parameters(), strict=True):
        assert torch.equal(a, b)
    assert found.losses[0] == at_once.history["loss"][-1]


def test_rewind_changes_all_rounds_but_the_first():
    plain, rewound = search(steps=20), search(steps=20, rewind=0.2)
    assert plain.masks[0] == rewound.masks[0] and plain.losses[0] == rewound.losses[0]
    assert plain.masks[1] != rewound.masks[1]
    second = lk.fit(
        rewound.start,
        OP,
        Y,
        steps=20,
        mask=rewound.masks[0],
        input_noise=0.03,
        seed=1,
        progress=False,
    )
    assert rewound.losses[1] == second.history["loss"][-1]
    state = plain.start.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in prior().state_dict().items())


def test_the_prior_given_stays_as_it_is():
    mine = prior()
    imp(mine, OP, Y, steps=STEPS, rounds=2, rewind=0.5, codes="per_round")
    state = mine.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in prior().state_dict().items())


def test_codes_per_round_are_redrawn_after_the_first():
    fixed, redrawn = search(), search(codes="per_round")
    assert fixed.masks[0] == redrawn.masks[0] and fixed.masks[1] != redrawn.masks[1]
    second = prior()
    second.z = fresh_code(second, 1)
    result = lk.fit(
        second, OP, Y, steps=STEPS, mask=redrawn.masks[0], input_noise=0.03, seed=1, progress=False
    )
    assert redrawn.losses[1] == result.history["loss"][-1]


def test_fresh_codes_have_the_law_of_the_prior():
    for options in ({}, dict(code="normal", code_scale=1.0)):
        one = lk.Prior("dip", 64, levels=1, **options)
        other = fresh_code(one, 1)
        assert not torch.equal(one.z, other)
        assert float(other.std()) == pytest.approx(float(one.z.std()), rel=0.02)
        assert float(other.mean()) == pytest.approx(
            float(one.z.mean()), abs=0.02 * float(one.z.std())
        )
    state = torch.get_rng_state()
    fresh_code(prior(), 3)
    assert torch.equal(state, torch.get_rng_state())


# --- what it is trained on, measured against and stopped by --------------------------------------


def test_the_reference_changes_nothing_and_its_psnr_is_that_of_the_fit():
    blind, measured = search(), search(reference=CLEAN, every=2)
    other = search(reference=1 - CLEAN, every=2)
    assert blind.masks == measured.masks == other.masks
    assert np.array_equal(blind.losses, measured.losses)
    assert np.isnan(blind.psnrs).all() and np.isnan(blind.best_psnrs).all()
    result = lk.fit(
        prior(), OP, Y, steps=STEPS, input_noise=0.03, reference=CLEAN, every=2, progress=False
    )
    assert measured.psnrs[0] == pytest.approx(result.history["psnr"][-1], abs=1e-5)
    assert measured.best_psnrs[0] == pytest.approx(result.history["psnr"].max(), abs=1e-5)
    assert (measured.best_psnrs >= measured.psnrs - 1e-6).all()


def test_a_reference_target_is_the_clean_picture_itself():
    blur = lk.physics.SuperResolution(2)
    small = blur.measure(CLEAN)
    found = imp(prior(), blur, small, reference_target=CLEAN, rounds=2, steps=STEPS)
    want = imp(prior(), OP, CLEAN, rounds=2, steps=STEPS)
    assert found.masks == want.masks and np.array_equal(found.losses, want.losses)
    assert found.masks != imp(prior(), blur, small, rounds=2, steps=STEPS).masks


def test_rising_runs():
    losses = [5.0, 4.0, 3.0, 3.5, 3.6, 3.7]
    assert [rising_run(losses[:n], 2) for n in range(1, 7)] == [None] * 4 + [(3, 4), (3, 5)]
    assert rising_run(losses, 3) == (3, 5) and rising_run(losses, 4) is None
    assert rising_run([1.0, 1.0, 1.0], 1) is None
    assert rising_run(losses, None) is None


def test_rising_losses_end_the_search_and_name_both_candidates():
    long = search(rounds=9, rate=0.4, steps=20, stop_when_rising=None)
    found = search(rounds=9, rate=0.4, steps=20, stop_when_rising=2)
    assert long.rising is None and len(long.rounds) == 9
    first, last = found.rising
    assert last == len(found.rounds) - 1 < 8 and last - first == 1
    assert long.losses[first - 1] < long.losses[first] < long.losses[last]
    assert all(not long.losses[i - 2] < long.losses[i - 1] < long.losses[i] for i in range(2, last))
    assert found.masks == long.masks[: last + 1]
    assert found.candidates == (found.masks[first - 1], found.masks[last - 1])
    assert found.mask == found.candidates[0]
    assert found.candidates[0].density == pytest.approx(found.densities[first])
    assert found.reason == "the loss has risen in 2 rounds in a row"


# --- interruptions -------------------------------------------------------------------------------

SCRIPT = """
import signal, sys
sys.path.insert(0, sys.argv[1])
from test_imp import Counted, Y, long_search
long_search(Counted(int(sys.argv[3]), signal.SIGKILL), sys.argv[2])
"""


def long_search(op, folder):
    return imp(
        prior(), op, Y, rounds=8, steps=STEPS, input_noise=0.03, rewind=0.25, codes="per_round",
        reference=CLEAN, every=3, folder=folder,
    )  # fmt: skip


def test_killed_in_round_5_of_8_it_ends_as_if_nothing_had_happened(tmp_path):
    folder, per_round = tmp_path / "search", STEPS
    call = 2 + 5 * per_round + per_round // 2  # rewind, rounds 0 to 4, half of round 5
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", SCRIPT, here, str(folder), str(call)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = sorted(p.name for p in folder.iterdir())
    assert done == [
        "rewind.safetensors",
        *(f"round-{i:02d}.safetensors" for i in range(5)),
        "search.safetensors",
    ]
    resumed = Counted()
    found = long_search(resumed, folder)
    assert resumed.calls == 3 * per_round
    assert same(found, long_search(Counted(), None))
    assert len(list(folder.iterdir())) == 10  # no checkpoint of a fit is left


def test_ctrl_c_returns_what_there_is_and_the_round_under_way_goes_on(tmp_path):
    stopped = long_search(Counted(2 + 2 * STEPS + 5), tmp_path)
    assert stopped.reason == "interrupted in round 2 of 8" and len(stopped.rounds) == 2
    resumed = Counted()
    found = long_search(resumed, tmp_path)
    assert resumed.calls == 6 * STEPS - 5 + 1  # one call checks that the operator is the same
    assert same(found, long_search(Counted(), None))


@pytest.mark.parametrize("call", [1, 2 + 3])
def test_ctrl_c_before_there_is_anything_to_return(tmp_path, call):
    with pytest.raises(KeyboardInterrupt):
        long_search(Counted(call), tmp_path)
    assert same(long_search(Counted(), tmp_path), long_search(Counted(), None))


def test_finished_rounds_are_read_not_computed_and_a_search_can_be_extended(tmp_path):
    op = Counted()
    short = imp(prior(), op, Y, density=0.5, steps=STEPS, folder=tmp_path)
    again = imp(prior(), op, Y, density=0.5, steps=STEPS, folder=tmp_path)
    assert op.calls == 4 * STEPS and same(short, again)
    # the fourth round was shortened to keep 50 %: it is done again, the first three are not
    op.calls = 0
    longer = imp(prior(), op, Y, rounds=6, steps=STEPS, folder=tmp_path)
    assert op.calls == 3 * STEPS
    assert same(longer, imp(prior(), Counted(), Y, rounds=6, steps=STEPS))


def test_each_round_is_a_mask_file(tmp_path):
    found = search(folder=tmp_path)
    for number, mask in enumerate(found.masks):
        assert Mask.load(tmp_path / f"round-{number:02d}.safetensors", like=prior().net) == mask


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(steps=9), "steps_a_round"),
        (dict(rate=0.3), "rate"),
        (dict(lr=0.02), "lr"),
        (dict(rewind=0.5), "rewind"),
        (dict(seed=1), "seed"),
        (dict(exempt="head.weight"), "exempt"),
        (dict(input_noise=0.0), "input_noise"),
        (dict(reference=CLEAN), "reference"),
        (dict(reference_target=CLEAN), "weights and measurement"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(tmp_path, change, named):
    search(folder=tmp_path, rounds=1)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(lk.InputError, match=f"another search: its .*{named}.* differ"):
        search(folder=tmp_path, rounds=2, **change)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_other_and_broken_files_are_refused(tmp_path):
    search(folder=tmp_path, rounds=1, rewind=0.5)
    path, weights = tmp_path / "round-00.safetensors", tmp_path / "rewind.safetensors"
    whole, whole_weights = path.read_bytes(), weights.read_bytes()
    Mask.full(prior().net).save(path)
    with pytest.raises(lk.FileError, match="is not from this search"):
        search(folder=tmp_path, rounds=1, rewind=0.5)
    path.write_bytes(whole[:-3])
    with pytest.raises(lk.FileError, match="damaged or cut short"):
        search(folder=tmp_path, rounds=1, rewind=0.5)
    path.write_bytes(whole)
    about = tmp_path / "search.safetensors"
    about.write_text("[1]")
    with pytest.raises(lk.FileError, match="no readable checkpoint"):
        search(folder=tmp_path, rounds=1, rewind=0.5)
    about.unlink()
    for broken in (whole_weights[:-3], whole, b""):
        weights.write_bytes(broken)
        with pytest.raises(lk.FileError, match=r"no.* checkpoint .*delete it to start anew"):
            search(folder=tmp_path, rounds=1, rewind=0.5)
    weights.write_bytes(whole_weights)
    assert same(search(folder=tmp_path, rounds=1, rewind=0.5), search(rounds=1, rewind=0.5))
    with pytest.raises(lk.FileError, match="as a folder"):
        search(folder=path)


# --- several images ------------------------------------------------------------------------------


def pictures(count_: int = 3) -> list[torch.Tensor]:
    return [OP.measure(CLEAN.flip(-1) if i % 2 else 1 - CLEAN, seed=i) for i in range(count_)]


def gradients(model: nn.Module, op, y: torch.Tensor) -> torch.Tensor:
    loss = (op.A(model()) - y).square().mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.net.parameters()))])


def test_with_shared_codes_the_gradient_is_that_of_the_mean_image():
    model, ys = prior().double(), torch.stack(pictures(5)).double()
    one = gradients(model, OP, ys.mean(0))
    many = gradients(model, Joint([OP] * 5), ys)
    assert one.norm() > 0
    torch.testing.assert_close(many, one, rtol=1e-10, atol=1e-14)


def test_shared_codes_find_the_masks_of_the_mean_image():
    model, ys = prior().double(), [y.double() for y in pictures(5)]
    options = dict(rounds=4, steps=STEPS)
    together = imp_multi(model, OP, ys, codes="shared", **options)
    mean = imp(model, OP, torch.stack(ys).mean(0), **options)
    assert together.masks == mean.masks
    variance = float(torch.stack(ys).var(0, correction=0).mean())
    np.testing.assert_allclose(together.losses - mean.losses, variance, rtol=1e-7)


def test_codes_per_image_give_each_image_its_own_output():
    model, ys = prior(), pictures(3)
    each = PerImage(model, image_codes(model, 3, seed=0))
    assert torch.equal(each.z[:1], model.z)
    for code, picture in zip(each.z.split(1), each(), strict=True):
        alone = prior()
        torch.testing.assert_close(alone(code)[0], picture)  # as if the others were not there
    found = imp_multi(model, [OP] * 3, ys, codes="per_image", rounds=2, steps=STEPS, rewind=0.5)
    assert type(found.start) is lk.Prior and torch.equal(found.start.z, model.z)
    early = lk.fit(each, Joint([OP] * 3), torch.stack(ys), steps=STEPS // 2, progress=False).net
    for ours, want in zip(found.start.net.parameters(), early.parameters(), strict=True):
        assert torch.equal(ours, want)
    assert all(
        torch.equal(v, w) for v, w in zip(model.parameters(), prior().parameters(), strict=True)
    )
    shared = imp_multi(model, OP, ys, rounds=2, steps=STEPS)
    assert found.masks != shared.masks
    assert (
        found.masks
        == imp(each, Joint([OP] * 3), torch.stack(ys), rounds=2, steps=STEPS, rewind=0.5).masks
    )


def test_one_image_is_imp():
    for codes in ("shared", "per_image"):
        found = imp_multi(prior(), [OP], [Y], codes=codes, rounds=2, steps=STEPS)
        assert same(found, imp(prior(), OP, Y, rounds=2, steps=STEPS))


def test_reference_targets_replace_the_measurements():
    clean = [CLEAN, 1 - CLEAN]
    blur = lk.physics.SuperResolution(2)
    ys = [blur.measure(x) for x in clean]
    found = imp_multi(prior(), blur, ys, reference_targets=clean, rounds=2, steps=STEPS)
    assert same(found, imp_multi(prior(), OP, clean, rounds=2, steps=STEPS))


def test_several_images_resume_too(tmp_path):
    def go(op, folder):
        return imp_multi(
            prior(), op, pictures(2), codes="per_image", rounds=3, steps=STEPS, folder=folder
        )

    assert len(go(Counted(2 * STEPS + 7), tmp_path).rounds) == 1
    assert same(go(Counted(), tmp_path), go(Counted(), None))


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(density=5), "density is the fraction of weights kept"),
        (dict(density=1.0), "must keep fewer than"),
        (dict(density=0.05, exempt=lambda name: True), "more than the .* that are exempt"),
        (dict(rate=0), "rate is the fraction removed"),
        (dict(rate=1), "rate is the fraction removed"),
        (dict(rounds=0), "rounds must be a whole number"),
        (dict(rounds=60), "ask for fewer rounds"),
        (dict(steps=2.5), "steps must be a whole number"),
        (dict(rewind=1), "rewind is a fraction of the steps"),
        (dict(rewind=0.01), "less than one step"),
        (dict(scope="bias"), "scope must be one of"),
        (dict(exempt="skip9.conv.weight"), "exempt names 'skip9.conv.weight'"),
        (dict(codes="new"), "codes must be"),
        (dict(stop_when_rising=0), "stop_when_rising must be"),
        (dict(seed=-1), "seed must be"),
        (dict(lr=0), "lr must be"),
        (dict(noise=0.1), "no option 'noise' here; those handed on to fit are: input_noise"),
        (dict(within=Mask.full(lk.models.build("oes", levels=1))), "different parameters"),
        (dict(reference=CLEAN[:, :8]), "the reference has shape"),
        (dict(reference="clean"), "the reference must be"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(options, sentence):
    with pytest.raises(lk.InputError, match=sentence) as caught:
        imp(prior(), OP, Y, **dict(steps=STEPS) | options)
    assert "\n" not in str(caught.value)


def test_a_code_without_another_is_refused_before_training():
    op = Counted()
    grid = lk.Prior("dip-vase", (16, 16), levels=1, down=4, up=4)
    with pytest.raises(lk.InputError, match="fixed grid"):
        imp(grid, op, Y, steps=STEPS, rounds=2, codes="per_round")
    assert op.calls == 0


@pytest.mark.parametrize(
    ("ops", "ys", "options", "sentence"),
    [
        (OP, [], {}, "at least one measurement"),
        ([OP], [Y, Y], {}, "1 operators for 2 measurements"),
        (OP, [Y, Y[:, :8]], {}, "different shapes"),
        (OP, [Y, "y"], {}, "must be a floating-point tensor"),
        (OP, [Y, Y], dict(codes="per_round"), "codes must be one of shared, per_image"),
        (OP, [Y, Y], dict(reference=CLEAN), "takes no reference;"),
    ],
)
def test_bad_sets_of_images_are_refused(ops, ys, options, sentence):
    with pytest.raises(lk.InputError, match=sentence):
        imp_multi(prior(), ops, ys, steps=STEPS, rounds=1, **options)


def test_the_numbers_of_a_round_survive_their_file(tmp_path):
    found = search(folder=tmp_path, rounds=1, reference=CLEAN)
    from safetensors import safe_open

    with safe_open(tmp_path / "round-00.safetensors", "pt") as file:
        numbers = json.loads(file.metadata()["lipkit"])["numbers"]
    assert numbers["loss"] == found.losses[0] and numbers["psnr"] == found.psnrs[0]

"""What every method gives on tiny problems: the fingerprint of the project's results.

`python -m tests.support.fingerprint` prints a hash of every case in single precision. Run it
before and after moving code, on the same machine and threads: the two must be equal, to the bit.

In double precision and few steps the same cases give numbers that any processor keeps to a
tolerance, and that no changed draw, order or formula does: `tests/fingerprint.json` holds them.
`--write` makes that file anew, for a change of results that is meant; raise the method's version
(`VERSIONS` of experiments) in the same commit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

import lipkit as lk
from lipkit.testing import tiny_image, tiny_prior

FILE = Path(__file__).resolve().parents[1] / "fingerprint.json"
PROJECTIONS = 6
QUIET = dict(progress=False)

Numbers = dict[str, torch.Tensor]


class Setting:
    """The tiny problem of all cases, in one precision, with weights nudged as a processor would."""

    def __init__(self, double: bool = False, nudge: float = 0.0, seed: int = 0) -> None:
        self.dtype = torch.float64 if double else torch.float32
        self.nudge = nudge
        self.seed = seed
        self.op = lk.physics.Denoise(sigma=0.1)
        self.clean = tiny_image().to(self.dtype)
        self.y = self.op.measure(tiny_image(), seed=seed).to(self.dtype)

    def prior(self, **options) -> lk.Prior:
        return self.nudged(tiny_prior(seed=self.seed, **options))

    def nudged(self, net: torch.nn.Module) -> torch.nn.Module:
        """In this precision, every number moved by `nudge` of itself, up or down by turns."""
        net = net.to(self.dtype)
        with torch.no_grad():
            for tensor in [*net.parameters(), *net.buffers()]:
                if tensor.is_floating_point():
                    sign = torch.arange(tensor.numel()) % 2 * 2 - 1
                    moved = 1 + self.nudge * sign.to(tensor)
                    tensor.mul_(moved.reshape(tensor.shape))
        return net


def _of_fit(fit: lk.Fit) -> Numbers:
    return {"image": fit.image, "loss": torch.from_numpy(fit.history["loss"].astype(float))}


def _of_mask(mask: lk.Mask) -> Numbers:
    return {"mask": mask.flat().double()}


def _of_masks(masks) -> Numbers:
    return {f"mask {i}": mask.flat().double() for i, mask in enumerate(masks)}


def fit_dense(s: Setting) -> Numbers:
    fit = lk.fit(s.prior(), s.op, s.y, steps=8, every=1, reference=s.clean, seed=s.seed, **QUIET)
    return _of_fit(fit) | {"best": fit.best, "psnr": torch.from_numpy(fit.history["psnr"])}


def fit_with_everything(s: Setting) -> Numbers:
    """Every part of the loop that draws, averages or looks back."""
    mask = lk.Mask.random(tiny_prior().net, density=0.4, seed=1 + s.seed)
    stop = lk.stop.WMV(window=3, patience=5)
    how = dict(input_noise=0.03, langevin=0.005, weight_decay=1e-4, average=0.9, backtrack=5.0)
    return _of_fit(
        lk.fit(
            s.prior(),
            s.op,
            s.y,
            steps=8,
            every=1,
            mask=mask,
            stop=stop,
            seed=s.seed,
            **how,
            **QUIET,
        )
    )


def fit_decoder(s: Setting) -> Numbers:
    prior = lk.Prior("deep-decoder", (16, 16), s.seed, levels=2, width=8)
    average = lk.PosteriorMean(burn_in=2, every=2)
    return _of_fit(lk.fit(s.nudged(prior), s.op, s.y, steps=8, every=1, average=average, **QUIET))


def fit_sparse(s: Setting) -> Numbers:
    """A network large enough for the sparse step, where there is one."""
    prior = s.nudged(lk.Prior("oes", 64, s.seed, levels=3))
    op = lk.physics.Inpaint.random((3, 64, 64), density=0.5, seed=s.seed)
    y = op.measure(tiny_image((64, 64)), seed=s.seed).to(s.dtype)
    mask = lk.find.universal(prior, op, y, "auto", seed=s.seed)
    return _of_fit(lk.fit(prior, op, y, steps=4, every=1, mask=mask, **QUIET)) | _of_mask(mask)


def fit_super_resolution(s: Setting) -> Numbers:
    op = lk.physics.SuperResolution(2)
    y = op.measure(tiny_image(), seed=s.seed).to(s.dtype)
    return _of_fit(lk.fit(s.prior(), op, y, steps=6, every=1, **QUIET))


def fit_scan(s: Setting) -> Numbers:
    scan = lk.data.scan("slice-1", size=32, coils=3, seed=s.seed)
    op, y = scan.undersampled(lk.physics.sampling_mask((32, 32), 2.0, seed=s.seed))
    classical = lk.mri.total_variation(op, y, iterations=5)
    wide = torch.complex128 if s.dtype == torch.float64 else torch.complex64
    prior = lk.Prior("oes", (32, 32), s.seed, levels=2, out_channels=2)
    fit = lk.fit(s.nudged(prior), op, y.to(wide), steps=4, every=1, **QUIET)
    return _of_fit(fit) | {"total variation": classical}


def search_for_mask(s: Setting) -> Numbers:
    # from the fifth step on, a gradient that is almost zero lets a last bit decide a logit
    found = lk.find.oes(s.prior(), s.op, s.y, 0.2, steps=4, seed=s.seed, details=True, **QUIET)
    logits = torch.cat([v.flatten() for v in found.logits.values()])
    return {"logits": logits, "loss": torch.from_numpy(found.history["loss"])} | _of_mask(
        found.mask
    )


def search_with_samples(s: Setting) -> Numbers:
    how = dict(steps=6, lr=0.1, lam=1e-6, reg="centred", samples=2, scope="conv", seed=s.seed)
    found = lk.find.oes(s.prior(), s.op, s.y, 0.2, details=True, **how, **QUIET)
    return {"logits": torch.cat([v.flatten() for v in found.logits.values()])}


def prune_by_magnitude(s: Setting) -> Numbers:
    found = lk.find.imp(
        s.prior(), s.op, s.y, density=0.5, steps=6, rewind=0.4, seed=s.seed, **QUIET
    )
    return _of_masks(found.masks) | {"loss": torch.tensor([r.loss for r in found.rounds])}


def prune_for_several(s: Setting) -> Numbers:
    ys = [s.y, s.op.measure(1 - tiny_image(), seed=1 + s.seed).to(s.dtype)]
    how = dict(codes="per_image", density=0.6, steps=5, seed=s.seed)
    return _of_masks(lk.find.imp_multi(s.prior(), s.op, ys, **how, **QUIET).masks)


def prune_at_start(s: Setting) -> Numbers:
    masks: Numbers = {}
    for method in ("random", "magnitude", "snip", "grasp", "synflow", "universal"):
        prior = s.prior()
        if method == "universal":
            prior = s.nudged(lk.Prior("oes", 32, s.seed, levels=2))
        for variant in ("paper", "published"):
            how = {} if method == "universal" else dict(variant=variant)
            mask = getattr(lk.find, method)(prior, s.op, s.y, 0.3, seed=s.seed, **how)
            masks[f"{method} {variant}"] = mask.flat().double()
    controls = lk.find.magnitude(s.prior(), density=0.3)
    masks["shuffled"] = controls.shuffled(s.seed).flat().double()
    masks["random in layers"] = controls.same_density_random(s.seed).flat().double()
    return masks


def _generator(s: Setting):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3 + s.seed)
        net = lk.models.build("pgan", latent=4, depth0=4, scales=(4, 4))
    return s.nudged(net).float()  # latent vectors are drawn in single precision


def search_a_generator(s: Setting) -> Numbers:
    op = lk.physics.CompressedSensing((3, 16, 16), m=60, corrupted=4, seed=s.seed)
    ys = [op.measure(x) for x in lk.data.faces(2, size=16, seed=s.seed)]
    found = {}
    for loss in ("l2", "l4", "mom"):
        how = dict(loss=loss, blocks=12, restarts=2, average=2, seed=s.seed)
        for i, one in enumerate(lk.gan.search(_generator(s), op, ys, steps=5, **how, **QUIET)):
            found[f"{loss} {i}"] = one.image
            found[f"{loss} {i} z"] = one.z
    return found


def train_a_generator(s: Setting) -> Numbers:
    plan = lk.gan.Plan(4, 4, (4,), steps=(2, 2), batch=(4, 4), faces=8, seed=s.seed)
    training = lk.gan.Training(plan)
    for _ in range(4):
        training.advance()
    return {"average": torch.cat([p.flatten() for p in training.average.parameters()])}


def prune_a_generator(s: Setting) -> Numbers:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4 + s.seed)
        critic = lk.models.Critic(4, (4, 4))
    pictures = lk.data.faces(6, size=16, seed=s.seed)
    how = dict(rounds=2, steps=2, batch=4, seed=s.seed)
    found = lk.gan.imp(_generator(s), s.nudged(critic).float(), pictures, **how, **QUIET)
    tuned = torch.cat([p.flatten() for p in found.finetuned[-1].parameters()])
    return _of_masks(found.masks) | {"tuned": tuned}


def learn_classes(s: Setting) -> Numbers:
    images, labels = lk.data.labelled("digits", first=60)
    net = s.nudged(lk.lab.classifier.Classifier(tiny_prior(seed=s.seed), tuple(images.shape[1:])))
    net = lk.lab.classifier.train(net, images.to(s.dtype), labels, steps=4, seed=s.seed)
    return {"weights": torch.cat([p.flatten() for p in net.parameters()])}


def run_experiments(s: Setting) -> Numbers:
    """Records as sweeps make them; single precision throughout, so without a nudge."""
    tiny = dict(image="coffee", size=16, prior="oes", options={"levels": 2}, steps=4)
    given = {
        "dense": dict(stop={"window": 2, "patience": 3}),
        "shuffled": dict(method="magnitude", density=0.2, control="shuffled"),
        "found elsewhere": dict(
            method="snip",
            density=0.3,
            find_on={"image": "astronaut", "task": "inpaint", "strength": 0.5},
        ),
        "rounds": dict(method="imp", density=0.5, find={"steps": 3}),
        "search": dict(method="oes", density=0.1, find={"steps": 4}),
        "scan": dict(image="slice-1", size=32, task="mri", strength=2),
    }
    numbers: Numbers = {}
    for name, own in given.items():
        experiment = lk.lab.Experiment.of(tiny | own | {"seed": s.seed})
        numbers |= {f"{name}: {k}": v for k, v in _of_record(lk.lab.run(experiment)).items()}
    return numbers


def _of_record(record: Mapping) -> Numbers:
    assert record["status"] == "done", record
    found = {name: [value] for name, value in record["numbers"].items()} | record["curve"]
    return {
        name: torch.tensor([math.nan if v is None else float(v) for v in values]).double()
        for name, values in found.items()
    }


def digests(s: Setting) -> Numbers:
    """Hashes of experiments and signatures, as numbers: a hash that changes loses old records."""
    kinds = [
        dict(image="astronaut", size=64, method="snip", density=0.2, options={"levels": 4}),
        dict(image="slice-1", size=48, task="mri", strength=4, task_options={"pattern": "uniform"}),
        dict(image="digits", size=16, task="classify", strength=100, prior="dip"),
        dict(
            image="faces", size=64, prior="pgan", task="sensing", strength=60, fit={"loss": "mom"}
        ),
        dict(image=["coffee", "chelsea"], size=32, method="imp_multi", density=0.5),
    ]
    made = [lk.lab.Experiment.of(given).digest for given in kinds]
    return {"digests": torch.tensor([int(digest[:12], 16) for digest in made]).double()}


CASES: dict[str, Callable[[Setting], Numbers]] = {
    case.__name__: case
    for case in (
        fit_dense, fit_with_everything, fit_decoder, fit_sparse, fit_super_resolution, fit_scan,
        search_for_mask, search_with_samples, prune_by_magnitude, prune_for_several,
        prune_at_start, search_a_generator, train_a_generator, prune_a_generator, learn_classes,
        run_experiments, digests,
    )
}  # fmt: skip


def measure(case: str, setting: Setting) -> Numbers:
    """One case's tensors, with one thread, so that sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lk.masks.LayerCollapseWarning)
            return CASES[case](setting)
    finally:
        torch.set_num_threads(threads)


def summary(numbers: Numbers) -> dict[str, list[float]]:
    """A few projections of each tensor: none stays where a draw, an order or a formula changes."""
    return {name: _projected(tensor) for name, tensor in numbers.items()}


def _projected(tensor: torch.Tensor) -> list[float]:
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    flat = torch.nan_to_num(values.detach().double().flatten(), nan=-1.0).numpy()
    places = np.arange(flat.size)
    waves = [np.cos(places * math.sqrt(k + 2) + k) for k in range(PROJECTIONS)]
    scale = max(math.sqrt(flat.size), 1.0)
    return [
        float(f"{value:.9g}") for value in (np.abs(flat).mean(), *(w @ flat / scale for w in waves))
    ]


def distance(
    one: dict[str, list[float]], other: dict[str, list[float]], least: float = 1e-12
) -> float:
    """The largest difference of two summaries, as a part of the tensors' sizes, or of `least`."""
    if one.keys() != other.keys():
        return math.inf
    far = 0.0
    for name, mine in one.items():
        theirs = other[name]
        size = max(abs(theirs[0]), least)
        far = max(far, *(abs(a - b) / size for a, b in zip(mine, theirs, strict=True)))
    return far


def exact(numbers: Numbers) -> str:
    """A hash of every bit."""
    text = hashlib.sha256()
    for name in sorted(numbers):
        text.update(name.encode())
        text.update(numbers[name].detach().contiguous().numpy().tobytes())
    return text.hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="make the file of the tests anew")
    if parser.parse_args().write:
        found = {case: summary(measure(case, Setting(double=True))) for case in CASES}
        FILE.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")
        return
    for case in CASES:
        print(f"{case:24} {exact(measure(case, Setting()))}", flush=True)


if __name__ == "__main__":
    main()

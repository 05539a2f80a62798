"""Iterative magnitude pruning: train, prune the smallest weights, rewind, and again."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from torch import Tensor

from .. import metrics
from ..errors import InputError, check_choice, check_whole, is_number
from ..fitting import Fit, fit
from ..fitting.settings import check_parts, signature
from ..masks import Mask, checked_density
from ..physics import Denoise
from ..prior import Prior
from .latents import fresh_code
from .rounds import Folder, Imp, Round, in_rounds
from .schedule import Exempt, checked_rate, exempt_names, keep_counts, prune, rising_run

FIT_OPTIONS = (
    "input_noise", "average", "stop", "langevin", "weight_decay", "backtrack", "every", "precision",
    "engine",
)  # fmt: skip


def imp(
    prior: Prior,
    op,
    y: Tensor,
    *,
    density: float = 0.05,
    rate: float = 0.2,
    rounds: int | None = None,
    steps: int = 3000,
    lr: float = 0.01,
    rewind: float = 0.0,
    scope: str = "conv",
    exempt: Exempt = (),
    within: Mask | None = None,
    codes: str = "fixed",
    stop_when_rising: int | None = None,
    reference_target: Tensor | None = None,
    reference: Tensor | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
    **fit_options,
) -> Imp:
    """Find masks of falling density: fit, prune the smallest weights globally, rewind, repeat.

    Every round starts from the same state, all parameters and statistics of it, with a new
    optimizer. Pruning `i` leaves exactly `(1 - rate)**i` of the prunable weights, rounded down;
    the last is shortened to keep exactly `density` of all weights of the scope. There are as many
    prunings as trainings: the last mask is for you to train.

    Args:
        rounds: this many prunings at `rate`, instead of as many as `density` needs.
        steps: of each round's fit.
        rewind: rewind to the weights after this fraction of the steps of a dense fit, not to the
            initial ones. Round 0 itself always starts from the initial weights.
        exempt: names of weights never pruned, such as `FIRST_CONVS`, or a function that says so of
            a name. They count towards the density.
        within: a mask to begin with; what it has pruned stays pruned.
        codes: "fixed" uses the prior's code throughout; "per_round" draws a new one for each round
            after the first, as the published code does.
        stop_when_rising: end the search once the loss has risen in this many rounds in a row.
        reference_target: train on this clean picture, not on `y`. That is how the published code
            finds its tickets, with the truth in hand: for comparison, not for use.
        reference: the clean picture; each round is measured against it and nothing changes.
        folder: save every finished round and the fit under way here, and go on from there.
        seed: of the noise in the fits; round `i` has `seed + i`.
        fit_options: `input_noise`, `average`, `stop` and others of `lipkit.fit`.

    >>> import lipkit as lk
    >>> clean, op = lk.testing.tiny_image(), lk.physics.Denoise(sigma=0.1)
    >>> found = imp(lk.testing.tiny_prior(), op, op.measure(clean), density=0.5, steps=10)
    >>> found
    Imp(4 rounds, density 50 %: density 50 % is reached)
    >>> [round(mask.density, 2) for mask in found.masks]
    [0.8, 0.64, 0.51, 0.5]
    """
    if reference_target is not None:
        op = Denoise(0.0)
        y = reference_target
    return _Search(
        prior, op, y, density, rate, rounds, steps, lr, rewind, scope, exempt, within, codes,
        stop_when_rising, reference, folder, seed, progress, fit_options,
    ).go()  # fmt: skip


@dataclass
class _Search:
    """One search: the arguments of `imp`, checked, and what stays the same from round to round."""

    prior: Prior
    op: object
    y: Tensor
    density: float
    rate: float
    rounds: int | None
    steps: int
    lr: float
    rewind: float
    scope: str
    exempt: Exempt
    within: Mask | None
    codes: str
    stop_when_rising: int | None
    reference: Tensor | None
    folder: str | Path | None
    seed: int
    progress: bool
    fit_options: dict

    def __post_init__(self) -> None:
        self._check()
        self.exempt = exempt_names(self.exempt, self.prior.net, self.scope)
        full = Mask.full(self.prior.net, self.scope)
        self.first = full if self.within is None else full & self.within
        self.counts = keep_counts(self.first, self.exempt, self.density, self.rate, self.rounds)
        self.files = None if self.folder is None else Folder(self.folder, self._signature())
        self.start = self._start()

    def _check(self) -> None:
        checked_density(self.density)
        checked_rate(self.rate)
        check_whole("steps", self.steps, least=1)
        check_whole("seed", self.seed)
        if not is_number(self.rewind, least=0) or self.rewind >= 1:
            raise InputError(
                f"rewind is a fraction of the steps, at least 0 and below 1, got {self.rewind!r}"
            )
        if self.rewind and not self._rewind_steps:
            raise InputError(f"rewind={self.rewind} of {self.steps} steps is less than one step")
        for name in ("rounds", "stop_when_rising"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least=1)
        check_choice("codes", self.codes, ("fixed", "per_round"))
        unknown = sorted(set(self.fit_options) - set(FIT_OPTIONS))
        if unknown:
            raise InputError(
                f"there is no option {unknown[0]!r} here; those handed on to fit are: "
                + ", ".join(FIT_OPTIONS)
            )
        check_parts(self.prior, self.op, self.y, self.within, self.reference)
        if self.codes == "per_round":
            fresh_code(self.prior, self.seed)  # refuses what has no other code now, not later

    @property
    def _rewind_steps(self) -> int:
        return round(self.rewind * self.steps)

    def go(self) -> Imp:
        """Do all rounds."""
        rounds: list[Round] = []
        rising = None
        for found in in_rounds(self.first, self.counts, self._round, self.progress):
            rounds.append(found)
            rising = rising_run([r.loss for r in rounds], self.stop_when_rising)
            if rising:
                break
        if not rounds:
            raise KeyboardInterrupt
        interrupted = not rising and len(rounds) < len(self.counts)
        reason = self._done()
        if rising:
            reason = f"the loss has risen in {rising[1] - rising[0] + 1} rounds in a row"
        if interrupted:
            reason = f"interrupted in round {len(rounds)} of {len(self.counts)}"
        return Imp(tuple(rounds), self.start, reason, rising, interrupted)

    def _start(self) -> Prior:
        """Make what every round but the first starts from."""
        start = self.prior.clone()
        if not self.rewind or (self.files and self.files.load_weights(start.net)):
            return start
        # the first steps of the very fit that round 0 runs in full: same weights, code and noise
        result = self._fit(start, self.first, self._rewind_steps, 0, "rewind")
        if result.interrupted:
            raise KeyboardInterrupt
        start.net.load_state_dict(result.net.state_dict())
        if self.files:
            self.files.save_weights(start.net)
        return start

    def _round(self, number: int, mask: Mask, kept: int) -> Round | None:
        """Train under the mask and prune; None if that was interrupted."""
        name = f"round-{number:02d}"
        found = self.files.load_round(name, mask, kept) if self.files else None
        if found is not None:
            return found
        prior = self.start if number else self.prior
        if number and self.codes == "per_round":
            prior = prior.clone()
            prior.z = fresh_code(prior, self.seed + number)
        result = self._fit(prior, mask, self.steps, number, name)
        if result.interrupted:
            return None
        found = self._record(result, mask, kept)
        if self.files:
            self.files.save_round(name, found, mask)
        return found

    def _fit(self, prior: Prior, mask: Mask, steps: int, number: int, name: str) -> Fit:
        return fit(
            prior, self.op, self.y, steps=steps, lr=self.lr, seed=self.seed + number,
            mask=None if mask.kept == mask.total else mask, reference=self.reference,
            checkpoint=self.files and self.files.checkpoint(name), progress=self.progress,
            **self.fit_options,
        )  # fmt: skip

    def _record(self, result: Fit, mask: Mask, kept: int) -> Round:
        psnr = best = float("nan")
        if self.reference is not None:
            reference = self.reference.cpu().reshape(result.image.shape)
            psnr, best = (metrics.psnr(x, reference) for x in (result.image, result.best))
        pruned = prune(result.net, mask, kept, self.exempt)
        loss = float(result.history["loss"][-1])
        return Round(mask.density, loss, psnr, best, result.seconds, pruned)

    def _done(self) -> str:
        if self.rounds:
            return f"all {self.rounds} rounds are done"
        return f"density {100 * self.density:.3g} % is reached"

    def _signature(self) -> dict[str, str]:
        """Say what makes two searches the same; how far they go may differ."""
        defaults = inspect.signature(fit).parameters
        options = {name: defaults[name].default for name in FIT_OPTIONS} | self.fit_options
        truth = self.reference
        if truth is not None:
            truth = hashlib.sha256(truth.cpu().contiguous().numpy().tobytes()).hexdigest()
        settings = SimpleNamespace(
            rate=self.rate, steps_a_round=self.steps, lr=self.lr, rewind=self.rewind,
            scope=self.scope, codes=self.codes, seed=self.seed, exempt=self.exempt,
            reference=truth, **options,
        )  # fmt: skip
        return signature(self.prior, self.op, self.y, self.first, settings)

"""Iterative magnitude pruning: train, prune the smallest weights, rewind, and again."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from torch import Tensor

from .. import metrics
from ..checks import check_picture, is_number, is_whole
from ..errors import InputError
from ..fitting import Fit, fit
from ..fitting.settings import check_parts, signature
from ..masks import Mask, checked_density
from ..physics import Denoise
from ..prior import Prior
from .latents import fresh_code
from .rounds import Folder, Imp, Round
from .schedule import Exempt, checked_rate, exempt_names, plan, prune, rising_run

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
    settings = _Settings(
        density, rate, rounds, steps, lr, rewind, scope, codes, stop_when_rising, seed, fit_options
    )
    settings.check()
    if reference_target is not None:
        op, y = Denoise(0.0), reference_target
    check_parts(prior, op, within, None)
    check_picture("measurement", y)
    if reference is not None:
        check_picture("reference", reference)
    if codes == "per_round":
        fresh_code(prior, seed)  # refuses what has no other code now, not after the first round
    search = _Search(
        prior, op, y, settings, exempt_names(exempt, prior.net, scope), within, reference
    )
    return search.go(folder, progress)


@dataclass(frozen=True)
class _Settings:
    density: float
    rate: float
    rounds: int | None
    steps: int
    lr: float
    rewind: float
    scope: str
    codes: str
    stop_when_rising: int | None
    seed: int
    fit_options: dict

    def check(self) -> None:
        checked_density(self.density)
        checked_rate(self.rate)
        if not is_whole(self.steps, least=1):
            raise InputError(f"steps must be a whole number of at least 1, got {self.steps!r}")
        if not is_number(self.rewind, least=0) or self.rewind >= 1:
            raise InputError(
                f"rewind is a fraction of the steps, at least 0 and below 1, got {self.rewind!r}"
            )
        if self.rewind and not self.rewind_steps:
            raise InputError(f"rewind={self.rewind} of {self.steps} steps is less than one step")
        for name in ("rounds", "stop_when_rising"):
            value = getattr(self, name)
            if value is not None and not is_whole(value, least=1):
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not is_whole(self.seed):
            raise InputError(f"seed must be a whole number of at least 0, got {self.seed!r}")
        if self.codes not in ("fixed", "per_round"):
            raise InputError(f"codes must be 'fixed' or 'per_round', got {self.codes!r}")
        unknown = sorted(set(self.fit_options) - set(FIT_OPTIONS))
        if unknown:
            raise InputError(
                f"there is no option {unknown[0]!r} here; those handed on to fit are: "
                + ", ".join(FIT_OPTIONS)
            )

    @property
    def rewind_steps(self) -> int:
        return round(self.rewind * self.steps)


class _Search:
    """One search: what stays the same from round to round."""

    def __init__(self, prior, op, y, settings: _Settings, exempt, within, reference) -> None:
        self.prior, self.op, self.y, self.s = prior, op, y, settings
        self.exempt, self.reference = exempt, reference
        full = Mask.full(prior.net, settings.scope)
        self.first = full if within is None else full & within
        self.plan = plan(self.first, exempt, settings.density, settings.rate, settings.rounds)

    def go(self, folder: str | Path | None, progress: bool) -> Imp:
        from tqdm import tqdm

        files = None if folder is None else Folder(folder, self._signature())
        silent = {} if progress else {"disable": True}  # else TQDM_DISABLE decides
        start = self._start(files, progress)
        rounds: list[Round] = []
        mask, rising, reason, interrupted = self.first, None, self._done(), False
        for number, kept in enumerate(tqdm(self.plan, "rounds", leave=False, **silent)):
            name = f"round-{number:02d}"
            found = files.load_round(name, mask, kept) if files else None
            if found is None:
                checkpoint = files.checkpoint(name) if files else None
                result = self._train(start, mask, number, checkpoint, progress)
                if result.interrupted:
                    interrupted = True
                    reason = f"interrupted in round {number} of {len(self.plan)}"
                    break
                found = self._record(result, mask, kept)
                if files:
                    files.save_round(name, found, mask)
            rounds.append(found)
            mask = found.mask
            rising = rising_run([r.loss for r in rounds], self.s.stop_when_rising)
            if rising:
                reason = f"the loss has risen in {rising[1] - rising[0] + 1} rounds in a row"
                break
        if not rounds:
            raise KeyboardInterrupt
        return Imp(tuple(rounds), start, reason, rising, interrupted)

    def _start(self, files: Folder | None, progress: bool) -> Prior:
        """What every round but the first starts from."""
        start = self.prior.clone()
        if not self.s.rewind or (files and files.load_weights(start.net)):
            return start
        # the first steps of the very fit that round 0 runs in full: same weights, code and noise
        checkpoint = files.checkpoint("rewind") if files else None
        result = self._fit(start, self.first, self.s.rewind_steps, 0, checkpoint, progress)
        if result.interrupted:
            raise KeyboardInterrupt
        start.net.load_state_dict(result.net.state_dict())
        if files:
            files.save_weights(start.net)
        return start

    def _train(self, start: Prior, mask: Mask, number: int, checkpoint, progress: bool) -> Fit:
        prior = start if number else self.prior
        if number and self.s.codes == "per_round":
            prior = prior.clone()
            prior.z = fresh_code(prior, self.s.seed + number)
        return self._fit(prior, mask, self.s.steps, number, checkpoint, progress)

    def _fit(self, prior, mask: Mask, steps: int, number: int, checkpoint, progress: bool) -> Fit:
        return fit(
            prior, self.op, self.y, steps=steps, lr=self.s.lr, seed=self.s.seed + number,
            mask=None if mask.kept == mask.total else mask, reference=self.reference,
            checkpoint=checkpoint, progress=progress, **self.s.fit_options,
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
        if self.s.rounds:
            return f"all {self.s.rounds} rounds are done"
        return f"density {100 * self.s.density:.3g} % is reached"

    def _signature(self) -> dict[str, str]:
        """What makes two searches the same; how far they go may differ."""
        s, truth = self.s, self.reference
        defaults = inspect.signature(fit).parameters
        options = {name: defaults[name].default for name in FIT_OPTIONS} | s.fit_options
        if truth is not None:
            truth = hashlib.sha256(truth.cpu().contiguous().numpy().tobytes()).hexdigest()
        same = dict(
            rate=s.rate, steps_a_round=s.steps, lr=s.lr, rewind=s.rewind, scope=s.scope,
            codes=s.codes, seed=s.seed, exempt=self.exempt, reference=truth,
        )  # fmt: skip
        settings = SimpleNamespace(**same, **options)
        return signature(self.prior, self.op, self.y, self.first, settings)

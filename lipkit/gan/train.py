"""Train a progressive GAN on procedural faces: `python -m lipkit.gan.train FOLDER`.

Scale by scale from 4 pixels on; each new scale is faded in. The folder gets a log of JSON lines,
sample pictures, a checkpoint from which training goes on bit for bit, and at the end
`generator.safetensors` (the moving average) and `critic.safetensors`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch

from ..errors import Error, InputError, is_number
from ..fitting import loop
from ..formats.atomic import write
from ..workers import default_device
from .files import save
from .training import Training, TrainingPlan

CHECKPOINT = "checkpoint.safetensors"


def train(
    plan: TrainingPlan,
    folder: str | Path,
    device: str = "cpu",
    minutes: float | None = None,
    every: int = 50,
    progress: bool = True,
) -> Training:
    """Train by the plan, from the folder's checkpoint if it has one, for at most so many minutes.

    >>> import tempfile
    >>> plan = TrainingPlan(4, 4, (4,), steps=(2, 2), batch=(4, 4), faces=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = train(plan, folder, progress=False)
    ...     sorted(path.name for path in Path(folder).glob("*.safetensors"))
    ['checkpoint.safetensors', 'critic.safetensors', 'generator.safetensors']
    """
    if minutes is not None and not is_number(minutes, 0):
        raise InputError(f"minutes must be a number of at least 0, got {minutes!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(plan, device)
    end = loop.run(
        training, folder / CHECKPOINT, progress=progress, minutes=minutes,
        seen=_Report(training, folder, every),
    )  # fmt: skip
    if end.interrupted:
        raise loop.unfinished("the training", end, folder)
    if training.step == training.steps:
        note = {"plan": asdict(plan), "seconds": round(training.seconds)}
        save(training.average, folder / "generator.safetensors", note=note)
        save(training.duel.critic, folder / "critic.safetensors", note=note)
    return training


class _Report:
    """Writes the log of a training, and at the end of each scale what it has come to."""

    def __init__(self, training: Training, folder: Path, every: int) -> None:
        self.training = training
        self.folder = folder
        self.every = every
        self.path = folder / "log.jsonl"
        self.begun = False

    def __call__(self, losses: dict[str, torch.Tensor]) -> None:
        training = self.training
        if not self.begun:
            self._cut(training.step)
        if training.step % self.every == 0 or training.at_scale_end:
            self._write(_entry(training, losses))
        if training.at_scale_end:
            self._write({"step": training.step} | _report(training, self.folder))

    def _cut(self, step: int) -> None:
        """Remove what an interrupted training wrote after its checkpoint."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        # a last line without its end was cut short when the power failed or the disk was full
        whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in whole if json.loads(line)["step"] < step]
        write(self.path, "".join(kept).encode())
        self.begun = True

    def _write(self, entry: dict) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _entry(training: Training, losses: dict[str, torch.Tensor]) -> dict:
    """Return a line of the log; a training that diverged ends here."""
    numbers = {name: float(value) for name, value in losses.items()}
    if not all(is_number(value) for value in numbers.values()):
        raise Error(
            f"the losses are {numbers} at step {training.step}: the training diverged; "
            f"try a smaller learning rate than lr={training.plan.lr}"
        )
    scale, alpha = training.plan.at(training.step - 1)
    where = {"step": training.step, "scale": scale, "alpha": round(alpha, 4)}
    return where | {"seconds": round(training.seconds, 1)} | numbers


def _report(training: Training, folder: Path) -> dict:
    """Show samples, if Pillow is there to write them, and return the judge's word."""
    shown = training.samples(64)
    try:
        from ..data import save as save_picture

        _, c, h, w = shown.shape
        grid = shown.view(8, 8, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, 8 * h, 8 * w)
        save_picture(grid.cpu(), folder / f"samples_{training.step:06d}.png")
    except ImportError:
        pass
    return training.judge() if shown.shape[-1] >= 16 else {}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; bad input is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(
        "python -m lipkit.gan.train", description=__doc__.partition("\n\n")[2],
        epilog="A folder with a checkpoint of the same plan goes on from there.",
    )  # fmt: skip
    parser.add_argument("folder", type=Path, help="where the results go")
    for field in fields(TrainingPlan):
        if isinstance(field.default, bool):
            parser.add_argument(f"--{field.name}", action="store_true")
            continue
        several = isinstance(field.default, tuple)
        kind = int if several else type(field.default)
        shown = " ".join(map(str, field.default)) if several else field.default
        parser.add_argument(
            f"--{field.name}", type=kind, nargs="*" if several else None, default=field.default,
            help=f"default: {shown}",
        )  # fmt: skip
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--minutes", type=float, help="stop after this time, to go on later")
    given = vars(parser.parse_args(arguments))
    settings = {name: given.pop(name) for name in ("folder", "device", "minutes")}
    try:
        plan = TrainingPlan(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
        done = train(plan, **settings)
    except (Error, OSError) as problem:
        print("lipkit: error: " + " ".join(str(problem).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stopped:
        print(f"lipkit: {stopped}", file=sys.stderr)
        sys.exit(130)
    print(json.dumps({"step": done.step, "of": done.steps, "seconds": round(done.seconds)}))


if __name__ == "__main__":
    main()

"""What `restore`, `find` and `mri` share: options, the picture and what happened to it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from torch import Tensor

from .. import data, models, physics
from ..errors import InputError
from ..prior import Recipe
from ..workers import default_device
from .run import literal

TASKS = ("denoise", "inpaint", "sr")
STRONG_NOISE = 37.5 / 255  # between the published 25/255 and 50/255, which differ in input noise


@dataclass(frozen=True)
class Request:
    """The options of the command line that `restore` and `find` share."""

    task: str
    sigma: float | None = None
    mask: str | None = None
    factor: int | None = None
    size: int | None = None
    prior: str | None = None
    option: tuple[tuple[str, str], ...] = ()
    steps: int | None = None
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"

    def check(self) -> None:
        """Refuse options that the task does not take, before anything is read."""
        for name, task in (("sigma", "denoise"), ("mask", "inpaint"), ("factor", "sr")):
            if getattr(self, name) is not None and self.task != task:
                raise click.UsageError(f"--{name} is for --task {task}, not for {self.task}")
        if self.task == "inpaint" and self.mask is None:
            raise click.UsageError(
                "--task inpaint needs --mask FILE, a picture that is white where IN is to be kept"
            )

    def network(self, problem: Problem) -> Recipe:
        """Make the recipe of the prior; its size and channels are those of the picture."""
        options = {name: literal(value) for name, value in self.option}
        if "out_channels" in options:
            raise click.UsageError("out_channels is that of the picture and cannot be chosen")
        options = {"out_channels": problem.channels} | options
        return Recipe(self.prior or "dip", problem.size, self.seed, options)


def chosen_device(wanted: str) -> str:
    """Return the device that --device means here."""
    if wanted == "auto":
        return default_device()
    if wanted == "cuda" and default_device() != "cuda":
        raise click.UsageError("--device cuda: there is no GPU that torch can use")
    return wanted


seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True
)
device_option = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
json_option = click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
_OPTIONS = (
    click.option("--task", type=click.Choice(TASKS), required=True, help="what is to be undone"),
    click.option(
        "--sigma",
        type=click.FloatRange(0, 1),
        help="denoise: the noise's standard deviation, if known, with white at 1 (0.1 = 25/255)",
    ),
    click.option(
        "--mask", help="inpaint: a picture, white where IN is kept, black where it is lost"
    ),
    click.option(
        "--factor", type=click.Choice(["2", "4", "8"]), help="sr: enlarge so much  [default: 4]"
    ),
    click.option(
        "--size", type=click.IntRange(8), help="shrink IN first: pixels of its longer side"
    ),
    click.option("--prior", help="the network: dip, oes, deep-decoder, ...  [default: dip]"),
    click.option(
        "-o",
        "--option",
        nargs=2,
        multiple=True,
        metavar="NAME VALUE",
        help="an option of the network",
    ),
    click.option("--steps", type=click.IntRange(1), help="the most optimizer steps (of a fit)"),
    seed_option,
    click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto"),
    device_option,
    json_option,
)


def shared_options(command: Callable) -> Callable:
    """Give a command the options that `Request` holds, and --json."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def request(options: dict[str, Any]) -> Request:
    """Take the shared options as click gives them, and check them."""
    factor = options.pop("factor")
    found = Request(factor=factor and int(factor), **options)
    found.check()
    return found


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show each warning as one line, without the line of code it comes from."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        finally:
            for text in dict.fromkeys(str(warning.message) for warning in caught):
                click.echo(f"lipkit: warning: {text}", err=True)


@dataclass(frozen=True)
class Problem:
    """A measured picture, the operator that made it, and the size of what is wanted."""

    task: str
    y: Tensor
    op: Any
    size: tuple[int, int]

    @property
    def channels(self) -> int:
        return self.y.shape[0]

    def in_channels_of(self, recipe: Recipe) -> Problem:
        """Fit a grey picture by three equal channels, if the network of a ticket makes three."""
        wanted = recipe.options.get(
            "out_channels", models.options(recipe.name).get("out_channels", 3)
        )
        if wanted == self.channels:
            return self
        if wanted == 3 and self.channels == 1:
            return replace(self, y=self.y.expand(3, -1, -1))
        raise click.UsageError(
            f"the ticket's network makes pictures of {wanted} channels, but IN has {self.channels}"
        )

    def finish(self, image: Tensor, gray: bool) -> Tensor:
        """Return what is written: known pixels as they were, grey if the picture was."""
        if self.task == "inpaint":
            known = self.op.mask.cpu()
            image = known * self.y + (1 - known) * image
        return image.mean(0, keepdim=True) if gray else image


def problem(source: str, wanted: Request) -> Problem:
    """Read the picture and set up its operator."""
    y = data.image(source)
    if wanted.size is not None and wanted.size < max(y.shape[1:]):
        scale = wanted.size / max(y.shape[1:])
        y = data.image(y, size=tuple(max(1, round(scale * side)) for side in y.shape[1:]))
    size = tuple(y.shape[1:])
    if wanted.task == "denoise":
        return Problem("denoise", y, physics.Denoise(wanted.sigma or 0.0), size)
    if wanted.task == "sr":
        factor = wanted.factor or 4
        size = tuple(factor * side for side in size)
        return Problem("sr", y, physics.SuperResolution(factor), size)
    mask = _kept_pixels(wanted, size)
    return Problem("inpaint", y * mask, physics.Inpaint(mask), size)


def _kept_pixels(wanted: Request, size: tuple[int, int]) -> Tensor:
    """Read the mask of --task inpaint, in the size of the picture."""
    mask = data.mask(wanted.mask)
    height, width = mask.shape[1:]
    if (height, width) != size:
        if wanted.size is None:
            raise InputError(
                f"the mask is {width} x {height} pixels, the picture "
                f"{size[1]} x {size[0]}; they must be of one size"
            )
        mask = data.mask(mask, size=size)
    if mask.min() == mask.max():
        what = "keeps every pixel: nothing is to be filled in" if mask.max() else "keeps no pixel"
        raise InputError(f"the mask {what}; white means keep, black means fill in")
    return mask


@dataclass(frozen=True)
class FitRecipe:
    """How the published experiments fit a network to a task."""

    steps: int
    input_noise: float
    average: float | None
    stop: str


def fit_recipe(wanted: Request, network: str) -> FitRecipe:
    """Return steps, input noise, average and stop rule, unless the command line says otherwise.

    >>> fit_recipe(Request("sr", factor=8), "dip")
    FitRecipe(steps=4000, input_noise=0.05, average=None, stop='none')
    """
    if wanted.task == "denoise":
        strong = wanted.sigma is not None and wanted.sigma > STRONG_NOISE
        found = FitRecipe(3000, 1 / 20 if strong else 1 / 30, 0.99, "wmv")
    elif wanted.task == "inpaint":
        found = FitRecipe(3000, 0.03, None, "none")
    elif wanted.factor == 8:
        found = FitRecipe(4000, 0.05, None, "none")
    else:
        found = FitRecipe(2000, 0.03, None, "none")
    if not network.startswith("dip"):  # the others are published without input noise
        found = replace(found, input_noise=0.0, average=None)
    return replace(found, steps=wanted.steps or found.steps)


def check_output(path: str, what: str, inputs: tuple[str | None, ...], suffix: str = "") -> Path:
    """Return the path if a file can be written there: before hours of work, not after."""
    place = Path(path)
    if suffix and place.suffix.lower() != suffix:
        raise click.UsageError(f"{what} must end in {suffix}, got {place.name!r}")
    if place.is_dir():
        raise click.UsageError(f"{what} is a folder, not a file: {path}")
    if place.exists() and not place.is_file():
        raise click.UsageError(f"{what} is a device or a pipe, which would be replaced: {path}")
    place = place.resolve() if place.is_symlink() else place
    if not place.parent.is_dir():
        raise click.UsageError(f"there is no folder {str(place.parent)!r} to write {what} in")
    if not os.access(place.parent, os.W_OK) or (place.exists() and not os.access(place, os.W_OK)):
        raise click.UsageError(f"{what} cannot be written: no permission for {path}")
    for given in inputs:
        if given and os.path.exists(given) and place.exists() and place.samefile(given):
            raise click.UsageError(f"{what} would overwrite an input, {given}; choose another name")
    return place

"""`lipkit find`: find a sparse network for a picture and keep it as a ticket."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

import click

from .. import find
from ..errors import Error
from ..masks import Mask, checked_density
from ..prior import Prior
from ..tickets import Ticket, image_hash
from .estimate import announce
from .task import (
    Problem,
    Request,
    check_output,
    chosen_device,
    fit_recipe,
    plain_warnings,
    problem,
    request,
    shared_options,
)

OES_STEPS = 1000  # the default of lipkit.find.oes
METHODS = ("imp", "oes", "snip", "grasp", "synflow", "magnitude", "random")


@click.command()
@click.argument("source", metavar="IN")
@click.argument("ticket", metavar="TICKET")
@click.option("--method", type=click.Choice(METHODS), required=True)
@click.option(
    "--density",
    default="0.05",
    show_default=True,
    help="fraction to keep, or auto: 0.2 weights for each value of the picture",
)
@click.option(
    "--scope", type=click.Choice(["conv", "all"]), help="[default: all for oes, else conv]"
)
@click.option("--variant", type=click.Choice(["paper", "published"]), help="[default: paper]")
@click.option("--rate", type=float, help="imp: fraction pruned each round  [default: 0.2]")
@click.option("--folder", help="imp: save each round here, and go on from there")
@shared_options
@click.pass_context
def command(
    context: click.Context,
    source: str,
    ticket: str,
    method: str,
    density: str,
    scope: str | None,
    variant: str | None,
    rate: float | None,
    folder: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find which weights to keep for the degraded picture IN and save them as TICKET.

    \b
    lipkit find noisy.png my.ticket --method imp --density 0.05 --task denoise
    lipkit restore other.png clean.png --task denoise --ticket my.ticket

    The other methods prune before any training and take seconds, oes about as long as one fit;
    imp fits many times over.
    """
    wanted = request(options)
    _check_method(method, wanted, variant, rate, folder)
    fraction = _fraction(density)
    path = check_output(ticket, "TICKET", (source, wanted.mask))
    device = chosen_device(wanted.device)
    picture = problem(source, wanted)
    recipe = wanted.network(picture)
    common = (method, fraction, scope or ("all" if method == "oes" else "conv"), wanted.seed)
    steps = 1
    if method == "imp":
        how = fit_recipe(wanted, recipe.name)
        steps = how.steps
        search = ByRounds(
            *common, 0.2 if rate is None else rate, steps, how.input_noise, how.average
        )
    elif method == "oes":
        steps = wanted.steps or OES_STEPS
        search = ByLearning(*common, steps)
    else:
        search = AtOnce(*common, variant or "paper")
    announce(picture, recipe, steps, 1, device)
    prior = recipe.prior()
    with plain_warnings():
        mask = search.mask(prior.clone().to(device), picture, wanted.precision, folder)
    if mask is None:
        more = f"the same command goes on from {folder}" if folder else "--folder keeps the rounds"
        click.echo(f"interrupted; nothing is written; {more}", err=True)
        context.exit(130)
    found = Ticket(mask, prior.recipe, _note(source, picture, search))
    found.save(path)
    _report(found, str(path), method, as_json)


@dataclass(frozen=True)
class Search:
    """How the mask is looked for; the fields go into the note of the ticket."""

    method: str
    asked_density: float | str  # a fraction, or "auto"
    scope: str
    seed: int

    def run(self, prior: Prior, picture: Problem, **options: Any) -> Mask | None:
        """Return the mask, or None if the search was interrupted."""
        density = self.asked_density
        if density == "auto":
            density = find.auto_density(prior, self.scope)
        y = picture.y.to(prior.z)
        shared = {"density": density, "scope": self.scope, "seed": self.seed}
        found = getattr(find, self.method)(prior, picture.op, y, **shared, **options)
        if isinstance(found, Mask):
            return found
        return None if found.interrupted else found.mask


@dataclass(frozen=True)
class AtOnce(Search):
    """Keep the best scores of the initial weights."""

    variant: str

    def mask(self, prior: Prior, picture: Problem, precision: str, folder: None) -> Mask | None:
        return self.run(prior, picture, variant=self.variant)


@dataclass(frozen=True)
class ByLearning(Search):
    """Learn which of the initial weights to keep: oes."""

    steps: int

    def mask(self, prior: Prior, picture: Problem, precision: str, folder: None) -> Mask | None:
        return self.run(prior, picture, steps=self.steps, precision=precision, details=True)


@dataclass(frozen=True)
class ByRounds(Search):
    """Fit, prune the smallest weights, begin again: imp."""

    rate: float
    steps_a_round: int
    input_noise: float
    average: float | None

    def mask(
        self, prior: Prior, picture: Problem, precision: str, folder: str | None
    ) -> Mask | None:
        return self.run(
            prior, picture, rate=self.rate, steps=self.steps_a_round, precision=precision,
            input_noise=self.input_noise, average=self.average, folder=folder,
        )  # fmt: skip


def _check_method(
    method: str, wanted: Request, variant: str | None, rate: float | None, folder: str | None
) -> None:
    only_imp = {"--rate": rate, "--folder": folder}
    given = [name for name, value in only_imp.items() if value is not None]
    if method != "imp" and given:
        raise click.UsageError(f"{given[0]} is for --method imp")
    if method not in ("imp", "oes") and wanted.steps is not None:
        raise click.UsageError(f"--steps is for --method imp and oes; {method} does no fitting")
    if method in ("imp", "oes") and variant is not None:
        raise click.UsageError(f"--variant is for methods of one shot, not for {method}")


def _fraction(density: str) -> float | str:
    if density == "auto":
        return density
    try:
        return checked_density(float(density))
    except ValueError as error:
        if isinstance(error, Error):
            raise
        raise click.UsageError(f"--density is a number or auto, got {density!r}") from None


def _note(source: str, picture: Problem, search: Search) -> dict[str, Any]:
    """Say what the ticket was found on and how; nothing that differs between two equal runs."""
    operator = type(picture.op).__name__
    if picture.task == "sr":
        operator += f"({picture.op.factor})"
    return asdict(search) | {
        "image": {"name": os.path.basename(source), "sha256": image_hash(picture.y)},
        "operator": operator,
        "task": picture.task,
    }


def _report(found: Ticket, path: str, method: str, as_json: bool) -> None:
    mask = found.mask
    if as_json:
        facts = {"ticket": path, "method": method, "density": mask.density}
        click.echo(json.dumps(facts | {"kept": mask.kept, "total": mask.total, "note": found.note}))
        return
    click.echo(
        f"{path}: {mask.kept:,} of {mask.total:,} weights kept (density {100 * mask.density:.4g} %)"
    )

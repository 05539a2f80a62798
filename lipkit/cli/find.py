"""`lipkit find`: find a sparse network for a picture and keep it as a ticket."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from ..errors import Error
from .estimate import announce
from .task import (
    Asked,
    Problem,
    asked,
    check_output,
    chosen_device,
    fitting,
    plain_warnings,
    problem,
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
    from ..tickets import Ticket

    wanted = asked(options)
    _check_method(method, wanted, variant, rate, folder)
    fraction = _fraction(density)
    path = check_output(ticket, "TICKET", (source, wanted.mask))
    device = chosen_device(wanted.device)
    picture = problem(source, wanted)
    recipe = wanted.network(picture.channels, picture.size)
    how = {"method": method, "asked_density": fraction, "seed": wanted.seed}
    how["scope"] = scope or ("all" if method == "oes" else "conv")
    if method == "imp":
        fit_as = fitting(wanted, recipe.name)
        how |= {"rate": 0.2 if rate is None else rate, "steps_a_round": fit_as.steps}
        how |= {"input_noise": fit_as.input_noise, "average": fit_as.average}
    elif method == "oes":
        how["steps"] = wanted.steps or OES_STEPS
    else:
        how["variant"] = variant or "paper"
    announce(picture, recipe, how.get("steps_a_round", how.get("steps", 1)), 1, device)
    prior = recipe.prior()
    with plain_warnings():
        mask = _search(prior.clone().to(device), picture, how, wanted.precision, folder)
    if mask is None:
        more = f"the same command goes on from {folder}" if folder else "--folder keeps the rounds"
        click.echo(f"interrupted; nothing is written; {more}", err=True)
        context.exit(130)
    found = Ticket(mask, prior.recipe, _note(source, picture, how))
    found.save(path)
    _report(found, str(path), method, as_json)


def _check_method(
    method: str, wanted: Asked, variant: str | None, rate: float | None, folder: str | None
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
    from ..masks import checked_density

    if density == "auto":
        return density
    try:
        return checked_density(float(density))
    except ValueError as error:
        if isinstance(error, Error):
            raise
        raise click.UsageError(f"--density is a number or auto, got {density!r}") from None


def _search(prior, picture: Problem, how: dict[str, Any], precision: str, folder: str | None):
    """The mask, or None if the search was interrupted."""
    from .. import find

    density = how["asked_density"]
    if density == "auto":
        density = find.auto_density(prior, how["scope"])
    shared = {"density": density, "scope": how["scope"], "seed": how["seed"]}
    if how["method"] == "oes":
        found = find.oes(
            prior, picture.op, picture.y.to(prior.z), steps=how["steps"], precision=precision,
            details=True, **shared,
        )  # fmt: skip
        return None if found.interrupted else found.mask
    if how["method"] != "imp":
        method = getattr(find, how["method"])
        return method(prior, picture.op, picture.y.to(prior.z), variant=how["variant"], **shared)
    result = find.imp(
        prior, picture.op, picture.y, rate=how["rate"], steps=how["steps_a_round"],
        input_noise=how["input_noise"], average=how["average"], precision=precision,
        folder=folder, **shared,
    )  # fmt: skip
    return None if result.interrupted else result.mask


def _note(source: str, picture: Problem, how: dict[str, Any]) -> dict[str, Any]:
    """What the ticket was found on and how; nothing that differs between two equal runs."""
    from ..tickets import image_hash

    operator = type(picture.op).__name__
    if picture.task == "sr":
        operator += f"({picture.op.factor})"
    return how | {
        "image": {"name": os.path.basename(source), "sha256": image_hash(picture.y)},
        "operator": operator,
        "task": picture.task,
    }


def _report(found, path: str, method: str, as_json: bool) -> None:
    mask = found.mask
    if as_json:
        facts = {"ticket": path, "method": method, "density": mask.density}
        click.echo(json.dumps(facts | {"kept": mask.kept, "total": mask.total, "note": found.note}))
        return
    click.echo(
        f"{path}: {mask.kept:,} of {mask.total:,} weights kept (density {100 * mask.density:.4g} %)"
    )

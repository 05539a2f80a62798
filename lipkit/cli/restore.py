"""`lipkit restore`: denoise, fill in or enlarge a picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from .. import data, find
from ..fitting import Fit, fit, stop
from ..masks import Mask
from ..prior import Prior, Recipe
from ..tickets import Ticket
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

UNIVERSAL = "universal"
STOP_RULES = {"wmv": stop.WMV, "emv": stop.EMV, "none": lambda: None}


@click.command()
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT")
@shared_options
@click.option(
    "--stop", "rule", type=click.Choice(list(STOP_RULES)), help="[default: wmv to denoise]"
)
@click.option(
    "--ticket", help="a ticket: its network, mask and initial weights; or universal: no search"
)
@click.option("--fresh", is_flag=True, help="only the mask of the ticket, with weights of --seed")
@click.option("--checkpoint", help="a file to save to now and then, and to go on from")
@click.pass_context
def command(
    context: click.Context,
    source: str,
    out: str,
    rule: str | None,
    ticket: str | None,
    fresh: bool,
    checkpoint: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Restore the picture IN (a file, or a name such as coffee) and write it as OUT.png.

    \b
    lipkit restore noisy.png clean.png --task denoise
    lipkit restore torn.png whole.png --task inpaint --mask white-is-kept.png
    lipkit restore small.png large.png --task sr --factor 4
    lipkit restore noisy.png clean.png --task denoise --ticket universal

    Only this one picture is used: no training set, no downloaded weights. Ctrl-C ends it without
    writing OUT; with --checkpoint, the same command goes on from there.
    """
    wanted = request(options)
    path = _check(wanted, source, out, ticket, fresh, checkpoint)
    device = chosen_device(wanted.device)
    picture = problem(source, wanted)
    gray = picture.channels == 1
    with plain_warnings():
        picture, recipe, found = _network(wanted, picture, ticket, fresh)
    how = fit_recipe(wanted, recipe.name)
    # so few weights do not overfit
    stop_rule = STOP_RULES[rule or ("none" if ticket == UNIVERSAL else how.stop)]()
    announce(picture, recipe, how.steps, getattr(stop_rule, "window", 1), device)
    prior, mask = _start(recipe, found, fresh, ticket == UNIVERSAL)
    result = fit(
        prior.to(device), picture.op, picture.y,
        steps=how.steps, mask=mask, input_noise=how.input_noise, average=how.average,
        stop=stop_rule, seed=wanted.seed, precision=wanted.precision, checkpoint=checkpoint,
    )  # fmt: skip
    if result.interrupted:
        _say_interrupted(result, checkpoint)
        context.exit(130)
    data.save(picture.finish(result.image, gray), path)
    _report(result, str(path), wanted.task, as_json)


def _check(
    wanted: Request,
    source: str,
    out: str,
    ticket: str | None,
    fresh: bool,
    checkpoint: str | None,
) -> Path:
    """Refuse what cannot be before anything is read; return where the picture goes."""
    universal = ticket == UNIVERSAL
    if ticket and not universal and (wanted.prior or wanted.option):
        raise click.UsageError("--ticket brings its own network: leave out --prior and --option")
    if universal and wanted.prior not in (None, "oes"):
        raise click.UsageError("--ticket universal is for the network oes: leave out --prior")
    if fresh and (universal or not ticket):
        raise click.UsageError("--fresh is for --ticket FILE: it uses only its mask")
    inputs = (source, wanted.mask, None if universal else ticket)
    path = check_output(out, "OUT", inputs, ".png")
    if checkpoint:
        check_output(checkpoint, "--checkpoint", (*inputs, out))
    return path


def _network(
    wanted: Request, picture: Problem, ticket: str | None, fresh: bool
) -> tuple[Problem, Recipe, Ticket | None]:
    """Choose the dense network asked for, or that of a ticket with its own or fresh weights."""
    if ticket == UNIVERSAL:
        levels = min(6, max(2, min(picture.size).bit_length() - 4))  # 3 at 64 pixels, 6 at 512
        asked_levels = dict(wanted.option).get("levels", str(levels))
        option = (*wanted.option, ("levels", asked_levels))
        wanted = replace(wanted, prior="oes", option=option)
    if not ticket or ticket == UNIVERSAL:
        return picture, wanted.network(picture), None
    found = Ticket.load(ticket, verify=not fresh)
    seed = wanted.seed if fresh else found.recipe.seed
    if fresh and seed == found.recipe.seed:
        raise click.UsageError(
            f"--fresh: seed {seed} gives the ticket's own initial weights; give another --seed"
        )
    recipe = replace(found.recipe, size=picture.size, seed=seed)
    return picture.in_channels_of(recipe), recipe, found


def _start(
    recipe: Recipe, found: Ticket | None, fresh: bool, universal: bool
) -> tuple[Prior, Mask | None]:
    """Make the initial weights and the mask."""
    if found is not None:
        return recipe.prior() if fresh else found.prior(recipe.size), found.mask
    prior = recipe.prior()
    return prior, find.universal(prior, seed=recipe.seed) if universal else None


def _say_interrupted(result: Fit, checkpoint: str | None) -> None:
    how = (
        f"the same command goes on from {checkpoint}"
        if checkpoint
        else "with --checkpoint FILE it could be resumed"
    )
    click.echo(f"{result.reason}; nothing is written; {how}", err=True)


def _report(result: Fit, path: str, task: str, as_json: bool) -> None:
    if as_json:
        found = {
            "out": path,
            "task": task,
            "size": list(result.image.shape[1:]),
            "steps": result.steps,
            "reason": result.reason,
            "seconds": round(result.seconds, 2),
        }
        click.echo(json.dumps(found))
        return
    click.echo(f"{path}: {result.steps} steps in {result.seconds:.1f} s; {result.reason}")

"""`lipkit ticket`: look into the file of a ticket or mask."""

from __future__ import annotations

import json
import warnings
from typing import Any

import click

from ..errors import Error
from ..formats import maskfile
from ..masks import Mask
from ..tickets import Ticket, describe_mask


@click.group()
def command() -> None:
    """Look into the file of a ticket or mask, or a published mask: `show FILE [--json]`."""


@command.command()
@click.argument("path", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def show(path: str, as_json: bool) -> None:
    """Density, kept weights per layer, what it was found on, and whether its weights are there."""
    mask = Mask.load(path)  # says what is wrong with anything that is no mask at all
    facts: dict[str, Any] = {
        "file": path,
        "density": mask.density,
        "kept": mask.kept,
        "total": mask.total,
        "layers": {name: list(count) for name, count in mask.per_layer().items()},
    }
    text = describe_mask(mask)
    if maskfile.is_ticket(path):
        ticket = Ticket.load(path, verify=False)
        state = _weights(ticket)
        text = f"{ticket.describe()}\nhere: {state}"
        facts |= {"recipe": ticket.recipe.as_dict(), "note": ticket.note}
        facts |= {"made_with": ticket.made_with, "weights": state}
    click.echo(json.dumps(facts) if as_json else text)


def _weights(ticket: Ticket) -> str:
    """Say whether the initial weights of a ticket are drawn again here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exact = ticket.verify()
    except Error as problem:
        return str(problem)
    return (
        "its initial weights are drawn again "
        + ("bit for bit" if exact else "but for rounding")
        + " on this machine"
    )

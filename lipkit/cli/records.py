"""`lipkit records`: list, filter, check and export what was recorded."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from typing import Any

import click

from ..formats.atomic import write
from ..lab import records
from ..lab.settings import Settings
from ..lab.tables import Table
from .task import check_output

SHOWN = ("hash", "state", "image", "method", "density", "control", "seed", "stopped", "oracle")


@click.command()
@click.option("-w", "--where", nargs=2, multiple=True, metavar="NAME VALUE", help="only these")
@click.option("--csv", "path", help="write every column to this CSV file")
@click.option("--records", "folder", help="folder of the records  [default: book/records]")
@click.option("--json", "as_json", is_flag=True, help="print the records as JSON")
def command(
    where: tuple[tuple[str, str], ...], path: str | None, folder: str | None, as_json: bool
) -> None:
    """List the records, after checking the shape and the hash of every one.

    For example: lipkit records -w image astronaut -w method imp -w state stale
    """
    found = list(records.where(records.Records(folder).all, dict(where)))
    if as_json:
        click.echo(json.dumps(found))
        return
    rows = [records.flat(record) for record in found]
    if path:
        _write(path, rows)
        click.echo(f"{len(rows)} records written to {path}")
        return
    experiments = [Settings(**record["experiment"]) for record in found]
    lines = [
        [row.get(name, getattr(e, name, None)) for name in SHOWN]
        for row, e in zip(rows, experiments, strict=True)
    ]
    if lines:
        click.echo(Table(SHOWN, [[str(c) if isinstance(c, list) else c for c in r] for r in lines]))
    counts = Counter(row["state"] for row in rows)
    click.echo(", ".join(f"{n} {state}" for state, n in counts.items()) or "no records")


def _write(path: str, rows: list[dict[str, Any]]) -> None:
    place = check_output(path, "the table", (), ".csv")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write(place, text.getvalue().encode())

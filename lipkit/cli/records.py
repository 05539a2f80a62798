"""`lipkit records`: list, filter, check and export what was recorded."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..errors import InputError
from ..formats.atomic import write
from ..lab import records, verify
from ..lab.settings import Settings
from ..lab.sweep import duration, seconds
from ..lab.tables import Table
from .task import check_output

COMPARED = (
    "hash", "what", "number", "recorded", "repeated", "difference", "spread", "allowed", "",
)  # fmt: skip
SHOWN = ("hash", "state", "image", "method", "density", "control", "seed", "stopped", "oracle")


@click.command()
@click.option("-w", "--where", nargs=2, multiple=True, metavar="NAME VALUE", help="only these")
@click.option("--csv", "path", help="write every column to this CSV file")
@click.option("--verify", "count", type=click.IntRange(1), help="repeat so many drawn at random")
@click.option("--seed", default=0, help="of that draw  [default: 0]")
@click.option("--limit", default="2m", help="repeat only what takes no longer  [default: 2m]")
@click.option("--save", is_flag=True, help="keep that beside the records, for the book's page")
@click.option("--records", "folder", help="folder of the records  [default: book/records]")
@click.option("--json", "as_json", is_flag=True, help="print the records as JSON")
def command(
    where: tuple[tuple[str, str], ...],
    path: str | None,
    count: int | None,
    seed: int,
    limit: str,
    save: bool,
    folder: str | None,
    as_json: bool,
) -> int:
    """List the records, after checking the shape and the hash of every one.

    For example: lipkit records -w image astronaut -w method imp -w state stale

    With --verify, run some of them again with today's code and show how far their numbers are
    apart. The command ends with 1 if one is further apart than is allowed: on the same processor,
    with as many threads, all six digits have to be the same; on another, three times the spread
    over seeds is allowed (at least 0.3 dB), or 1 dB where only one seed was run. With --save the
    result is kept beside the folder of the records, and shown on the book's page of comparisons.
    """
    if folder and not Path(folder).exists():
        raise InputError(f"there is no folder {folder!r} with records")
    kept = records.Records(folder)
    found = list(records.where(kept.all, dict(where)))
    if count:
        if path:
            raise InputError("--verify has no table to write: leave out --csv, or use --json")
        drawn, left_out = verify.draw(kept, found, count, seed, seconds(limit))
        if not drawn:
            raise InputError(
                f"none of these {len(found)} records is done, of a commit, and takes at most "
                f"{limit}: give a longer --limit, or another --where"
            )
        done, interrupted = _repeat(kept, drawn, left_out, limit)
        _show(done, left_out, len(drawn), as_json)
        if interrupted:  # some of those drawn would be a choice: nothing is saved
            raise KeyboardInterrupt
        if save:
            path = verify.save(done, kept, seed, limit, len(left_out))
            click.echo(f"kept in {path}", err=True)
        return 0 if all(one.verified for one in done) else 1
    if save:
        raise InputError("--save keeps what --verify has repeated: give both")
    if as_json:
        click.echo(json.dumps(found))
        return 0
    rows = [records.flat(record) for record in found]
    if path:
        _write(path, rows)
        click.echo(f"{len(rows)} records written to {path}")
        return 0
    experiments = [Settings(**record["experiment"]) for record in found]
    lines = [
        [row.get(name, getattr(e, name, None)) for name in SHOWN]
        for row, e in zip(rows, experiments, strict=True)
    ]
    if lines:
        click.echo(Table(SHOWN, [[str(c) if isinstance(c, list) else c for c in r] for r in lines]))
    counts = Counter(row["state"] for row in rows)
    click.echo(", ".join(f"{n} {state}" for state, n in counts.items()) or "no records")
    return 0


def _repeat(
    kept: records.Records, drawn: list[records.Record], left_out: list[records.Record], limit: str
) -> tuple[list[verify.Repeat], bool]:
    """Repeat the records drawn; also tell whether an interrupt came before the last."""
    say = partial(click.echo, err=True)  # the result alone goes to where it may be kept
    if left_out:
        kinds = Counter(_kind(record) for record in left_out)
        names = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        say(f"{len(left_out)} records are left out, as they take more than {limit}: {names}")
    least = duration(sum(record["seconds"] for record in drawn))
    say(f"{len(drawn)} records to repeat, of {least} or more")
    done: list[verify.Repeat] = []
    try:
        for one in verify.repeat(drawn, kept):
            done.append(one)
            outcome = "holds" if one.verified else "DIFFERS"
            say(f"{len(done):>4}/{len(drawn)}  {verify.what(one.record)}  {outcome}")
    except KeyboardInterrupt:
        return done, True
    return done, False


def _show(
    done: list[verify.Repeat], left_out: list[records.Record], asked: int, as_json: bool
) -> None:
    if as_json:
        reports = [one.report() for one in done]
        skipped = [record["hash"] for record in left_out]
        click.echo(json.dumps({"repeated": reports, "left_out": skipped, "asked": asked}))
        return
    if done:
        click.echo(Table(COMPARED, [row for one in done for row in _compared(one)]))
    click.echo(f"{sum(one.verified for one in done)} of {len(done)} repeated records hold")


def _kind(record: records.Record) -> str:
    e = Settings(**record["experiment"])
    return f"{e.task} {e.prior} {e.method}"


def _compared(one: verify.Repeat) -> list[list[str]]:
    """A line for each number; the record is named in the first."""
    head = [one.record["hash"], verify.what(one.record)]
    if one.again["status"] == "failed":
        return [[*head, "", "", "", "", "", "", f"failed: {one.again['reason']}"]]
    rows = []
    for name, number in one.report()["numbers"].items():
        keys = ("recorded", "repeated", "difference", "spread", "allowed")
        digits = ["" if number[key] is None else f"{number[key]:.6g}" for key in keys]
        rows.append([*head, name, *digits, "" if number["holds"] else "differs"])
        head = ["", ""]
    return rows


def _write(path: str, rows: list[dict[str, Any]]) -> None:
    place = check_output(path, "the table", (), ".csv")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write(place, text.getvalue().encode())

"""`lipkit sweep`: run a grid of experiments and keep their records."""

from __future__ import annotations

import json

import click

from ..errors import InputError
from ..lab import sweep
from ..lab.grid import Grid
from ..lab.records import Records


@click.command()
@click.argument("grid", metavar="GRID")
@click.option("--arm", "arms", multiple=True, help="only this arm (may be given several times)")
@click.option("--serial", is_flag=True, help="in this process, one at a time, without Dask")
@click.option("--scheduler", metavar="ADDRESS", help="use the Dask workers of this scheduler")
@click.option("--workers", type=click.IntRange(1), help="processes of the cluster made here")
@click.option("--budget", metavar="TIME", help="start only what ends within 25m, 90s, 1h30m")
@click.option("--dry-run", is_flag=True, help="show what would be run and what it would cost")
@click.option("--retry-failed", is_flag=True, help="run again what failed before")
@click.option("--records", "folder", help="folder of the records  [default: book/records]")
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def command(
    grid: str,
    arms: tuple[str, ...],
    serial: bool,
    scheduler: str | None,
    workers: int | None,
    budget: str | None,
    dry_run: bool,
    retry_failed: bool,
    folder: str | None,
    as_json: bool,
) -> int:
    """Run the experiments of GRID, a TOML file or the name of one of the book's grids.

    What is recorded already is not run again: after an interruption, start the same command anew.
    Without options it uses every GPU of this machine, or else every core. Under Slurm or on
    Kubernetes, start workers with dask-jobqueue or Dask's operator and give their scheduler's
    address; the book's page on experiments at the papers' scale shows how. The command ends with 1
    if an experiment of the grid has failed.
    """
    if serial and (scheduler or workers):
        raise InputError("--serial uses this process alone: leave out --scheduler and --workers")
    found = Grid.load(grid)
    records = Records(folder)
    found = found.only(arms) if arms else found
    if dry_run:
        table = sweep.estimate(found, records)
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        click.echo(json.dumps(rows) if as_json else table)
        return 0
    done = sweep.run(
        found, records, serial=serial, scheduler=scheduler, workers=workers,
        budget=None if budget is None else sweep.seconds(budget), retry_failed=retry_failed,
        say=lambda line: click.echo(line, err=as_json),
    )  # fmt: skip
    failed = sweep.failed(found, records)
    if as_json:
        click.echo(json.dumps(done._asdict()))
        return 1 if failed else 0
    rest = f", {done.left} left for want of time" if done.left else ""
    click.echo(
        f"{done.done} experiments done, {done.failed} failed, {done.recorded} were recorded"
        f"{rest}; records in {records.path}"
    )
    if failed:
        click.echo(f"{failed} experiments of this grid failed: --retry-failed runs them again")
    return 1 if failed else 0

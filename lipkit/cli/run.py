"""`lipkit run`: execute chapters with parameters of your own."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import click

from ..errors import InputError


def literal(text: str) -> Any:
    """Read a parameter of the command line: a Python value if it is one, else the text.

    >>> literal("0.1"), literal("None"), literal("coffee")
    (0.1, None, 'coffee')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    except (TypeError, MemoryError, RecursionError):  # a set of lists, or brackets without end
        raise InputError(f"{text[:40]!r} is no value: give a number, a name or a list") from None


@click.command()
@click.argument("chapters", nargs=-1, required=True, metavar="CHAPTER...")
@click.option("-p", "--parameter", "given", nargs=2, multiple=True, metavar="NAME VALUE")
@click.option("--profile", help="smoke, laptop or paper")
@click.option("--out", default="_build/runs", show_default=True, help="folder for the results")
@click.option("--jobs", default=2, show_default=True, help="chapters executed at a time")
@click.option("--strict", is_flag=True, help="a number outside its band is a failure too")
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
@click.pass_context
def command(
    context: click.Context,
    chapters: tuple[str, ...],
    given: tuple[tuple[str, str], ...],
    profile: str | None,
    out: str,
    jobs: int,
    strict: bool,
    as_json: bool,
) -> None:
    """Execute chapters, named as 01_dip_basics, 1 or by path, with parameters of your own.

    For example: lipkit run 1 -p image coffee -p sigma 0.1 --profile smoke

    A chapter that fails ends the command with 1; so does, with --strict, a number outside its band.
    """
    from .. import book
    from ..book.building import ChapterError
    from ..book.runs import missed
    from .book import in_words

    parameters = {name: literal(value) for name, value in given}
    try:
        runs = book.run(chapters, parameters, profile, out=out, jobs=jobs)
    except ChapterError as problem:  # no bad input: those end with 2
        click.echo(f"lipkit: error: {problem}", err=True)
        context.exit(1)
    results = [
        {
            "chapter": run.chapter.name,
            "notebook": str(Path(out) / f"{run.chapter.name}.ipynb"),
            "parameters": run.parameters,
            "cached": run.cached,
            "record": run.record(),
        }
        for run in runs
    ]
    if as_json:
        click.echo(json.dumps(results, indent=1))
    else:
        click.echo("\n".join(result["notebook"] for result in results))
    if outside := missed(runs):
        click.echo(in_words(outside), err=True)
        context.exit(int(strict))

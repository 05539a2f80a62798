"""`lipkit book`: execute the chapters and render the book."""

from __future__ import annotations

import json
import time

import click


@click.command()
@click.option("--profile", default="laptop", show_default=True, help="smoke, laptop or paper")
@click.option("--chapters", multiple=True, help="only this chapter (may be given several times)")
@click.option("--jobs", default=2, show_default=True, help="chapters executed at a time")
@click.option("--out", help="folder of the rendered book  [default: _build/html]")
@click.option("--strict", is_flag=True, help="a number outside its band is a failure too")
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
@click.pass_context
def command(
    context: click.Context,
    profile: str,
    chapters: tuple[str, ...],
    jobs: int,
    out: str | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Execute all chapters, render the book, and print the path of its first page.

    There is a book in any case. A chapter that fails shows its error on its page, and the command
    ends with 1. A number outside its band is marked on its page and listed on the status page.
    """
    from .. import book
    from ..book.runs import failed, missed

    began = time.perf_counter()
    made = book.build(profile=profile, chapters=chapters, jobs=jobs, out=out)
    seconds = round(time.perf_counter() - began, 1)
    stopped = failed(made.runs)
    outside = missed(made.runs)
    if as_json:
        facts = {"page": str(made.page), "profile": profile, "seconds": seconds}
        click.echo(json.dumps(facts | {"failed": stopped, "missed": outside}))
    else:
        click.echo(f"The book is ready after {seconds:.0f} s. Open {made.page}")
    if outside:
        click.echo(in_words(outside), err=as_json)
    if stopped:
        count = f"{len(stopped)} of {len(made.runs)} chapters failed, as their pages show"
        click.echo(f"lipkit: error: {count}: {'; '.join(stopped)}", err=True)
    if stopped or (strict and outside):
        context.exit(1)


def in_words(missed: list[str]) -> str:
    """Name the numbers outside their bands in one line.

    >>> in_words(["01_tiny, PSNR: 3 dB, band 4 to 5"])
    'Outside its band on this machine: 01_tiny, PSNR: 3 dB, band 4 to 5'
    """
    if len(missed) == 1:
        return f"Outside its band on this machine: {missed[0]}"
    return f"{len(missed)} numbers are outside their bands on this machine: {'; '.join(missed)}"

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
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def command(
    profile: str, chapters: tuple[str, ...], jobs: int, out: str | None, as_json: bool
) -> None:
    """Execute all chapters, render the book, and print the path of its first page."""
    from .. import book

    began = time.perf_counter()
    page = book.build(profile=profile, chapters=chapters, jobs=jobs, out=out)
    seconds = round(time.perf_counter() - began, 1)
    if as_json:
        click.echo(json.dumps({"page": str(page), "profile": profile, "seconds": seconds}))
        return
    click.echo(f"The book is ready after {seconds:.0f} s. Open {page}")

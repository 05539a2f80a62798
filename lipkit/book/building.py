"""Execute chapters and make the book of them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import Error, InputError
from ..formats.atomic import alone
from ..lab.paths import find_root
from . import runs, site
from .executing import execute
from .notebooks import find_chapters
from .runs import Run

__all__ = ["Book", "ChapterError", "build", "find_root", "run"]

WAITING = "waiting for another build of this book to finish"


class ChapterError(Error):
    """Chapters that did not run to their end."""


class Book(NamedTuple):
    """A rendered book: its first page, and the runs of its chapters."""

    page: Path
    runs: list[Run]


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run(
    chapters: Iterable[str] | None = None,
    parameters: dict[str, Any] | None = None,
    profile: str | None = None,
    root: str | Path | None = None,
    out: str | Path | None = None,
    folder: str | Path | None = None,
    jobs: int = 2,
    check: bool = True,
    say: Callable[[str], None] = _print,
) -> list[Run]:
    """Execute chapters (default: all) and put the executed notebooks into `out`.

    Parameters are checked before anything runs. A chapter whose source, parameters and library
    have not changed since its last run is not executed again. `folder` holds the chapters
    (default: `notebooks/` of the book). Where chapters fail, the others run all the same, and then
    it is a `ChapterError`; with `check=False`, `failure` of their runs says why.

    >>> import tempfile
    >>> run(folder=tempfile.mkdtemp(), root=tempfile.mkdtemp())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    lipkit.errors.FileError: no chapter found: ... has no file named like 01_name.ipynb
    """
    root = Path(root) if root else find_root()
    given = dict(parameters or {})
    if profile is not None:
        given["profile"] = profile
    if jobs < 1:
        raise InputError(f"jobs must be 1 or more, not {jobs}")
    found = find_chapters(Path(folder) if folder else root / "notebooks", list(chapters or []))
    cache = root / "_build" / "cache"
    with alone(cache, waiting=lambda: say(WAITING)):
        done = runs.prepare(found, given, root, cache)
        execute(done, jobs, say)
        failed = runs.failed(done)
        if failed and check:
            count = f"{len(failed)} of {len(done)} chapters failed"
            raise ChapterError(f"{count}: {'; '.join(failed)}")
        if out is not None:
            runs.copy_out(done, Path(out))
    return done


def build(
    root: str | Path | None = None,
    profile: str = "laptop",
    chapters: Iterable[str] | None = None,
    jobs: int = 2,
    out: str | Path | None = None,
    say: Callable[[str], None] = _print,
) -> Book:
    """Execute the chapters, render the whole book to `out`, and return it.

    There is a book in any case: the page of a chapter that failed shows the error where it
    happened, a number outside its band stands in a box on its page. Parameters of the chapters are
    those of the profile. A build of some chapters only leaves the others out, and then references
    to them are no error.
    """
    _need_jupyter_book()
    root = Path(root) if root else find_root()
    out = Path(out).resolve() if out else root / "_build" / "html"
    site.check_target(out)
    chosen = list(chapters or [])
    done = run(chosen, profile=profile, root=root, jobs=jobs, check=False, say=say)
    book = Book(out / "index.html", done)
    place = hashlib.sha256(str(out).encode()).hexdigest()[:8]
    work = root / "_build" / "work" / f"{profile}-{place}"
    with alone(work, waiting=lambda: say(WAITING)):
        key = _site_key(root, done)
        stamp = out / site.KEY_FILE
        if book.page.is_file() and stamp.is_file() and stamp.read_text() == key:
            say("nothing has changed since this book was rendered")
            return book
        html, problem = site.render(root, done, work, complete=not chosen, say=say)
        site.publish(html, out, key if problem is None else "rendered with mistakes")
        if problem is not None:
            raise Error(f"{problem}; the pages are in {out}")
    return book


def _site_key(root: Path, done: list[Run]) -> str:
    """Name everything that can change the rendered pages: runs, prose, configuration."""
    files = [*site.prose_files(root), root / "_config.yml"]
    made_of = [f"{run.key} {run.failure}" for run in done]
    parts = [*made_of, runs.digest(files, root), str(site.repository(root))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _need_jupyter_book() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("papermill", "jupyter_book") if find_spec(name) is None]
    if missing:
        raise Error(
            f"building the book needs {' and '.join(missing)}: pip install 'lipkit[book]', "
            "or use `make book`, which installs everything"
        )

"""Where the book's folders are: in the clone around the working directory, else around lipkit."""

from __future__ import annotations

from pathlib import Path

from ..errors import FileError


def find_root(start: Path | None = None) -> Path:
    """Find the book that `start` lies in: the folder with `_config.yml` and `notebooks/`."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "_config.yml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise FileError(
        f"no book found in {start} or above it: go to a clone of the book "
        "(the folder with _config.yml and notebooks/) and run this again"
    )


def data_folder() -> Path:
    """Find the book's data: the papers' tables and the claims.

    >>> (data_folder() / "papers.yml").is_file()
    True
    """
    try:
        root = find_root()
    except FileError as problem:
        try:
            root = find_root(Path(__file__).parent)
        except FileError:
            raise FileError(f"the papers' tables are part of the book, but {problem}") from None
    found = root / "book" / "_data"
    if not (found / "papers.yml").is_file():
        raise FileError(f"this copy of the book has no {found / 'papers.yml'}; get a whole clone")
    return found


def grids_folder() -> Path:
    """Find the book's grids of experiments.

    >>> grids_folder().name
    'grids'
    """
    return data_folder().parent / "grids"


def records_folder() -> Path:
    """Find the book's records.

    >>> records_folder().name
    'records'
    """
    return data_folder().parent / "records"

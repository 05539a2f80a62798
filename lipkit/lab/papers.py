"""The tables of the papers as data, from the book's folder.

They are kept as printed, one CSV file each, and can be asked for by the name of the paper and the
number of the table: "lip22-4", "lip23-5", "oes24-2". Only a clone of the book has them.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import Any

from ..errors import Error, FileError, check_one_of
from .paths import data_folder
from .tables import Table

__all__ = ["about", "names", "rows", "table"]


def names() -> dict[str, str]:
    """List every table with its caption.

    >>> names()["lip23-4"]
    'Denoising "F16", SynFlow and LIP'
    """
    return {name: entry["caption"] for name, entry in _index(data_folder()).items()}


def about(name: str) -> dict[str, str]:
    """Describe a table: caption, source (in the bibliography), where, unit, columns, note.

    >>> about("oes24-2")["source"], about("oes24-2")["where"]
    ('ghosh2024oes', 'Table 2')
    """
    return dict(_entry(name))


def rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of a table by column: numbers as numbers, x ± s as two, "x" and "x ±".

    >>> rows("oes24-2")[0]["sparse 25"], rows("oes24-2")[0]["sparse 25 ±"]
    (27.45, 0.22)
    """
    header, *lines = _lines(name)
    found = []
    for line in lines:
        row: dict[str, Any] = {}
        for column, cell in zip(header, line, strict=True):
            value, _, spread = cell.partition(" ± ")
            row[column] = _number(value)
            if spread:
                row[f"{column} ±"] = _number(spread)
        found.append(row)
    return found


def table(name: str) -> Table:
    """Return a table as printed.

    >>> print(table("lip23-4"))  # doctest: +ELLIPSIS
    method   0      20     40 ...
    SynFlow  31.06  31.05  30.62 ...
    LIP      31.06  31.15  31.11 ...
    """
    header, *lines = _lines(name)
    return Table(header, [[cell or None for cell in line] for line in lines])


def _entry(name: str) -> dict[str, str]:
    index = _index(data_folder())
    check_one_of("table", name, index)
    return index[name]


@functools.cache
def _index(data: Path) -> dict[str, dict[str, str]]:
    return read_yaml(data / "papers.yml")


def read_yaml(path: Path) -> Any:
    """Read one of the book's data files."""
    try:
        import yaml  # loaded late: only a clone of the book needs it
    except ModuleNotFoundError:
        raise Error(f"reading {path.name} needs PyYAML: pip install 'lipkit[book]'") from None
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as problem:
        raise FileError(f"cannot read {path}: {problem}") from None


def _lines(name: str) -> list[list[str]]:
    path = data_folder() / "papers" / f"{_entry(name).get('data', name)}.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))
    except OSError as problem:
        raise FileError(f"cannot read {path}: {problem.strerror or problem}") from problem


def _number(cell: str) -> float | int | str | None:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell or None

"""What can be asked for by name, where it comes from, and how it gets onto this machine."""

from __future__ import annotations

import csv
import difflib
import functools
import hashlib
import importlib.util
import json
import os
from pathlib import Path

from ..errors import FileError, InputError
from .drawn import DRAWN

CACHE_VARIABLE = "LIPKIT_DATA"
_PICTURES = (".png", ".jpg")  # the endings that a name may leave out


def names() -> dict[str, str]:
    """List every name that `image`, `mask` or `file` takes, with where it comes from.

    >>> import lipkit as lk
    >>> lk.data.names()["coffee"]
    'Bundled with scikit-image: cup of coffee, Rachel Michetti; CC0.'
    """
    shipped = {name: f"Bundled with scikit-image: {what}." for name, (_, what) in bundled().items()}
    fetched = {
        _short(key): f"Fetched from {_home(entry)}; rights stay with its makers."
        for key, entry in entries().items()
    }
    drawn = {name: f"Drawn by lipkit at any size: {what}." for name, (_, what) in DRAWN.items()}
    return shipped | drawn | fetched


def file(name: str) -> Path:
    """Return the path here of anything that has a name, fetched first where need be.

    >>> import lipkit as lk
    >>> lk.data.file("coffee").name
    'coffee.png'
    """
    found = find(name)
    if name in DRAWN:
        raise InputError(f"{name!r} has no file: lipkit.data.image draws it.")
    if found is None:
        raise InputError(f"There is no data called {name!r}{suggestion(name)}.")
    return found


def find(name: str) -> Path | None:
    """Do what `file` does, but return None for a name that is not one of ours."""
    if not isinstance(name, str):
        raise InputError(f"A data name is a string such as 'coffee', not {type(name).__name__}.")
    if name in bundled():
        return _bundled_file(*bundled()[name])
    key = {_short(key): key for key in entries()}.get(name, name)
    return _fetched_file(key) if key in entries() else None


def suggestion(name: str) -> str:
    """Make the middle of an error sentence: the closest names, and where all are listed."""
    known = {alias.lower(): full for full in names() for alias in (Path(full).name, full)}
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.7)
    meant = " or ".join(repr(full) for full in dict.fromkeys(known[alias] for alias in close))
    question = f"did you mean {meant}? " if meant else ""
    return f"; {question}lipkit.data.names() lists all names"


def folder() -> Path:
    """Return where fetched files are kept: $LIPKIT_DATA, or the usual cache of this system."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import pooch  # late: only what is fetched needs it

    return Path(pooch.os_cache("lipkit"))


@functools.cache
def bundled() -> dict[str, tuple[str, str]]:
    """Read, once, which files come with scikit-image: name -> file, what it is and its licence.

    >>> bundled()["coffee"]
    ('coffee.png', 'cup of coffee, Rachel Michetti; CC0')
    """
    with Path(__file__).with_name("bundled.csv").open(encoding="utf-8", newline="") as table:
        return {row["name"]: (row["file"], row["about"]) for row in csv.DictReader(table)}


@functools.cache
def entries() -> dict[str, dict]:
    """Read, once, the file beside this one: name.ext -> where it is, sha256, bytes.

    Where is repo, commit and path on GitHub, or a url. A sha256 may be its beginning alone, where
    its makers publish no more.
    """
    return json.loads(Path(__file__).with_name("registry.json").read_text(encoding="utf-8"))


def _short(key: str) -> str:
    """Return the name under which an entry is listed: without the ending of a picture."""
    return key.removesuffix(Path(key).suffix) if key.endswith(_PICTURES) else key


def _bundled_file(filename: str, _: str) -> Path:
    # find_spec locates the package without the second that importing it takes.
    spec = importlib.util.find_spec("skimage")
    path = Path(spec.origin).parent / "data" / filename if spec else None
    if path is None or not path.is_file():
        raise FileError(
            f"{filename} should come with scikit-image but is not there; "
            "reinstall it: pip install --force-reinstall scikit-image."
        )
    return path


def _home(entry: dict) -> str:
    if "url" in entry:
        return entry["url"].removeprefix("https://")
    return f"github.com/{entry['repo']} at {entry['commit'][:10]} ({entry['path']})"


def _url(entry: dict) -> str:
    if "url" in entry:
        return entry["url"]
    return f"https://raw.githubusercontent.com/{entry['repo']}/{entry['commit']}/{entry['path']}"


def _fetched_file(key: str) -> Path:
    entry = entries()[key]
    path = folder() / key
    if not path.exists():
        _download(entry, path)
    try:
        found = _sha256(path)
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}).") from error
    if not found.startswith(entry["sha256"]):
        raise FileError(
            f"{path} is not the file that {_short(key)!r} stands for (sha256 {found[:12]}… instead "
            f"of {entry['sha256'][:12]}…); move it away and it will be fetched again from "
            f"{_url(entry)}."
        )
    return path


def _sha256(path: str | Path) -> str:
    with open(path, "rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _download(entry: dict, path: Path) -> None:
    """Fetch to a temporary name, check, and only then move into place (pooch does all three)."""
    import pooch  # late: only what is fetched needs it

    fetch = pooch.HTTPDownloader(timeout=30)

    def fetch_and_check(url: str, output: str, *given) -> None:
        fetch(url, output, *given)
        if not _sha256(output).startswith(entry["sha256"]):
            raise ValueError("another hash")  # nothing is moved into place

    # pooch compares complete hashes only
    known, downloader = (
        (entry["sha256"], fetch) if len(entry["sha256"]) == 64 else (None, fetch_and_check)
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(_url(entry), known, path.name, path.parent, downloader=downloader)
    except (OSError, ValueError) as error:  # no network, refused, no room; or another sha256
        reason = (
            "what came back has another sha256"
            if isinstance(error, ValueError) and "hash" in str(error)
            else type(error).__name__
        )
        raise FileError(
            f"{path.name} could not be fetched from {_url(entry)} ({reason}); go online, or place "
            f"the file by hand at {path} (another folder: set {CACHE_VARIABLE})."
        ) from error

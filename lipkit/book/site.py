"""Stage the book - prose, generated pages, executed chapters - and render it to HTML.

The staging folder is a mirror of the repository, so that every link in the book and every launch
button keeps its path. Nothing is written into the source tree, and a build that fails leaves the
last good one in place.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import Error, FileError
from . import comparison, evidence
from .api import api_page
from .runs import Run, failed, files_below
from .status import status_page

KEY_FILE = ".book-key"  # in a rendered book: what it was made from
INCLUDED = ("CHANGELOG.md",)  # pages outside book/ that a page of the book includes
FROM_RECORDS = {  # of books that have a ledger of claims
    "book/claims.md": evidence.claims_page,
    "book/comparison.md": comparison.comparison_page,
    "book/_generated/badges.md": evidence.badges,
}


def stage(root: Path, runs: list[Run], folder: Path) -> None:
    """Fill the staging folder: prose, generated pages, runs, scripts of the browser."""
    content: dict[str, bytes] = {}
    for path in prose_files(root):
        name = path.relative_to(root).as_posix()
        if not name.startswith("book/_vendor/"):
            content[name] = path.read_bytes()
    content["book/status.md"] = status_page(runs).encode()
    content["book/api.md"] = api_page().encode()
    if (root / "book" / "_data" / "claims.yml").is_file():
        content |= {name: page(root / "book").encode() for name, page in FROM_RECORDS.items()}
    for run in runs:
        content[f"notebooks/{run.chapter.name}.ipynb"] = run.page()
    content |= vendored(root / "book" / "_vendor")
    for name, data in content.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def prose_files(root: Path) -> list[Path]:
    """List every source file of the pages that people write."""
    outside = [root / name for name in INCLUDED if (root / name).is_file()]
    return [*files_below(root / "book"), *outside]


def vendored(folder: Path) -> dict[str, bytes]:
    """Unpack the browser scripts that the book carries, by their path in the staging folder."""
    files = {}
    for path in files_below(folder):
        name = f"offline_static/offline/{path.relative_to(folder).as_posix()}"
        data = path.read_bytes()
        if path.suffix == ".xz":
            name = name.removesuffix(".xz")
            data = lzma.decompress(data)
        files[name] = data
    return files


def repository(root: Path) -> str | None:
    """Find the repository's address on GitHub, from GITHUB_REPOSITORY or the git remote."""
    name = os.environ.get("GITHUB_REPOSITORY")
    if not name:
        ask = ["git", "-C", str(root), "remote", "get-url", "origin"]
        try:
            remote = subprocess.run(ask, capture_output=True, text=True, check=False).stdout
        except OSError:  # no git here
            return None
        found = re.search(r"github\.com[:/]([^/\s]+/[^/\s]+?)(\.git)?\s*$", remote)
        name = found[1] if found else None
    return f"https://github.com/{name}" if name else None


def configuration(root: Path) -> dict[str, Any]:
    """Read `_config.yml`; launch buttons stay only where the repository is known."""
    import yaml

    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    address = repository(root)
    if address:
        config["repository"] = {"url": address, "branch": "main", "path_to_book": ""}
        config["html"]["use_repository_button"] = True
    else:
        config.pop("launch_buttons", None)
    return config


def contents(root: Path, runs: list[Run], complete: bool) -> dict[str, Any]:
    """Read `book/_toc.yml`; a build of some chapters leaves the others out."""
    import yaml

    path = root / "book" / "_toc.yml"
    try:
        toc = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise FileError(f"cannot read {path}: {problem.strerror}") from problem
    have = {f"notebooks/{run.chapter.name}" for run in runs}
    listed = {entry["file"] for part in toc["parts"] for entry in part["chapters"]}
    if missing := sorted(have - listed):
        raise Error(f"book/_toc.yml does not list {missing[0]}: add it under its part")
    if complete:
        return toc
    for part in toc["parts"]:
        part["chapters"] = [
            entry
            for entry in part["chapters"]
            if entry["file"] in have or not entry["file"].startswith("notebooks/")
        ]
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    return toc


def render(
    root: Path, runs: list[Run], work: Path, complete: bool, say: Callable[[str], None]
) -> tuple[Path, str | None]:
    """Render the staged book with Jupyter Book; return its pages and what is wrong with them.

    A warning is an error when the book is complete; the pages are there all the same. Where a
    chapter stopped, figures are missing that other pages refer to: no error then.
    """
    import yaml

    source = work / "stage"
    for folder in (source, work / "_build"):  # anew: on top of an old build Sphinx neither copies
        shutil.rmtree(folder, ignore_errors=True)  # changed scripts nor repeats old warnings
    stage(root, runs, source)
    config = work / "_config.yml"
    toc = work / "_toc.yml"
    config.write_text(yaml.safe_dump(configuration(root)), encoding="utf-8")
    toc.write_text(yaml.safe_dump(contents(root, runs, complete), sort_keys=False), "utf-8")
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", str(source), "--config", str(config), "--toc", str(toc)]
    command += ["--path-output", str(work)]
    if complete and not failed(runs):
        command += ["-W", "-n", "--keep-going"]
    say("rendering the pages")
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    log = work / "render.log"
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    html = work / "_build" / "html"
    if done.returncode == 0:
        return html, None
    problem = _render_failure(done.stdout + done.stderr, source, log)
    if not (html / "index.html").is_file():
        raise Error(f"Jupyter Book could not render the book: {problem}")
    return html, f"the book has mistakes: {problem}"


def _render_failure(output: str, source: Path, log: Path) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    lines = [line for line in plain.splitlines() if re.search(r"WARNING|ERROR|Error:", line)]
    shown = [line.strip().removeprefix(f"{source}/") for line in lines[:5]] or ["no message"]
    more = f" (and {len(lines) - 5} more)" if len(lines) > 5 else ""
    return f"{'; '.join(shown)}{more}; all of it: {log}"


def check_target(out: Path) -> None:
    """Refuse a target that holds anything but a book: publishing replaces the whole folder."""
    if out.exists() and not out.is_dir():
        raise FileError(f"{out} is a file, not a folder: name another place for the book")
    if out.is_dir() and any(out.iterdir()) and not (out / KEY_FILE).is_file():
        raise FileError(f"{out} holds other files: name a new or empty folder for the book")


def publish(html: Path, out: Path, key: str) -> None:
    """Copy the rendered pages to `out`, in one move."""
    fresh = out.with_name(out.name + ".new")
    old = out.with_name(out.name + ".old")
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(html, fresh)
    (fresh / KEY_FILE).write_text(key)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)

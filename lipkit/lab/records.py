"""Records of finished experiments: JSON lines in the book's folder `book/records`.

One line holds one experiment with its hash, its numbers, its curve and what it was made with. A
record made by an older version of a method is *stale*, one of sources that no commit holds is
*unclean*: both are listed, and decide nothing.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import json
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .. import data
from .._version import __version__
from ..errors import FileError, InputError
from ..formats.atomic import alone
from .paths import records_folder
from .settings import Settings

Record = dict[str, Any]

ALWAYS = {
    "hash": str, "experiment": dict, "versions": dict, "status": str, "seconds": (int, float),
    "device": str, "torch": str, "lipkit": str, "commit": str, "made": str, "seal": str,
}  # fmt: skip
WHEN_DONE = {
    "reason": str, "numbers": dict, "curve": dict, "layers": dict, "rounds": list,
    "search_seconds": (int, float), "fit_seconds": (int, float),
}  # fmt: skip
NEWER = {"processor": str, "threads": int}  # which the oldest records lack
THUMBNAIL = 96  # pixels of the longer side
_FREE = ("public domain", "CC0", "no known copyright restrictions")


class Records:
    """All records of a folder.

    >>> import tempfile
    >>> from lipkit.lab import Experiment, run
    >>> tiny = Experiment("astronaut", 16, options={"levels": 2, "down": 4}, steps=2)
    >>> records = Records(tempfile.mkdtemp())
    >>> records.add(run(tiny), "tiny")
    >>> records.all[0]["status"], records.get(Experiment("astronaut", 16))
    ('done', None)
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = records_folder() if path is None else Path(path)
        self.all: list[Record] = []
        self._of: dict[str, list[Record]] = defaultdict(list)
        if self.path.exists() and not self.path.is_dir():
            raise FileError(f"{self.path} is a file; records are kept in a folder of .jsonl files")
        for file in sorted(self.path.glob("*.jsonl")):
            self._take(read(file))

    def get(self, experiment: Settings, unclean: bool = False) -> Record | None:
        """Return the newest finished record of an experiment by today's versions; else None.

        One of changed sources counts only where `unclean` ones are asked for.
        """
        wanted = ("done", "unclean") if unclean else ("done",)
        found = [r for r in self._of[experiment.digest] if state(r) in wanted]
        return max(found, key=lambda r: r["made"], default=None)

    def counts(self, record: Record) -> bool:
        """Tell whether this is the record that `get` returns for its experiment."""
        return self.get(Settings(**record["experiment"])) is record

    def add(self, record: Record, name: str) -> None:
        """Append one record to the file of that name, whole or not at all."""
        record = _finished(record)
        check(record)
        append(self.path / f"{name}.jsonl", record)
        self._take([record])

    def _take(self, records: list[Record]) -> None:
        self.all += records
        for record in records:
            self._of[record["hash"]].append(record)


def read(path: Path) -> list[Record]:
    """Read the records of a file; a last line cut short, as by a power failure, is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise FileError(f"cannot read {path}: {problem}") from None
    found = []
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            check(record)
        except ValueError as problem:
            if number == len(lines):  # no newline after it: never finished
                continue
            raise FileError(f"{path}, line {number}: this is no record ({problem})") from None
        found.append(record)
    return found


def append(path: Path, record: Record) -> None:
    """Add a line; several programs may do so at once."""
    line = json.dumps(record, sort_keys=True, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(_turnstile(path)), path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)  # a line that was cut short once goes
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        raise FileError(f"cannot write {path}: {problem.strerror or problem}") from None


def _turnstile(path: Path) -> Path:
    """Where programs of this machine take turns; beside the records it would be one more file."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"lipkit-{name}"


def check(record: Record) -> None:
    """Refuse what has not the shape of a record, the hash of its experiment, or its own seal."""
    if not isinstance(record, dict) or record.get("status") not in ("done", "failed"):
        raise InputError("a record is an object with a status, done or failed")
    needed = ALWAYS | (WHEN_DONE if record["status"] == "done" else {"reason": str})
    needed |= {name: kind for name, kind in NEWER.items() if name in record}
    for name, kind in needed.items():
        if not isinstance(record.get(name), kind):
            raise InputError(f"its {name!r} is missing or of another kind")
    found = Settings.of(record["experiment"]).digest
    if found != record["hash"]:
        raise InputError(f"its hash is {record['hash']}, that of its experiment {found}")
    if seal(record) != record["seal"]:
        raise InputError("its seal is broken: it was changed after it was made; run it again")


def seal(record: Record) -> str:
    """Hash all that a record says, so that a slip of a hand or of an editor is seen.

    It has no secret: who changes a number on purpose can make the seal anew.

    >>> seal({"numbers": {"last": 24.5}}) == seal({"numbers": {"last": 25.5}})
    False
    """
    content = {name: value for name, value in record.items() if name != "seal"}
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def state(record: Record) -> str:
    """Say what a record is: "done", "failed", "stale" or "unclean".

    Stale is one of another version of the method; unclean, one of sources that no commit holds.

    >>> state({"status": "done", "experiment": {"image": "a", "size": 8}, "versions": {"fit": 0}})
    'stale'
    """
    if record["versions"] != Settings(**record["experiment"]).versions():
        return "stale"
    if record["status"] == "done" and not is_clean(record["commit"]):
        return "unclean"
    return record["status"]


def flat(record: Record) -> dict[str, Any]:
    """Make one row for a table: state, fields of the experiment, numbers."""
    fields = {k: json.dumps(v) if isinstance(v, (dict, list)) else v
              for k, v in record["experiment"].items()}  # fmt: skip
    about = ("hash", "device", "processor", "threads", "torch", "seconds", "commit")
    own = {name: record.get(name) for name in about}
    return {"state": state(record)} | fields | record.get("numbers", {}) | own


def where(records: Iterable[Record], conditions: dict[str, Any]) -> Iterator[Record]:
    """Yield the records whose row has these values; fields at their defaults count too."""
    for record in records:
        row = vars(Settings(**record["experiment"])) | flat(record)
        if all(str(row.get(name)) == str(value) for name, value in conditions.items()):
            yield record


def _finished(record: Record) -> Record:
    """With what is known only here: when it was made, and a small picture."""
    record = {"commit": commit()} | record
    picture = record.pop("picture", None)
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record |= {"lipkit": __version__, "made": made}
    if picture is not None and _may_be_shown(record["experiment"]["image"]):
        with contextlib.suppress(ModuleNotFoundError):  # numbers do not wait for Pillow
            record["thumbnail"] = thumbnail(picture)
    return record | {"seal": seal(record)}


def _may_be_shown(image: Any) -> bool:
    """Whether the licence of a picture lets copies of it be kept here."""
    about = data.names().get(image, "") if isinstance(image, str) else ""
    return about.startswith("Bundled") and any(licence in about for licence in _FREE)


def thumbnail(picture) -> str:
    """Make a small WebP of a picture [C, H, W], as text for a page or a JSON file.

    >>> import torch
    >>> thumbnail(torch.zeros(3, 8, 8))[:23]
    'data:image/webp;base64,'
    """
    from PIL import Image  # loaded late: only this needs it

    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    content = io.BytesIO()
    image.save(content, "WebP", quality=75)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


def is_clean(commit: str) -> bool:
    """Tell whether a commit holds the sources, so that anyone can have them.

    >>> is_clean("838a76a472bc"), is_clean("838a76a472bc+changed"), is_clean("sources-0a1b2c3d4e5f")
    (True, False, False)
    """
    return not (commit.endswith("+changed") or commit.startswith("sources-"))


@functools.cache  # what is changed after the start is not what runs
def commit() -> str:
    """Name the state of the sources: git's commit, marked if they were changed; else a digest."""
    here = Path(__file__).parents[1]  # all of lipkit

    def ask(*words: str) -> str:
        done = subprocess.run(["git", "-C", here, *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        ours = ask("ls-files", "--", "_version.py")  # not where we are installed in another's clone
        if ours and (found := ask("rev-parse", "--short=12", "HEAD")):
            return found + ("+changed" if ask("status", "--porcelain", "--", ".") else "")
    except OSError:  # no git on this machine
        pass
    text = hashlib.sha256()
    for path in sorted(here.rglob("*.py")):
        text.update(path.read_bytes())
    return f"sources-{text.hexdigest()[:12]}"

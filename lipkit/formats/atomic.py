"""Write a file whole or not at all, and take turns at one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import FileError, StorageError


def write(path: str | Path, data: bytes) -> None:
    """Write to the side, then move into place: the file appears complete or not at all.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/a.txt", b"whole")
    ...     [path.name for path in Path(folder).iterdir()]
    ['a.txt']
    """
    path = target(path)
    # the part's own name is short: that of the file may be as long as the system allows
    part = path.with_name(
        f".{hashlib.sha256(path.name.encode()).hexdigest()[:12]}.{os.getpid()}.part"
    )
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}); "
            "check folder, permissions and free space."
        ) from None


def target(path: str | Path) -> Path:
    """Return the file to be written: links are followed, and what is no file is refused.

    >>> target("new.txt").name
    'new.txt'
    """
    path = Path(path)
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        kind = "folder" if path.is_dir() else "device or a pipe"
        raise FileError(f"{path} is a {kind}, which would be replaced; name a file.")
    return path


@contextmanager
def alone(path: Path | None, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock beside a path: others wait, and then find what was made. None locks nothing.

    `waiting` is called once, if another holds it.

    >>> with alone(None):
    ...     pass
    """
    if path is None:
        yield
        return
    from filelock import FileLock, Timeout  # late: few calls need it

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if waiting is not None:
            waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()

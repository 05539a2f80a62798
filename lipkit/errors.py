"""Errors of one sentence, and the checks of arguments that raise them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Error(Exception):
    """Base of every exception that lipkit raises on purpose."""


class InputError(Error, ValueError):
    """A value that the call cannot take."""


class FileError(Error, OSError):
    """A file that is missing, broken or not what its name says."""


class StorageError(FileError):
    """A file that cannot be written: the disk is full, or there is no permission."""


def check_file(path: Path) -> None:
    """Refuse what is no file, before it is opened: a pipe would make its reader wait for ever.

    >>> check_file(Path("/no/such/place"))
    Traceback (most recent call last):
    lipkit.errors.FileError: /no/such/place cannot be read (there is no such file).
    """
    if not path.exists():
        raise FileError(f"{path} cannot be read (there is no such file).")
    if not path.is_file():
        kind = "folder" if path.is_dir() else "device or a pipe"
        raise FileError(f"{path} is a {kind}; give the name of a file.")


def printable(text: str) -> str:
    r"""Escape what a terminal would obey: what is printed of a file is text and nothing else.

    >>> print(printable(chr(27) + "[2J"))
    \x1b[2J
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_number(value: object, least: float = -math.inf) -> bool:
    """Tell whether this is a finite number of at least `least` (True and False are none).

    >>> is_number(0.5), is_number(-1, least=0), is_number("0.5"), is_number(float("nan"))
    (True, False, False, False)
    """
    kinds = (int, float, np.integer, np.floating)
    number = isinstance(value, kinds) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= least


def is_whole(value: object, least: int = 0) -> bool:
    """Tell whether this is a whole number of at least `least`.

    >>> is_whole(3), is_whole(3.0), is_whole(0, least=1)
    (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_picture(what: str, x: Tensor) -> None:
    """Refuse what is not a tensor of finite floating-point (or complex) numbers."""
    if not isinstance(x, Tensor) or not (x.is_floating_point() or x.is_complex()):
        kind = x.dtype if isinstance(x, Tensor) else kind_of(x)
        raise InputError(
            f"the {what} must be a floating-point tensor, got {kind}; "
            "lipkit.data.image makes one from a file or an array"
        )
    if not bool(torch.isfinite(x).all()):
        raise InputError(f"the {what} holds NaN or infinite values; clean or mask them first")


def check_shapes(x: Tensor, predicted: Tensor, y: Tensor, reference: Tensor | None) -> None:
    """Refuse a measurement or a reference of another size than the prior's pictures `x` give."""
    if y.shape != predicted.shape and y.shape != predicted.shape[1:]:
        raise InputError(
            f"the measurement has shape {tuple(y.shape)}, but the operator makes "
            f"{tuple(predicted.shape[1:])} of the prior's pictures {tuple(x.shape[1:])}; "
            "build the prior for the size and channels of the picture that was measured"
        )
    if reference is not None and reference.shape not in (x.shape, x.shape[1:]):
        raise InputError(
            f"the reference has shape {tuple(reference.shape)}, the picture {tuple(x.shape[1:])}; "
            "give the clean picture of that size"
        )


def kind_of(value: object) -> str:
    """Name what something is, for an error.

    >>> kind_of(None), kind_of("text")
    ('None', 'a str')
    """
    return "None" if value is None else f"a {type(value).__name__}"


def check_whole(name: str, value: object, least: int = 0) -> None:
    """Refuse what is not a whole number of at least `least`.

    >>> check_whole("steps", 0, least=1)
    Traceback (most recent call last):
        ...
    lipkit.errors.InputError: steps must be a whole number of at least 1, got 0
    """
    if not is_whole(value, least):
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_positive(name: str, value: object) -> None:
    """Refuse what is not a number above 0.

    >>> check_positive("lr", 0.01)
    """
    if not is_number(value, least=0) or value == 0:
        raise InputError(f"{name} must be a number above 0, got {value!r}")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Refuse a setting that is none of its few choices.

    >>> check_choice("scope", "bias", ("conv", "all"))
    Traceback (most recent call last):
        ...
    lipkit.errors.InputError: scope must be one of conv, all, got 'bias'
    """
    if value not in (choices := tuple(choices)):
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_one_of(what: str, value: object, known: Iterable[str]) -> None:
    """Refuse a name that is not among the known ones, and say which is nearest.

    >>> check_one_of("method", "snap", ["snip", "grasp"])
    Traceback (most recent call last):
        ...
    lipkit.errors.InputError: there is no method 'snap'; did you mean 'snip'? there are: snip, grasp
    """
    known = list(known)
    if value not in known:
        near = did_you_mean(value, known)
        listed = f"there are: {', '.join(known)}" if known else "there are none"
        raise InputError(f"there is no {what} {value!r}; {near}{listed}")


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """Say which of the known is nearest, as a question to put into an error; else nothing.

    >>> did_you_mean("snap", ["snip", "grasp"])
    "did you mean 'snip'? "
    """
    import difflib  # late: only errors need it

    near = difflib.get_close_matches(str(value), list(known), n=1, cutoff=0.7)
    return f"did you mean {near[0]!r}? " if near else ""

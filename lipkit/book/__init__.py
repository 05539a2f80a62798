"""The book: what its chapters call, and what executes and renders them.

A chapter calls `chapter`, `plots`, `widgets` and `beside`; `bands`, `style` and `parameters` are
behind these.
`find_chapters` and `run` execute chapters, `build` makes the whole book: `lipkit run` and
`lipkit book` call them.
"""

from __future__ import annotations

import importlib

_MODULES = ("bands", "chapter", "parameters", "plots", "style", "widgets")
_MEMBERS = {
    "beside": "verdicts",
    "build": "building",
    "find_chapters": "notebooks",
    "find_root": "building",
    "run": "building",
}

__all__ = [*_MEMBERS, *_MODULES]


def __getattr__(name: str):
    # loaded on first use: a chapter that draws a curve needs nothing of what builds the book
    if name in _MEMBERS:
        return getattr(importlib.import_module(f".{_MEMBERS[name]}", __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'lipkit.book' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

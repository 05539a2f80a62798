"""The API reference: which modules and names Sphinx's autodoc shall document, in what order."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import lipkit

HEAD = """# API reference

Everything below is reached from `import lipkit as lk`. Signatures and texts are those of the
source; the examples are run by the tests.
"""


def api_page() -> str:
    """Write the page: a section for each public module, a name only where it comes first.

    >>> "automodule:: lipkit.metrics" in api_page()
    True
    """
    parts = [HEAD]
    shown: set[int] = set()
    for name, module in [("lk", lipkit), *_public_modules(lipkit, "lk")]:
        members = {n: member for n, member in _members(module) if id(member) not in shown}
        shown |= {id(member) for member in members.values() if callable(member)}
        if members:
            parts.append(_section(name, module.__name__, members))
    return "\n".join(parts)


def _public_modules(parent: ModuleType, name: str) -> Iterator[tuple[str, ModuleType]]:
    """Find the modules that a module lists as public, and those that they list."""
    for short in sorted(getattr(parent, "__all__", ())):
        module = getattr(parent, short)
        if isinstance(module, ModuleType):
            yield f"{name}.{short}", module
            yield from _public_modules(module, f"{name}.{short}")


def _members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Find the functions, classes and constants that a module lists, or that are at home in it."""
    listed = getattr(module, "__all__", ())
    for name in listed or [n for n in vars(module) if n[0] != "_"]:
        member = getattr(module, name)
        at_home = listed or getattr(member, "__module__", None) == module.__name__
        called = inspect.isfunction(member) or inspect.isclass(member)
        if (called and at_home) or (name in listed and name.isupper()):
            yield name, member


def _section(title: str, module: str, members: dict[str, Any]) -> str:
    lines = [f".. automodule:: {module}"]  # its text; names one by one, as some are loaded late
    for name, member in members.items():
        if inspect.isclass(member):
            kind = "autoexception" if issubclass(member, Exception) else "autoclass"
            lines += [f".. {kind}:: {module}.{name}", "   :members:"]
            if fields := getattr(member, "_fields", ()):  # "Alias for field number 0" says nothing
                lines.append(f"   :exclude-members: {', '.join(fields)}")
        elif callable(member):
            lines.append(f".. autofunction:: {module}.{name}")
        else:  # a constant: its value, or of a table what can be asked for
            value = tuple(member) if isinstance(member, Mapping) else member
            lines += [f".. py:data:: {name}", f"   :value: {value!r}", ""]
    return "\n".join([f"## `{title}`\n", "```{eval-rst}", *lines, "```\n"])

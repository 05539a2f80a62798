"""The API reference: one page of Markdown from signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from pprint import pformat
from types import ModuleType
from typing import Any

import lipkit

HEAD = """# API reference

Everything below is reached from `import lipkit as lk`. Signatures and texts are those of the
source; the examples are run by the tests.
"""


def api_page() -> str:
    """The Markdown of the API reference."""
    top = {name: getattr(lipkit, name) for name in lipkit.__all__}
    objects = {n: o for n, o in top.items() if not isinstance(o, ModuleType)}
    parts = [HEAD, _section("lk", inspect.getdoc(lipkit) or "", objects)]
    shown = {id(value) for value in objects.values()}
    for name, module in _public_modules(lipkit, "lk"):
        members = {n: o for n, o in _members(module) if id(o) not in shown}
        if members:
            parts.append(_section(name, inspect.getdoc(module) or "", members))
    return "\n".join(parts)


def _public_modules(parent: ModuleType, name: str) -> Iterator[tuple[str, ModuleType]]:
    """Find the modules that a module lists as public, and those that they list."""
    for short in sorted(getattr(parent, "__all__", ())):
        module = getattr(parent, short)
        if isinstance(module, ModuleType):
            yield f"{name}.{short}", module
            yield from _public_modules(module, f"{name}.{short}")


def _members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The functions and classes that are at home in a module; all that it lists, if it does."""
    listed = getattr(module, "__all__", ())
    for name in listed or [n for n in vars(module) if n[0] != "_"]:
        member = getattr(module, name)
        at_home = listed or getattr(member, "__module__", None) == module.__name__
        called = inspect.isfunction(member) or inspect.isclass(member)
        if (called and at_home) or (name in listed and name.isupper()):
            yield name, member


def _section(title: str, text: str, members: dict[str, Any]) -> str:
    parts = [f"## `{title}`", _markdown(text)]
    parts += [_entry(f"{title}.{name}", member) for name, member in members.items()]
    return "\n\n".join(parts) + "\n"


def _entry(name: str, member: Any) -> str:
    if not callable(member):  # a constant: its value, or of a table what can be asked for
        shown = tuple(member) if isinstance(member, Mapping) else member
        return f"### `{name}`\n\n```python\n{pformat(shown, width=88, compact=True)}\n```"
    parts = [f"### `{name}`", _signature(name, member), _markdown(inspect.getdoc(member) or "")]
    if inspect.isclass(member):
        parts += _methods(name.split(".")[-1], member)
    return "\n\n".join(part for part in parts if part)


def _methods(title: str, owner: type) -> list[str]:
    """The public methods and properties that a class documents itself."""
    parts = []
    for name, member in vars(owner).items():
        plain = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        text = inspect.getdoc(plain) if getattr(plain, "__doc__", None) else None
        if name.startswith("_") or not text:
            continue
        if isinstance(plain, property):
            parts.append(f"**`{title}.{name}`**\n\n{_markdown(text)}")
        elif inspect.isfunction(plain):
            call = _signature(f"{title}.{name}", plain, method=True)
            parts.append(f"{call}\n\n{_markdown(text)}")
    return parts


class _Plain(str):
    """An annotation that shows without quotation marks."""

    __repr__ = str.__str__


def _signature(name: str, member: Any, method: bool = False) -> str:
    """The call as a code block, on one line or with one argument a line."""
    if inspect.isclass(member) and issubclass(member, Exception):
        return ""
    try:
        signature = inspect.signature(member)
    except (TypeError, ValueError):
        return ""
    arguments = [_argument(parameter) for parameter in signature.parameters.values()]
    signature = signature.replace(
        parameters=arguments[1:] if method and arguments[0].name in ("self", "cls") else arguments,
        return_annotation=signature.empty
        if inspect.isclass(member)
        else _plain(signature.return_annotation),
    )
    text = f"{name}{signature}"
    if len(text) > 88:
        text = _one_argument_a_line(name, signature)
    return f"```python\n{text}\n```"


def _plain(annotation: Any) -> Any:
    text = getattr(annotation, "__forward_arg__", annotation)  # a NamedTuple wraps its texts
    return _Plain(text) if isinstance(text, str) else text


def _argument(parameter: inspect.Parameter) -> inspect.Parameter:
    default = parameter.default
    if " at 0x" in repr(default):  # an address says nothing and differs in every build
        default = _Plain("...")
    return parameter.replace(annotation=_plain(parameter.annotation), default=default)


def _one_argument_a_line(name: str, signature: inspect.Signature) -> str:
    lines, before = [], None
    for parameter in signature.parameters.values():
        kind = parameter.kind
        if before is parameter.POSITIONAL_ONLY and kind is not before:
            lines.append("/")
        if kind is parameter.KEYWORD_ONLY and before not in (kind, parameter.VAR_POSITIONAL):
            lines.append("*")
        lines.append(str(parameter))
        before = kind
    returned = str(signature.replace(parameters=())).removeprefix("()")
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + f"){returned}"


def _markdown(text: str) -> str:
    """A docstring as Markdown: examples become code blocks, arguments a list, prose stays."""
    parts, example = [], []
    for line in [*_listed_arguments(text).splitlines(), ""]:
        if line.lstrip().startswith(">>>") or (example and line.strip()):
            example.append(line)
            continue
        if example:
            block = textwrap.dedent("\n".join(example))
            parts.append(f"```pycon\n{block}\n```")
            example = []
        parts.append(line)
    return "\n".join(parts).strip()


def _listed_arguments(text: str) -> str:
    """The indented lines after `Args:` as a list, with the names as code."""

    def listed(found: re.Match[str]) -> str:
        lines = textwrap.dedent(found[1])
        return "\n" + re.sub(r"^(\w+): ", r"- `\1`: ", lines, flags=re.MULTILINE)

    return re.sub(r"^Args:\n((?: +\S.*(?:\n|$))+)", listed, text, flags=re.MULTILINE)

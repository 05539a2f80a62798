"""The parameters of a chapter: what its `parameters` cell declares, and whether given values fit.

Everything here reads source text and never runs a chapter, so that `lipkit run` can refuse a wrong
parameter before anything starts, with the same sentence the chapter itself would give.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, did_you_mean

PROFILES = ("smoke", "laptop", "paper")

_TYPES: dict[str, type | tuple[type, ...]] = {
    "bool": bool,
    "dict": dict,
    "float": float,
    "int": int,
    "list": list,
    "str": str,
    "tuple": (tuple, list),  # YAML and JSON know only lists
}


class ParameterError(InputError):
    """A parameter that the chapter does not take, or a value of another type."""

    def _render_traceback_(self) -> list[str]:
        # IPython shows this instead of a traceback: the sentence says all there is to say.
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True)
class Parameter:
    """One line of a `parameters` cell.

    >>> size = declared("size: int | None = None")["size"]
    >>> size.accepts(64), size.accepts(None), size.accepts("big")
    (True, True, False)
    >>> str(size)
    'size: int | None = None'
    """

    name: str
    kind: str  # the annotation as written, or the type of the default
    default: str  # the default as written
    value: Any  # the default itself

    def __str__(self) -> str:
        return f"{self.name}: {self.kind} = {self.default}"

    def accepts(self, value: Any) -> bool:
        """Say whether `value` is of the declared type (an int passes for a float, a bool never)."""
        return _accepts(_tree(self.kind), value)

    def convert(self, value: Any) -> Any:
        """Return the value as declared: an int becomes a float where a float is declared."""
        if type(value) is int and not _accepts(_tree(self.kind), value, strict=True):
            return float(value)
        return value


def _tree(annotation: str) -> ast.expr:
    return ast.parse(annotation, mode="eval").body


def _accepts(kind: ast.expr, value: Any, strict: bool = False) -> bool:
    """Say whether `value` fits the annotation; `strict`: an int is no float."""
    if isinstance(kind, ast.BinOp):  # int | None
        return _accepts(kind.left, value, strict) or _accepts(kind.right, value, strict)
    if isinstance(kind, ast.Constant):  # None
        return value is kind.value
    if isinstance(kind, ast.Subscript):  # list[int]
        outer = _accepts(kind.value, value, strict)
        return outer and all(_accepts(kind.slice, item, strict) for item in value)
    wanted = _TYPES.get(ast.unparse(kind))
    if wanted is None:  # a type that we do not know: the chapter will see
        return True
    if wanted is float and type(value) is int:
        return not strict
    return isinstance(value, wanted) and not (isinstance(value, bool) and wanted is not bool)


def declared(source: str) -> dict[str, Parameter]:
    """Read the parameters that the source of a `parameters` cell declares, in order.

    >>> cell = '''# parameters
    ... image: str = "astronaut"
    ... sigma: float = 25 / 255
    ... '''
    >>> [str(parameter) for parameter in declared(cell).values()]
    ["image: str = 'astronaut'", 'sigma: float = 25 / 255']
    """
    found = {}
    for name, annotation, default in _assignments(source):
        value = _constant(default)
        if annotation is not None:
            kind = ast.unparse(annotation)
        else:
            kind = "object" if value is None else type(value).__name__
        found[name] = Parameter(name, kind, ast.unparse(default), value)
    return found


def _assignments(source: str) -> Iterator[tuple[str, ast.expr | None, ast.expr]]:
    """Find what a cell assigns to public names at its top level: name, annotation, value."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets: list[ast.expr] = [node.target]
        elif isinstance(node, ast.Assign):
            targets = node.targets
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                yield target.id, getattr(node, "annotation", None), node.value


def _constant(node: ast.expr) -> Any:
    """Compute a default such as `25 / 255`: plain arithmetic, no names."""
    try:
        return eval(compile(ast.Expression(node), "<parameter>", "eval"), {"__builtins__": {}})
    except Exception as problem:
        raise InputError(
            f"the default {ast.unparse(node)!r} of a chapter's parameter must be a plain value "
            "(a number, a string, None, a list of them, or arithmetic on numbers)"
        ) from problem


def assigned(source: str) -> list[str]:
    """List the public names that a cell assigns at its top level.

    >>> assigned("sigma = 0.1\\n_hidden = 1\\nprint(sigma)")
    ['sigma']
    """
    try:
        return [name for name, _, _ in _assignments(source)]
    except SyntaxError:  # such a cell assigned nothing
        return []


def checked(
    known: dict[str, Parameter], given: dict[str, Any], chapter: str = "this chapter"
) -> dict[str, Any]:
    """Return `given` if the chapter takes every name and value of it; else a `ParameterError`.

    >>> known = declared("sigma: float = 0.1")
    >>> checked(known, {"sigma": 1})
    {'sigma': 1.0}
    >>> checked(known, {"sigmaa": 1})
    Traceback (most recent call last):
    lipkit.book.parameters.ParameterError: unknown parameter 'sigmaa' (did you mean 'sigma'?); \
this chapter takes sigma: float = 0.1
    """
    takes = f"{chapter} takes " + ", ".join(map(str, known.values()))
    for name, value in given.items():
        if name not in known:
            near = did_you_mean(name, known).strip()
            hint = f" ({near})" if near else ""
            raise ParameterError(f"unknown parameter {name!r}{hint}; {takes}")
        if not known[name].accepts(value):
            kind = known[name].kind
            raise ParameterError(f"parameter {name!r} must be {kind}, not {value!r}; {takes}")
        if name == "profile" and value not in PROFILES:
            allowed = ", ".join(PROFILES)
            raise ParameterError(f"parameter 'profile' is one of {allowed}, not {value!r}; {takes}")
    return {name: known[name].convert(value) for name, value in given.items()}

"""Count the lines of the house, room by room: `python -m tests.house.count`.

*Code* is without blank lines, comments and docstrings. The core is what is read to trust a result:
networks, priors, operators, masks, tickets, fitting with its stop rules, ways to prune, metrics.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "lipkit"
CORE = ("models", "prior.py", "physics", "masks", "tickets", "fitting", "find", "metrics.py")
LAYOUT = (
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
)  # fmt: skip


def code_lines(text: str) -> int:
    """Count the lines that say what is computed.

    >>> code_lines("# why\\n\\nx = (1,\\n     2)\\n")
    2
    """
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            lines |= {*range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            lines -= {*range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    return len(lines)


def count() -> dict[str, tuple[int, int]]:
    """Return lines, and lines of code, of every room."""
    lines: Counter[str] = Counter()
    code: Counter[str] = Counter()
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0]
        text = path.read_text(encoding="utf-8")
        lines[room] += len(text.splitlines())
        code[room] += code_lines(text)
    return {room: (lines[room], code[room]) for room in lines}


def main() -> None:
    rooms = count()
    for room, (lines, code) in sorted(rooms.items(), key=lambda item: -item[1][0]):
        print(f"{room:14} {lines:7,} lines {code:7,} of code{'   core' if room in CORE else ''}")
    for name, chosen in (("core", CORE), ("lipkit", rooms)):
        lines, code = (sum(rooms[room][i] for room in chosen) for i in (0, 1))
        print(f"{name:14} {lines:7,} lines {code:7,} of code")


if __name__ == "__main__":
    main()

"""What the chapters' text may say: no number of ours is typed, and verdicts are the ledger's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from lipkit.book import notebooks
from lipkit.lab.claims import VERDICTS, ledger

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = notebooks.find_chapters(ROOT / "notebooks")
MOST_WORDS = 1700  # of running text: formulas, tables and folded solutions apart

UNIT = r"(?:dB|decibels?|%|percent|per cent|times|points?|seconds?|s|ms|min|minutes?|MB|GB)\b|%"
WITH_UNIT = rf"(?<![\w.])(\d[\d,]*(?:\.\d+)?)(?:[\s\u00a0]|&nbsp;)*(?:{UNIT})"
DECIMAL = r"(?<![\w.])(\d+\.\d+)(?![\w.])"
PROFILE = re.compile(r"^\| `(?:smoke|laptop|paper)`.*$", re.MULTILINE)  # how long they take
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$\n]*\$", re.DOTALL)

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)


def text_of(chapter) -> str:
    cells = notebooks.read(chapter.path)["cells"]
    return "\n\n".join(notebooks.source(c) for c in cells if c["cell_type"] == "markdown")


def settings(chapter) -> set[float]:
    """Every number that stands in the chapter's code, in its comments and in code of its text."""
    cells = notebooks.read(chapter.path)["cells"]
    code = "\n".join(notebooks.source(c) for c in cells if c["cell_type"] == "code")
    quoted = "\n".join(re.findall(r"`[^`]+`", text_of(chapter)))
    numbers = re.findall(r"(?<![\w.])\d[\d_]*(?:\.\d+)?(?:e-?\d+)?", f"{code}\n{quoted}")
    return {float(number.replace("_", "")) for number in numbers}


def typed(text: str, allowed: set[float]) -> list[str]:
    """Numbers with a unit, and decimals, that are no settings.

    >>> typed("ahead by 1.3 dB, after pruning 36 % with noise 0.1", {0.1, 0.36})
    ['1.3 dB']
    """
    text = PROFILE.sub("", FORMULA.sub(" ", text))
    found = []
    for match in re.finditer(f"{WITH_UNIT}|{DECIMAL}", text):
        number = float((match[1] or match[2]).replace(",", ""))
        setting = number in allowed or round(number / 100, 9) in allowed
        if not setting or re.search(r"dB|decibel", match[0]):  # a PSNR is never a setting
            found.append(match[0])
    return found


@each_chapter
def test_no_number_of_ours_is_typed(chapter):
    """Numbers come from the run (`chapter.say`, tables, figures) or from a named record."""
    assert typed(text_of(chapter), settings(chapter)) == []


def test_a_typed_number_is_noticed():
    text = (
        "It gains 1.3 dB, 20 % of 0.19; takes 3 s or 12&nbsp;min. Of 36 % and $2.5$ dB, in 3.11a."
    )
    assert typed(text, {0.36, 1.3}) == ["1.3 dB", "20 %", "0.19", "3 s", "12&nbsp;min"]


@each_chapter
def test_running_text_is_short(chapter):
    text = re.sub(r"<details>.*?</details>|```.*?```", " ", text_of(chapter), flags=re.DOTALL)
    text = re.sub(r"^\|.*$", " ", FORMULA.sub(" ", text), flags=re.MULTILINE)
    assert len(re.findall(r"[A-Za-z]{2,}", text)) <= MOST_WORDS


def shown(chapter) -> set[str]:
    """The claims that a chapter shows by `lk.book.beside`."""
    cells = notebooks.read(chapter.path)["cells"]
    code = "\n".join(notebooks.source(c) for c in cells if c["cell_type"] == "code")
    calls = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Call)]
    named = [n for n in calls if ast.unparse(n.func).endswith("book.beside")]
    return {argument.value for call in named for argument in call.args}


@each_chapter
def test_verdicts_are_the_ledgers(chapter):
    """A chapter names a claim and shows the ledger's verdict; it has none of its own."""
    text = text_of(chapter)
    assert re.findall(r"^\|\s*\[?C-[A-Z]+-\d+", text, re.MULTILINE) == [], "tables of claims"
    known = {claim.id for claim in ledger()}
    named = set(re.findall(r"\bC-(?:LIP|OES)-\d+", text))
    assert named | shown(chapter) <= known
    assert named <= shown(chapter), "named, but its verdict is not shown"
    verdict = re.compile(rf"\b(?:{'|'.join(VERDICTS)}|holds?|reproduces?)\b")
    sentences = re.split(r"(?<=[.;:])\s+", text)
    judged = [s for s in sentences if re.search(r"\bC-(?:LIP|OES)-\d", s) and verdict.search(s)]
    assert judged == []


def test_every_claim_that_was_judged_stands_in_a_chapter():
    judged = {claim.id for claim in ledger() if claim.scale}
    assert judged <= set().union(*map(shown, CHAPTERS))

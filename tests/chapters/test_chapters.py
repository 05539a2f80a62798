"""Every chapter: its form, its parameters, and one execution at the smoke profile.

nbval runs the chapters a second time, cell by cell, when pytest collects `notebooks/`, and compares
what every machine shares: in cells tagged `nbval-check-output` names, rows and verdicts.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from lipkit.book import notebooks
from lipkit.book.parameters import PROFILES

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = notebooks.find_chapters(ROOT / "notebooks")
MOST_CELLS = 32
MOST_LINES = 160  # of code that a chapter's page shows: a limit, no target
MOST_LINES_HIDDEN = 40  # of code that makes sentences, which the page shows instead
MOST_LINES_A_CELL = 30
MOST_CHARACTERS = 88  # in a line of code
FEWEST_COMMENTS = 5  # besides those of the parameters
MOST_SECONDS = 60  # 20 on an idle machine; tests share theirs

# what every chapter has, as words of its headings and of the bold words that open its paragraphs
SKELETON = {
    "the question": r"question",
    "what you will learn": r"learn",
    "what you need": r"need",
    "the idea": r"idea",
    "the method written out": r"written out|plain pytorch",
    "the papers' numbers": r"papers?\b",
    "exercises": r"exercises?",
    "take-aways": r"take away|take-?aways?",
    "what did not work": r"did not work",
    "where the published code and text disagree": r"disagree|differ",
}

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)


def cells(chapter, kind: str = "code") -> list[dict]:
    return [c for c in notebooks.read(chapter.path)["cells"] if c["cell_type"] == kind]


def lines(cell: dict) -> list[str]:
    """The lines of code: neither empty nor a comment alone."""
    stripped = (line.strip() for line in notebooks.source(cell).splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


@each_chapter
def test_size(chapter):
    code = cells(chapter)
    long = [i for i, cell in enumerate(code) if len(lines(cell)) > MOST_LINES_A_CELL]
    assert long == [], "code cells with too many lines"
    shown = [cell for cell in code if "remove-input" not in notebooks.tags(cell)]
    assert sum(len(lines(cell)) for cell in shown) <= MOST_LINES
    assert sum(len(lines(cell)) for cell in code) <= MOST_LINES + MOST_LINES_HIDDEN
    assert len(code) + len(cells(chapter, "markdown")) <= MOST_CELLS


def own_code(chapter) -> list[str]:
    """The code of a chapter without the parameters, whose comments are the chapter's help."""
    return [notebooks.source(c) for c in cells(chapter) if "parameters" not in notebooks.tags(c)]


def crowded(code: str) -> list[str]:
    """Lines that hold more than a statement, or an assignment of more than one value."""
    lines = code.splitlines()
    statements = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.stmt)]
    numbers = [node.lineno for node in statements]
    several = {number for number in numbers if numbers.count(number) > 1}
    for node in statements:
        if isinstance(node, ast.Assign):
            parallel = isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)
            if parallel or len(node.targets) > 1:
                several.add(node.lineno)
    return [lines[number - 1] for number in sorted(several)]


@pytest.mark.parametrize(
    "code",
    [
        "a = 1; b = 2",
        "if a: b = 2",
        "for a in b: print(a)",
        "a, b = 1, 2",
        "a, b = f(1), f(2)",
        "def f():\n    a, *b = 1, 2, 3",
        "a = b = {}",
    ],
)
def test_a_crowded_line_is_noticed(code):
    assert crowded(code) == [code.splitlines()[-1]]


def test_a_result_may_be_unpacked_and_a_statement_may_take_lines():
    assert crowded("a, b = f(\n    1,\n    2,\n)\nfor c, d in e:\n    a[c] = (c, d)") == []


@each_chapter
def test_a_line_holds_one_statement(chapter):
    assert [line for code in own_code(chapter) for line in crowded(code)] == []


@each_chapter
def test_lines_are_short(chapter):
    lines = [line for code in own_code(chapter) for line in code.splitlines()]
    assert [line for line in lines if len(line) > MOST_CHARACTERS] == []


@each_chapter
def test_comments_help(chapter):
    code = "\n".join(own_code(chapter)) + "\n"
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    assert len(comments) >= FEWEST_COMMENTS


@each_chapter
def test_the_source_holds_no_results(chapter):
    notebook = notebooks.read(chapter.path)
    compared = [c for c in cells(chapter) if "nbval-check-output" in notebooks.tags(c)]
    assert compared and all(cell["outputs"] for cell in compared), "nbval compares nothing"
    others = [cell for cell in cells(chapter) if cell not in compared]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in others)
    assert not {"papermill", "widgets"} & set(notebook["metadata"])


@each_chapter
def test_one_parameters_cell_then_start(chapter):
    code = cells(chapter)
    tagged = [i for i, cell in enumerate(code) if "parameters" in notebooks.tags(cell)]
    assert len(tagged) == 1
    first = tagged[0]
    assert notebooks.source(code[first]).startswith("# parameters")
    assert re.search(r"chapter\.start\(\s*globals\(\)", notebooks.source(code[first + 1]))
    known = chapter.parameters()
    assert known["profile"].value in PROFILES
    assert "seed" in known


@each_chapter
def test_it_ends_with_its_record(chapter):
    assert notebooks.source(cells(chapter)[-1]).rstrip().endswith(".finish()")


@each_chapter
def test_skeleton(chapter):
    text = "\n".join(notebooks.source(cell) for cell in cells(chapter, "markdown"))
    openings = re.findall(r"^(?:#{1,4} .+|\*\*.+?\*\*)", text, re.MULTILINE)
    missing = [
        what
        for what, words in SKELETON.items()
        if not any(re.search(words, opening, re.IGNORECASE) for opening in openings)
    ]
    assert missing == [], f"nothing opens with this; there are {openings}"
    times = re.findall(r"(?:^\|.*\n)+", text + "\n", re.MULTILINE)
    assert any(all(profile in table for profile in PROFILES) for table in times), (
        "no table of time by profile and device"
    )


@each_chapter
def test_figures_have_alternative_texts(chapter, smoke_runs):
    """A cell that leaves a picture says what it shows (cell metadata mystnb.image.alt)."""
    (run,) = [r for r in smoke_runs if r.chapter.name == chapter.name]
    nameless = [
        number
        for number, cell in enumerate(notebooks.read(run.path)["cells"], start=1)
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
        and not cell["metadata"].get("mystnb", {}).get("image", {}).get("alt")
    ]
    assert nameless == []


@each_chapter
def test_it_runs_at_smoke_in_time(chapter, smoke_runs):
    (run,) = [r for r in smoke_runs if r.chapter.name == chapter.name]
    record = run.record()
    assert record is not None
    assert record["profile"] == "smoke"
    assert record["seconds"] <= MOST_SECONDS
    assert record["checks"], "a chapter checks its claims"
    assert not [check for check in record["checks"] if check["ok"] is False]


@each_chapter
def test_it_runs_without_complaints(chapter, smoke_runs):
    (run,) = [r for r in smoke_runs if r.chapter.name == chapter.name]
    outputs = [o for c in notebooks.read(run.path)["cells"] for o in c.get("outputs", [])]
    assert [o["text"] for o in outputs if o.get("name") == "stderr"] == []


@each_chapter
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("seedd", "1", "unknown parameter 'seedd' (did you mean 'seed'?); this chapter takes"),
        ("seed", "big", "parameter 'seed' must be int, not 'big'; this chapter takes"),
    ],
)
def test_plain_papermill_refuses_a_wrong_parameter(chapter, name, value, sentence, tmp_path):
    command = [sys.executable, "-m", "papermill", str(chapter.path), str(tmp_path / "out.ipynb")]
    command += ["--cwd", str(chapter.path.parent), "-p", name, value, "--no-progress-bar"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert sentence in last
    for parameter in chapter.parameters().values():
        assert str(parameter) in last
    executed = [c for c in notebooks.read(tmp_path / "out.ipynb")["cells"] if c.get("outputs")]
    assert len(executed) == 1, "nothing ran after the cell that refused"

"""There is a book in any case: what a missed band, a broken law and a crash leave of it."""

import json
import re
from pathlib import Path

import pytest

from lipkit.cli import main
from lipkit.cli.book import in_words
from tests.support.tiny_book import (
    BAND,
    END,
    PARAMETERS,
    START,
    write_book,
    write_chapter,
    write_pages,
)

LAW = 'p.check("two ways agree", 1 == 2, "to 3.1e-01")'


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of one chapter that holds; we are in its folder, with no profile set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIPKIT_PROFILE")
    write_book(tmp_path)
    write_chapter(tmp_path / "notebooks" / "01_tiny.ipynb", PARAMETERS, START, END)
    return tmp_path


def add_chapters(book: Path, **chapters: list[str]) -> None:
    """More chapters, each of these cells after the usual first two."""
    names = ["01_tiny"]
    for number, (name, cells) in enumerate(chapters.items(), start=2):
        names.append(f"{number:02d}_{name}")
        write_chapter(book / "notebooks" / f"{names[-1]}.ipynb", PARAMETERS, START, *cells)
    write_pages(book, *names)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    out, err = capsys.readouterr()
    return end.value.code, out, err


def page(book: Path, name: str) -> str:
    """The text of a rendered page, without its tags."""
    html = (book / "_build" / "html" / f"{name}.html").read_text()
    article = html[html.index("<article") : html.index("</article>")]
    return " ".join(re.sub(r"<[^>]+>", " ", article).split())


def test_a_missed_band_is_shown_and_listed_and_the_book_is_good(capsys, book):
    add_chapters(book, band=[BAND, END])
    code, out, _ = run(capsys, "book")
    assert code == 0
    assert out.splitlines()[-1] == (
        "Outside its band on this machine: 02_band, PSNR: 2.04 dB, band -2 to 2 of 8 runs"
    )
    shown = page(book, "notebooks/02_band")
    assert "Outside its band on this machine: PSNR: 2.04 dB, band -2 to 2 of 8 runs" in shown
    assert "What that means" in shown
    assert "PASS size: 16" in shown, "the chapter goes on"
    status = page(book, "book/status")
    assert "PSNR: 2.04 dB, band -2 to 2 of 8 runs" in status
    assert "1 passed, 1 outside the band" in status
    assert "PSNR: 2.04 dB, band -2 to 2 of 8 runs missed" in status

    # the same book judged strictly: nothing runs again, and the missed band is a failure
    code, out, err = run(capsys, "book", "--strict", "--json")
    assert code == 1
    assert json.loads(out)["missed"] == ["02_band, PSNR: 2.04 dB, band -2 to 2 of 8 runs"]
    assert json.loads(out)["failed"] == []
    assert "nothing has changed" in err


def test_failed_chapters_show_why_on_their_pages_and_all_others_are_there(capsys, book):
    add_chapters(book, law=[LAW, END], dies=["import os; os.kill(os.getpid(), 9)", END])
    code, out, err = run(capsys, "book")
    assert code == 1
    assert "The book is ready" in out
    last = err.splitlines()[-1]
    assert last.startswith("lipkit: error: 2 of 3 chapters failed, as their pages show: ")
    assert "02_law, cell 4: CheckError: check failed: two ways agree: to 3.1e-01; 03_dies" in last

    law = page(book, "notebooks/02_law")
    assert law.startswith("02_law"), "the title stays the first thing on the page"
    assert "This chapter did not run to its end on this machine" in law
    assert "FAIL two ways agree: to 3.1e-01" in law
    assert "PASS size" not in law
    assert re.search(r"[Kk]ernel died", page(book, "notebooks/03_dies"))
    assert "PASS size: 16" in page(book, "notebooks/01_tiny")
    assert "stopped: cell 4: CheckError" in page(book, "book/status")

    # mended, the book is rendered again and good
    for name in ("02_law", "03_dies"):
        write_chapter(book / "notebooks" / f"{name}.ipynb", PARAMETERS, START, END)
    code, out, _ = run(capsys, "book")
    assert code == 0
    assert out.splitlines()[-1].startswith("The book is ready")
    assert "did not run to its end" not in page(book, "notebooks/02_law")


def test_a_mistake_in_the_pages_is_an_error_and_they_are_there(capsys, book):
    add_chapters(book)
    (book / "book" / "index.md").write_text("# A tiny book\n\nSee {ref}`nowhere`.\n")
    for _ in range(2):  # and is not forgotten the next time
        code, _, err = run(capsys, "book")
        assert code == 2
        assert "the book has mistakes: book/index.md:3: WARNING" in err
        assert "See nowhere" in page(book, "book/index")


def test_run_says_what_was_missed_and_is_strict_on_request(capsys, book):
    add_chapters(book, band=[BAND, END])
    code, out, err = run(capsys, "run", "1", "2")
    assert code == 0
    assert out.splitlines() == ["_build/runs/01_tiny.ipynb", "_build/runs/02_band.ipynb"]
    assert err.splitlines()[-1].startswith("Outside its band on this machine: 02_band, PSNR")
    assert run(capsys, "run", "2", "--strict")[0] == 1
    assert run(capsys, "run", "1", "--strict")[0] == 0
    assert run(capsys, "run", "2", "--strict", "--profile", "smoke")[0] == 0, "not judged there"


def test_run_ends_with_1_where_a_chapter_fails(capsys, book):
    add_chapters(book, law=[LAW, END])
    code, out, err = run(capsys, "run", "1", "2")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == (
        "lipkit: error: 1 of 2 chapters failed: "
        "02_law, cell 4: CheckError: check failed: two ways agree: to 3.1e-01"
    )


def test_several_missed_bands_are_counted():
    missed = ["02_band, PSNR: 2.04 dB, band -2 to 2", "03_more, SSIM: 0.3, band 0.5 to 1"]
    assert in_words(missed) == (
        "2 numbers are outside their bands on this machine: "
        "02_band, PSNR: 2.04 dB, band -2 to 2; 03_more, SSIM: 0.3, band 0.5 to 1"
    )

"""The machinery of the book, on tiny books of its own; the real one is in test_chapters.py."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

import lipkit as lk
from lipkit.book import build, executing, notebooks, run, runs, site
from lipkit.book.api import api_page
from lipkit.book.status import status_page
from tests.support.tiny_book import END, PARAMETERS, START, write_book, write_chapter

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def book(tmp_path):
    return write_book(tmp_path)


def executed(path: Path) -> str:
    cells = notebooks.read(path)["cells"]
    return "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", []))


def test_a_run_is_kept_and_not_repeated(book):
    said = []
    (first,) = run(root=book, parameters={"sigma": 2}, out=book / "out", say=said.append)
    assert executed(book / "out" / "01_tiny.ipynb").strip() == "2.0"
    (second,) = run(root=book, parameters={"sigma": 2}, say=said.append)
    assert (first.cached, second.cached) == (False, True)
    assert "unchanged" in said[-1]


def key(book: Path, **parameters) -> str:
    chapters = notebooks.find_chapters(book / "notebooks")
    return runs.prepare(chapters, parameters, book, book / "cache")[0].key


def test_whatever_can_change_a_result_changes_its_key(book):
    chapter = book / "notebooks" / "01_tiny.ipynb"
    keys = {key(book), key(book, sigma=0.2), key(book, profile="smoke")}
    (book / "requirements.lock").write_text("torch==2.6\n")
    keys.add(key(book))
    (book / "book" / "_data").mkdir(parents=True)
    (book / "book" / "_data" / "claims.yml").write_text("- C-1\n")
    keys.add(key(book))
    write_chapter(chapter, PARAMETERS, "print(sigma + 1)")
    keys.add(key(book))
    assert len(keys) == 6


def test_outputs_and_counts_do_not_change_the_key(book):
    before = key(book)
    chapter = book / "notebooks" / "01_tiny.ipynb"
    notebook = json.loads(chapter.read_text())
    notebook["cells"][1]["execution_count"] = 7
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x"}]
    chapter.write_text(json.dumps(notebook))
    assert key(book) == before


def test_the_library_is_part_of_the_key(book, monkeypatch):
    before = key(book)
    monkeypatch.setattr(runs, "inputs_digest", lambda root: "another library")
    assert key(book) != before


def test_a_failure_names_chapter_cell_and_reason_and_leaves_nothing(book):
    (book / "notebooks" / "02_bad.ipynb").write_text(
        (book / "notebooks" / "01_tiny.ipynb").read_text().replace("print(sigma)", "1 / 0")
    )
    said = []
    with pytest.raises(lk.Error, match="1 of 2 chapters failed: 02_bad, cell 3: ZeroDivisionError"):
        run(root=book, parameters={"sigma": 0.2}, out=book / "out", say=said.append)
    assert any(line.startswith("02_bad: FAILED") for line in said)
    assert not (book / "out").exists()
    good = [path.name[:7] for path in (book / "_build" / "cache").glob("*[0-9a-f].ipynb")]
    assert good == ["01_tiny"], "the chapter that succeeded is kept, the other is not"


def test_a_kernel_that_dies_is_reported(book):
    write_chapter(
        book / "notebooks" / "01_tiny.ipynb",
        PARAMETERS,
        "import os, signal; os.kill(os.getpid(), 9)",
    )
    with pytest.raises(lk.Error, match=r"01_tiny, .*[Kk]ernel died"):
        run(root=book, say=lambda line: None)


@pytest.mark.skipif(os.name == "nt", reason="no POSIX signals")
def test_an_interrupt_leaves_no_kernel_that_papermill_forgot(book):
    orphan = "[sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True"
    forgetful = f"import subprocess, sys, time; print(subprocess.Popen({orphan}).pid, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", forgetful + "; time.sleep(600)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as papermill:
        left = psutil.Process(int(papermill.stdout.readline()))
        chapter = notebooks.ChapterFile(book / "notebooks" / "01_tiny.ipynb")
        job = executing.Job(runs.Run(chapter, {}, "0", book), papermill)
        executing.stop(job)
        assert papermill.poll() is not None
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE


def test_parameters_are_checked_before_anything_runs(book):
    write_chapter(book / "notebooks" / "02_other.ipynb", "# parameters\nprofile: str = 'laptop'")
    with pytest.raises(lk.InputError, match="unknown parameter 'sigma'; 02_other takes profile"):
        run(root=book, parameters={"sigma": 0.2})
    assert not list((book / "_build" / "cache").glob("*.ipynb"))


def test_chapters_are_found_by_name_number_and_path(book):
    folder = book / "notebooks"
    for word in ("01_tiny", "1", "01", str(folder / "01_tiny.ipynb")):
        assert notebooks.find_chapters(folder, [word])[0].name == "01_tiny"


def test_old_runs_are_forgotten(book):
    for sigma in range(1, executing.KEEP_RUNS + 3):
        path = book / "cache" / f"01_tiny-{sigma:016x}.ipynb"
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    chapter = notebooks.ChapterFile(book / "notebooks" / "01_tiny.ipynb")
    executing.forget_old(runs.Run(chapter, {}, "0", path))
    assert len(list(path.parent.iterdir())) == executing.KEEP_RUNS


@pytest.mark.parametrize(
    ("environment", "remote", "address"),
    [
        ("owner/name", None, "https://github.com/owner/name"),
        (None, "git@github.com:some/where.git", "https://github.com/some/where"),
        (None, "https://github.com/some/where.git", "https://github.com/some/where"),
        (None, "https://elsewhere.example/some/where", None),
        (None, None, None),
    ],
)
def test_launch_buttons_only_where_the_repository_is_known(
    book, monkeypatch, environment, remote, address
):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    if environment:
        monkeypatch.setenv("GITHUB_REPOSITORY", environment)
    subprocess.run(["git", "init", "-q", str(book)], check=True)
    if remote:
        subprocess.run(["git", "-C", str(book), "remote", "add", "origin", remote], check=True)
    config = site.configuration(book)
    assert ("launch_buttons" in config) == (address is not None)
    assert config.get("repository", {}).get("url") == address


def test_a_chapter_missing_from_the_contents_is_an_error(book):
    (book / "book").mkdir()
    toc = {"root": "book/index", "parts": [{"chapters": [{"file": "notebooks/02_other"}]}]}
    (book / "book" / "_toc.yml").write_text(yaml.safe_dump(toc))
    chapter = notebooks.ChapterFile(book / "notebooks" / "01_tiny.ipynb")
    with pytest.raises(lk.Error, match=r"_toc\.yml does not list notebooks/01_tiny"):
        site.contents(book, [runs.Run(chapter, {}, "0", chapter.path)], complete=True)


def test_a_build_of_some_chapters_leaves_the_others_out(book):
    (book / "book").mkdir()
    files = ["notebooks/01_tiny", "notebooks/02_other", "book/api"]
    toc = {"root": "book/index", "parts": [{"chapters": [{"file": f} for f in files]}]}
    (book / "book" / "_toc.yml").write_text(yaml.safe_dump(toc))
    chapter = notebooks.ChapterFile(book / "notebooks" / "01_tiny.ipynb")
    some = site.contents(book, [runs.Run(chapter, {}, "0", chapter.path)], complete=False)
    assert [e["file"] for e in some["parts"][0]["chapters"]] == ["notebooks/01_tiny", "book/api"]


def test_a_folder_with_other_files_is_never_replaced(book):
    target = book / "documents"
    target.mkdir()
    (target / "letter.txt").write_text("mine")
    with pytest.raises(lk.Error, match="holds other files"):
        build(root=book, out=target)
    assert (target / "letter.txt").read_text() == "mine"


def test_publishing_replaces_the_old_pages_in_one_move(tmp_path):
    for name, text in (("one", "old"), ("two", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text(text)
        site.publish(tmp_path / name, tmp_path / "html", key=name)
    assert (tmp_path / "html" / "index.html").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["html", "one", "two"]


def test_the_scripts_that_travel_with_the_book_are_the_published_ones():
    files = site.vendored(ROOT / "book" / "_vendor")
    sums = (ROOT / "book" / "_vendor" / "SHA256SUMS").read_text().split()
    expected = dict(zip(sums[1::2], sums[::2], strict=True))
    prefix = "offline_static/offline/"
    found = {n: hashlib.sha256(files[prefix + n]).hexdigest() for n in expected}
    assert found == expected
    assert f"{prefix}mathjax/LICENSE" in files
    assert f"{prefix}html-manager/LICENSE" in files


def test_the_api_page_has_every_public_name(tmp_path):
    """Rendered alone, with the book's settings; a docstring that is no reST is an error."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    own = ("default_role", "autodoc_", "add_module", "nitpick", "python_", "napoleon_")
    conf = {name: value for name, value in settings.items() if name.startswith(own)}
    conf["extensions"] = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
    (tmp_path / "conf.py").write_text(f"globals().update({conf!r})")
    (tmp_path / "index.md").write_text(api_page())
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", ".", "html"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    page = (tmp_path / "html" / "index.html").read_text()
    anchors = {name for name in lk.__all__ if not isinstance(getattr(lk, name), type(lk))}
    anchors -= {"__version__"}
    anchors |= {"Mask.load", "physics.Denoise", "book.chapter.start", "lab.Experiment"}
    anchors |= {"data.image", "masks.SCOPES"}
    assert [name for name in anchors if f'id="lipkit.{name}"' not in page] == []
    assert " at 0x" not in page
    assert "Alias for field" not in page


def test_the_status_page_tells_what_the_chapters_reported(tmp_path):
    chapter = notebooks.ChapterFile(tmp_path / "01_tiny.ipynb")
    write_chapter(chapter.path, PARAMETERS, START, END)
    (done,) = run([str(chapter.path)], {"size": 5}, "smoke", root=tmp_path, folder=tmp_path)
    record = done.record()
    assert record["seconds"] > 0
    assert 50 < record["peak_megabytes"] < 4000
    page = status_page([done])
    assert f"| smoke | {record['seconds']:.1f} | {record['peak_megabytes']} MB |" in page
    assert "1 passed |" in page
    assert f"lipkit {lk.__version__}" in page

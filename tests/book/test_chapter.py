"""What a notebook calls: start, check and finish, without a kernel."""

import warnings

import pytest

import lipkit as lk
from lipkit.book import bands, chapter, notebooks
from lipkit.book.parameters import checked, declared
from tests.support.tiny_book import PARAMETERS, START, write_chapter

CELL = """# parameters: change them here
profile: str = "laptop"
image: str = "astronaut"
sigma: float = 25 / 255
size: int | None = None
levels: list[int] = [1, 2]
flip: bool = False
"""
TABLES = {"smoke": {"size": 8}, "laptop": {"size": 16}, "paper": {"size": 32}}


@pytest.fixture(autouse=True)
def no_profile_from_outside(monkeypatch):
    monkeypatch.delenv("LIPKIT_PROFILE")


def notebook(*injected: str, before: str = CELL, after: str = "x = 1") -> dict:
    """The namespace of a notebook that has run these cells."""
    namespace: dict = {}
    cells = ["", before, *injected, "p = lk.chapter.start(globals(), ...)", after]
    for source in [before, *injected]:
        exec(source, namespace)
    return namespace | {"In": cells}


def start(*injected: str, **more):
    return chapter.start(notebook(*injected, **more), **TABLES)


def test_the_profile_fills_what_is_none():
    p = start()
    assert (p.profile, p.size, p.sigma, p.image) == ("laptop", 16, 25 / 255, "astronaut")
    assert p.device in ("cpu", "cuda")
    assert "laptop profile on" in repr(p)
    assert "size&nbsp;<b>16</b>" in p._repr_html_()


def test_given_parameters_win_over_the_profile():
    p = start("# Parameters\nprofile = 'smoke'\nsize = 5\nsigma = 1\n")
    assert (p.profile, p.size, p.sigma) == ("smoke", 5, 1.0)
    assert type(p.sigma) is float


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("sigmaa = 0.1", "unknown parameter 'sigmaa' (did you mean 'sigma'?)"),
        ("sigma = 'big'", "parameter 'sigma' must be float, not 'big'"),
        ("sigma = None", "parameter 'sigma' must be float, not None"),
        ("sigma = True", "parameter 'sigma' must be float, not True"),
        ("size = 1.5", "parameter 'size' must be int | None, not 1.5"),
        ("image = 3", "parameter 'image' must be str, not 3"),
        ("levels = [1, 'two']", "parameter 'levels' must be list[int], not [1, 'two']"),
        ("flip = 1", "parameter 'flip' must be bool, not 1"),
        ("profile = 'huge'", "parameter 'profile' is one of smoke, laptop, paper, not 'huge'"),
    ],
)
def test_a_wrong_parameter_lists_what_the_chapter_takes(line, sentence):
    with pytest.raises(lk.InputError) as raised:
        start(f"# Parameters\n{line}\n")
    text = str(raised.value)
    assert text.startswith(sentence)
    assert text.endswith(
        "this chapter takes profile: str = 'laptop', image: str = 'astronaut', "
        "sigma: float = 25 / 255, size: int | None = None, levels: list[int] = [1, 2], "
        "flip: bool = False"
    )
    assert raised.value._render_traceback_() == [f"ParameterError: {text}"]


def test_a_wrong_value_written_into_the_cell_itself_is_found():
    with pytest.raises(lk.InputError, match="'sigma' must be float, not 'big'"):
        start(before=CELL.replace("25 / 255", "'big'"))


def test_cells_after_the_start_are_no_parameters():
    assert start(after="anything = 3").size == 16


def test_running_the_start_cell_again_is_fine():
    namespace = notebook()
    namespace["In"] += ["more = 2", "p = lk.chapter.start(globals(), ...)"]
    assert chapter.start(namespace, **TABLES).size == 16


def test_the_environment_sets_the_default_profile_only(monkeypatch):
    monkeypatch.setenv("LIPKIT_PROFILE", "smoke")
    assert start().size == 8
    assert start("# Parameters\nprofile = 'paper'").size == 32
    monkeypatch.setenv("LIPKIT_PROFILE", "huge")
    with pytest.raises(lk.InputError, match="one of smoke, laptop, paper, not 'huge'"):
        start()


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"smoke": {}, "laptop": {}}, "the tables smoke, laptop, paper"),
        (TABLES | {"paper": {}}, "the paper profile leaves 'size' unset"),
        (TABLES | {"paper": {"size": 1, "other": 2}}, "unknown parameter 'other'"),
        (TABLES | {"paper": {"size": "big"}}, "parameter 'size' must be int"),
    ],
)
def test_tables_that_cannot_work_are_refused(tables, sentence):
    with pytest.raises(lk.Error, match=sentence):
        chapter.start(notebook(), **tables)


def test_a_program_that_keeps_no_history_of_cells():
    namespace = notebook() | {"In": [""]}
    p = chapter.start(namespace, **TABLES)
    assert (p.profile, p.size, p.sigma) == ("laptop", 16, 25 / 255)
    with pytest.raises(lk.InputError, match="parameter 'sigma' must be float"):
        chapter.start(namespace | {"sigma": "big"}, **TABLES)


def test_start_outside_a_notebook_says_what_it_needs():
    with pytest.raises(lk.Error, match="needs a notebook whose parameters cell has been run"):
        chapter.start({}, **TABLES)


def test_a_parameter_may_not_hide_a_method():
    with pytest.raises(lk.Error, match="cannot be called 'finish'"):
        chapter.Chapter({"profile": "smoke", "finish": 1})


def test_a_broken_law_stops_the_chapter_and_a_missed_band_does_not(capsys, monkeypatch):
    known = {("PSNR", "laptop"): bands.Band(28, 31, 8)}
    monkeypatch.setattr(bands, "find", lambda *name_and_profile: known.get(name_and_profile))
    p = start()
    p.band("PSNR", 30)
    p.band("PSNR", 3)
    p.band("SSIM", 0.9, "")
    p.check("linear", True)
    with pytest.raises(lk.Error, match="check failed: adjoint: 0.5"):
        p.check("adjoint", False, "0.5")
    assert capsys.readouterr().out.splitlines() == [
        "PASS  PSNR: 30 dB, band 28 to 31 of 8 runs",
        "outside its band on this machine  PSNR: 3 dB, band 28 to 31 of 8 runs",
        "not calibrated yet (0 runs)  SSIM: 0.9",
        "PASS  linear",
        "FAIL  adjoint: 0.5",
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("profile = 'smoke'", "not judged at smoke size"),
        ("image = 'coffee'", "not judged with changed parameters"),
        ("size = 20", "not judged with changed parameters"),
    ],
)
def test_bands_are_not_judged_where_they_mean_nothing(capsys, line, why):
    p = start(f"# Parameters\n{line}")
    p.band("PSNR", 3)
    assert capsys.readouterr().out == f"{why}  PSNR: 3 dB\n"
    with pytest.raises(lk.Error, match="check failed: adjoint"):
        p.check("adjoint", False)


def test_outside_a_notebook_warnings_keep_their_form():
    before = warnings.formatwarning
    start()
    assert warnings.formatwarning is before


def test_in_a_notebook_warnings_are_a_sentence_from_start_to_finish(tmp_path):
    warn = "import warnings\nwarnings.warn('look here')"
    end = "p.finish()\nimport warnings\nprint(warnings.formatwarning.__module__)"
    write_chapter(tmp_path / "01_warns.ipynb", PARAMETERS, START, warn, end)
    (done,) = lk.book.run(folder=tmp_path, root=tmp_path, say=lambda line: None)
    outputs = [o for cell in notebooks.read(done.path)["cells"] for o in cell.get("outputs", [])]
    streams = {output["name"]: "".join(output["text"]) for output in outputs if "name" in output}
    assert streams == {"stderr": "UserWarning: look here\n", "stdout": "warnings\n"}


def test_defaults_must_be_plain_values():
    with pytest.raises(lk.InputError, match="must be a plain value"):
        declared("size: int = len('abc')")


def test_values_of_a_profile_are_taken_as_they_are():
    known = declared(CELL)
    assert checked(known, {"levels": [3], "flip": True}) == {"levels": [3], "flip": True}

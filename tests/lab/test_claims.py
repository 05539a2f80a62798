"""The ledger of claims: verdicts follow from records, and the pages show what they follow from."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

import lipkit as lk
from lipkit.book import comparison, site
from lipkit.book import evidence as pages
from lipkit.lab import claims, papers, verify
from lipkit.lab.experiment import Experiment
from lipkit.lab.grid import Grid
from lipkit.lab.paths import data_folder
from lipkit.lab.records import Records

BOOK = data_folder().parent
GRID = """
title = "Tiny"
about = "Two arms."
scale = "paper"
[common]
size = 64
[axes]
seed = [0, 1]
image = ["coffee", "moon", "camera"]
[arms.dense]
[arms.sparse]
method = "snip"
density = 0.1
[paper]
table = "oes24-2"
number = "last"
row = "image"
labels = {coffee = "Pepper"}
columns = {dense = "dense 25", sparse = "sparse 25"}
[code]
dense = ["oes24-demo", "pepper, dense, lr 1e-3", "19000"]
"""


def record(experiment: Experiment, **numbers) -> dict:
    """What a run would have left, with numbers of our choice."""
    numbers = dict(stopped=20.0, oracle=21.0, last=19.0, weights=5, oracle_step=100) | numbers
    return {
        "hash": experiment.digest, "experiment": experiment.given(),
        "versions": experiment.versions(), "status": "done", "reason": "all steps are done",
        "device": "cpu", "torch": "2", "seconds": 1, "search_seconds": 0, "fit_seconds": 1,
        "curve": {"step": [1, 50, 100], "loss": [3, 2, 1], "psnr": [10, 21, 19],
                  "low": [0, 0.9, 1], "high": [0, 0.1, 0.5]},
        "layers": {"a": [1, 4]}, "rounds": [], "numbers": numbers,
    }  # fmt: skip


@pytest.fixture
def book(tmp_path) -> Path:
    for name in ("_data", "grids", "records"):
        (tmp_path / name).mkdir()
    (tmp_path / "grids" / "paper.toml").write_text(GRID)
    small = GRID.replace('scale = "paper"', 'scale = "laptop"').replace("size = 64", "size = 32")
    (tmp_path / "grids" / "laptop.toml").write_text(small)
    return tmp_path


def keep(book: Path, grid: str, values: dict[tuple[str, str], dict], seeds=(0, 1)) -> None:
    records = Records(book / "records")
    for point in Grid.load(book / "grids" / f"{grid}.toml").points:
        key = (point.arm, point.place["image"])
        if key in values and point.place["seed"] in seeds:
            records.add(record(point.experiment, **values[key]), grid)


def judged(book: Path, *holds: list, entry: dict | None = None, **more) -> claims.Claim:
    tests = [{"grid": grid, "holds": list(holds)} | more for grid in ("paper", "laptop")]
    about = {"id": "C-1", "says": "so.", "paper": "lip2022", "where": "here", "tests": tests}
    entry = about | (entry or {})
    (book / "_data" / "claims.yml").write_text(yaml.safe_dump([entry]))
    return claims.ledger(book)[0]


AHEAD = {("sparse", i): {"last": 22} for i in ("coffee", "moon", "camera")}
DENSE = {("dense", i): {"last": 20} for i in ("coffee", "moon", "camera")}
BETTER = ["sparse.last", ">", "dense.last", 1]


def test_verdicts_follow_from_the_records(book):
    assert judged(book, BETTER).verdict == "not yet run"
    keep(book, "laptop", AHEAD | DENSE)
    claim = judged(book, BETTER)
    assert (claim.verdict, claim.scale) == ("reproduced", "laptop")
    keep(book, "paper", DENSE | AHEAD | {("sparse", "moon"): {"last": 20.5}})
    claim = judged(book, BETTER)  # 2, 2 and 0.5 dB ahead: 1.5 ± 2.15
    assert (claim.verdict, claim.scale) == ("undecided", "paper")
    assert judged(book, BETTER, share=0.3).verdict == "reproduced"  # "in some places" is counted
    assert judged(book, BETTER, ["dense.last", "<", 20.1]).verdict == "partly"
    half = judged(book, BETTER, ["sparse.stopped_y", ">", 0])  # which nothing has measured
    assert half.verdict == "not yet run" and half.findings[0].verdict == "undecided"
    finding = claim.findings[0]
    assert (finding.held, finding.asked, finding.planned) == (2, 3, 3)
    assert (finding.left, finding.right) == (pytest.approx(21.5), 20)
    assert (finding.difference, finding.noise) == (1.5, pytest.approx(2.151, abs=1e-3))
    assert (finding.seeds, finding.setting) == (2, "64 pixels, 3000 steps")


def test_means_are_over_seeds_and_pictures_stand_alone(book):
    keep(
        book,
        "paper",
        {("dense", "coffee"): {"last": 20}, ("sparse", "coffee"): {"last": 22.4}},
        [0],
    )
    keep(
        book,
        "paper",
        {("dense", "coffee"): {"last": 22}, ("sparse", "coffee"): {"last": 21.8}},
        [1],
    )
    claim = judged(book, BETTER)  # means 22.1 and 21, though the second seed alone says no
    assert claim.verdict == "too little evidence" and claim.findings[0].held == 1
    assert (claim.findings[0].asked, claim.findings[0].planned) == (1, 3)
    keep(book, "paper", {("dense", "moon"): {"last": 25}})  # half a comparison is none
    assert judged(book, BETTER).findings[0].asked == 1


@pytest.mark.parametrize(
    ("ahead", "verdict"),
    [
        ([1.9, 2.0, 2.1], "reproduced"),
        ([0.2, 0.3, 0.1], "not reproduced"),
        ([0.5, 1.5, 2.5], "undecided"),  # 1.5 ± 2.5 with a threshold of 1
        ([2.0, 2.0], "too little evidence"),
    ],
)
def test_an_effect_has_to_be_beyond_its_noise(book, ahead, verdict):
    places = ("coffee", "moon", "camera")[: len(ahead)]
    arm = {("sparse", i): {"last": 20 + gain} for i, gain in zip(places, ahead, strict=True)}
    keep(book, "paper", DENSE | arm)
    assert judged(book, BETTER).verdict == verdict


@pytest.mark.parametrize(
    ("last", "verdict"),
    [
        (1.1, "reproduced"),  # all six on one side of the threshold, 1 dB, ...
        (0.9, "undecided"),  # ... or not; 3.8 ± 4.1 in both
    ],
)
def test_many_places_that_agree_need_no_equal_effects(book, last, verdict):
    grid = book / "grids" / "paper.toml"
    names = ["coffee", "moon", "camera", "astronaut", "chelsea", "text"]
    grid.write_text(GRID.replace('["coffee", "moon", "camera"]', str(names).replace("'", '"')))
    gains = [1.1, 1.3, 1.6, 7.9, 9.8, last]
    dense = {("dense", name): {"last": 20} for name in names}
    ahead = {("sparse", n): {"last": 20 + gain} for n, gain in zip(names, gains, strict=True)}
    keep(book, "paper", dense | ahead)
    claim = judged(book, BETTER)
    assert claim.findings[0].difference - claim.findings[0].noise < 1
    assert claim.verdict == verdict


def test_the_same_within_a_margin_has_to_be_beyond_noise_too(book):
    keep(book, "paper", DENSE | {("sparse", i): {"last": v} for i, v in
                                 (("coffee", 19.0), ("moon", 20.0), ("camera", 21.0))})  # fmt: skip
    assert judged(book, ["sparse.last", "~", "dense.last", 3]).verdict == "reproduced"
    for margin in (0.5, 2):  # 0 ± 2.48: wider than the margin on both sides
        found = judged(book, ["sparse.last", "~", "dense.last", margin]).verdict
        assert found == "undecided"


def test_a_claim_on_all_pictures_is_not_settled_by_their_mean(book):
    arm = dict(zip(AHEAD, [{"last": 21.01}, {"last": 21.02}, {"last": 20.99}], strict=True))
    keep(book, "paper", DENSE | arm)
    assert judged(book, ["sparse.last", ">", "dense.last", 0.9], share=1).verdict == "reproduced"
    assert judged(book, ["sparse.last", ">", "dense.last", 1], share=1).verdict == "undecided"


def test_a_claim_about_one_picture_counts_its_seeds(book):
    keep(book, "paper", {("sparse", i): {"last": 22} for i in ("coffee", "moon")} | DENSE)
    assert judged(book, BETTER).verdict == "too little evidence"
    assert judged(book, BETTER, entry={"one_picture": True}).verdict == "reproduced"
    assert judged(book, BETTER, at={"image": ["moon"]}, entry={"one_picture": True}).verdict == (
        "too little evidence"  # of two seeds
    )


def test_a_part_that_nothing_tests_makes_partly(book):
    keep(book, "paper", DENSE | AHEAD)
    assert judged(book, BETTER).verdict == "reproduced"
    claim = judged(book, BETTER, entry={"untested": [{"says": "other noise"}]})
    assert (claim.verdict, claim.untested) == ("partly", ["other noise"])
    assert "*Not tested:* other noise." in pages.claims_page(book)
    elsewhere = {"untested": [{"says": "other noise", "scale": "laptop"}]}
    assert judged(book, BETTER, entry=elsewhere).verdict == "reproduced"


def test_every_kind_of_statement(book):
    keep(book, "paper", DENSE | AHEAD | {("dense", "moon"): {"last": 20, "oracle_step": 900}})
    true = [
        ["sparse.last", "~", "dense.last", 2], ["dense.last", "<", "sparse.last", -1.5],
        ["sparse.layer/a", "<", 0.3], ["sparse.psnr@60", ">", 20.9], ["sparse.fall", "<", 0],
        ["range dense.oracle_step", ">", 799], ["sparse.oracle", ">", "sparse.stopped"],
        ["sparse.high@60", "<", "sparse.low@60"],
    ]  # fmt: skip
    false = [
        ["sparse.last", "~", "dense.last", 1.9], ["dense.last", "<", "sparse.last", -2.5],
        ["range dense.oracle_step", ">", 800], ["sparse.psnr@60", ">", 21.1],
    ]  # fmt: skip
    for statements, verdict in ((true, "holds"), (false, "does not hold")):
        found = [f.verdict for f in judged(book, *statements).findings if f.scale == "paper"]
        assert found == [verdict] * len(statements)
    only = judged(book, ["dense.oracle_step", ">", 500], at={"image": ["moon"]})
    assert only.verdict == "reproduced" and only.findings[0].planned == 1


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        (["sparce.last", ">", 3], "has no arm 'sparce', only dense, sparse"),
        (["sparse.best", ">", 3], "no number 'best'"),
        (["sparse.last", ">="], "a statement is"),
        (["sparse.layer/b", ">", 0], "no layer 'b'"),
    ],
)
def test_a_statement_that_means_nothing_is_refused(book, statement, sentence):
    keep(book, "paper", AHEAD)
    with pytest.raises(lk.InputError, match=sentence):
        judged(book, statement)


def test_stale_records_and_printed_numbers_decide_nothing(book, monkeypatch):
    keep(book, "paper", AHEAD | DENSE)
    monkeypatch.setitem(lk.lab.experiment.VERSIONS, "snip", 2)
    assert judged(book, BETTER).verdict == "not yet run"
    entry = {"id": "C-1", "says": "so.", "paper": "ghosh2024oes", "where": "Table 4"}
    entry["tests"] = [{"table": "oes24-4", "holds": [["IMP 14 x 20 %", ">", "IMP 3 x 80 %"]]}]
    (book / "_data" / "claims.yml").write_text(yaml.safe_dump([entry]))
    claim = claims.ledger(book)[0]
    assert claim.verdict == "not tested"
    assert (claim.findings[0].held, claim.findings[0].asked) == (12, 22)


def test_what_functions_say_needs_no_record(book):
    entry = {"id": "C-1", "says": "so.", "paper": "ghosh2024oes", "where": "Figure 28"}
    entry["tests"] = [{"penalties": [0.05, 0.5], "holds": [["kl", "~", 0, 1e-3]]}]
    (book / "_data" / "claims.yml").write_text(yaml.safe_dump([entry]))
    claim = claims.ledger(book)[0]
    assert (claim.verdict, claim.scale, claim.findings[0].asked) == ("reproduced", "", 2)
    page = pages.claims_page(book)
    assert "| *kl* is within 0.001 of 0 (the functions themselves) | counted: 0 beside 0 |" in page
    entry["tests"][0]["holds"] = [["l1", "<", 0.9]]
    (book / "_data" / "claims.yml").write_text(yaml.safe_dump([entry]))
    assert claims.ledger(book)[0].verdict == "not reproduced"


def test_the_ledger_has_every_claim_and_every_one_has_a_grid_or_a_reason():
    entries = papers.read_yaml(BOOK / "_data" / "claims.yml")
    ids = [entry["id"] for entry in entries]
    for paper, least in (("C-LIP", 33), ("C-OES", 34)):
        own = [name for name in ids if name.startswith(paper)]
        assert own == [f"{paper}-{i:02d}" for i in range(1, max(least, len(own)) + 1)]
    bibliography = (BOOK / "references.bib").read_text()
    for entry in entries:
        assert ("why_not" in entry) != ("tests" in entry), entry["id"]
        assert all(f"{{{key}," in bibliography for key in entry["paper"].split(","))
    judged_now = claims.ledger(BOOK)
    assert sum(claims.counts(judged_now).values()) == len(set(ids)) == len(ids)
    for claim in judged_now:
        for finding in claim.findings:
            grid = BOOK / f"grids/{finding.source}.toml"
            assert finding.scale in ("printed", "exact") or grid.is_file()
            assert finding.planned > 0, (claim.id, finding.statement)  # `at` leaves something


def test_statements_name_layers_that_the_networks_have():
    for entry in papers.read_yaml(BOOK / "_data" / "claims.yml"):
        for test in entry.get("tests", []):
            tokens = [t for s in test["holds"] for t in (s[0], s[2]) if "layer/" in str(t)]
            for token in tokens:
                arm, _, name = token.partition(".layer/")
                points = Grid.load(BOOK / f"grids/{test['grid']}.toml").points
                one = next(p.experiment for p in points if p.arm == arm)
                net = lk.models.build(one.prior, **one.options)
                assert name in dict(net.named_parameters()), (entry["id"], token)


def test_pages_show_numbers_and_nothing_that_was_not_run(book):
    keep(book, "paper", DENSE | AHEAD)
    judged(book, BETTER)
    page = pages.claims_page(book)
    assert "{dropdown} {bdg-success}`reproduced` **C-1** so.\n" in page and "(c-1)=" in page
    assert "The verdict is of paper scale" in page
    said = "The last PSNR of *sparse* is more than 1 dB above that of *dense*"
    part = f"| {said} (`paper`, paper scale) |"
    assert f"{part} 2 ± 0 (22 beside 20) | 3 (2 seeds each); true in 3 | holds |" in page
    assert "Not yet run at laptop scale: `laptop`.\n" in page
    shown = comparison.comparison_page(book)
    assert "Grid `paper`, paper scale: 12 of 12 recorded on cpu." in shown
    row = "| coffee | sparse | 27.45 |  | 22.00 ± 0.00 | 20.00 ± 0.00 | 21.00 ± 0.00 | 5 | 2 |"
    assert row in shown.replace("\u00a0", " ")
    assert "| coffee | dense | 21.21 | 22.28 | 20.00" in shown
    assert "Not yet run: 1 grid\n" in shown
    assert "grid `laptop`, laptop scale, 0 of 12 recorded. Two arms." in shown
    assert pages.badges(book) == "{bdg-success}`1 reproduced at paper scale`\n"


def test_the_page_has_a_map_of_all_verdicts_and_says_how_settings_differ(book):
    keep(book, "laptop", DENSE | AHEAD)
    judged(book, BETTER)
    page = pages.claims_page(book)
    sign = '<b class="lipkit-success lipkit-some">✓</b>'
    square = f'<a href="#c-1" title="C-1, reproduced: so.">{sign}</a>'
    assert square in page and page.index(square) < page.index("## Lottery image priors")
    assert '<b class="lipkit-danger lipkit-many">✗</b> not reproduced: 0' in page
    assert "laptop scale: 32 pixels, 3000 steps. In the paper: 64 pixels, 3000 steps." in page
    everything = pages.claims_page(BOOK)
    for claim in claims.ledger(BOOK):
        name = claim.id.lower()
        assert f'<a href="#{name}"' in everything and f"({name})=" in everything


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("a.oracle", ">", "b.oracle"), "best PSNR of *a* is above that of *b*"),
        (("a.oracle", "<", "b.oracle", -1), "best PSNR of *a* is more than 1 dB below that of *b*"),
        (
            ("a.oracle", "<", "b.oracle", 1),
            "best PSNR of *a* is no more than 1 dB above that of *b*",
        ),
        (("a.last", ">", "b.last", 1), "last PSNR of *a* is more than 1 dB above that of *b*"),
        (("a.last", ">", "b.last", -1), "last PSNR of *a* is no more than 1 dB below that of *b*"),
        (("a.last", "~", "b.last", 1), "last PSNR of *a* is within 1 dB of that of *b*"),
        (("a.last", "<", 16), "last PSNR of *a* is below 16 dB"),
        (("a.loss", "<", 0.1), "last loss of *a* is below 0.1"),
    ],
)
def test_statements_are_sentences(given, said):
    assert pages.sentence(claims.Statement(*given)) == f"The {said}"


def test_the_map_is_stronger_where_more_places_were_asked(book):
    assert pages.strength(judged(book, BETTER)) == "few"
    keep(book, "laptop", DENSE | AHEAD)
    assert pages.strength(judged(book, BETTER)) == "some"
    assert pages.strength(judged(book, BETTER, at={"image": ["coffee", "moon"]})) == "few"


def test_every_claim_can_be_filtered_by_what_the_form_offers():
    page = pages.claims_page(BOOK)
    offered = {*re.findall(r'<option value="(\S+)">', page)}
    worn = re.findall(r":class-container: lipkit-claim (.+)", page)
    found = claims.ledger(BOOK)
    assert len(worn) == len(found)
    assert {name for classes in worn for name in classes.split()} == offered
    for claim, classes in zip(sorted(found, key=lambda c: page.index(f"({c.id.lower()})=")), worn,
                              strict=True):  # fmt: skip
        by = [f"lipkit-by-{key}" for key in claim.paper.split(",")]
        assert classes.split() == ["lipkit-is-" + claim.verdict.replace(" ", "-"), *by]


def test_the_comparison_says_whether_records_repeat(book):
    keep(book, "paper", DENSE | AHEAD)
    shown = comparison.comparison_page(book)
    assert "**Not known here:**" in shown and "repeated records hold" not in shown
    records = Records(book / "records")
    one, two = records.all[:2]
    for record in (one, two):
        record |= {"threads": 1, "processor": "a", "commit": "0123456789ab"}
    moved = two | {"numbers": two["numbers"] | {"last": two["numbers"]["last"] - 5}}
    moved |= {"processor": "b", "search_seconds": 0}
    repeats = [verify.Repeat(one, one, {}), verify.Repeat(two, moved, {})]
    verify.save(repeats, records, seed=7, limit="3m", left_out=4)
    shown = comparison.comparison_page(book)
    assert "**Not known here:**" not in shown
    assert "**1 of 2** repeated records hold: drawn with seed 7" in shown
    assert "at most 3m; 4 were left out" in shown
    assert "1 of them on the kind of machine" in shown.replace("\n", " ")
    assert shown.count("| holds |") == 5 and shown.count("| -5 | 1 | **differs** |") == 1
    assert shown.count("| `paper`, ") == 2  # each record is named once
    failed = one | {"status": "failed", "reason": "out of | memory", "numbers": {}}
    verify.save([verify.Repeat(one, failed, {})], records, seed=7, limit="3m", left_out=0)
    shown = comparison.comparison_page(book)
    assert "**0 of 1**" in shown and "left out" not in shown
    assert "failed: out of / memory |" in shown


def test_every_comparison_of_the_book_finds_its_printed_number():
    for path in sorted((BOOK / "grids").glob("*.toml")):
        grid = Grid.load(path)
        columns = grid.paper.get("columns", dict.fromkeys(grid.arms) if grid.paper else {})
        for point in grid.points:
            if point.arm in columns:
                assert re.fullmatch(r"\d+\.\d+", comparison.printed(grid, point.arm, point)), point
        for arm in grid.code:
            assert comparison.printed_by_code(grid, arm)


def test_a_book_with_a_ledger_gets_its_pages(book, tmp_path):
    judged(book, BETTER)
    site.stage(tmp_path, [], tmp_path / "bare")
    assert not (tmp_path / "bare" / "book" / "claims.md").exists()
    shutil.copytree(book, tmp_path / "with" / "book", ignore=shutil.ignore_patterns("with", "bare"))
    site.stage(tmp_path / "with", [], tmp_path / "staged")
    staged = {p.name: p.read_text() for p in (tmp_path / "staged" / "book").rglob("*.md")}
    assert staged["claims.md"] == pages.claims_page(book)
    assert staged["comparison.md"] == comparison.comparison_page(book)
    assert staged["badges.md"] == "{bdg-light}`1 not yet run`\n"


def test_where_losses_begin_to_rise_is_counted_from_the_best_round():
    losses, psnrs = [3.0, 2.0, 1.0, 1.1, 1.2, 1.3], [20.0, 22.0, 23.0, 22.5, 22.0, 21.0]
    rounds = [{"loss": a, "best_psnr": b} for a, b in zip(losses, psnrs, strict=True)]
    assert claims.number_of({"rounds": rounds}, "rise") == 1  # the round after the best
    assert claims.number_of({"rounds": rounds[:4]}, "rise") is None  # one rise is none
    assert claims.number_of({"rounds": []}, "rise") is None


def test_prose_counts_neither_records_nor_claims():
    """Such numbers grow old: pages that are made from the data have them."""
    words = r"records|claims|grids|experiments|verdicts|reproduced|undecided"
    pages_of_prose = [*BOOK.glob("*.md"), *(BOOK.parent / n for n in ("README.md", "CHANGELOG.md"))]
    assert len(pages_of_prose) > 5
    for path in pages_of_prose:
        assert re.findall(rf"\b[0-9][0-9,]* (?:{words})\b", path.read_text()) == [], path.name


def test_the_page_of_sweeps_states_what_a_repeated_record_may_differ_by():
    text = " ".join((BOOK / "sweeps.md").read_text().split())
    dB, part = verify.ALONE["last"], verify.ALONE["accuracy"]
    assert f"{verify.LEAST * dB:g} dB in any case" in text
    assert f"{dB:g} dB is allowed ({part:g} of an accuracy, and {verify.LEAST * part:g}" in text
    assert {1: "once", 2: "twice", 3: "three times"}[verify.SPREADS] + " the spread" in text


def test_claims_beside_a_chapter_show_arms_and_layers_as_what_they_are():
    from lipkit.book.verdicts import beside

    table = beside("C-LIP-13")
    assert "`" in str(table) and "*" in str(table), "this claim names layers and arms"
    shown = table._repr_html_()
    assert "`" not in shown and "*" not in shown
    assert "<code>" in shown and "<i>" in shown and "../book/claims.html#c-lip-13" in shown

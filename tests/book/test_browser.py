"""The rendered book in a browser: complete, offline, without errors, readable, usable by keyboard.

Needs Chromium. Without it these tests are skipped, and say so; where LIPKIT_REQUIRE_BROWSER is
set, as on the machines that decide, a missing browser is a failure.
"""

import os
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TOC = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
PAGES = [TOC["root"], *(entry["file"] for part in TOC["parts"] for entry in part["chapters"])]
WITH_SLIDER = "notebooks/01_dip_basics"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TALLEST = 10_000  # pixels of a page of evidence, at the width of a desktop
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("LIPKIT_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def browser():
    path = find_chromium()
    if path is None:
        reason = "no Chromium on this machine: the rendered pages are not looked at"
        if os.environ.get("LIPKIT_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="session")
def address(smoke_book):
    """The book on a local web server."""
    handler = partial(_Quiet, directory=str(smoke_book))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Visit:
    """One page in a fresh context, with everything the browser complained about."""

    def __init__(self, browser, url: str, allowed: str, **options) -> None:
        self.context = browser.new_context(viewport=DESKTOP, **options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("requestfailed", lambda r: self.complaints.append(f"failed: {r.url}"))
        self.page.on("response", self._response)
        self.page.on("request", lambda r: self._request(r.url, allowed))
        self.page.goto(url, wait_until="load")
        self.page.evaluate("() => window.MathJax?.startup?.promise")
        self.page.wait_for_load_state("networkidle")

    def _console(self, message) -> None:
        if message.type == "error":
            self.complaints.append(f"error: {message.text}")

    def _response(self, response) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")

    def _request(self, url: str, allowed: str) -> None:
        if not url.startswith((allowed, "data:", "blob:")):
            self.outside.append(url)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.context.close()


@pytest.fixture(params=["http", "file"])
def visit(request, browser, smoke_book):
    """Open a page of the book, from a server and straight from the disk."""
    if request.param == "http":
        base = allowed = request.getfixturevalue("address")
    else:
        base = allowed = smoke_book.as_uri()
    return lambda name, **options: Visit(browser, f"{base}/{name}.html", allowed, **options)


@pytest.mark.parametrize("name", PAGES)
def test_page_is_complete_and_silent(visit, name):
    with visit(name) as v:
        assert v.outside == [], "requests to elsewhere"
        assert v.complaints == []
        formulas = v.page.locator("span.math, div.math").count()
        assert v.page.locator(".math mjx-container").count() >= formulas
        assert v.page.locator("mjx-merror, [data-mjx-error]").count() == 0
        pictures = v.page.evaluate(
            """() => [...document.querySelectorAll('main img')].map(
                 i => [i.currentSrc.slice(0, 80), i.alt, i.complete && i.naturalWidth])"""
        )
        assert [p for p in pictures if not p[2]] == [], "pictures that do not show"
        assert [p for p in pictures if not p[1].strip()] == [], "pictures without alternative text"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_readable_in_light_and_dark_and_fits_a_phone(browser, address, name, scheme):
    with Visit(browser, f"{address}/{name}.html", address, color_scheme=scheme) as v:
        assert v.page.evaluate("() => document.documentElement.dataset.theme") == scheme
        text, ground = v.page.evaluate(
            """() => { const s = getComputedStyle(document.querySelector('article p, article h1'));
                 return [s.color, getComputedStyle(document.body).backgroundColor]; }"""
        )
        bright, dark = sorted((luminance(text), luminance(ground)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 7, (text, ground)
        assert (luminance(ground) < 0.5) == (scheme == "dark")
        v.page.set_viewport_size(PHONE)
        v.page.wait_for_timeout(200)
        assert v.page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]


def luminance(color: str) -> float:
    """The relative luminance of rgb(r, g, b), as the contrast rules define it."""
    parts = [float(p) / 255 for p in color.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def shown_frame(page) -> str:
    """The alternative text of the picture that the first slider shows."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.widget-subarea')][0]
             .querySelectorAll('img').values()
             .filter(i => i.getBoundingClientRect().width > 0)
             .map(i => i.alt).toArray().join('; ')"""
    )


def test_picture_slider_moves_by_keyboard(visit):
    with visit(WITH_SLIDER) as v:
        handle = v.page.locator(".widget-subarea .noUi-handle").first
        handle.wait_for()
        v.page.wait_for_function("() => document.querySelector('.widget-subarea img')")
        handle.focus()
        v.page.keyboard.press("Home")
        v.page.wait_for_timeout(300)
        first = shown_frame(v.page)
        seen = [first]
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "Home"):
            v.page.keyboard.press(key)
            v.page.wait_for_timeout(300)
            seen.append(shown_frame(v.page))
        assert all(seen), "no picture under the slider"
        assert len({*seen[:3], seen[4]}) >= 3, seen
        assert seen[3] == seen[1]
        assert seen[5] == first
        assert handle.get_attribute("aria-label")
        assert v.complaints == []


def test_play_button_moves_the_pictures(visit):
    with visit(WITH_SLIDER) as v:
        play = v.page.locator(".widget-play button").first
        play.wait_for()
        assert play.get_attribute("aria-label") or play.get_attribute("title")
        before = shown_frame(v.page)
        play.click()
        v.page.wait_for_timeout(2500)
        assert shown_frame(v.page) != before
        assert v.complaints == []


def test_search_finds_a_chapter(visit):
    with visit("search") as v:
        v.page.goto(v.page.url + "?q=prior")
        v.page.locator("#search-results li a").first.wait_for()
        found = v.page.locator("#search-results").inner_text()
        assert "DIP" in found or "prior" in found.lower()
        assert v.outside == []
        assert v.complaints == []


def test_links_between_pages_lead_somewhere(smoke_book):
    pages = [p for p in smoke_book.rglob("*.html") if "_static" not in p.parts]
    assert len(pages) > len(PAGES)
    broken = []
    for page in pages:
        for link in re.findall(r'href="([^"#?:]+)(?:#[^"]*)?"', page.read_text(errors="replace")):
            if not (page.parent / link).exists():
                broken.append(f"{page.relative_to(smoke_book)}: {link}")
    assert broken == []


@pytest.mark.parametrize("name", ["book/claims", "book/comparison"])
def test_pages_of_evidence_are_no_endless_scroll(browser, address, name):
    with Visit(browser, f"{address}/{name}.html", address) as v:
        height = v.page.evaluate("() => document.documentElement.scrollHeight")
        assert height < TALLEST, "fold what is new"


def shown_claims(page) -> list[str]:
    """The first words of the claims that the filter leaves."""
    found = page.locator("details.lipkit-claim > summary").all()
    return [one.inner_text() for one in found if one.is_visible()]


def test_claims_are_filtered_by_keyboard(visit):
    with visit("book/claims") as v:
        page = v.page
        everything = shown_claims(page)
        assert f"{len(everything)} of {len(everything)}" in page.locator("output").inner_text()
        page.locator(".lipkit-filter select[name=verdict]").focus()
        page.keyboard.press("ArrowDown")
        verdict = page.locator("select[name=verdict] option:checked").inner_text()
        some = shown_claims(page)
        assert 0 < len(some) < len(everything)
        assert some == [text for text in everything if text.startswith(verdict)]
        assert page.locator(".lipkit-map a.lipkit-out").count() == len(everything) - len(some)
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Tab")
        page.keyboard.press("o")  # the paper that begins with it
        own = shown_claims(page)
        assert own == [text for text in everything if "C-OES" in text]
        page.keyboard.press("Tab")
        page.keyboard.type("RANDOM mask")
        assert 0 < len(shown_claims(page)) < len(own)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # open all
        opened = page.locator("details.lipkit-claim[open]").count()
        assert opened == len(shown_claims(page))
        assert v.complaints == []


def test_a_link_to_a_claim_opens_it(visit):
    with visit("book/claims") as v:
        square = v.page.locator(".lipkit-map a").last
        name = square.get_attribute("href").removeprefix("#")
        square.focus()
        v.page.keyboard.press("Enter")
        opened = v.page.locator("details.lipkit-claim[open]")
        opened.wait_for()
        assert name.upper() in opened.locator("summary").inner_text()
        v.page.locator("select[name=verdict]").select_option(index=1)
        v.page.goto(f"{v.page.url.partition('#')[0]}#c-lip-01")
        v.page.wait_for_timeout(200)
        assert v.page.locator("details.lipkit-claim[open]:visible").first.is_visible()
        assert v.complaints == []


def test_without_script_every_claim_is_there(browser, address):
    url = f"{address}/book/claims.html"
    with Visit(browser, url, address) as v:
        everything = len(shown_claims(v.page))
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    assert len(shown_claims(page)) == everything
    assert not page.locator(".lipkit-filter").is_visible()
    page.locator("details.lipkit-claim > summary").first.click()
    assert page.locator("details.lipkit-claim[open] table").first.is_visible()
    context.close()

"""`lk.book` is a door: it names what lies behind, and loads only what is asked for."""

import subprocess
import sys

import pytest

import lipkit as lk
from lipkit.book import widgets

LOOK = """
import sys
import lipkit.book.plots
heavy = ("papermill", "matplotlib", "yaml", "lipkit.book.site")
heavy += ("lipkit.book.runs", "lipkit.book.executing", "lipkit.book.building", "lipkit.lab")
print([name for name in heavy if name in sys.modules])
"""


def test_every_name_of_the_door_is_there():
    assert set(lk.book.__all__) <= set(dir(lk.book))
    for name in lk.book.__all__:
        assert getattr(lk.book, name) is not None
    assert callable(lk.book.build)
    assert lk.book.plots is lk.plots, "the old place, for one release"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'lipkit.book' has no attribute 'nothing'"):
        lk.book.nothing  # noqa: B018


def test_a_chapter_that_draws_loads_nothing_of_what_builds_the_book():
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_wipe_has_its_old_name_too():
    assert widgets.compare is widgets.wipe

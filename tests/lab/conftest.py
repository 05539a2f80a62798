"""What the tests of the lab have in common."""

from __future__ import annotations

import pytest

from lipkit.lab import records, running, sweep


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Let records be made as by a commit: who tests is in the middle of changing something."""
    for module in (records, running, sweep):
        monkeypatch.setattr(module, "commit", lambda: "0123456789ab")

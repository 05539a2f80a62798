"""nbval sees another verdict in a marked cell, and looks past another machine's numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = Path(__file__).with_name("nbval.cfg")


def notebook(printed: str, stored: str) -> dict:
    stream = {"name": "stdout", "output_type": "stream", "text": [stored]}
    cell = {
        "cell_type": "code",
        "execution_count": 1,
        "id": "c01",
        "metadata": {"tags": ["nbval-check-output"]},
        "outputs": [stream],
        "source": [f"print({printed!r})"],
    }
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


@pytest.mark.parametrize(
    ("printed", "same"),
    [
        ("PASS  two ways agree: to 3e-07", True),
        ("PASS  two ways agree:  to 12.5", True),
        ("FAIL  two ways agree: to 3e-07", False),
        ("PASS  two ways differ: to 3e-07", False),
    ],
)
def test_verdicts_are_compared_and_numbers_are_not(tmp_path, printed, same):
    path = tmp_path / "01_tiny.ipynb"
    path.write_text(json.dumps(notebook(printed, "PASS  two ways agree: to 0.0e+00\n")))
    command = ["-m", "pytest", "-q", "-c", "/dev/null", "-p", "no:cacheprovider", "--nbval-lax"]
    command += ["--nbval-current-env", f"--nbval-sanitize-with={SETTINGS}", str(path)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == int(not same), done.stdout

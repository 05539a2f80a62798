"""nbval compares what every machine shares, and nothing else: shown on a tiny notebook."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.support.tiny_book import write_chapter

ROOT = Path(__file__).resolve().parents[2]
CELL = 'print("PASS  adjoint: 2e-07,   3.11 dB")'
STORED = {  # what the source says that cells like this one show
    "the same": "PASS  adjoint: 2e-07,   3.11 dB\n",
    "other numbers and layout": "PASS  adjoint: 5.2e-12, 1,024 dB\n",
    "another verdict": "FAIL  adjoint: 2e-07,   3.11 dB\n",
    "another name": "PASS  inverse: 2e-07,   3.11 dB\n",
    "another unit": "PASS  adjoint: 2e-07,   3.11 %\n",
    "a row more": "PASS  adjoint: 2e-07,   3.11 dB\nPASS\n",
}


def test_names_rows_and_verdicts_are_compared_numbers_and_layout_are_not(tmp_path):
    path = tmp_path / "01_tiny.ipynb"
    write_chapter(path, *[f"{CELL}  # {what}" for what in STORED], "print(1)")
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell, text in zip(code, STORED.values(), strict=False):
        cell["metadata"]["tags"] = ["nbval-check-output"]
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text}]
        cell["execution_count"] = 1  # nbval compares no cell that was never run
    path.write_text(json.dumps(notebook))
    words = ["-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider"]
    words += ["--rootdir", str(tmp_path), "-v", "--color=no", "-r", "N"]
    done = subprocess.run(
        [sys.executable, *words, str(path)], cwd=ROOT, capture_output=True, text=True
    )
    said = dict(re.findall(r"Cell (\d+) (PASSED|FAILED)", done.stdout))
    passed = [said[str(number)] == "PASSED" for number in range(len(STORED))]
    assert passed == [True, True, False, False, False, False], done.stdout
    assert said[str(len(STORED))] == "PASSED", "a cell that is not marked shows what it likes"
    assert done.stdout.count("Cell outputs differ") == 4

"""Settings of all tests, of the kernels that nbval starts, and what several test files share."""

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent

os.environ["LIPKIT_PROFILE"] = "smoke"
os.environ["TQDM_DISABLE"] = "1"
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # else every kernel prints a warning
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background job inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)  # some tests press Ctrl-C


@pytest.fixture(scope="session")
def smoke_runs():
    """Every chapter executed once at the smoke profile, whichever tests look at the results."""
    from lipkit import book

    return book.run(profile="smoke", root=ROOT, jobs=2)


@pytest.fixture(scope="session")
def smoke_book():
    """The folder of the whole book, rendered from chapters at the smoke profile."""
    from lipkit import book

    out = ROOT / "_build" / "test" / "html"
    return book.build(root=ROOT, profile="smoke", out=out, jobs=2).page.parent

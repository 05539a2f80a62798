"""What a chapter's notebook calls: `start` for its parameters, `check` and `finish` for its result.

The cell after the `parameters` cell calls `start`, which refuses unknown and ill-typed parameters
with one sentence, however they came in: edited by hand or injected by papermill.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import warnings
from html import escape
from inspect import formatannotation
from itertools import takewhile
from typing import Any

import torch

from .._version import __version__
from ..errors import Error
from ..workers import default_device, device_name
from . import bands
from .notebooks import RUN_RECORD
from .parameters import PROFILES, Parameter, assigned, checked, declared

_USUAL_FORMAT = warnings.formatwarning

_MEANING = (
    "on the machines where this book was tried, the number fell into its band. Here other rounding "
    "or chance led the computation elsewhere, or something is wrong with lipkit on this machine. "
    "Figures and tables show what was computed here; a sentence of the text that rests on this "
    "number may not hold."
)
_BOX = (
    "border-left:4px solid #dc6418;background:rgba(220,100,24,.12);"
    "padding:.6rem 1rem;margin:.5rem 0"
)  # readable on light and on dark pages, and in a notebook that knows no style of ours


class CheckError(Error):
    """A law or an equality that a chapter found broken."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class Chapter:
    """The parameters of one run as attributes, its device, its checks and its closing line.

    A *check* is an equality or a law: it must hold whatever the size, and stops the chapter where
    it does not. A *band* holds a number against those of other machines, for the chapter's own
    parameters at the `laptop` profile. One that is missed is shown in a box, and the chapter goes
    on. With other parameters, or at `smoke` size, numbers are shown and not judged.

    >>> chapter = Chapter({"profile": "smoke", "sigma": 0.1}, judged=False)
    >>> chapter.check("adjoint", 2 + 2 == 4, "error 0")
    PASS  adjoint: error 0
    >>> chapter.band("PSNR after 1500 steps", 29.5)
    not judged at smoke size  PSNR after 1500 steps: 29.5 dB
    """

    def __init__(self, values: dict[str, Any], judged: bool = True) -> None:
        clash = sorted(set(values) & {*dir(type(self)), "device"})
        if clash:
            raise Error(f"a chapter's parameter cannot be called {clash[0]!r}: choose another name")
        self.__dict__.update(values)
        self.device = default_device()
        self._values = values
        self._judged = judged
        self._checks: list[dict[str, Any]] = []
        self._began = time.perf_counter()

    def __repr__(self) -> str:
        rest = {name: value for name, value in self._values.items() if name != "profile"}
        values = ", ".join(f"{name}={_short(value)}" for name, value in rest.items())
        return f"{self._values['profile']} profile on {self.device}: {values}"

    def _repr_html_(self) -> str:
        values = {**self._values, "device": self.device}
        items = (
            f"<span>{escape(name)}&nbsp;<b>{escape(_short(value, str))}</b></span>"
            for name, value in values.items()
        )  # one line where there is room, more on a phone
        style = "display:flex;flex-wrap:wrap;gap:0.1rem 1.4rem"
        return f'<div class="chapter-parameters" style="{style}">{"".join(items)}</div>'

    def check(self, name: str, ok: bool, detail: str = "") -> None:
        """Show that a law holds, or stop the chapter."""
        ok = bool(ok)
        text = f"{name}: {detail}" if detail else name
        self._checks.append({"name": name, "ok": ok, "detail": detail})
        if not ok:
            print("FAIL ", text)
            raise CheckError(f"check failed: {text}")
        print("PASS ", text)

    def band(self, name: str, value: float, unit: str = "dB") -> None:
        """Hold a number of this run against the band that it fell into on other machines.

        The bands are in `book/_data/bands.jsonl`: see `lipkit.book.bands`. A number outside its
        band is shown in a box, and the chapter goes on. With other parameters, at `smoke` size, or
        where there is no band yet, it is shown and not judged.

        >>> Chapter({"profile": "smoke"}, judged=False).band("gain of the ticket", 1.25)
        not judged at smoke size  gain of the ticket: 1.25 dB
        """
        number = f"{float(value):.4g} {unit}".strip()
        profile = self._values["profile"]
        band = bands.find(name, profile) if self._judged else None
        entry = {"name": name, "value": float(value), "ok": None, "detail": number}
        self._checks.append(entry)
        if band is None:
            entry["why"] = self._why_not_judged(name)
            print(f"{entry['why']}  {name}: {number}")
            return
        entry |= {"ok": band.low <= value <= band.high, "detail": f"{number}, {band}"}
        text = f"{name}: {entry['detail']}"
        if entry["ok"]:
            print("PASS ", text)
            return
        box = f"<b>Outside its band on this machine: {escape(text)}</b>"
        html = f'<div role="note" style="{_BOX}">{box}<br>What that means: {_MEANING}</div>'
        _show(f"outside its band on this machine  {text}", html)

    def _why_not_judged(self, name: str) -> str:
        profile = self._values["profile"]
        if self._judged:
            count = bands.count(name, profile)
            return f"not calibrated yet ({count} run{'' if count == 1 else 's'})"
        return f"not judged {'at smoke size' if profile == 'smoke' else 'with changed parameters'}"

    def say(self, text: str) -> None:
        """Show a sentence that was made of this run's numbers, as Markdown.

        >>> Chapter({"profile": "smoke"}).say(f"The ticket keeps {0.17:.0%} of the weights.")
        The ticket keeps 17% of the weights.
        """
        _show(text, kind="text/markdown")

    def finish(self) -> None:
        """Print profile, seconds, device, versions and peak memory, and leave them in the output.

        >>> Chapter({"profile": "smoke"}).finish()  # doctest: +ELLIPSIS
        smoke profile, 0.0 s on cpu..., lipkit ..., torch ..., Python 3..., peak memory ... MB
        """
        record = {
            "profile": self._values["profile"],
            "seconds": round(time.perf_counter() - self._began, 2),
            "device": device_name(),
            "versions": {
                "lipkit": __version__,
                "torch": str(torch.__version__),
                "Python": platform.python_version(),
            },
            "peak_megabytes": _peak_megabytes(),
            "checks": self._checks,
        }
        if warnings.formatwarning is _format_warning:
            warnings.formatwarning = _USUAL_FORMAT
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        line = (
            f"{record['profile']} profile, {record['seconds']:.1f} s on {record['device']}, "
            f"{versions}, peak memory {record['peak_megabytes']} MB"
        )
        _show(line, metadata={RUN_RECORD: record})


def _format_warning(message: Warning | str, kind: type[Warning], *_: Any) -> str:
    """Say what is wrong, not in which file of which machine it was noticed."""
    return f"{kind.__name__}: {message}\n"


def _in_notebook() -> bool:
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None


def _show(
    line: str,
    html: str | None = None,
    metadata: dict[str, Any] | None = None,
    kind: str = "text/html",
) -> None:
    """Show a line, in a notebook as `html` or as another kind, with metadata that stays there."""
    if _in_notebook():
        from IPython.display import display

        forms = {"text/plain": line}
        if html or kind != "text/html":
            forms[kind] = html or line
        display(forms, metadata=metadata, raw=True)
    else:
        print(line)


def start(namespace: dict[str, Any], /, **profiles: dict[str, Any]) -> Chapter:
    """Check the notebook's parameters, fill those that are None from the profile, and begin.

    `namespace` is the notebook's `globals()`. Each profile is a table of values for parameters
    whose default is None. The environment variable LIPKIT_PROFILE replaces the default profile,
    never one that was asked for.

    >>> cell = "# parameters\\nprofile: str = 'smoke'\\nsteps: int | None = None"
    >>> notebook = {"In": ["", cell], "profile": "smoke", "steps": None}
    >>> p = start(notebook, smoke={"steps": 40}, laptop={"steps": 1500}, paper={"steps": 3000})
    >>> p.steps
    40
    """
    known, given = _history(namespace)
    _check_tables(known, profiles)
    values = {name: namespace.get(name, parameter.value) for name, parameter in known.items()}
    values = checked(known, values | {name: namespace.get(name) for name in given})
    if "profile" not in given and os.environ.get("LIPKIT_PROFILE"):
        values |= checked(known, {"profile": os.environ["LIPKIT_PROFILE"]})
    own = {name: parameter.value for name, parameter in known.items()} | {"profile": None}
    changed = values | {"profile": None} != own
    table = profiles[values["profile"]]
    values |= {name: value for name, value in table.items() if values[name] is None}

    from . import plots

    plots.use_style()
    if _in_notebook():  # whose process is the chapter's own; `finish` sets it back
        warnings.formatwarning = _format_warning
    return Chapter(values, judged=values["profile"] != "smoke" and not changed)


def _history(namespace: dict[str, Any]) -> tuple[dict[str, Parameter], list[str]]:
    """Read what the last `parameters` cell that was run declares, and the names set after it."""
    cells = namespace.get("In", [])
    begins = [i for i, cell in enumerate(cells) if cell.lstrip().startswith("# parameters")]
    if begins:
        after = takewhile(lambda cell: "chapter.start(" not in cell, cells[begins[-1] + 1 :])
        names = [name for cell in after for name in assigned(cell)]
        return declared(cells[begins[-1]]), list(dict.fromkeys(names))
    annotated = namespace.get("__annotations__", {})
    if "profile" not in annotated:
        raise Error(
            "lipkit.book.chapter.start needs a notebook whose parameters cell has been run: "
            "a cell that begins with '# parameters'"
        )
    # some programs run notebooks without keeping what was run; they inject nothing either
    known = {
        name: Parameter(name, formatannotation(kind), repr(namespace[name]), namespace[name])
        for name, kind in annotated.items()
    }
    return known, []


def _check_tables(known: dict[str, Parameter], profiles: dict[str, dict[str, Any]]) -> None:
    """Refuse profile tables that would leave a parameter unset, or set one nobody can override."""
    if "profile" not in known or sorted(profiles) != sorted(PROFILES):
        raise Error(f"a chapter has a parameter 'profile' and the tables {', '.join(PROFILES)}")
    for profile, table in profiles.items():
        unset = {n for n, parameter in known.items() if parameter.value is None} - set(table)
        if unset:
            raise Error(f"the table of the {profile} profile leaves {sorted(unset)[0]!r} unset")
        checked(known, table, f"the table of the {profile} profile")


def _short(value: Any, text=repr) -> str:
    return f"{value:.4g}" if isinstance(value, float) else text(value)


def _peak_megabytes() -> int:
    """Measure the most memory that this process has held so far."""
    try:  # Linux: unlike getrusage, not inherited from the process that started this one
        with open("/proc/self/status") as status:
            peak = next(line for line in status if line.startswith("VmHWM"))
        return round(int(peak.split()[1]) / 1024)
    except (OSError, StopIteration):
        pass
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (2**20 if sys.platform == "darwin" else 1024))
    except ImportError:  # Windows
        import psutil  # comes with ipykernel

        return round(psutil.Process().memory_info().peak_wset / 2**20)

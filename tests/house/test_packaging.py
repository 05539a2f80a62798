"""What is installed, how fast it loads, and what the repository may not contain."""

import os
import re
import statistics
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lipkit as lk

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pinned(lines) -> dict[str, str]:
    pairs = (line.split("==") for line in lines if re.match(r"[A-Za-z0-9]", line))
    return {canonicalize_name(name): number.strip() for name, number in pairs}


LOCK = pinned((ROOT / "requirements.lock").read_text().splitlines())


def asked_for(*extras: str) -> list[Requirement]:
    """The requirements in pyproject.toml, those of the named extras included."""
    lists = [PROJECT["dependencies"]]
    lists += [PROJECT["optional-dependencies"][extra] for extra in extras]
    found = [Requirement(text) for texts in lists for text in texts]
    return [requirement for requirement in found if requirement.name != "lipkit"]


def closure(requirements: list[Requirement]) -> set[str]:
    """Every package that the requirements need in this environment."""
    seen, todo = set(), [(r.name, tuple(sorted(r.extras))) for r in requirements]
    while todo:
        package, extras = todo.pop()
        if (package, extras) in seen:
            continue
        seen.add((package, extras))
        try:
            needs = [Requirement(text) for text in requires(package) or []]
        except PackageNotFoundError:  # a requirement of another system
            continue
        for need in needs:
            marker = need.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in ("", *extras)):
                todo.append((need.name, tuple(sorted(need.extras))))
    return {canonicalize_name(package) for package, _ in seen}


def test_the_version_is_said_once():
    assert PROJECT["dynamic"] == ["version"]
    assert version("lipkit") == lk.__version__
    assert f"## {lk.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_extra_is_part_of_all():
    extras = set(PROJECT["optional-dependencies"])
    assert extras == {"book", "fast", "test", "mri", "sweep", "all"}
    assert set(Requirement(PROJECT["optional-dependencies"]["all"][0]).extras) == extras - {"all"}


def test_the_lock_is_within_the_ranges():
    for requirement in asked_for("book", "fast", "test", "mri", "sweep"):
        exact = LOCK[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(exact), requirement


def test_the_lock_holds_what_was_asked_for_and_nothing_else():
    needed = closure(asked_for("book", "fast", "test", "mri", "sweep"))
    assert set(LOCK) - needed == set()
    unlocked = {package for package in needed - set(LOCK) if _is_installed(package)}
    assert unlocked <= {"pip", "setuptools", "wheel"}, "what pip itself brings needs no lock"


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def test_the_environment_is_the_locked_one():
    different = {
        package: (exact, version(package).split("+")[0])
        for package, exact in LOCK.items()
        if _is_installed(package) and version(package).split("+")[0] != exact
    }
    assert different == {}


def test_the_conda_environment_says_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    (python,) = [d for d in environment["dependencies"] if str(d).startswith("python=")]
    listed = pinned(line for line in pip if line != "-e .")
    assert listed == {name: LOCK[name] for name in listed}
    assert set(listed) == {canonicalize_name(r.name) for r in asked_for("book", "fast")}
    assert python == "python=3.11"
    assert "-e ." in pip


def test_every_public_name_is_there():
    missing = [name for name in lk.__all__ if not _has(name)]
    assert missing == []


def _has(name: str) -> bool:
    try:
        return getattr(lk, name) is not None
    except (AttributeError, ImportError):
        return False


LOAD = """
import sys, time
import torch
began = time.perf_counter()
import lipkit
print(time.perf_counter() - began)
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_import_costs_little_more_than_torch(tmp_path):
    seconds, loaded = [], set()
    # as Python runs for a user: sources are compiled once, whatever this machine is set to
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    for _ in range(7):
        run = [sys.executable, "-c", LOAD]
        out = subprocess.run(
            run, capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ | kept
        ).stdout
        first, second = out.splitlines()
        seconds.append(float(first))
        loaded |= set(second.split())
    heavy = {"matplotlib", "skimage", "scipy", "pooch", "PIL", "ipywidgets", "papermill", "click"}
    assert loaded & heavy == set()
    assert min(seconds) <= 0.060, f"best of 7: {min(seconds):.3f} s, {statistics.median(seconds)=}"


def tracked_texts() -> list[Path]:
    """The text files of the repository, tracked or about to be."""
    git = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(git, capture_output=True, text=True, check=False).stdout.splitlines()
    binary = {".png", ".jpg", ".jpeg", ".webp", ".xz", ".woff2", ".npy", ".npz", ".safetensors"}
    paths = [ROOT / name for name in names if Path(name).suffix not in binary]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_package_index_or_a_path_of_one_machine():
    if not tracked_texts():
        pytest.skip("not a git checkout: no list of the repository's files")
    index = ["pypi" + r"\.org", "pytorch" + r"\.org/whl", "anaconda" + r"\.(org|com)"]
    index += ["python" + "hosted", "npm" + "js"]
    homes = ["/" + r"home/\w", "/" + r"root/", "/" + r"Users/\w", "/" + r"work/", "/" + r"opt/"]
    forbidden = re.compile("|".join(index + homes))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked_texts()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if forbidden.search(line)
    ]
    assert found == []


def test_the_readme_commands_exist():
    """What README tells the reader to type is a target of the Makefile or a command of lipkit."""
    from lipkit.cli import COMMANDS

    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"book", "test"} <= set(re.findall(r"^make ([a-z]+)", readme, re.MULTILINE)) <= targets
    assert set(re.findall(r"^lipkit ([a-z]+)", readme, re.MULTILINE)) <= set(COMMANDS)

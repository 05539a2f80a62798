"""`lipkit doctor`: what this machine offers, what is missing, and how to get it."""

from __future__ import annotations

import json
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import torch

from .._version import __version__
from ..data import registry

LITTLE_DISK = 3.0  # gigabytes: an environment and a built book


def examine() -> dict[str, Any]:
    """Find out everything that `lipkit doctor` shows, as plain data.

    >>> sorted(examine())
    ['advice', 'cache', 'cpu', 'disk', 'extras', 'gpu', 'versions']
    """
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    found = {
        "versions": {
            "lipkit": __version__,
            "torch": str(torch.__version__),
            "Python": platform.python_version(),
            "system": platform.platform(),
        },
        "cpu": _cpu(),
        "gpu": _gpu(),
        "cache": _cache(),
        "disk": {"folder": str(Path.cwd()), "free_gigabytes": round(free, 1)},
        "extras": _extras(),
    }
    return found | {"advice": _advice(found)}


def _cpu() -> dict[str, Any]:
    capability = torch.backends.cpu.get_cpu_capability()
    flags = _cpu_flags()
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": capability,
        "avx512": "AVX512" in capability or "avx512f" in flags,
        "bf16": bool({"avx512_bf16", "amx_bf16", "bf16"} & flags),  # in hardware
    }


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux: torch's own word must do
        return set()
    line = next((line for line in lines if line.startswith(("flags", "Features"))), ":")
    return set(line.split(":", 1)[1].split())


def _gpu() -> dict[str, Any] | None:
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {"name": properties.name, "gigabytes": round(properties.total_memory / 2**30, 1)}


def _cache() -> dict[str, Any]:
    folder = Path(registry.folder())
    there = next(p for p in (folder, *folder.parents) if p.exists())
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return {
        "folder": str(folder),
        "writable": os.access(there, os.W_OK),
        "files": len(files),
        "megabytes": round(sum(path.stat().st_size for path in files) / 2**20, 1),
    }


def _extras() -> dict[str, dict[str, str | None]]:
    """List the packages of each extra of lipkit, with the installed version or None."""
    from packaging.requirements import Requirement  # late: it comes with the extra "book"

    try:
        wanted = [Requirement(text) for text in requires("lipkit") or []]
    except PackageNotFoundError:  # imported from a folder, not installed
        return {}
    extras: dict[str, dict[str, str | None]] = {}
    for requirement in wanted:
        for extra in ("book", "fast", "test", "mri", "sweep"):
            marker = requirement.marker
            applies = marker is not None and marker.evaluate({"extra": extra})
            if applies and not marker.evaluate({"extra": ""}) and requirement.name != "lipkit":
                extras.setdefault(extra, {})[requirement.name] = _installed(requirement.name)
    return extras


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _advice(found: dict[str, Any]) -> list[str]:
    """Say what is missing, and how to get it."""
    advice = []
    for extra, packages in found["extras"].items():
        if missing := [name for name, installed in packages.items() if installed is None]:
            advice.append(f"missing {', '.join(missing)}: pip install 'lipkit[{extra}]'")
    if find_spec("torch") and found["gpu"] is None and shutil.which("nvidia-smi"):
        advice.append(
            "this machine has an NVIDIA driver but this build of torch cannot use it: "
            "install the CUDA build named on the PyTorch start page"
        )
    if not found["cache"]["writable"]:
        advice.append("the cache folder cannot be written: set LIPKIT_DATA to one that can")
    if found["disk"]["free_gigabytes"] < LITTLE_DISK:
        advice.append(f"less than {LITTLE_DISK:.0f} GB of disk are free: clear some")
    return advice


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def command(as_json: bool) -> None:
    """Show versions, processor, GPU, cache folder and optional packages, and what is missing."""
    found = examine()
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    cpu = found["cpu"]
    gpu = found["gpu"]
    cache = found["cache"]
    yes = {True: "yes", False: "no"}
    rows = [
        *found["versions"].items(),
        ("processor", f"{cpu['cores']} cores, {cpu['threads']} threads, {cpu['capability']}"),
        ("", f"AVX-512 {yes[cpu['avx512']]}, bfloat16 in hardware {yes[cpu['bf16']]}"),
        ("GPU", f"{gpu['name']}, {gpu['gigabytes']} GB" if gpu else "none that torch can use"),
        ("cache", f"{cache['folder']}: {cache['files']} files, {cache['megabytes']} MB"),
        ("disk", f"{found['disk']['free_gigabytes']} GB free"),
    ]
    for extra, packages in found["extras"].items():
        have = sum(installed is not None for installed in packages.values())
        rows.append((f"[{extra}]", f"{have} of {len(packages)} packages"))
    for name, text in rows:
        click.echo(f"{name:10} {text}")
    click.echo()
    for line in found["advice"] or ["Nothing is missing."]:
        click.echo(line)

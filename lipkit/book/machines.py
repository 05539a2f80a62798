"""Other machines, imitated on this one: what the chapters and the tests must stand.

`python -m lipkit.book.machines K` prints the variables of machine K, to be set before a program
starts:

    env $(python -m lipkit.book.machines 2) python -m pytest tests/core

Without K it prints the numbers of the three on which `make test-machines` runs the tests.

Each variable takes something away that this machine has, so that every machine can imitate all
those that have less: threads, wide instructions in the libraries of convolutions (oneDNN), of
products of matrices (MKL, OpenBLAS for NumPy), and in PyTorch itself, where "default" also draws
initial weights that differ in their last bits. Each was seen to change last bits. Two that were
not are left out: `NUMBA_CPU_NAME`, as the sparse step rounds the same way everywhere, and
`ATEN_CPU_CAPABILITY=avx2` on a processor with AVX-512. On top of this comes the noise of
`lipkit.physics.perturb`, another one for each machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from ..errors import InputError
from ..physics import perturb

_ONEDNN = "ONEDNN_MAX_CPU_ISA"
_TORCH = "ATEN_CPU_CAPABILITY"
_MKL = "MKL_ENABLE_INSTRUCTIONS"
_ANY_PROCESSOR = "MKL_CBWR"  # COMPATIBLE: MKL computes as on the oldest
_NUMPY = "OPENBLAS_CORETYPE"
_THREADS = "OMP_NUM_THREADS"

_LIST: list[dict[str, str]] = [
    {_THREADS: "1", _ONEDNN: "AVX2", _MKL: "AVX2", _NUMPY: "Haswell"},
    {_THREADS: "2", _TORCH: "default", _MKL: "SSE4_2", _NUMPY: "Nehalem"},
    {_THREADS: "2", _ONEDNN: "AVX2", _MKL: "AVX2", _NUMPY: "Haswell"},
    {_THREADS: "1", _ONEDNN: "AVX", _TORCH: "default", _ANY_PROCESSOR: "COMPATIBLE"},
    {_THREADS: "2", _ONEDNN: "AVX2", _ANY_PROCESSOR: "COMPATIBLE"},
    {_THREADS: "2", _TORCH: "default", _MKL: "AVX2", _NUMPY: "Haswell"},
    {_THREADS: "1", _MKL: "SSE4_2", _NUMPY: "Nehalem"},
    {_THREADS: "2", _ONEDNN: "SSE41", _MKL: "SSE4_2", _NUMPY: "Nehalem"},
]
NUMBERS = range(1, len(_LIST) + 1)
FOR_TESTS = (1, 2, 4)
CHANGES_BITS = (_ONEDNN, _TORCH, _MKL, _ANY_PROCESSOR, _NUMPY)


def variables(number: int) -> dict[str, str]:
    """Return the environment variables that make a process imitate a machine of the list.

    >>> variables(1)["OMP_NUM_THREADS"], variables(1)["LIPKIT_PERTURB"]
    ('1', '1')
    """
    if number not in NUMBERS:
        raise InputError(
            f"there is no machine {number!r} to imitate; there are {NUMBERS[0]} to {NUMBERS[-1]}"
        )
    return {perturb.VARIABLE: str(number), **_LIST[number - 1]}


def environment(number: int, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment for a process on an imitated machine, with nothing of another one.

    >>> environment(2, {"ATEN_CPU_CAPABILITY": "avx2", "HOME": "/"})["ATEN_CPU_CAPABILITY"]
    'default'
    """
    kept = {name: value for name, value in base.items() if name not in (*CHANGES_BITS, _THREADS)}
    return kept | variables(number)


def in_force() -> dict[str, str]:
    """Return what of this is set here and changes numbers, but for the threads.

    >>> set(in_force()) <= {*CHANGES_BITS, "LIPKIT_PERTURB"}
    True
    """
    perturb.number()  # refuses what is none
    names = (perturb.VARIABLE, *CHANGES_BITS)
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def main(arguments: list[str]) -> None:
    """Print the variables of a machine in one line, as `env` takes them; else FOR_TESTS."""
    if not arguments:
        print(*FOR_TESTS)
        return
    try:
        (word,) = arguments
        found = variables(int(word))
    except ValueError as problem:  # InputError is one
        why = problem if isinstance(problem, InputError) else "one number of a machine is needed"
        sys.exit(f"lipkit: error: {why}")
    print(" ".join(f"{name}={value}" for name, value in found.items()))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Several fits side by side on one machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int | None = None,
    label: str = "fits",
) -> list[Result]:
    """Return `[function(item) for item in items]`, as many at a time as torch has threads.

    Small networks use one core each far better than all cores together: two fits on two cores
    end sooner side by side than one after the other. Results come in the order of the items, and
    every fit runs single-threaded, so that its bits do not depend on its neighbours.

    >>> parallel(lambda seed: seed**2, [1, 2, 3])
    [1, 4, 9]
    """
    from tqdm import tqdm  # late: few programs need it

    items = list(items)
    threads = torch.get_num_threads()
    allowed = int(os.environ.get("OMP_NUM_THREADS", threads))
    workers = max(1, min(workers or allowed, len(items)))
    if default_device() == "cuda":
        workers = 1  # one GPU is busy with one fit at a time
    # OpenMP counts threads for each calling thread, so each worker has to say it for itself
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = [pool.submit(function, item) for item in items]
        return [future.result() for future in tqdm(futures, desc=label, leave=False)]
    finally:
        # on an error or an interrupt: start no more, and do not wait for those that run
        pool.shutdown(wait=False, cancel_futures=True)


def default_device() -> str:
    """Name the device to compute on: the GPU, if there is one.

    >>> default_device() in ("cuda", "cpu")
    True
    """
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(device: str | None = None) -> str:
    """Say which GPU a device is, for records; other devices keep their names.

    >>> device_name("cpu"), device_name() == device_name(default_device())
    ('cpu', True)
    """
    device = device or default_device()
    return torch.cuda.get_device_name(device) if "cuda" in device else device

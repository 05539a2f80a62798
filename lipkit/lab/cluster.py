"""Experiments on Dask workers: one task each, a GPU as a resource, each picked up when done."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import torch
from distributed import Client, Future, LocalCluster, as_completed, get_worker

from ..errors import Error, StorageError
from . import running
from .experiment import Experiment
from .grid import Point
from .records import Record

RETRIES = 2  # of an experiment whose worker died


class Cluster:
    """A cluster of this machine, or the one of a scheduler.

    Workers that offer the resource GPU get one experiment for each GPU.
    """

    def __init__(self, scheduler: str | None, workers: int | None, masks: Path) -> None:
        self.masks = masks
        gpus = torch.cuda.device_count()
        self.local = None
        if scheduler is None:
            self.local = LocalCluster(
                n_workers=workers or gpus or torch.get_num_threads(), threads_per_worker=1,
                resources={"GPU": 1} if gpus else None, dashboard_address=None, memory_limit=0,
                silence_logs=logging.CRITICAL, preload=[__name__],
            )  # fmt: skip
        try:
            self.client = Client(self.local or scheduler, timeout=20)
        except (OSError, TypeError, ValueError) as problem:  # the last two of what is no address
            raise Error(
                f"there is no Dask scheduler at {scheduler!r}: {problem}; an address is like "
                "tcp://host:8786; start one with `dask scheduler`, or leave --scheduler out to use "
                "this machine"
            ) from None
        offers = [w.get("resources", {}) for w in self._workers()]
        self.resources = {"GPU": 1} if any("GPU" in offer for offer in offers) else None
        slots = sum(o.get("GPU", 0) if self.resources else 1 for o in offers)
        self.slots = max(1, int(slots))

    def _workers(self) -> list[dict]:
        self.client.wait_for_workers(1)
        return list(self.client.scheduler_info(n_workers=-1)["workers"].values())

    def run(self, points: Iterator[Point]) -> Iterator[tuple[Point, Record]]:
        """Yield results as they come; a new experiment starts when one has ended."""
        under_way: dict[Future, Point] = {}
        ready = as_completed()
        try:
            for point in points:
                ready.add(self._submit(point, under_way))
                if len(under_way) >= self.slots:
                    break
            for future in ready:
                point = under_way.pop(future)
                yield point, self._record(future, point)
                if (following := next(points, None)) is not None:
                    ready.add(self._submit(following, under_way))
        except KeyboardInterrupt:
            for future, point in under_way.items():
                if future.status == "finished":
                    yield point, future.result()
            raise
        finally:
            self._close(list(under_way))

    def _submit(self, point: Point, under_way: dict[Future, Point]) -> Future:
        future = self.client.submit(
            on_worker, point.experiment, str(self.masks), key=f"lipkit-{point.experiment.digest}",
            resources=self.resources, retries=RETRIES, pure=False,
        )  # fmt: skip
        under_way[future] = point
        return future

    def _record(self, future: Future, point: Point) -> dict:
        if future.status == "finished":
            return future.result()
        problem = future.exception() if future.status == "error" else None
        if isinstance(problem, (StorageError, MemoryError)):
            raise problem
        if problem is not None:  # not the experiment, which reports its own: its worker
            return running.failure(point.experiment, problem)
        raise Error("the Dask scheduler is gone; start the sweep again to go on from here")

    def _close(self, unfinished: list[Future]) -> None:
        self.client.cancel(unfinished, force=True)
        self.client.close()
        if self.local is not None:
            self.local.close()


def on_worker(experiment: Experiment, masks: str) -> dict:
    """Run one experiment on a worker: on the GPU of its number, if there are several."""
    name = str(get_worker().name)
    gpus = torch.cuda.device_count()
    device = f"cuda:{int(name) % gpus}" if gpus and name.isdigit() else None
    return running.run(experiment, device, masks)


def dask_setup(worker) -> None:
    """Leave Ctrl-C to the process that made the workers; Dask calls this in each of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)

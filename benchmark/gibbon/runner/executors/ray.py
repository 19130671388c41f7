"""Workers as actors of Ray, on a cluster or on this machine.

The request of the run is put into Ray's object store once, with all objects that the caller gave;
files of models and datasets are read by each worker, from a path that the nodes share.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch

from gibbon.core.errors import MissingLibraryError, RequestError
from gibbon.core.package_digest import package_digest
from gibbon.core.plain_text import message_of
from gibbon.diagnostics.examination.subject import counted
from gibbon.runner.executors.protocol import (
    Ended,
    Ready,
    Refused,
    ShardTask,
    WorkerReply,
    WorkerRequest,
)
from gibbon.runner.executors.shard_worker import ShardWorker, other_version
from gibbon.runner.executors.worker_pool import WorkerPool
from gibbon.runner.failures.boundary import described
from gibbon.runner.plan.sharing import cores
from gibbon.runner.settings import RunSettings

INSTALL = "the executor ray needs Ray: pip install 'gibbon-bench[ray]'"
REACHABLE_SECONDS = 10.0
OWN = "local"  # Ray's address of a cluster that is started on this machine
AUTHENTICATION = (
    "; if the cluster needs a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
    "~/.ray/auth_token to that of its head node"
)
USAGE = "RAY_USAGE_STATS_ENABLED"  # whether a Ray that is started here reports to its makers


class ClusterShares(NamedTuple):
    """The share of a cluster of each worker, and how many of them share a node, or a GPU."""

    workers: int
    cpus: int
    gpus: float
    sharing: int


def shares_of(
    nodes: Sequence[tuple[float, float]], *, workers: int | None, gpus: float | None, cpu_only: bool
) -> ClusterShares:
    """Returns the shares of workers, the most processors for which all of them have room.

    Args:
        nodes: processors and GPUs of each node.
        workers: number of workers; if None, one a GPU, or one a processor.
        gpus: GPUs of each worker; if None, 1 if there are any.
        cpu_only: whether the run is on the CPU.

    Raises `RequestError` if the cluster has no GPU that is needed.

    >>> shares_of([(8, 2), (8, 2)], workers=None, gpus=None, cpu_only=False)
    ClusterShares(workers=4, cpus=4, gpus=1.0, sharing=1)
    >>> shares_of([(8, 0), (4, 0)], workers=3, gpus=None, cpu_only=True)
    ClusterShares(workers=3, cpus=4, gpus=0.0, sharing=2)
    """
    total = sum(each for _, each in nodes)
    if gpus is None:
        gpus = 1.0 if total and not cpu_only else 0.0
    if gpus > 1 and not gpus.is_integer():
        raise RequestError(f"gpus_per_worker: must be a whole number of GPUs above 1, got {gpus:g}")
    if gpus > 0 and not any(each >= gpus for _, each in nodes):
        raise RequestError(
            f"gpus_per_worker: each worker needs {gpus:g} GPUs, and no node of the cluster has them"
        )
    fitting = [math.floor(each / gpus + 1e-9) if gpus else math.inf for _, each in nodes]
    if workers is None:
        workers = int(sum(fitting)) if gpus else int(sum(cpus for cpus, _ in nodes))
    workers = max(1, workers)

    def room(each: int) -> list[float]:
        return [min(fits, cpus // each) for (cpus, _), fits in zip(nodes, fitting, strict=True)]

    largest = int(max((cpus for cpus, _ in nodes), default=1))
    each = next((each for each in range(largest, 1, -1) if sum(room(each)) >= workers), 1)
    on_node = int(min(workers, max(room(each), default=1)))
    sharing = max(1, on_node) if not gpus else max(1, int(1 / gpus + 1e-9))
    return ClusterShares(workers, each, gpus, sharing)


@dataclass(frozen=True)
class ClusterNodes:
    """The nodes of a cluster: processors and GPUs of each."""

    nodes: tuple[tuple[float, float], ...]

    @classmethod
    def joined(cls, ray: Any) -> Self:
        """Returns the nodes of the cluster that this process has joined."""
        found = [each["Resources"] for each in ray.nodes() if each["Alive"]]
        return cls(tuple((each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in found))

    @classmethod
    def of(cls, settings: RunSettings) -> Self:
        """Returns the nodes that a run with these settings will have.

        Joins the cluster of its address, and leaves it; none is started.  Raises
        `MissingLibraryError` without Ray, and `RequestError` if the cluster can't be joined.
        """
        ray = _library()
        if settings.address is None and not ray.is_initialized():
            return cls(((float(cores()), float(torch.cuda.device_count())),))
        joined = _join(ray, settings.address)
        try:
            return cls.joined(ray)
        finally:
            if joined:
                ray.shutdown()

    @property
    def cpus(self) -> float:
        """Number of processors."""
        return sum(cpus for cpus, _ in self.nodes)

    @property
    def gpus(self) -> float:
        """Number of GPUs."""
        return sum(gpus for _, gpus in self.nodes)

    def shares(self, settings: RunSettings) -> ClusterShares:
        """Returns the shares of a run's workers.  Raises `RequestError` as `shares_of` does."""
        kind = settings.device
        return shares_of(
            self.nodes,
            workers=settings.workers,
            gpus=settings.gpus_per_worker,
            cpu_only=kind not in ("auto", "mps") and not kind.startswith("cuda"),
        )


class RayActors(WorkerPool):
    """Workers that are actors of Ray.

    Args:
        request: the run; the settings name the cluster and the share of each worker.
        note: receives a sentence on the workers.

    Raises `MissingLibraryError` without Ray, and `RequestError` if the cluster can't be joined, has
    not what workers need, or objects of the run can't be sent to it.
    """

    def __init__(self, request: WorkerRequest, *, note: Callable[[str], None]) -> None:
        self._ray = ray = _library()
        self._joined = _join(ray, request.settings.address)
        try:
            settings = request.settings
            nodes = ClusterNodes.joined(ray)
            shares = nodes.shares(settings)
            self.count = shares.workers
            kind = settings.device.partition(":")[0]
            device = "cpu" if kind == "auto" and not shares.gpus else kind
            # A Ray that was started here is on this machine, whose threads may be limited.
            own = self._joined and settings.address is None
            threads = min(torch.get_num_threads(), shares.cpus) if own else shares.cpus
            request = replace(
                request,
                settings=replace(settings, device=device),
                threads=threads,
                sharing=shares.sharing,
            )
            self._data = ray.put(_pickled(ray, request))
            self._kind = ray.remote(_Actor).options(
                num_cpus=shares.cpus, num_gpus=shares.gpus, max_restarts=0, max_task_retries=0
            )
            self._code = request.code
            self._actors: dict[int, Any] = {}
            self._pending: dict[Any, int] = {}
        except BaseException:
            self._leave()
            raise
        each = f"{threads} thread{'s' * (threads != 1)}"
        each += f" and {shares.gpus:g} GPUs" if shares.gpus else ""
        there = counted(len(nodes.nodes), "node")
        note(f"{counted(self.count, 'worker')} on Ray ({there}), {each} each")

    def start(self, place: int) -> None:
        """Creates an actor; Ray chooses its node."""
        self._forget(place)
        actor = self._actors[place] = self._kind.remote(self._code, self._data)
        self._pending[actor.begin.remote()] = place

    def send(self, place: int, task: ShardTask) -> None:
        """Calls an actor."""
        self._pending[self._actors[place].run.remote(task)] = place

    def replies(self, seconds: float) -> list[tuple[int, WorkerReply]]:
        """Returns the replies that came."""
        if not self._pending:
            time.sleep(seconds)
            return []
        wait = self._ray.wait
        ready, _ = wait(list(self._pending), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        return [(self._pending.pop(each), self._reply(each)) for each in ready]

    def end(self, place: int) -> None:
        """Kills an actor."""
        actor = self._actors.pop(place, None)
        self._forget(place)
        if actor is not None:
            with contextlib.suppress(Exception):  # it is dead, or its cluster is
                self._ray.kill(actor, no_restart=True)

    def close(self) -> None:
        """Kills all actors, and leaves the cluster."""
        super().close()
        self._leave()

    def _forget(self, place: int) -> None:
        for each in [ref for ref, owner in self._pending.items() if owner == place]:
            del self._pending[each]

    def _reply(self, reference: Any) -> WorkerReply:
        errors = self._ray.exceptions
        try:
            reply: WorkerReply = self._ray.get(reference)
        except errors.OutOfMemoryError:
            return Ended("a worker was ended by Ray for want of memory", memory=True)
        except errors.RayError as error:
            first = message_of(error).strip().partition("\n")[0]
            return Ended(f"a worker ended ({type(error).__name__}: {first})", memory=False)
        return reply

    def _leave(self) -> None:
        if self._joined:
            self._ray.shutdown()


class _Actor:
    """A worker in a process of Ray.  Its version is checked before the request is read."""

    def __init__(self, code: str, data: bytes) -> None:
        self._code, self._data = code, data
        self._worker: ShardWorker | None = None

    def begin(self) -> Ready | Refused:
        """Returns whether this process can compute the run's shards."""
        if package_digest() != self._code:
            return other_version(self._code)
        request = importlib.import_module("ray.cloudpickle").loads(self._data)
        self._worker = ShardWorker(request)
        return self._worker.begin()

    def run(self, task: ShardTask) -> WorkerReply:
        """Returns the reply to a task."""
        if self._worker is None:
            return Refused("it has not begun")
        return self._worker.run(task)


def check_ray(address: str | None) -> None:
    """Raises `MissingLibraryError` without Ray, and `RequestError` if nothing is at its address."""
    _library()
    if address is not None:
        _check_reachable(address)


def _library() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingLibraryError(f"{INSTALL} ({error})", where="executor") from error


def _join(ray: Any, address: str | None) -> bool:
    """Joins a cluster, or starts one here; returns False if this process has joined one before."""
    if ray.is_initialized():
        return False
    if address is not None:
        _check_reachable(address)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            os.environ.setdefault(USAGE, "0")
            ray.init(address=OWN, num_cpus=cores(), include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = "can't be started here" if address is None else f"can't be joined at {address!r}"
        hint = "" if address is None else AUTHENTICATION
        raise RequestError(f"address: Ray {where}: {described(error)}{hint}") from error
    return True


def _check_reachable(address: str) -> None:
    """Raises `RequestError` if nothing listens at HOST:PORT, for which Ray waits for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address.startswith(":"):
        raise RequestError(f"address: expected auto or HOST:PORT, got {address!r}")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACHABLE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RequestError(
            f"address: Ray can't be joined at {address!r}: nothing answers there ({error})"
        ) from error


def _pickled(ray: Any, request: WorkerRequest) -> bytes:
    try:
        data: bytes = ray.cloudpickle.dumps(request)
    except Exception as error:
        raise RequestError(
            f"objects of this run can't be sent to workers ({described(error)}): give models and "
            "data by the path of a file or the name of a module, or run without workers"
        ) from error
    return data

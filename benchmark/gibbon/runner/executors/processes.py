"""Workers in processes of this machine, each with a share of the cores, or with a GPU.

They are forked from a process that has imported this package and computes nothing, so that a worker
starts in milliseconds and can use a device; on a system without such servers they are started anew.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import torch

from gibbon.core.errors import RequestError
from gibbon.runner.executors.protocol import Ended, ShardTask, WorkerReply, WorkerRequest
from gibbon.runner.executors.worker_pool import WorkerPool
from gibbon.runner.own_processes.own_process import how_it_ended
from gibbon.runner.own_processes.supervised import end_with_parent
from gibbon.runner.settings import RunSettings

WORKER = "gibbon.runner.executors.shard_worker"
_OWNERS: set[int] = set()  # the process that the server belongs to
GRACE_SECONDS = 5.0  # for an exit code after the connection was closed


class _Local(NamedTuple):
    """A process, the end of its connection here, and the number of its start."""

    process: BaseProcess
    connection: Connection
    start: int


class LocalProcesses(WorkerPool):
    """Workers in processes that are started anew, so that a device can be used in each.

    Args:
        count: number of workers.
        request: the run; GPUs are given to the workers in turn.

    Raises `RequestError` if objects of the run can't be sent to another process.
    """

    def __init__(self, count: int, request: WorkerRequest) -> None:
        self.count = count
        self._request = request
        check_portable(request)
        self._context = _context()
        self._workers: dict[int, _Local] = {}
        self._heard: queue.SimpleQueue[tuple[int, int, WorkerReply]] = queue.SimpleQueue()
        self._starts = 0

    def start(self, place: int) -> None:
        """Starts a process."""
        here, there = self._context.Pipe()
        request = replace(self._request, settings=_on_device(self._request, place))
        process = self._context.Process(  # type: ignore[attr-defined]  # of each context
            target=_serve, args=(there, request), name=f"gibbon-{place}"
        )
        process.start()
        there.close()
        self._starts += 1
        local = self._workers[place] = _Local(process, here, self._starts)
        threading.Thread(target=self._listen, args=(place, local), daemon=True).start()

    def send(self, place: int, task: ShardTask) -> None:
        """Sends a task; the end of a process is noticed when replies are read."""
        with contextlib.suppress(OSError):
            self._workers[place].connection.send(task)

    def replies(self, seconds: float) -> list[tuple[int, WorkerReply]]:
        """Returns the replies that came."""
        found: list[tuple[int, WorkerReply]] = []
        with contextlib.suppress(queue.Empty):
            while True:
                wait = seconds > 0 and not found
                place, start, reply = self._heard.get(wait, seconds if wait else None)
                local = self._workers.get(place)
                if local is not None and local.start == start:
                    found.append((place, reply))
        return found

    def end(self, place: int) -> None:
        """Kills a process."""
        local = self._workers.pop(place, None)
        if local is not None:
            local.process.kill()
            local.process.join()
            with contextlib.suppress(OSError):
                local.connection.close()

    def _listen(self, place: int, local: _Local) -> None:
        """Receives what a process sends, until it ends."""
        while True:
            try:
                reply = local.connection.recv()
            except Exception:  # noqa: BLE001  it has ended, or what came of it can't be read
                break
            self._heard.put((place, local.start, reply))
        with contextlib.suppress(ValueError, AssertionError):  # it was ended by us
            local.process.join(GRACE_SECONDS)
            local.process.kill()
        self._heard.put((place, local.start, _ended(local.process)))


def _context() -> BaseContext:
    """Returns how processes are started.

    A server belongs to the process that started it, and can't be used by one that is forked from
    it later, as an isolated run is.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    if _OWNERS and {os.getpid()} != _OWNERS:
        return multiprocessing.get_context("spawn")
    _OWNERS.add(os.getpid())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([WORKER])
    return context


def start_server() -> None:
    """Starts the process that workers are forked from, which imports this package meanwhile."""
    if _context().get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running

        ensure_running()


def check_portable(request: WorkerRequest) -> None:
    """Raises `RequestError` if objects of a run can't be sent to another process."""
    supplied = request.supplied
    for kind, objects in (
        ("model", supplied.models),
        ("dataset", supplied.datasets),
        ("attack", supplied.attacks),
    ):
        for name, each in objects.items():
            try:
                pickle.dumps(each)
            except Exception as error:
                raise RequestError(
                    f"{kind} {name!r} can't be sent to worker processes ({error}): give it by the "
                    "path of its file or the name of its module, or run without workers"
                ) from error


def _ended(process: BaseProcess) -> Ended:
    reason, killed = how_it_ended(process.exitcode, "a worker")
    return Ended(reason, memory=killed)


def _on_device(request: WorkerRequest, place: int) -> RunSettings:
    """Returns the settings of a worker: GPUs are assigned one after another."""
    settings = request.settings
    gpus = torch.cuda.device_count() if settings.device in ("auto", "cuda") else 0
    return replace(settings, device=f"cuda:{place % gpus}") if gpus else settings


def _serve(connection: Connection, request: WorkerRequest) -> None:
    """Computes shards in a new process, until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the run ends this process
    end_with_parent()
    from gibbon.runner.executors.shard_worker import ShardWorker

    worker = ShardWorker(request)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(worker.begin())
        while True:
            connection.send(worker.run(connection.recv()))

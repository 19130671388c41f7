"""Opens the executor that the settings of a run name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from gibbon.core.package_digest import package_digest
from gibbon.runner.execute.executor import Executor
from gibbon.runner.executors.dispatch import Dispatcher
from gibbon.runner.executors.in_process import IN_PROCESS
from gibbon.runner.executors.processes import LocalProcesses, start_server
from gibbon.runner.executors.protocol import DataOfRun, WorkerRequest
from gibbon.runner.executors.worker_pool import WorkerPool
from gibbon.runner.plan.planned import Plan, Supplied
from gibbon.runner.plan.sharing import cores, local_workers, sharing
from gibbon.runner.run_progress.progress import Progress
from gibbon.runner.settings import RunSettings


def prepare_executor(settings: RunSettings) -> None:
    """Starts what takes seconds until workers can start, and needs no plan.

    Raises `MissingLibraryError` without Ray, and `RequestError` if nothing answers at its address.
    """
    if settings.execution == "processes":
        start_server()
    elif settings.execution == "ray":
        from gibbon.runner.executors.ray import check_ray

        check_ray(settings.address)


@contextmanager
def open_executor(
    plan: Plan, *, where: str, supplied: Supplied, progress: Progress
) -> Iterator[Executor]:
    """Opens the executor of a plan, whose workers start at once and end with the ``with`` block.

    Args:
        plan: the plan of the whole run.
        where: name of the suite in error messages.
        supplied: objects that the plan was made with.
        progress: receives notes on workers.

    Raises a `RequestError` if the executor can't be used.
    """
    if plan.settings.execution == "in-process":
        yield IN_PROCESS
        return
    pool = _pool(plan, _request(plan, where, supplied), progress)
    try:
        dispatcher = Dispatcher(pool, progress)
        dispatcher.start()
        yield dispatcher
    finally:
        pool.close()


def _pool(plan: Plan, request: WorkerRequest, progress: Progress) -> WorkerPool:
    settings = plan.settings
    if settings.execution == "ray":
        from gibbon.runner.executors.ray import RayActors

        return RayActors(request, note=progress.note)
    count = local_workers(settings, plan.device)
    threads = min(torch.get_num_threads(), max(1, cores() // count))
    if threads == 1 and settings.decoders is None:  # no core is left to decode images on
        request = replace(request, settings=replace(settings, decoders=0))
    each = f"{threads} thread{'s' * (threads > 1)}"
    progress.note(f"{count} worker{'s' * (count > 1)} on this machine, {each} each")
    return LocalProcesses(count, replace(request, threads=threads))


def _request(plan: Plan, where: str, supplied: Supplied) -> WorkerRequest:
    return WorkerRequest(
        suite=plan.suite,
        settings=plan.settings,
        supplied=supplied,
        where=where,
        code=package_digest(),
        data={
            each.spec.dataset.name: DataOfRun(
                each.dataset.digest, each.data_digest, int(each.ids[0])
            )
            for each in plan.experiments
            if len(each.ids)
        },
        folder=str(Path.cwd()),
        path=tuple(sys.path),
        sharing=sharing(plan.settings, plan.device),
    )

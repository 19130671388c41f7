"""Runs the work of a run in this process, or isolated in separate processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gibbon.models.reached_values import watching_values
from gibbon.runner.own_processes.own_process import in_own_process, requesting
from gibbon.runner.own_processes.process_limits import NO_LIMITS, check_isolation, limits_of
from gibbon.runner.own_processes.worker import (
    IN_THIS_PROCESS,
    CountedProgress,
    InOwnProcesses,
    SentProgress,
    Worker,
)
from gibbon.runner.run_progress.progress import Progress
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

T = TypeVar("T")


@watching_values()
def in_workers(
    work: Callable[[Progress, Worker], T],
    suite: Suite,
    settings: RunSettings,
    *,
    progress: Progress,
    where: str,
) -> T:
    """Returns the result of a function, which gets a progress and a worker for attacks and models.

    If suite or settings isolate cells, the function itself runs in a process of its own, too.
    ``where`` is the name of the suite in error messages.
    """
    limits = limits_of(suite, settings)
    if limits is None:
        return work(progress, IN_THIS_PROCESS)
    check_isolation(settings, where=where)
    with requesting("the run"):
        return in_own_process(
            lambda send: work(SentProgress(send, limits.seconds), InOwnProcesses(limits)),
            limits=NO_LIMITS,
            heard=CountedProgress(progress).receive,
        )

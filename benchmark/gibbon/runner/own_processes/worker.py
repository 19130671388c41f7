"""Workers: where the cells of a run are computed, in this process or each in one of its own."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from gibbon.core.errors import ProcessEndedError
from gibbon.core.files import catch_up
from gibbon.core.global_state import GlobalState
from gibbon.models.memory import is_shortage
from gibbon.runner.failures.raised_by import carrying_party
from gibbon.runner.own_processes.own_process import (
    ActivityMessage,
    ProcessLimits,
    Send,
    in_own_process,
)
from gibbon.runner.run_progress.progress import Progress
from gibbon.verify.guard import LEFT_THREADS

T = TypeVar("T")


class Worker(ABC):
    """Runs the parts of a run that execute attacks and models."""

    #: Whether a model that examples are scored on may not be in the process of their attack.
    separates: bool

    @abstractmethod
    def run(self, work: Callable[[Progress], T], progress: Progress, *, cells: int = 1) -> T:
        """Returns the result of a function, which gets a `Progress` to report to.

        ``cells`` is the number of cells that it computes.  Raises `ProcessEndedError` if it was run
        in a process that ended without a result.
        """

    def sharing(self, *shared: object) -> Worker:
        """Returns a worker whose work may change the attributes of these objects."""
        return self


class InThisProcess(Worker):
    """Runs everything in this process."""

    separates = False

    def run(self, work: Callable[[Progress], T], progress: Progress, *, cells: int = 1) -> T:
        """Returns the result of the function; global state that it leaves changed is put back."""
        state = GlobalState.now()
        try:
            return work(progress)
        finally:
            state.put_back()


IN_THIS_PROCESS = InThisProcess()


@dataclass(frozen=True)
class InOwnProcesses(Worker):
    """Runs everything in a process of its own.

    Args:
        limits: of the process of one cell.
        shared: objects whose attributes the work may change; they are copied back.
    """

    limits: ProcessLimits
    shared: Sequence[object] = ()

    separates = True

    def sharing(self, *shared: object) -> Worker:
        """Returns a worker that copies the attributes of these objects back."""
        return InOwnProcesses(self.limits, shared)

    def run(self, work: Callable[[Progress], T], progress: Progress, *, cells: int = 1) -> T:
        """Returns the result of the function, run in a process within the limits."""

        def apart(send: Send) -> tuple[T, list[dict[str, Any]]]:
            warnings.filterwarnings("ignore", message=LEFT_THREADS)  # they end with the process
            with carrying_party():
                found = work(SentProgress(send))
            return found, [vars(each) for each in self.shared]

        counted = CountedProgress(progress)
        try:
            found, states = in_own_process(
                apart, limits=self.limits.times(cells), heard=counted.receive
            )
        except ProcessEndedError as error:
            error.advanced = counted.advanced
            raise
        except Exception as error:
            if not is_shortage(error):
                raise
            ended = ProcessEndedError("its process ran out of memory", "")
            ended.advanced = counted.advanced
            raise ended from error
        finally:
            catch_up()
        for each, state in zip(self.shared, states, strict=True):
            vars(each).update(state)
        return found


class SentProgress:
    """A `Progress` in a process, which sends what it receives to the parent.

    Args:
        send: sends a message.
        seconds: time that an `activity` may take; None for no limit.
    """

    def __init__(self, send: Send, seconds: float | None = None) -> None:
        self._send = send
        self.seconds = seconds

    def note(self, text: str) -> None:
        """Sends a sentence."""
        self._send(("note", (text,), {}))

    def checking(self, examples: int, *, of: int, dataset: str) -> None:
        """Sends how many more examples were checked."""
        self._send(("checking", (examples,), {"of": of, "dataset": dataset}))

    def start(self, *, work: int, cells: int, reused: int) -> None:
        """Sends the work that is planned."""
        self._send(("start", (), {"work": work, "cells": cells, "reused": reused}))

    def advance(self, work: int, *, doing: str) -> None:
        """Sends how much more work is done."""
        self._send(("advance", (work,), {"doing": doing}))

    def failed(self, cell: str, *, error: str) -> None:
        """Sends a cell that failed."""
        self._send(("failed", (cell,), {"error": error}))

    def doing(self, activity: ActivityMessage) -> None:
        """Sends an activity that begins or ends."""
        self._send(activity)


METHODS = ("note", "checking", "start", "advance", "failed")


class CountedProgress:
    """Passes messages of a `SentProgress` on, and adds up the work that they report."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.advanced = 0

    def receive(self, message: Any) -> None:
        """Calls the method that a message names; ignores anything else."""
        name, arguments, keywords = message
        if name == "advance":
            self.advanced += arguments[0]
        if name in METHODS:
            getattr(self._progress, name)(*arguments, **keywords)


@contextmanager
def activity(progress: Progress, text: str) -> Iterator[None]:
    """Names what is done in a ``with`` block, if a parent process waits for it.

    Args:
        progress: that of the run.
        text: the activity, for the message if the process ends.
    """
    if not isinstance(progress, SentProgress):
        yield
        return
    progress.doing(ActivityMessage(text, progress.seconds))
    yield
    progress.doing(ActivityMessage())

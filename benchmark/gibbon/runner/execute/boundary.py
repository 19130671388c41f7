"""The boundary of a cell, at which exceptions become failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gibbon.core.errors import MemoryShortageError
from gibbon.models.memory import is_shortage
from gibbon.runner.execute.jobs import Job


class BatchSizes:
    """How many examples each source is given at once: less from where memory ran out on.

    ``asked`` is what the user wants; None leaves it to what fits.
    """

    def __init__(self, asked: int | None) -> None:
        self._asked = asked
        self._fitting: dict[str, int] = {}

    def of(self, job: Job) -> int:
        """Returns the size of a job's batches."""
        fitting = self._fitting.get(job.source.digest)
        return fitting or job.experiment.batch_sizes[job.source.name]

    def may_halve(self, count: int) -> bool:
        """Says whether a batch of this size that is too large may be tried by halves."""
        return self._asked is None and count > 1

    def halve(self, job: Job, *, tried: int) -> int:
        """Returns the size to go on with after a batch was too large."""
        self._fitting[job.source.digest] = max(1, tried // 2)
        return self._fitting[job.source.digest]

    def begin_again(self, job: Job) -> None:
        """Forgets that memory ran out: a single example was too large for one attack alone."""
        self._fitting.pop(job.source.digest, None)


class TooLargeError(Exception):
    """Memory ran out, and half the batch may be tried."""


@contextmanager
def boundary(
    on_error: Callable[[BaseException], None], *, retry: bool, count: int
) -> Iterator[None]:
    """The boundary of a cell: whatever is raised inside is handed over and goes no further.

    But where memory ran out on a batch of ``count`` examples that may be tried by halves: that goes
    up to where the batch is cut, with nothing that would hold on to its tensors.
    """
    try:
        yield
    except TooLargeError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  the one place where all is caught
        if not is_shortage(error):
            on_error(error)
            return
        if not retry:
            on_error(_explained(error, count))
            return
    else:
        return
    raise TooLargeError


def _explained(error: BaseException, count: int) -> MemoryShortageError:
    cure = (
        "there is nothing left to halve" if count == 1 else "--batch-size auto tries smaller ones"
    )
    shortage = MemoryShortageError(
        f"out of memory with {count} example{'s' * (count > 1)} at a time: {cure} ({error})"
    )
    shortage.__cause__ = error
    return shortage

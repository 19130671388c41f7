"""The boundary of a cell: the one place where every exception is caught."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gibbon.core.errors import MemoryShortageError
from gibbon.models.memory import is_shortage


class TooLarge(Exception):  # noqa: N818  a signal to the loop over batches, not an error
    """Memory ran out on a batch that may be halved."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a batch of ``count`` examples; a full batch has ``room``.

    ``may_halve`` says whether the batch is halved and tried again when memory runs out.
    """

    count: int = 1
    room: int = 1
    may_halve: bool = False


ONLY_ATTEMPT = Attempt()


@contextmanager
def boundary(
    on_error: Callable[[BaseException], None], attempt: Attempt = ONLY_ATTEMPT
) -> Iterator[None]:
    """Passes whatever is raised inside to ``on_error``, and lets nothing through but Ctrl-C.

    A memory shortage in a batch that may be halved becomes `TooLarge`, which holds no reference to
    the tensors of the batch.
    """
    try:
        yield
    except TooLarge:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  the one place where all is caught
        if not is_shortage(error):
            on_error(error)
            return
        if not attempt.may_halve:
            on_error(_explained(error, attempt.count))
            return
    else:
        return
    raise TooLarge


def described(error: BaseException) -> str:
    """Returns the type and the message of an exception, as they are recorded."""
    return f"{type(error).__name__}: {error}"


def _explained(error: BaseException, count: int) -> MemoryShortageError:
    cure = (
        "there is nothing left to halve" if count == 1 else "--batch-size auto tries smaller ones"
    )
    shortage = MemoryShortageError(
        f"out of memory with {count} example{'s' * (count > 1)} at a time: {cure} ({error})"
    )
    shortage.__cause__ = error
    return shortage

"""Catches every exception at the boundary of a cell, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gibbon.core.endings import ENDING, Terminated, ends_the_process
from gibbon.core.errors import MemoryShortageError
from gibbon.core.plain_text import cut, message_of
from gibbon.models.memory import is_shortage

# They end the run, which first saves what is done; everything else that is raised fails a cell.
ENDINGS = (KeyboardInterrupt, Terminated)


class TooLarge(Exception):  # noqa: N818  a signal to the loop over batches, not an error
    """Raised if memory runs out on a batch that may be halved."""


@dataclass(frozen=True)
class Attempt:
    """The size of a batch that is tried, and whether it may be halved.

    Args:
        count: number of examples.
        room: number of examples in a full batch.
        may_halve: whether the batch is halved and tried again if memory runs out.
    """

    count: int = 1
    room: int = 1
    may_halve: bool = False


ONLY_ATTEMPT = Attempt()


@contextmanager
def boundary(
    on_error: Callable[[BaseException], None], attempt: Attempt = ONLY_ATTEMPT
) -> Iterator[None]:
    """Passes every exception but `ENDINGS` to ``on_error``, and raises nothing but `TooLarge`.

    An attack that raises one of `ENDINGS` without a signal fails, too.  Exceptions that are no
    `Exception`, such as `SystemExit`, `GeneratorExit` and those that a library derives from
    `BaseException`, are no way for an attack to end the other cells.  So no generator may yield
    inside of it.  `TooLarge` stands for a memory shortage in a batch that may
    be halved; it holds no reference to the tensors of the batch.
    """
    try:
        yield
    except TooLarge:
        raise
    except BaseException as error:
        if ends_the_process(error):
            raise
        if ENDING.reason is not None:  # a library has swallowed it
            raise ENDING.reason from error
        halve = is_shortage(error) and attempt.may_halve
        if not halve:
            on_error(_explained(error, attempt.count) if is_shortage(error) else error)
    else:
        return
    if halve:
        raise TooLarge


def described(error: BaseException) -> str:
    """Returns the type and the message of an exception for a record.

    >>> described(ValueError("no such class"))
    'ValueError: no such class'
    """
    return storable(f"{type(error).__name__}: {message_of(error)}")


def storable(text: str) -> str:
    r"""Returns a text that can be stored: lone surrogates are written as escapes.

    The middle of a text of very many characters is left out.

    >>> storable("a\udce9")
    'a\\udce9'
    """
    return cut(text).encode(errors="backslashreplace").decode()


def _explained(error: BaseException, count: int) -> MemoryShortageError:
    cure = (
        "there is nothing left to halve" if count == 1 else "--batch-size auto tries smaller ones"
    )
    examples = f"{count} example{'s' * (count > 1)} at a time"
    said = message_of(error)  # Python's own has none
    shortage = MemoryShortageError(
        f"out of memory with {examples}: {cure}" + (f" ({said})" if said else "")
    )
    shortage.__cause__ = error
    return shortage

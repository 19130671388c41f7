"""Keeps the exit code of a command from the code of others that runs in its process.

An attack may call `os._exit`, itself, in a thread, or in a function that it registers to run at
exit: the command would end with its code, whatever was computed.  Code that gets at the system call
in another way can still do so (``docs/security.md``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn

NAME = "_exit"
REFUSED = "os._exit({}) was called, which would end the run with the exit code of other code"


@contextmanager
def exit_code_protected(*, to_the_end: bool) -> Iterator[None]:
    """Lets `os._exit` raise RuntimeError in this process, in a ``with`` block.

    A process that is forked from this one ends as usual.

    Args:
        to_the_end: whether it stays so afterwards, for the functions that run when Python ends.
    """
    places = [os, *(sys.modules[name] for name in ("posix", "nt") if name in sys.modules)]
    before = os._exit
    refusing = _refusing(before, os.getpid())
    _write(places, refusing)
    try:
        yield
    finally:
        if not to_the_end:
            _write(places, before)


def _write(places: list[ModuleType], function: Callable[[int], NoReturn]) -> None:
    for place in places:
        setattr(place, NAME, function)


def _refusing(ending: Callable[[int], NoReturn], home: int) -> Callable[[int], NoReturn]:
    def _exit(status: int) -> NoReturn:
        if os.getpid() != home:
            ending(status)
        raise RuntimeError(REFUSED.format(status))

    return _exit

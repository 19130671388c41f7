"""The end of a process by a signal, as an exception that is no failure.

A library may swallow the exception, as torch does in the middle of an import: `Ending` remembers
the signal.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


class Terminated(BaseException):
    """The process is to end: it got SIGTERM or SIGHUP, which is no failure of a cell.

    It is no `SystemExit`, which an attack or a model raises if it exits by itself.

    Args:
        signal: number of the signal.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class Ending:
    """The signal that this process got to end, if there was one.

    Attributes:
        reason: the exception that the signal raises; None before it.
    """

    def __init__(self) -> None:
        self.reason: BaseException | None = None

    def interrupt(self, number: int, _: object) -> None:
        """Raises `KeyboardInterrupt`: the handler of SIGINT."""
        self.reason = KeyboardInterrupt()
        raise self.reason

    def terminate(self, number: int, _: object) -> None:
        """Raises `Terminated`, once: the handler of SIGTERM and SIGHUP.

        Saving must not be interrupted by a second signal.

        >>> ending = Ending()
        >>> try:
        ...     ending.terminate(15, None)
        ... except Terminated as error:
        ...     error.signal
        15
        >>> ending.terminate(15, None)
        """
        if self.reason is None:
            self.reason = Terminated(number)
            raise self.reason


ENDING = Ending()


def ends_the_process(error: BaseException) -> bool:
    """Returns whether an exception stands for a signal, and was not raised by somebody's code.

    That is unknown, and assumed of `KeyboardInterrupt`, unless the command line handles Ctrl-C.
    """
    if isinstance(error, Terminated):
        return ENDING.reason is not None
    if not isinstance(error, KeyboardInterrupt):
        return False
    handled = signal.getsignal(signal.SIGINT) == ENDING.interrupt
    return ENDING.reason is not None or not handled


class HeldSignal:
    """The signal that was held back, if there was one.

    Attributes:
        number: number of the signal; None before it.
        handlers: handlers of the signals that are held back, by number.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.handlers: dict[int, Handler] = {}

    def take(self, number: int, frame: FrameType | None) -> None:
        """Takes a signal; a second one is handled at once."""
        if self.number is None:
            self.number = number
        else:
            self.handlers[number](number, frame)

    def handle(self) -> None:
        """Calls the handler of the signal, which mostly raises; does nothing without a signal."""
        number, self.number = self.number, None
        if number is not None:
            self.handlers[number](number, None)


@contextmanager
def holding_signals() -> Iterator[HeldSignal]:
    """Holds back the first SIGINT, SIGTERM or SIGHUP in a ``with`` block, until its `handle`.

    A signal that was not handled in the block is handled at its end.  In other threads than the
    main one nothing is held back, nor is a signal that no function handles.

    >>> with holding_signals() as held:
    ...     held.handle()
    """
    held = HeldSignal()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    numbers = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
    for number in numbers:
        handler = None if number is None else signal.getsignal(number)
        if number is not None and callable(handler):
            held.handlers[number] = handler
            signal.signal(number, held.take)
    try:
        yield held
    finally:
        for number, handler in held.handlers.items():
            signal.signal(number, handler)
    held.handle()

"""The end of a process by a signal, as an exception that is no failure.

A library may swallow the exception, as torch does in the middle of an import: `Ending` remembers
the signal.
"""

from __future__ import annotations

import signal


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

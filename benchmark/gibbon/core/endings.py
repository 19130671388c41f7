"""The end of a process by a signal, as an exception that is no failure."""

from __future__ import annotations


class Terminated(BaseException):
    """The process is to end: it got SIGTERM or SIGHUP, which is no failure of a cell.

    It is no `SystemExit`, which an attack or a model raises if it exits by itself.

    Args:
        signal: number of the signal.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal

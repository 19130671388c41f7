"""Runs work in a process of its own, within limits of time and memory.

The process is a fork: it starts in milliseconds, with everything that is loaded, and shares memory
until one of the two writes.  What the work changes, starts or leaks ends with it
(`gibbon.runner.own_processes.supervised`).  It runs in a thread of its own, since the OpenMP
threads of torch do not survive a fork, and belong to the thread that started them.

Results and messages come back pickled, through a pipe; the pipe is only as trusted as the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import secrets
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from gibbon.core.errors import GibbonError, ProcessEndedError, RequestError
from gibbon.core.plain_text import message_of
from gibbon.runner.own_processes.supervised import FINISH, SECONDS, end_with_parent, supervised

try:
    import resource
except ImportError:  # there is none on Windows, which has no fork either
    resource = None  # type: ignore[assignment]

T = TypeVar("T")

LOST_CONNECTION = 121  # exit code of a process that can't send its result
STRANGE = (
    "the code in its process wrote into the connection that its results come through, and it was "
    "ended"
)
LENGTH = struct.Struct("!Q")  # of a message, after the mark
MARK_BYTES = 16  # random ones before each message: nobody else writes them by accident
CHUNK = 1 << 20
CHECK_SECONDS = 0.2  # between two looks at the clock and at the parent
INTERRUPTED_TOO_SECONDS = 1.0  # between the same signal to a process and to its parent
GRACE_SECONDS = 10.0  # for saving what is done after an interruption
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class ProcessLimits:
    """Limits of time and memory of a process.

    Args:
        seconds: of time; None for no limit.
        memory: bytes that it may take beside what it shares at the start; None for no limit.
    """

    seconds: float | None = None
    memory: int | None = None

    def times(self, count: int) -> ProcessLimits:
        """Returns the limits of a process that computes several cells, one after another."""
        return ProcessLimits(None if self.seconds is None else self.seconds * count, self.memory)


@dataclass(frozen=True)
class ActivityMessage:
    """A message: the activity that begins, empty if one ends, and the seconds that it may take."""

    text: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class _Result(Generic[T]):
    """The last message: the value that the work returned, or the exception that it raised."""

    value: T | None = None
    error: BaseException | None = None


Send = Callable[[Any], None]
_SENDERS: list[Connection] = []  # the connection of this process to its parent


def can_fork() -> bool:
    """Returns whether processes can be forked here."""
    return "fork" in multiprocessing.get_all_start_methods()


def in_own_process(
    work: Callable[[Send], T],
    *,
    limits: ProcessLimits,
    heard: Callable[[Any], None] = lambda message: None,
) -> T:
    """Runs a function in a process of its own, and returns its result.

    Args:
        work: the function; it receives a function that sends a message to this process.
        limits: of the process.
        heard: receives the messages, except for `ActivityMessage`, which limits
            the time of an activity.

    An interruption is passed on to the process, which has a few seconds to save what it has done.

    Raises `ProcessEndedError` if the process exits, crashes or exceeds a limit, and the exception
    that the work raises.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    mark = secrets.token_bytes(MARK_BYTES)
    ends = _ConnectionEnds(sender, receiver, mark)
    process = context.Process(target=_run, args=(work, ends, limits.memory, os.getpid()))
    process.start()
    sender.close()
    running: _Running[T] = _Running(process, ends, limits, heard)
    try:
        return running.result()
    except Exception:
        raise
    except BaseException:  # an interruption or a termination
        running.interrupt()
        raise
    finally:
        running.end()


def how_it_ended(code: int | None, process: str) -> tuple[str, bool]:
    """Returns in words how a process ended, and whether that may be for want of memory.

    Args:
        code: its exit code, negative for a signal; None if it has not ended.
        process: the process, in words.

    >>> how_it_ended(3, "a worker")
    ('a worker ended by itself, with exit code 3', False)
    """
    if code is None:
        return f"{process} closed the connection and did not end", False
    if code == LOST_CONNECTION:
        return f"the code in {process} closed the connection that its results come through", False
    if code >= 0:
        return f"{process} ended by itself, with exit code {code}", False
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    reason = f"{process} was ended by {name}"
    killed = name in ("SIGKILL", "SIGABRT")
    return f"{reason}, perhaps for want of memory" if killed else reason, killed


class _ConnectionEnds(NamedTuple):
    """The two ends of the connection of a process, and the bytes before each of its messages."""

    sender: Connection
    receiver: Connection
    mark: bytes


class _Running(Generic[T]):
    """A process at work, seen from its parent."""

    def __init__(
        self,
        process: BaseProcess,
        ends: _ConnectionEnds,
        limits: ProcessLimits,
        heard: Callable[[Any], None],
    ) -> None:
        self.process, self.limits, self.heard = process, limits, heard
        self.receiver, self.mark = ends.receiver, ends.mark
        self.doing = ActivityMessage(seconds=limits.seconds)
        self.since = time.monotonic()

    def result(self) -> T:
        """Waits for the result, and raises the exception of the work or `ProcessEndedError`."""
        while True:
            message = self._message()
            if isinstance(message, _Result):
                if isinstance(message.error, Exception):
                    raise message.error
                if message.error is not None:
                    raise self._no_interruption_of_ours(message.error)
                return message.value  # type: ignore[return-value]  # of the work's type
            if isinstance(message, ActivityMessage):
                self.doing, self.since = message, time.monotonic()
            elif message is not None:
                self.heard(message)

    def _message(self) -> Any:
        """Returns the next message, or None if there is none yet."""
        ready = wait([self.receiver, self.process.sentinel], timeout=CHECK_SECONDS)
        # What the work starts inherits the sentinel, and may write to it.
        ended = bool(ready) and not self.process.is_alive()
        if self.receiver in ready or self.receiver.poll(0 if ended or not ready else CHECK_SECONDS):
            try:
                data = self._received()
            except (EOFError, OSError):
                self.process.join(GRACE_SECONDS)
                raise self._ended() from None
            return self._decoded(data)
        if ended:
            self.process.join()
            raise self._ended()
        seconds = self.doing.seconds
        if seconds is not None and time.monotonic() - self.since > seconds:
            raise ProcessEndedError(
                f"its process took more than {seconds:g} seconds and was ended", self.doing.text
            )
        return None

    def _received(self) -> bytes:
        """Returns the bytes of the next message.

        Raises `ProcessEndedError` if they are not those of a message of ours.
        """
        head = self._exactly(len(self.mark) + LENGTH.size)
        (length,) = LENGTH.unpack(head[len(self.mark) :])
        if not head.startswith(self.mark):
            raise self._strange()
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        """Reads so many bytes; a process that has written too few is at an end, or is no longer."""
        parts, left = [], count
        while left:
            if not self.receiver.poll(GRACE_SECONDS):
                raise self._strange()
            part = os.read(self.receiver.fileno(), min(left, CHUNK))
            if not part:
                raise EOFError if left == count else self._strange()
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _decoded(self, data: bytes) -> Any:
        try:
            return pickle.loads(data)  # noqa: S301  of our own process
        except Exception as error:  # bytes of another kind raise anything
            raise self._strange() from error

    def _no_interruption_of_ours(self, error: BaseException) -> ProcessEndedError:
        """Returns the error of a process whose code raised an interruption or an exit.

        If this process is interrupted too, as when all processes of a group get one signal, that is
        raised first.
        """
        until = time.monotonic() + INTERRUPTED_TOO_SECONDS
        while time.monotonic() < until:
            time.sleep(INTERRUPTED_TOO_SECONDS / 10)
        return ProcessEndedError(
            f"the code in its process raised {type(error).__name__}", self.doing.text
        )

    def _strange(self) -> ProcessEndedError:
        """Returns the error of a process that wrote into the connection to this one."""
        return ProcessEndedError(STRANGE, self.doing.text)

    def _ended(self) -> ProcessEndedError:
        reason, _ = how_it_ended(self.process.exitcode, "its process")
        return ProcessEndedError(reason, self.doing.text)

    def interrupt(self) -> None:
        """Interrupts the process, and gives it time to save what it has done."""
        self.process.terminate()
        until = time.monotonic() + GRACE_SECONDS
        with contextlib.suppress(EOFError, OSError):
            while self.process.is_alive() and time.monotonic() < until:
                if self.receiver.poll(CHECK_SECONDS):  # a full pipe would stop it
                    os.read(self.receiver.fileno(), CHUNK)

    def end(self) -> None:
        """Ends the process and those that it started, if they have not ended."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, FINISH)
        self.process.join(GRACE_SECONDS + SECONDS)
        self.process.kill()
        self.process.join()
        self.process.close()
        self.receiver.close()


def _run(
    work: Callable[[Send], Any], ends: _ConnectionEnds, memory: int | None, parent: int
) -> None:
    """Runs the work in a process below this one, which ends with all that the work started."""

    def below() -> None:
        _work(work, ends, memory, supervisor)

    supervisor = os.getpid()
    ends.receiver.close()  # by which this work could take its own messages
    supervised(below, parent=parent, closing=ends.sender.close)


def _work(
    work: Callable[[Send], Any], ends: _ConnectionEnds, memory: int | None, parent: int
) -> None:
    """Runs the work, sends its result, and ends the process."""
    sender = ends.sender
    end_with_parent()
    for outer in _SENDERS:  # by which this work could send messages to its parent's parent
        outer.close()
    _SENDERS[:] = [sender]
    lock = threading.Lock()

    def send(message: Any) -> None:
        data = pickle.dumps(message)
        with lock:
            _write_all(sender.fileno(), ends.mark + LENGTH.pack(len(data)) + data)

    def run() -> None:
        try:
            _limit_memory(memory)
            message = _Result(work(send))
        except BaseException as error:  # noqa: BLE001  it is raised in the parent
            message = _Result(error=_portable(error))
        try:
            send(message)
        except Exception as error:  # noqa: BLE001  a result that can't be pickled
            try:
                send(_Result(error=_portable(error)))
            except OSError:  # the work has closed the connection
                os._exit(LOST_CONNECTION)

    thread = threading.Thread(target=run, name="work")
    signal.signal(signal.SIGTERM, lambda *_: _raise_in(thread, KeyboardInterrupt))
    thread.start()
    while thread.is_alive():
        thread.join(CHECK_SECONDS)
        if os.getppid() != parent:
            os.killpg(0, signal.SIGKILL)
    with contextlib.suppress(OSError):  # the work may have closed it after its result was sent
        sender.close()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)  # without waiting for threads that the work left running


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _raise_in(thread: threading.Thread, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error)
    )


def _limit_memory(memory: int | None) -> None:
    """Limits the memory of this process to what it has now and so many bytes more."""
    if memory is None or resource is None or not STATUS.exists():
        return
    held = next(
        int(line.split()[1]) * 1024
        for line in STATUS.read_text().splitlines()
        if line.startswith("VmData:")
    )
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (held + memory, hard))


def _portable(error: BaseException) -> BaseException:
    """Returns an exception that can be pickled, with its message as it is."""
    try:
        if str(pickle.loads(pickle.dumps(error))) == str(error):  # noqa: S301  our own bytes
            return error
    except Exception:  # noqa: BLE001, S110  an exception that can't be pickled
        pass
    for kind in type(error).__mro__:
        if issubclass(kind, GibbonError) and kind.__module__ == GibbonError.__module__:
            made: BaseException = kind.__new__(kind)  # without its own arguments
            made.args = (str(error),)
            return _with_notes(made, error)
    return _with_notes(RuntimeError(f"{type(error).__name__}: {message_of(error)}"), error)


def _with_notes(made: BaseException, error: BaseException) -> BaseException:
    """Returns an exception with the words that another one holds."""
    vars(made).update({name: each for name, each in vars(error).items() if isinstance(each, str)})
    return made


@contextmanager
def requesting(doing: str) -> Iterator[None]:
    """Turns a `ProcessEndedError` into a `RequestError` that names the activity, in a block."""
    try:
        yield
    except ProcessEndedError as error:
        raise RequestError(f"{error.doing or doing}: {error}") from error

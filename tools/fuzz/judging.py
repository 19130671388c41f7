"""Judges how a target reads the folder of a case: success, a refusal, or a finding."""

from __future__ import annotations

import hashlib
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Literal, NoReturn

from gibbon.core.errors import FlagError, RequestError

SECONDS = 10.0  # of the processor, for one case
WALL_SECONDS = 120.0  # a case that waits, such as for a pipe
BYTES = 1 << 30  # that the process may grow by
LONGEST_MESSAGE = 20_000  # letters of a refusal

Kind = Literal["exception", "too slow", "too much memory", "unclear refusal", "crash"]


@dataclass(frozen=True)
class Finding:
    """The result of a target that is neither a success nor a refusal.

    Args:
        kind: what it is.
        summary: the exception and its message, in one line.
        place: file and function of Gibbon that it comes from.
        details: traceback.
    """

    kind: Kind
    summary: str
    place: str = ""
    details: str = ""

    @property
    def key(self) -> str:
        """A word for findings of one cause, as far as type and place say."""
        named = f"{self.kind} {self.summary.partition(':')[0]} {self.place}"
        return hashlib.sha256(named.encode()).hexdigest()[:10]


class UnclearError(Exception):
    """A refusal that is no sentence, or a success that left something unusable."""


class TooSlow(BaseException):
    """Raised in a case that takes too long."""


@dataclass(frozen=True)
class CaseLimits:
    """Limits of one case: seconds of the processor, of the clock, and bytes."""

    seconds: float = SECONDS
    wall_seconds: float = WALL_SECONDS
    size: int | None = BYTES


def judge(read: Callable[[Path], None], folder: Path, limits: CaseLimits) -> Finding | None:
    """Returns the finding of a target that reads a folder, or None if all is well."""
    try:
        with _limited(limits):
            read(folder)
    except (RequestError, FlagError) as error:
        if cause := _memory_error(error):
            return _finding("too much memory", cause)
        if not 1 <= len(str(error)) <= LONGEST_MESSAGE:
            return _finding("unclear refusal", error)
        return None
    except TooSlow as error:
        return _finding("too slow", error)
    except MemoryError as error:
        return _finding("too much memory", error)
    except UnclearError as error:
        return _finding("unclear refusal", error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  whatever else it is, is a finding
        return _finding("exception", error)
    return None


def _memory_error(error: BaseException) -> MemoryError | None:
    """Returns the shortage of memory that a refusal was made of, if it was."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, MemoryError):
            return at
        at = at.__cause__ or at.__context__
    return None


def _finding(kind: Kind, error: BaseException) -> Finding:
    first = (str(error).splitlines() or [""])[0][:200]
    summary = f"{type(error).__name__}: {first}"
    details = "".join(traceback.format_exception(error))
    return Finding(kind, summary, _place(error.__traceback__), details)


def _place(trace: TracebackType | None) -> str:
    """Returns the innermost function of Gibbon in a traceback."""
    found = ""
    for frame in traceback.extract_tb(trace):
        path = Path(frame.filename)
        if {"gibbon", "gibbon_zoo"} & set(path.parts):
            found = f"{path.name}:{frame.name}"
    return found


@contextmanager
def _limited(limits: CaseLimits) -> Iterator[None]:
    """Limits time and memory of a ``with`` block in this process, as far as the system can."""
    handlers = [(each, signal.getsignal(each)) for each in (signal.SIGPROF, signal.SIGALRM)]
    for each, _ in handlers:
        signal.signal(each, _too_slow)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    there = _address_space()
    try:
        if there is not None and limits.size is not None:
            resource.setrlimit(resource.RLIMIT_AS, (there + limits.size, hard))
        signal.setitimer(signal.ITIMER_PROF, limits.seconds)
        signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for each, handler in handlers:
            signal.signal(each, handler)


def _too_slow(number: int, frame: FrameType | None) -> NoReturn:
    raise TooSlow("seconds of the processor" if number == signal.SIGPROF else "seconds")


def _address_space() -> int | None:
    """Returns the bytes of this process's address space; None if the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * resource.getpagesize()

"""Ends everything that a process has started, whatever became of the process itself.

Between a run and a process of its own is a supervisor, which runs no code of others.  On Linux the
system makes it the parent of all that lose theirs below it (a "child subreaper"), so that it finds
processes which have left their group and session, by ``setsid``, too.  It ends them when the work
ends, when the run says so, and when the run is killed.  On other systems it ends the group of the
work's process alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

SECONDS = 10.0  # for ending processes that start others all the time
LOOK_SECONDS = 0.2  # between two looks at the parent, where the system does not report its end
DIE_WITH_PARENT, ADOPT = 1, 36  # prctl's PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER
FINISH = getattr(signal, "SIGUSR2", signal.SIGTERM)  # ends everything below a supervisor
PROCESSES = Path("/proc")


class _Finished(BaseException):
    """The run needs its process no more."""


def supervised(work: Callable[[], None], *, parent: int, closing: Callable[[], None]) -> NoReturn:
    """Runs work in a child of this process, ends all that it has started, and ends as it ended.

    Args:
        work: the work; its process ends with exit code 0 when it returns.
        parent: the process that forked this one.
        closing: closes in this process what the work alone may use.
    """
    handled = [signal.SIGTERM, FINISH]
    signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent passes interruptions on
    _prctl(ADOPT, 1)
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(FINISH, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
        work()
        os._exit(0)
    with contextlib.suppress(OSError):  # it has done so itself
        os.setpgid(child, child)
    closing()
    signal.signal(signal.SIGTERM, lambda *_: _send(child, signal.SIGTERM))
    signal.signal(FINISH, _finish)
    if not end_with_parent(FINISH):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    status = 0
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
        if os.getppid() != parent:  # it ended before this process was to hear of it
            raise _Finished
        status = _waited(child)
    except _Finished:
        pass
    signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    _end_all(child)
    _end_as(status)


def end_with_parent(signal_sent: int = signal.SIGKILL) -> bool:
    """Has the system send this process a signal when its parent ends; returns whether it can."""
    return _prctl(DIE_WITH_PARENT, signal_sent)


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    return False


def _finish(*_: object) -> NoReturn:
    raise _Finished


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    _send(os.getpid(), FINISH)


def _waited(child: int) -> int:
    """Returns how a child ended, as `os.waitpid` says it; others that were adopted are reaped."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == child:
            return status


def _end_all(child: int) -> None:
    """Kills the group of a child, and all descendants of this process."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        for each in _descendants(os.getpid()):
            _send(each, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(LOOK_SECONDS / 100)


def _descendants(process: int) -> list[int]:
    """Returns the descendants of a process, itself left out; empty without /proc."""
    children = defaultdict(list)
    with contextlib.suppress(OSError):
        for folder in PROCESSES.iterdir():
            if folder.name.isdecimal():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    # The name of the program, in parentheses, may hold anything.
                    fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
                    children[int(fields[1])].append(int(folder.name))
    found, waiting = [], [process]
    while waiting:
        below = children.pop(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


def _end_as(status: int) -> NoReturn:
    """Ends this process with the exit code or by the signal of another one."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError, ValueError):
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)

"""What the work of an isolated process has started ends with it, also out of its session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gibbon.core.errors import ProcessEndedError
from gibbon.runner.own_processes.own_process import ProcessLimits, can_fork, in_own_process

pytestmark = [
    pytest.mark.skipif(not can_fork(), reason="needs forked processes"),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux adopts orphans"),
]
SECONDS = 20.0
LASTS = "import time; time.sleep(600)"


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != b"Z"


def wait_for(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def daemon(file: Path) -> None:
    """Starts a process as daemons do: in a session of its own, its parent gone."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            file.write_text(str(os.getpid()))
            os.closerange(3, 256)
            time.sleep(600)
        os._exit(0)
    os.wait()
    assert wait_for(lambda: file.exists() and bool(file.read_text()))


def started(file: Path) -> int:
    assert wait_for(lambda: file.exists() and bool(file.read_text()))
    return int(file.read_text())


def new_session(file: Path) -> None:
    command = [sys.executable, "-c", LASTS]
    running = subprocess.Popen(command, start_new_session=True)
    file.write_text(str(running.pid))


@pytest.mark.parametrize("start", [daemon, new_session])
def test_a_process_in_another_session_ends_with_the_work(
    tmp_path: Path, start: Callable[[Path], None]
) -> None:
    file = tmp_path / "process"
    in_own_process(lambda send: start(file), limits=ProcessLimits())
    assert not is_alive(started(file))


def exits() -> None:
    os._exit(3)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kills_group() -> None:
    os.killpg(0, signal.SIGKILL)


def finishes() -> None:
    os.kill(os.getppid(), signal.SIGUSR2)
    time.sleep(600)


@pytest.mark.parametrize("end", [exits, killed, kills_group, finishes, lambda: time.sleep(600)])
def test_it_ends_too_if_the_work_ends_its_process_or_is_ended(
    tmp_path: Path, end: Callable[[], None]
) -> None:
    file = tmp_path / "process"

    def work(send: object) -> None:
        daemon(file)
        end()

    with pytest.raises(ProcessEndedError):
        in_own_process(work, limits=ProcessLimits(seconds=3.0))
    assert not is_alive(started(file))


def test_work_that_kills_its_supervisor_leaves_its_processes_to_that_of_the_run(
    tmp_path: Path,
) -> None:
    file = tmp_path / "process"

    def work(send: object) -> None:
        daemon(file)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)

    def run(send: object) -> bool:
        with pytest.raises(ProcessEndedError, match="was ended by SIGKILL"):
            in_own_process(work, limits=ProcessLimits())
        return is_alive(started(file))

    in_own_process(run, limits=ProcessLimits())
    assert not is_alive(started(file))


def test_a_process_that_starts_others_all_the_time_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "heartbeats"
    file.touch()

    def work(send: object) -> None:
        if os.fork() == 0:
            os.setsid()
            for _ in range(100_000):
                with file.open("ab") as opened:
                    opened.write(b".")
                if os.fork():
                    os._exit(0)
            os._exit(0)
        assert wait_for(lambda: file.stat().st_size > 3)

    in_own_process(work, limits=ProcessLimits())
    size = file.stat().st_size
    time.sleep(0.3)
    assert file.stat().st_size == size


def test_it_ends_too_if_the_run_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "process"
    code = f"""
import sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from gibbon.runner.own_processes.own_process import ProcessLimits, in_own_process
from test_supervised import daemon
def work(send):
    daemon(Path({str(file)!r}))
    time.sleep(600)
in_own_process(work, limits=ProcessLimits())
"""
    with subprocess.Popen([sys.executable, "-c", code]) as running:
        process = started(file)
        assert is_alive(process)
        running.kill()
    assert wait_for(lambda: not is_alive(process))

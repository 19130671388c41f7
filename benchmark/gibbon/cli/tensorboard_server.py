"""Serves a TensorBoard folder while a command runs."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gibbon.cli.output import say
from gibbon.core.errors import SpecError

FIRST_PORT, PORTS = 6006, 50  # TensorBoard's own port, and how many after it are tried
START_SECONDS = 60.0
HOST = "127.0.0.1"


@contextmanager
def serving(folder: Path) -> Iterator[None]:
    """Runs TensorBoard on a folder, for a ``with`` block, and prints its address.

    It is a process of its own, which this machine alone can reach, and is ended with the block.
    Raises `SpecError` if it does not start.
    """
    port = _free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    options = ["--host", HOST, "--port", str(port), "--reload_interval", "5"]
    said = tempfile.TemporaryFile()  # noqa: SIM115  a pipe that nobody reads would fill up
    server = subprocess.Popen([*command, *options], stdout=said, stderr=said)  # noqa: S603  ours
    try:
        _wait(server, port, said)
        say(f"TensorBoard: http://localhost:{port}/", err=True)
        yield
    finally:
        server.terminate()
        server.wait()
        said.close()
        say(f"TensorBoard has ended; to see it again: tensorboard --logdir {folder}", err=True)


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        with socket.socket() as trial:
            try:
                trial.bind((HOST, port))
            except OSError:
                continue
            return port
    raise SpecError(
        f"no free port from {FIRST_PORT} to {FIRST_PORT + PORTS - 1} for TensorBoard",
        where="--watch",
    )


def _wait(server: subprocess.Popen[bytes], port: int, said: IO[bytes]) -> None:
    """Waits until the server answers.  Raises `SpecError` if it ends or takes too long."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if server.poll() is not None:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise SpecError(f"TensorBoard did not start: {last}", where="--watch")
        with socket.socket() as trial:
            trial.settimeout(1.0)
            if trial.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.1)
    raise SpecError(
        f"TensorBoard did not answer within {START_SECONDS:.0f} seconds", where="--watch"
    )

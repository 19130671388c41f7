"""A server of S3 in a process of its own, which can be killed, and finds its objects again.

Moto's server keeps objects in memory, and writes each request into a file before it answers.  The
process that is started after a kill makes these requests again before it listens: what was written
before the kill is there, as in a store with a disk.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

HOST = "127.0.0.1"
STARTS_WITHIN = 120.0  # seconds, on a busy machine


class S3Server:
    """A server on a free port of this machine.

    Args:
        folder: where its requests are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._requests = folder / "requests"
        with socket.socket() as free:
            free.bind((HOST, 0))
            self._port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.kills = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self._port}"

    def start(self) -> None:
        """Starts the process, and returns when it listens."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self._port)],
            env={**os.environ, "MOTO_RECORDER_FILEPATH": str(self._requests)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + STARTS_WITHIN
        while not self._listens():
            assert self._process.poll() is None, "the server has ended"
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.1)

    def kill(self) -> None:
        """Kills the process: requests that it works on get no answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.kills += 1

    def _listens(self) -> bool:
        try:
            with socket.create_connection((HOST, self._port), timeout=5):
                return True
        except OSError:
            return False


def serve(port: int) -> None:
    """Makes the recorded requests again, and serves on a port until the process is killed."""
    from moto.moto_api import recorder
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple
    from werkzeug.test import Client

    app = DomainDispatcherApplication(create_backend_app)
    file = Path(os.environ["MOTO_RECORDER_FILEPATH"])
    if file.exists():
        whole, end, _ = file.read_bytes().rpartition(b"\n")  # the last one may be cut
        file.write_bytes(whole + end)
        for line in whole.splitlines():
            one = json.loads(line)
            body = base64.b64decode(one["body"]) if one["body_encoded"] else one["body"]
            url = urlsplit(one["url"])
            path = f"{url.path}?{url.query}" if url.query else url.path
            Client(app).open(path, method=one["method"], headers=one["headers"], data=body)
    recorder.start_recording()
    run_simple(HOST, port, app, threaded=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]))

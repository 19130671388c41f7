"""Streams that other people's code has closed or changed are as before, and so is the exit code."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from gibbon.core.standard_streams import read_streams, write_streams

HEAD = """
import atexit, os, sys, threading, time
class Bad:
    def write(self, *_): raise RuntimeError("no")
    flush = write
class Dying:
    def __del__(self): sys.exit(0)
def late():
    time.sleep(0.05)
    os._exit(0)
def both():
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1), os.dup2(null, 2)
"""
STREAMS = """
from gibbon.core.standard_streams import read_streams, write_streams
before = read_streams()
try:
    {act}
except Exception:
    pass
read_streams()
write_streams(before)
assert read_streams()[1].usable
write_streams(before)
print("tables \\u2013 1")
print("said", file=sys.stderr)
"""
ENDING = """
from gibbon.cli.exit_code import exit_code_protected
with exit_code_protected(to_the_end=True):
    try:
        {act}
    except RuntimeError as error:
        print(error)
    time.sleep({wait})
sys.exit(1)
"""


def run(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text],
        check=False,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )


@pytest.mark.parametrize(
    "act",
    [
        "sys.stdout.close(); sys.stderr.close()",
        "sys.stdout.buffer.raw.close()",
        "os.close(1); os.close(2)",
        "both()",
        "sys.stdout.detach()",
        "sys.stdout.reconfigure(encoding='ascii', errors='strict')",
        "sys.stdout = Bad(); sys.stderr = None",
        "sys.stdout.write = None",
        "sys.stdout.buffer.write(b'\\xff\\x00'); sys.stdout.write('\\udce9')",
        "os.closerange(0, 256)",
        "sys.stdout = sys.__stdout__ = open(os.devnull, 'w')",
        "del sys.stdout, sys.stderr",
    ],
)
def test_streams_are_put_back(act: str) -> None:
    done = run(HEAD + STREAMS.format(act=act))
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert done.stdout.endswith("tables – 1\n") if "xff" not in act else "tables" in done.stdout
    assert done.stderr.endswith("said\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that forks")
@pytest.mark.parametrize(
    ("act", "wait"),
    [
        ("os._exit(0)", 0),
        ("atexit.register(os._exit, 0)", 0),
        ("atexit.register(lambda: os._exit(0))", 0),
        ("atexit.register(sys.exit, 0)", 0),
        ("threading.Thread(target=late, daemon=True).start()", 0.2),
        ("import posix; posix._exit(0)", 0),
        ("kept = Dying()", 0),
    ],
)
def test_the_exit_code_is_that_of_the_command(act: str, wait: float) -> None:
    done = run(HEAD + ENDING.format(act=act, wait=wait))
    assert done.returncode == 1, done.stdout + done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that forks")
def test_a_forked_process_ends_with_its_own_code() -> None:
    act = "os.fork() or os._exit(7); print(os.waitstatus_to_exitcode(os.wait()[1]))"
    assert run(HEAD + ENDING.format(act=act, wait=0)).stdout == "7\n"


class NotebookStream(io.TextIOBase):
    """A stream as a notebook has it: it replaces its buffer whenever it is sent."""

    def __init__(self) -> None:
        self.waiting = io.StringIO()

    def write(self, text: str) -> int:
        return self.waiting.write(text)

    def send(self) -> str:
        sent, self.waiting = self.waiting, io.StringIO()
        text = sent.getvalue()
        sent.close()
        return text


def test_a_stream_of_a_notebook_keeps_its_own_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = NotebookStream()
    monkeypatch.setattr(sys, "stdout", stream)
    before = read_streams()
    stream.write("one")
    assert stream.send() == "one"
    stream.write = len  # type: ignore[assignment,method-assign]
    write_streams(before)
    stream.write("two")
    assert stream.send() == "two"

"""A lease on a remote folder: the object that says that a run uses it.

A remote store has no locks.  A run writes the object, where the store can decide between two
writers only if there is none, and renews it while it lives.  Another run looks whether it is
renewed: if it is, that run refuses to start; if it is not for some time, its owner was killed, and
the lease is taken over.  No clocks are compared.  Not protected: in a store that can't decide
between two writers, two runs that start within the same second may both go on until one of them
renews its lease; both compute equal outcomes, and an object is never half of each.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from gibbon.core.errors import RunFolderError
from gibbon.core.plain_text import shown
from gibbon.records.stores.remote_files import RemoteFiles

LEASE_FILE: Final = ".gibbon.lease.json"
RENEWED: Final = 10.0  # seconds between renewals
SILENCE: Final = 35.0  # seconds without a renewal after which the owner was killed
_LOOK: Final = 1.0


class Lease:
    """The lease of one run on a remote folder.

    Args:
        files: the remote folder.
        note: receives a sentence if another run may be using it.
    """

    def __init__(self, files: RemoteFiles, *, note: Callable[[str], None]) -> None:
        self._files, self._quick, self._note = files, files.impatient, note
        self._token, self._count = secrets.token_hex(16), 0
        self._lost = ""
        self._ended = threading.Event()

    @contextmanager
    def held(self) -> Iterator[Lease]:
        """Holds the lease within a ``with`` block.  Raises `RunFolderError` if it is another's."""
        self._take()
        renewing = threading.Thread(target=self._renew, name="gibbon-lease", daemon=True)
        renewing.start()
        try:
            yield self
        finally:
            self._ended.set()
            renewing.join()
            with suppress(RunFolderError):  # the next run waits, and takes it over
                if not self._lost and self._owns(self._quick.read_or_none(LEASE_FILE)):
                    self._quick.remove(LEASE_FILE)

    def check(self) -> None:
        """Raises `RunFolderError` if another run has taken the lease over."""
        if self._lost:
            raise RunFolderError(
                f"{self._files.url}: {self._lost} has taken this folder over, as if this run had "
                "been killed: it was silent too long; nothing more is written"
            )

    def _take(self) -> None:
        while not self._files.create(LEASE_FILE, self._content()):
            before = self._files.read_or_none(LEASE_FILE)
            if before is None:
                continue
            if self._owns(before):  # it was written, and the answer was lost
                break
            if not _has_ended(before):
                self._wait_for_silence(before)
            if self._files.read_or_none(LEASE_FILE) == before:
                self._files.remove(LEASE_FILE)
        found = self._files.read_or_none(LEASE_FILE)
        if not self._owns(found):
            owner = _name(_parsed(found or b""))
            raise RunFolderError(f"{self._files.url}: {owner} is using this folder")

    def _wait_for_silence(self, before: bytes) -> None:
        owner = _name(_parsed(before))
        self._note(
            f"{self._files.url}: looking for up to {SILENCE:.0f} seconds whether {owner} is alive"
        )
        until = time.monotonic() + SILENCE
        while time.monotonic() < until:
            time.sleep(min(_LOOK, SILENCE / 5))
            now = self._files.read_or_none(LEASE_FILE)
            if now is None:
                return
            if now != before:
                raise RunFolderError(
                    f"{self._files.url}: {_name(_parsed(now))} is using this folder"
                )

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED):
            with suppress(RunFolderError):  # the store may answer again
                content = self._quick.read_or_none(LEASE_FILE)
                if content is not None and not self._owns(content):
                    self._lost = _name(_parsed(content))
                    return
                self._count += 1
                self._quick.write(LEASE_FILE, self._content())

    def _owns(self, content: bytes | None) -> bool:
        return content is not None and _parsed(content).get("token") == self._token

    def _content(self) -> bytes:
        owner = {
            "token": self._token,
            "machine": platform.node(),
            "started": _start_of_machine(),
            "process": os.getpid(),
            "renewed": self._count,
        }
        return json.dumps(owner, indent=1).encode()


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _name(owner: dict[str, Any]) -> str:
    machine, process = owner.get("machine"), owner.get("process")
    return f"another run (process {shown(process)} on {shown(machine)})"


def _has_ended(content: bytes) -> bool:
    """Returns whether the owner was a process of this machine that has ended."""
    owner = _parsed(content)
    here = (platform.node(), _start_of_machine())
    process = owner.get("process")
    if (owner.get("machine"), owner.get("started")) != here or not here[1]:
        return False
    if not isinstance(process, int) or process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _start_of_machine() -> str:
    """Returns an identifier of this start and container of the machine, or ""."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{started} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""

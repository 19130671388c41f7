"""What was found out about files of pictures, kept on disk: 50,000 are not decoded twice.

A finding holds for a file's path, size and time of last change.  A file that was changed in the
last seconds is looked at again next time: a second change could leave both as they are.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import astuple, dataclass
from pathlib import Path

from benchmark.datasets.preparation import Look
from benchmark.errors import RunFolderError
from benchmark.records import write_atomically

FORMAT = 1
SETTLED_NS = 2_000_000_000  # what the clocks of file systems may lag behind


@dataclass
class Finding:
    """What was found out about one file.

    Args:
        size: bytes.
        changed: when it was last changed, ns.
        look: what its header says; None where it has none that can be read.
        fault: why it can't be read; empty where nothing speaks against it so far.
        sha256: of its bytes; empty where it was not computed.
        decoded: whether all of it was decoded once.
    """

    size: int
    changed: int
    look: Look | None = None
    fault: str = ""
    sha256: str = ""
    decoded: bool = False


class Findings:
    """Findings by path, read from a file and written back.

    A file that is damaged, foreign or of another format holds none; one that can't be written is
    gone without.

    Args:
        path: the file, which need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._remembered = _read(path)
        self._found: dict[str, Finding] = {}

    def of(self, path: Path) -> Finding:
        """Returns what is known of a file: nothing yet where it is new or was changed."""
        try:
            stat = path.stat()
            size, changed = stat.st_size, stat.st_mtime_ns
        except OSError:
            size, changed = -1, -1
        for known in (self._found.get(str(path)), self._remembered.get(str(path))):
            if known is not None and (known.size, known.changed) == (size, changed):
                break
        else:
            known = Finding(size, changed)
        self._found[str(path)] = known
        return known

    def save(self) -> None:
        """Writes what is known of the files that were asked about and have settled."""
        settled = time.time_ns() - SETTLED_NS
        files = {
            path: list(astuple(finding))
            for path, finding in self._found.items()
            if 0 <= finding.changed < settled
        }
        with contextlib.suppress(OSError, RunFolderError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps({"format": FORMAT, "files": files}))


def _read(path: Path) -> dict[str, Finding]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return {}
        return {
            name: Finding(size, changed, look and Look(*look), *rest)
            for name, (size, changed, look, *rest) in content["files"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}

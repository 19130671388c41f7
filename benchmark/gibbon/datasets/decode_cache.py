"""What was found out about pictures, kept on disk: 50,000 are not decoded twice.

A finding is filed under the SHA-256 of a picture's bytes, which are read and hashed anew in every
run: it holds for the same bytes wherever they lie, and for no others.  No path, size, inode or time
of change is trusted, since none of them says what a file holds: links come to point elsewhere,
archives and copies bring their times along, file systems are mounted in one another's place, and a
clock ticks slower than a disk writes.

What fails is not kept: the next run may read what this one could not.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from gibbon.core.errors import RunFolderError
from gibbon.core.files import write_atomically
from gibbon.datasets.image_transforms import Look

FORMAT = 2


@dataclass
class Finding:
    """What was found out about a picture.

    Args:
        look: what its header says; None as long as nobody looked.
        decoded: whether all of it was decoded once.
    """

    look: Look | None = None
    decoded: bool = False


class Findings:
    """Findings by the SHA-256 of a picture's bytes, read from a file and written back.

    A file that is damaged, foreign or of another format holds none; one that can't be written is
    gone without.

    Args:
        path: the file, which need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._remembered = _read(path)
        self._asked: dict[str, Finding] = {}

    def of(self, sha256: str) -> Finding:
        """Returns what is known of a picture: nothing yet where it is new."""
        known = self._remembered.get(sha256, Finding())
        return self._asked.setdefault(sha256, replace(known))

    def save(self) -> None:
        """Writes what is known of the pictures that were asked about, if any of it is new."""
        pictures = {
            sha256: [astuple(known.look), known.decoded]
            for sha256, known in self._asked.items()
            if known.look is not None
        }
        if all(self._remembered.get(sha256) == self._asked[sha256] for sha256 in pictures):
            return
        with contextlib.suppress(OSError, RunFolderError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps({"format": FORMAT, "pictures": pictures}))


def _read(path: Path) -> dict[str, Finding]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return {}
        return {
            sha256: Finding(Look(*look), decoded)
            for sha256, (look, decoded) in content["pictures"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}

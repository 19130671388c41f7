"""A cache of facts about image files, so that large folders are decoded only once.

The key is the SHA-256 of a file's bytes, which are read and hashed in every run.  Path, size, inode
and modification time are not used, since none of them identifies the content: links change their
target, archives and copies keep old times, file systems are mounted in place of others, and writes
can be faster than the clock's resolution.

Failures are not cached: the next run may be able to read the file.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from PIL.ImageMode import getmode

from gibbon.core.errors import DatasetError, RunFolderError
from gibbon.core.files import write_atomically
from gibbon.core.reading import RECORD_BYTES, parse_json, read_bytes
from gibbon.datasets.image_transforms import ImageHeader

FORMAT = 2
MOST_PIXELS = 1 << 28  # of a picture: PIL decodes none that is larger


@dataclass
class ImageFacts:
    """Facts about an image file.

    Args:
        header: its header; None until it has been read.
        decoded: whether it has been decoded completely once.
    """

    header: ImageHeader | None = None
    decoded: bool = False


class DecodeCache:
    """Facts about image files by SHA-256, read from a JSON file and written back.

    A file that is damaged or of another format counts as empty; failures to write are ignored.

    Args:
        path: the file, which need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._remembered = _read(path)
        self._asked: dict[str, ImageFacts] = {}

    def of(self, sha256: str) -> ImageFacts:
        """Returns the facts about the image of this SHA-256; empty facts if it is new."""
        known = self._remembered.get(sha256, ImageFacts())
        return self._asked.setdefault(sha256, replace(known))

    def save(self) -> None:
        """Writes the facts requested in this run, if any of them is new."""
        pictures = {
            sha256: [astuple(known.header), known.decoded]
            for sha256, known in self._asked.items()
            if known.header is not None
        }
        if all(self._remembered.get(sha256) == self._asked[sha256] for sha256 in pictures):
            return
        with contextlib.suppress(OSError, RunFolderError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps({"format": FORMAT, "pictures": pictures}))


def _read(path: Path) -> dict[str, ImageFacts]:
    try:
        content = parse_json(read_bytes(path, DatasetError, limit=RECORD_BYTES))
        if content["format"] != FORMAT:
            return {}
        return {
            sha256: _facts(header, decoded)
            for sha256, (header, decoded) in content["pictures"].items()
        }
    except (DatasetError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _facts(header: list[object], decoded: object) -> ImageFacts:
    """Returns the facts of an entry.  Raises ValueError if no picture has such ones."""
    height, width, mode, *rest = header
    if not (
        isinstance(height, int)
        and isinstance(width, int)
        and isinstance(mode, str)
        and all(isinstance(each, bool) for each in (*rest, decoded))
        and not isinstance(height, bool)
        and not isinstance(width, bool)
    ):
        raise ValueError("a value of another type")
    getmode(mode)  # raises KeyError if PIL has no such mode
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        raise ValueError("no such picture")
    return ImageFacts(ImageHeader(height, width, mode, *map(bool, rest)), bool(decoded))

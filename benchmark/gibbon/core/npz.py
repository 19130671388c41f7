"""Named arrays and their metadata in one ``.npz`` file, read without unpickling."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LARGEST: Final = 1 << 30  # bytes: galleries and illustrations hold a few pictures
_ABOUT: Final = "about"  # the entry of the metadata, as JSON


def packed(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Returns the content of a file; ``about`` is metadata that JSON can hold.

    >>> unpacked(packed({"name": "ε"}, {"rows": np.arange(3)}))
    ({'name': 'ε'}, {'rows': array([0, 1, 2])})
    """
    written = np.frombuffer(json.dumps(about, ensure_ascii=False).encode(), dtype=np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **{_ABOUT: written, **arrays})
    return stream.getvalue()


def unpacked(content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the metadata and arrays of a file.  A damaged file may raise any error."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        unpacked = sum(each.file_size for each in stored.zip.infolist())
        if unpacked > LARGEST:
            raise ValueError(f"would unpack to {unpacked:,} bytes, at most {LARGEST:,} are read")
        about: dict[str, Any] = json.loads(stored[_ABOUT].tobytes())
        return about, {name: stored[name] for name in stored.files if name != _ABOUT}

"""Kept adversarial examples: the inputs that attacks returned, as they were judged.

They are in the folder ``examples`` of a run, in a folder for each attacked cell, named by its
digest, and one for the clean inputs of each dataset (`clean_folder`).  Each holds ``.npz`` files
with ``example_id``, int64, shape (N,), and ``inputs``, float32, shape (N, *input_shape), which
`numpy.load` reads.  A later file replaces the examples that an earlier one has too.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RecordError
from gibbon.core.files import own_folder, read_plain_file, unwritable, write_atomically
from gibbon.records.outcomes import unusable_as_reason

EXAMPLES: Final = "examples"
PART_BYTES: Final = 8_000_000  # of inputs in one file, about
LARGEST_PART: Final = 1 << 30  # bytes: a larger file is not one of ours
_CLEAN: Final = "clean-"
_PART: Final = re.compile(r"[0-9]{5,9}\.npz")

_N = TypeVar("_N", bound=np.generic)


def clean_folder(dataset: str) -> str:
    """Returns the name of the folder of a dataset's clean inputs; ``dataset`` is its digest."""
    return _CLEAN + re.sub(r"[^A-Za-z0-9_-]", "-", dataset)


@dataclass
class KeptExamples:
    """The kept inputs of a cell, or the clean ones of a dataset.

    Args:
        run: the run's folder.
        name: digest of the cell, or `clean_folder`.
    """

    run: Path
    name: str
    _loaded: dict[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.run / EXAMPLES / self.name

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, in the order in which they were written."""
        if self.folder.is_symlink() or not self.folder.is_dir():
            return ()
        found = [path for path in self.folder.iterdir() if _PART.fullmatch(path.name)]
        return tuple(sorted(found, key=lambda path: int(path.stem)))

    @cached_property
    def places(self) -> dict[int, tuple[Path, int]]:
        """The file and the row of each example, by its id; files that are damaged are left out."""
        found: dict[int, tuple[Path, int]] = {}
        for path in self.files:
            ids = _ids(path)
            if ids is not None:
                found.update((each, (path, row)) for row, each in enumerate(ids.tolist()))
        return found

    def has(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns which examples are kept, shape (N,)."""
        return np.array([each in self.places for each in ids.tolist()], dtype=np.bool_)

    def read(self, example: int) -> NDArray[np.float32] | None:
        """Returns the input of an example, or None if it is not kept or its file is damaged."""
        place = self.places.get(example)
        if place is None:
            return None
        path, row = place
        if path.name not in self._loaded:
            inputs = _inputs(path)
            if inputs is None:
                return None
            self._loaded = {path.name: inputs}  # one file at a time
        inputs = self._loaded[path.name]
        return inputs[row] if row < len(inputs) else None

    def parts(self, ids: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Any]]:
        """Yields the kept ones of some examples, file by file: their ids and their inputs."""
        by_file: dict[Path, list[tuple[int, int]]] = {}
        for each in ids.tolist():
            if each in self.places:
                path, row = self.places[each]
                by_file.setdefault(path, []).append((each, row))
        for path, rows in by_file.items():
            inputs = _inputs(path)
            if inputs is not None:
                own = [(each, row) for each, row in rows if row < len(inputs)]
                found = np.array([each for each, _ in own], dtype=np.int64)
                yield found, inputs[[row for _, row in own]]

    def write(self, ids: NDArray[np.int64], inputs: NDArray[np.float32]) -> None:
        """Adds examples as one file, completely or not at all.

        Raises `RunFolderError` if it can't be written.
        """
        if not len(ids):
            return
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            allow_pickle=False,
            example_id=np.asarray(ids, dtype=np.int64),
            inputs=np.asarray(inputs, dtype=np.float32),
        )
        self.add_file(stream.getvalue())

    def add_file(self, content: bytes) -> None:
        """Adds the content of a file of kept examples under the next free name."""
        try:
            own_folder(self.folder.parent)
            own_folder(self.folder)
            last = max((int(path.stem) for path in self.files), default=-1)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        write_atomically(self.folder / f"{last + 1:05d}.npz", content)
        self.__dict__.pop("places", None)


def whole_part(path: Path) -> bytes:
    """Returns the content of a file of kept examples.

    Raises `RecordError`, whose message is a reason such as "is missing", if it can't be used.
    """
    with unusable_as_reason():
        content = read_plain_file(path)
        ids, inputs = _ids(path), _inputs(path)
        if ids is None or inputs is None or len(ids) != len(inputs):
            raise RecordError("is damaged")
        return content


def _ids(path: Path) -> NDArray[np.int64] | None:
    ids = _array(path, "example_id", np.int64)
    return ids if ids is not None and ids.ndim == 1 else None


def _inputs(path: Path) -> NDArray[np.float32] | None:
    inputs = _array(path, "inputs", np.float32)
    return inputs if inputs is not None and inputs.ndim >= 2 else None


def _array(path: Path, name: str, kind: type[_N]) -> NDArray[_N] | None:
    """Returns an array of a file, or None if the file is damaged."""
    try:
        with _opened(path) as stored:
            found: NDArray[_N] = stored[name].astype(kind, casting="safe")
    except Exception:  # noqa: BLE001  a damaged archive may raise any error
        return None
    return found


def _opened(path: Path) -> Any:
    if path.is_symlink() or not path.is_file():
        raise ValueError("is a link, a pipe or a device")
    with zipfile.ZipFile(path) as archive:
        if sum(each.file_size for each in archive.infolist()) > LARGEST_PART:
            raise ValueError("is too large to be a file of kept examples")
    return np.load(path, allow_pickle=False)

"""Labelled pictures in files: looked at first, decoded when they are needed.

What can be known from the files' headers is checked when the dataset is made: that all pictures
become inputs of one shape and one kind.  Pictures are decoded by worker processes and handed on; a
fixed amount of them is kept in memory, so that the second pass over a small folder reads nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gibbon.core.errors import DatasetError
from gibbon.core.threat import Bounds
from gibbon.datasets.base import PIXEL_BOUNDS, PIXEL_MAX, Batch, Dataset
from gibbon.datasets.decode_cache import Finding, Findings
from gibbon.datasets.image_listing import Listing
from gibbon.datasets.image_resize import prepare
from gibbon.datasets.image_transforms import Agreement, Preparation, look_at
from gibbon.datasets.prefetch import (
    Assembly,
    Ids,
    Kept,
    check_ids,
    choose_workers,
    grouped,
    read_ahead,
)

# Beside a folder of pictures nothing is written: what is known of them lies with the downloads.
FINDINGS_FOLDER = "pictures"
THREADS = min(8, (os.cpu_count() or 1) + 3)  # they wait for the disk, too


class PictureDataset(Dataset):
    """Pictures in files.

    Inputs are float32 in [0, 1], shape (1, H, W) for grey pictures and (3, H, W) for others.

    Args:
        name: what the tables say.
        listing: the files, their labels and the classes.
        preparation: what is done to every picture.
        findings: what is known of the files.
        workers: processes that decode; chosen if None.

    Raises `DatasetError` where pictures do not go together, and where none can be read.
    """

    def __init__(
        self,
        name: str,
        listing: Listing,
        *,
        preparation: Preparation,
        findings: Findings,
        workers: int | None = None,
    ) -> None:
        self._name = name
        self._listing = listing
        self._preparation = preparation
        self._findings = findings
        self._workers = workers
        self._files = _look_at_all(listing.paths, findings)
        agreement = Agreement(name, preparation)
        for path, file in zip(listing.paths, self._files, strict=True):
            if file.known.look is not None:
                agreement.add(listing.say(path), file.known.look)
        if agreement.first is None:
            raise DatasetError(
                f"dataset {name!r} has no picture that can be read: {self._files[0].fault}"
            )
        self._input_shape = agreement.input_shape
        self._notes = (*listing.notes, *agreement.notes)
        self._kept = Kept(len(self), self._input_shape, dtype=np.dtype(np.uint8))

    @property
    def name(self) -> str:
        """What the tables say."""
        return self._name

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, by label."""
        return self._listing.classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (channels, height, width)."""
        return self._input_shape

    @property
    def bounds(self) -> Bounds:
        """[0, 1]."""
        return PIXEL_BOUNDS

    @property
    def labels(self) -> NDArray[np.int64]:
        """The label of every example, shape (N,), by example id."""
        return self._listing.labels

    @property
    def partial(self) -> bool:
        """Whether labels count among the model's own classes."""
        return self._listing.partial

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left aside, and what was done to pictures."""
        return self._notes

    @property
    def digest(self) -> str:
        """SHA-256 over the files' bytes in order, labels, classes and declared preparation."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        declared = {"classes": self.classes, "preparation": self._preparation.declared}
        content = hashlib.sha256(json.dumps(declared, sort_keys=True).encode())
        for file in self._files:
            content.update(bytes.fromhex(file.sha256) or b"-")
        content.update(self.labels.astype("<i8").data)
        return content.hexdigest()

    def batch(self, ids: Ids) -> Batch:
        """Returns the examples with these ids, in this order.

        Raises `DatasetError` where there is no such id, and for a picture that can't be read.
        """
        return next(self.batches([ids]))

    def batches(self, chunks: Sequence[Ids]) -> Generator[Batch, None, None]:
        """Yields one batch for each list of ids; pictures are decoded ahead.

        Raises `DatasetError` where there is no such id, and for a picture that can't be read.
        """
        for chunk in chunks:
            check_ids(chunk, name=self._name, count=len(self))
        assembly = Assembly(
            read=_Decoder(self._paths, self._preparation),
            labels=self.labels,
            kept=self._kept,
            input_shape=self._input_shape,
            size=self._bytes,
            scale=PIXEL_MAX,
            workers=self._workers,
        )
        return assembly.batches(chunks)

    def unreadable(self, ids: Ids, *, told: Callable[[int], None]) -> Mapping[int, str]:
        """Returns which of these pictures can't be read, by id: file and reason.

        Every picture is decoded once: one that was cut off shows only then.  Which ones could be
        decoded is kept on disk.
        """
        check_ids(ids, name=self._name, count=len(self))
        files = self._files
        open_ids = [i for i in ids.tolist() if not (files[i].fault or files[i].known.decoded)]
        told(len(ids) - len(open_ids))
        missing = np.array(open_ids, dtype=np.int64)
        workers = choose_workers(self._workers, len(missing))
        examine = _Examiner(self._paths, self._preparation, keep=self._kept.holds_all)
        groups = grouped(missing, size=self._bytes, workers=workers)
        try:
            for group, found in read_ahead(examine, groups, workers=workers):
                for i, content in zip(group.tolist(), found, strict=True):
                    files[i].fault = content if isinstance(content, str) else ""
                    files[i].known.decoded = not files[i].fault
                    if not isinstance(content, str) and content is not None:
                        self._kept.add(i, content)
                told(len(group))
        finally:
            if open_ids:
                self._findings.save()
        paths = self._listing.paths
        return {i: f"{paths[i]}: {fault}" for i in ids.tolist() if (fault := files[i].fault)}

    @cached_property
    def _paths(self) -> tuple[str, ...]:
        return tuple(map(str, self._listing.paths))

    @property
    def _bytes(self) -> int:
        return math.prod(self._input_shape)


def remembered(folder: Path, about: Path) -> Findings:
    """Returns what is known of pictures; ``folder`` is where downloads are kept."""
    key = hashlib.sha256(str(about.resolve()).encode()).hexdigest()[:24]
    return Findings(folder.expanduser() / FINDINGS_FOLDER / f"{key}.json")


@dataclass(frozen=True)
class _Decoder:
    """Decodes pictures by id."""

    paths: tuple[str, ...]
    preparation: Preparation

    def __call__(self, ids: Ids) -> list[NDArray[Any]]:
        contents = []
        with _quietly():
            for i in ids.tolist():
                content = _decode(self.paths[i], self.preparation)
                if isinstance(content, str):
                    raise DatasetError(
                        f"{self.paths[i]}: {content}; replace or remove the picture, or leave out "
                        "what can't be read with --skip-unreadable"
                    )
                contents.append(content)
        return contents


@dataclass(frozen=True)
class _Examiner:
    """Decodes pictures by id and says which can't be; hands on what it decodes if asked to."""

    paths: tuple[str, ...]
    preparation: Preparation
    keep: bool

    def __call__(self, ids: Ids) -> list[NDArray[Any] | str | None]:
        with _quietly():
            found = [_decode(self.paths[i], self.preparation) for i in ids.tolist()]
        return [each if self.keep or isinstance(each, str) else None for each in found]


def _decode(path: str, preparation: Preparation) -> NDArray[Any] | str:
    try:
        with Image.open(path) as picture:
            return prepare(picture, preparation)
    except Exception as error:  # noqa: BLE001  a decoder raises anything on damaged bytes
        return _reason(error)


@dataclass
class _File:
    """One file, as this run finds it.

    Args:
        sha256: of its bytes; empty where they can't be read.
        known: what is known of a picture of these bytes.
        fault: why it can't be read; empty where nothing speaks against it so far.
    """

    sha256: str
    known: Finding
    fault: str = ""


def _look_at_all(paths: Sequence[Path], findings: Findings) -> list[_File]:
    with _quietly(), ThreadPoolExecutor(THREADS) as threads:
        files = list(threads.map(partial(_look_at_one, findings=findings), paths))
    findings.save()
    return files


def _look_at_one(path: Path, *, findings: Findings) -> _File:
    file = _File("", Finding())
    try:
        with path.open("rb") as stream:
            file.sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            file.known = findings.of(file.sha256)
            if file.known.look is None:
                stream.seek(0)
                with Image.open(stream) as picture:
                    file.known.look = look_at(picture)
    except Exception as error:  # noqa: BLE001  a decoder raises anything on damaged bytes
        file.fault = _reason(error)
    return file


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that can be decoded"
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


@contextmanager
def _quietly() -> Iterator[None]:
    # PIL warns of what it can make up for, such as damaged EXIF data; what it can't is an error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

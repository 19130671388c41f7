"""Datasets of image files, which are decoded when they are needed.

When the dataset is made, only the files' headers are read, and checked: all images must become
inputs of one shape and colour mode.  Worker processes decode the images.  A fixed amount of them
is kept in memory, so that the second pass over a small folder reads no file.
"""

from __future__ import annotations

import hashlib
import json
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
from gibbon.core.plain_text import printable
from gibbon.core.reading import expanded, is_special
from gibbon.datasets.base import Batch, Dataset, DatasetInfo, hash_content
from gibbon.datasets.decode_cache import DecodeCache, ImageFacts
from gibbon.datasets.image_listing import Listing, is_utf8
from gibbon.datasets.image_resize import prepare
from gibbon.datasets.image_transforms import ImageConsistency, Preparation, read_header
from gibbon.datasets.prefetch import (
    Assembly,
    ExampleCache,
    Ids,
    choose_workers,
    grouped,
    read_ahead,
)

# Nothing is written into a folder of images: the cache lies in the folder of downloads.
CACHE_FOLDER = "pictures"
SPECIAL = "is a pipe or a device, not a file"
THREADS = min(8, (os.cpu_count() or 1) + 3)  # they wait for the disk, too


class ImageDataset(Dataset):
    """A dataset of image files.

    Inputs are float32 in [0, 1], shape (1, H, W) for grey images and (3, H, W) for others.

    Args:
        name: name in tables and messages.
        listing: the files, their labels and the classes.
        preparation: transforms of every image.
        cache: facts about the files from earlier runs.
        workers: processes that decode; chosen if None.

    Raises `DatasetError` if images differ in shape or colour, or none can be read.
    """

    def __init__(
        self,
        name: str,
        listing: Listing,
        *,
        preparation: Preparation,
        cache: DecodeCache,
        workers: int | None = None,
    ) -> None:
        self._decoder = _Decoder(tuple(map(str, listing.paths)), preparation)
        self._cache = cache
        self._workers = workers
        self._files = _look_at_all(listing.paths, cache)
        agreement = ImageConsistency(name, preparation)
        for path, file in zip(listing.paths, self._files, strict=True):
            if file.known.header is not None:
                agreement.add(listing.say(path), file.known.header)
        if agreement.first is None:
            raise DatasetError(
                f"dataset {name!r} has no picture that can be read: {self._files[0].fault}"
            )
        _, header = agreement.first
        self.info = DatasetInfo(
            name,
            listing.labels,
            listing.classes,
            preparation.input_shape(header),
            partial=listing.partial,
            class_order=listing.class_order,
            notes=(*listing.notes, *agreement.notes),
        )
        self._kept = ExampleCache(len(self), self.info.input_shape, dtype=np.dtype(np.uint8))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the files' bytes in order, labels, classes and declared preparation."""
        declared = {"classes": self.info.classes, "preparation": self._decoder.preparation.declared}
        parts = (bytes.fromhex(file.sha256) or b"-" for file in self._files)
        return hash_content(json.dumps(declared, sort_keys=True), parts, self.info.labels)

    def batch(self, ids: Ids) -> Batch:
        """Returns the examples with these ids, in this order.

        Raises `DatasetError` if there is no such id, and for a picture that can't be read.
        """
        return next(self.batches([ids]))

    def batches(self, chunks: Sequence[Ids]) -> Generator[Batch, None, None]:
        """Yields one batch for each list of ids; images are decoded in advance.

        Raises `DatasetError` if there is no such id, and for a picture that can't be read.
        """
        return Assembly(self._decoder.read, self.info, self._kept, self._workers).batches(chunks)

    def unreadable(self, ids: Ids, *, progress: Callable[[int], None]) -> Mapping[int, str]:
        """Returns the images among these that can't be read: file and reason, by id.

        Every image is decoded once, since a truncated file has a sound header.  The cache keeps
        which ones could be decoded.
        """
        self.info.check_ids(ids)
        files = self._files
        open_ids = [i for i in ids.tolist() if not (files[i].fault or files[i].known.decoded)]
        progress(len(ids) - len(open_ids))
        missing = np.array(open_ids, dtype=np.int64)
        workers = choose_workers(self._workers, len(missing))
        examine = partial(self._decoder.examine, keep=self._kept.holds_all)
        groups = grouped(missing, size=self._kept.size, workers=workers)
        try:
            for group, found in read_ahead(examine, groups, workers=workers):
                for i, content in zip(group.tolist(), found, strict=True):
                    files[i].fault = content if isinstance(content, str) else ""
                    files[i].known.decoded = not files[i].fault
                    if not isinstance(content, str) and content is not None:
                        self._kept.add(i, content)
                progress(len(group))
        finally:
            if open_ids:
                self._cache.save()
        paths = self._decoder.paths
        return {
            i: printable(f"{paths[i]}: {fault}") for i in ids.tolist() if (fault := files[i].fault)
        }


def open_cache(folder: Path, about: Path) -> DecodeCache:
    """Returns the cache for a folder or CSV file of images; ``folder`` holds the downloads."""
    key = hashlib.sha256(os.fsencode(about.resolve())).hexdigest()[:24]
    return DecodeCache(expanded(folder, DatasetError) / CACHE_FOLDER / f"{key}.json")


@dataclass(frozen=True)
class _Decoder:
    """Decodes images by id."""

    paths: tuple[str, ...]
    preparation: Preparation

    def read(self, ids: Ids) -> list[NDArray[Any]]:
        """Returns the images.  Raises `DatasetError` for one that can't be read."""
        contents = []
        with _quietly():
            for i in ids.tolist():
                content = self._decode(i)
                if isinstance(content, str):
                    raise DatasetError(
                        f"{self.paths[i]}: {content}; replace or remove the picture, or leave out "
                        "what can't be read with --skip-unreadable"
                    )
                contents.append(content)
        return contents

    def examine(self, ids: Ids, *, keep: bool) -> list[NDArray[Any] | str | None]:
        """Returns errors as text, and the images only if ``keep`` is set."""
        with _quietly():
            found = [self._decode(i) for i in ids.tolist()]
        return [each if keep or isinstance(each, str) else None for each in found]

    def _decode(self, example: int) -> NDArray[Any] | str:
        if is_special(Path(self.paths[example])):
            return SPECIAL
        try:
            with Image.open(self.paths[example]) as picture:
                return prepare(picture, self.preparation)
        except Exception as error:  # noqa: BLE001  a decoder raises anything on damaged bytes
            return _reason(error)


@dataclass
class _FileState:
    """State of one file in this run.

    Args:
        sha256: of its bytes; empty if they can't be read.
        known: facts about an image of these bytes.
        fault: why it can't be read; empty if no fault has been found so far.
    """

    sha256: str
    known: ImageFacts
    fault: str = ""


def _look_at_all(paths: Sequence[Path], cache: DecodeCache) -> list[_FileState]:
    with _quietly(), ThreadPoolExecutor(THREADS) as threads:
        files = list(threads.map(partial(_look_at_one, cache=cache), paths))
    cache.save()
    return files


def _look_at_one(path: Path, *, cache: DecodeCache) -> _FileState:
    file = _FileState("", ImageFacts())
    if not is_utf8(path.name):
        file.fault = "its name is not UTF-8"
        return file
    if is_special(path):
        file.fault = SPECIAL
        return file
    try:
        with path.open("rb") as stream:
            file.sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            file.known = cache.of(file.sha256)
            if file.known.header is None:
                stream.seek(0)
                with Image.open(stream) as picture:
                    file.known.header = read_header(picture)
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
    # PIL warns of faults that it can correct, such as damaged EXIF data; others are errors.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

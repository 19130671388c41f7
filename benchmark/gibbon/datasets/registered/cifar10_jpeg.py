"""CIFAR-10 as JPEG images: a copy that was compressed again, and so is not CIFAR-10 itself.

Some collections hold CIFAR-10 as image files in ``train/<class>/`` and ``test/<class>/``.  JPEG is
lossy: numbers measured here are not numbers of CIFAR-10, as the dataset's name and its note say.
For the published images see `gibbon.datasets.registered.cifar10`.

The request's folder is searched for ``cifar10-jpeg.zip``, then for the folder ``cifar10-jpeg``.
There is no download, since nobody publishes such a copy with a checksum; the digest identifies it.

An example id is the position in the order of class and file name.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gibbon.core.errors import DatasetError
from gibbon.core.reading import expanded
from gibbon.datasets import DataRequest
from gibbon.datasets.base import ArrayDataset
from gibbon.datasets.registered.cifar10 import CLASSES, INPUT_SHAPE

STEM = "cifar10-jpeg"
SUFFIXES = (".jpg", ".jpeg")
LARGEST = 1 << 20  # bytes of a file: a picture of 32 x 32 pixels takes a thousand or two
NOTE = "CIFAR-10's pictures compressed again as JPEG: not the published pixels."


def load(request: DataRequest) -> ArrayDataset:
    """Returns a split; inputs have shape (3, 32, 32).

    Raises `DatasetError`, which names the file or the places, if an image is damaged or of
    another size, a class is unknown, or there are no images.
    """
    with _opened(expanded(request.folder, DatasetError)) as (place, names, read):
        wanted = sorted(
            name
            for name in names
            if name.parts[:1] == (request.split,) and name.suffix.lower() in SUFFIXES
        )
        if not wanted:
            raise DatasetError(f"{place}: no pictures in {request.split}/<class>/")
        pixels = np.empty((len(wanted), *INPUT_SHAPE), dtype=np.uint8)
        for row, name in enumerate(wanted):
            pixels[row] = _decoded(read(name), where=f"{place}: {name}")
    return ArrayDataset(
        STEM,
        pixels,
        targets=np.array([_label(name, place) for name in wanted], dtype=np.int64),
        classes=CLASSES,
        notes=(NOTE,),
    )


Reader = Callable[[PurePosixPath], bytes]


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[Path, list[PurePosixPath], Reader]]:
    """Yields the archive or folder, the names of its files, and a function that reads one."""
    archive, unpacked = folder / f"{STEM}.zip", folder / STEM
    if archive.is_file():
        try:
            with zipfile.ZipFile(archive) as opened:
                names = [PurePosixPath(name) for name in opened.namelist()]
                yield archive, names, lambda name: _member(opened, str(name))
        except (
            *(OSError, EOFError, KeyError, ValueError, RuntimeError, NotImplementedError),
            *(zipfile.BadZipFile, zlib.error),
        ) as error:
            raise DatasetError(f"{archive}: damaged archive: {error}; replace it") from error
    elif unpacked.is_dir():
        files = [PurePosixPath(path.relative_to(unpacked)) for path in unpacked.glob("*/*/*")]
        yield unpacked, files, lambda name: (unpacked / name).read_bytes()
    else:
        raise DatasetError(
            f"cifar10-jpeg: neither {archive} nor {unpacked} is there; put one there that holds "
            "train/<class>/ and test/<class>/, or name the folder that holds it with --data-dir"
        )


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    size = archive.getinfo(name).file_size  # no more than that is unpacked
    if size > LARGEST:
        raise DatasetError(
            f"{archive.filename}: {name}: unpacked it takes {size} bytes; expected a picture of "
            f"{INPUT_SHAPE[1]} x {INPUT_SHAPE[2]} pixels, at most {LARGEST} bytes"
        )
    return archive.read(name)


def _decoded(content: bytes, *, where: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as picture:
            width, height = picture.size
            if (height, width) != INPUT_SHAPE[1:]:  # seen before anything is decoded
                raise DatasetError(
                    f"{where}: expected {INPUT_SHAPE[1]} x {INPUT_SHAPE[2]} pixels, "
                    f"got {height} x {width}"
                )
            return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    except DatasetError:
        raise
    except Exception as error:  # a decoder raises anything on damaged bytes
        raise DatasetError(f"{where}: damaged picture: {error}") from error


def _label(name: PurePosixPath, place: Path) -> int:
    folder = name.parts[1]
    if folder not in CLASSES:
        raise DatasetError(f"{place}: {name}: unknown class; expected one of {', '.join(CLASSES)}")
    return CLASSES.index(folder)

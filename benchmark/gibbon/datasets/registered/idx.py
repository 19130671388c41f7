"""Reader of IDX, the file format of MNIST and its relatives, gzipped or plain.

Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", section "the IDX file
format", http://yann.lecun.com/exdb/mnist/.  All numbers are big-endian::

    2 bytes    zero
    1 byte     type of the items: 08 unsigned byte, 09 signed byte, 0B short, 0C int, 0D float,
               0E double
    1 byte     number of dimensions, d
    d * 4      size of each dimension
    the rest   the items, last dimension fastest
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import DatasetError
from gibbon.core.files import read_plain_file

ITEM_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
PREFIX_BYTES = 4  # two zeros, the type, the number of dimensions
SIZE_BYTES = 4  # of one dimension
MAX_DIMENSIONS = 32  # what every version of numpy holds; the format has room for 255
GZIP_MAGIC = b"\x1f\x8b"


def read_file(path: Path) -> bytes:
    """Returns a file's bytes.  Raises `DatasetError` if it is missing or can't be read."""
    try:
        return read_plain_file(path)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except OSError as error:
        raise DatasetError(f"{path}: can't be read: {error.strerror or error}") from error


def unzipped(content: bytes, path: Path) -> bytes:
    """Returns the content unzipped, or unchanged if neither it nor the suffix of ``path`` is gzip.

    Raises `DatasetError` if it is called ``.gz`` and isn't gzip, or is damaged gzip.
    """
    if not content.startswith(GZIP_MAGIC):
        if path.suffix == ".gz":
            raise DatasetError(
                f"{path}: is not gzip: expected to start with {GZIP_MAGIC.hex()}, "
                f"found {content[:2].hex() or 'an empty file'}"
            )
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: damaged gzip file: {error}") from error


def parse_idx(content: bytes, path: Path) -> NDArray[Any]:
    """Returns the array that these bytes describe; ``path`` is only named in errors.

    >>> parse_idx(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 5, 6, 7]), Path("example"))
    array([[5, 6, 7]], dtype=uint8)
    """
    item, shape = _parse_header(content, path)
    start = PREFIX_BYTES + SIZE_BYTES * len(shape)
    expected = math.prod(shape) * item.itemsize
    found = len(content) - start
    if found != expected:
        fault = "truncated" if found < expected else "trailing bytes"
        raise DatasetError(
            f"{path}: {fault}: an IDX file of shape {shape} holds {expected} bytes "
            f"after its header, found {found}"
        )
    items = np.frombuffer(content, dtype=item, offset=start)
    try:
        return items.reshape(shape).astype(item.newbyteorder("="), copy=False)
    except ValueError as error:  # no items, in a shape beyond numpy's
        raise DatasetError(f"{path}: IDX shape {shape} can't be held: {error}") from error


def _parse_header(content: bytes, path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    prefix = content[:PREFIX_BYTES]
    if len(prefix) < PREFIX_BYTES:
        raise DatasetError(f"{path}: truncated: {len(content)} bytes are no IDX header")
    if prefix[:2] != b"\0\0" or prefix[2] not in ITEM_TYPES:
        raise DatasetError(
            f"{path}: not an IDX file: expected two zero bytes and a type from 08 to 0e, "
            f"found {prefix.hex(' ')}"
        )
    dimensions = prefix[3]
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise DatasetError(
            f"{path}: expected an IDX file of 1 to {MAX_DIMENSIONS} dimensions, found {dimensions}"
        )
    sizes = content[PREFIX_BYTES : PREFIX_BYTES + SIZE_BYTES * dimensions]
    if len(sizes) < SIZE_BYTES * dimensions:
        raise DatasetError(f"{path}: truncated: ends inside the IDX header")
    shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
    return np.dtype(ITEM_TYPES[prefix[2]]), shape

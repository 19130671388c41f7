"""Converts rows of bits to short texts and back, for files under version control.

A row is packed into bytes, compressed and written in base 85.  Related rows, such as the errors on
the same examples under a growing epsilon, differ in few bits: each row is stored as its difference
from the nearest earlier row.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RecordError

Bits = NDArray[np.bool_]

MARK = ":"  # between the position of the earlier row and the bits; base 85 does not use it


def pack(rows: Sequence[Bits], *, before: Sequence[Bits] = ()) -> list[str]:
    """Returns each row as a text; all rows, also those in ``before``, have the same length.

    A text is the position of the row that this one is stored as a difference from, counted from
    the first row of ``before``, or nothing; a colon; and the packed bits.

    >>> row = np.array([0, 0, 1, 0, 1], dtype=bool)
    >>> [text.partition(":")[0] for text in pack([row, ~row, row])]
    ['', '', '0']
    """
    known = [*before, *rows]
    if not known:
        return []
    matrix = np.stack(known).astype(np.float32)  # exact up to 16 million examples
    ones = matrix.sum(axis=1)
    distance = ones[:, None] + ones - 2 * matrix @ matrix.T
    texts = []
    for index in range(len(before), len(known)):
        row, base = known[index], ""
        nearest = int(distance[index, :index].argmin()) if index else 0
        if index and distance[index, nearest] < min(ones[index], len(row) - ones[index]):
            row, base = row ^ known[nearest], str(nearest)
        packed = zlib.compress(np.packbits(row).tobytes(), 9)
        texts.append(f"{base}{MARK}{base64.b85encode(packed).decode()}")
    return texts


def unpack(texts: Sequence[str], count: int, *, before: Sequence[Bits] = ()) -> list[Bits]:
    """Returns the rows of ``count`` bits that `pack` wrote.  Raises `RecordError`.

    >>> row = np.array([0, 0, 1, 0, 1], dtype=bool)
    >>> [each.tolist() == row.tolist() for each in unpack(pack([row, row]), 5)]
    [True, True]
    """
    known = list(before)
    for text in texts:
        base, _, packed = text.partition(MARK)
        row = _unpacked(packed, count)
        if base:
            if not base.isdecimal() or int(base) >= len(known):
                raise RecordError(f"damaged: bits that differ from row {base[:20]!r}")
            row = row ^ known[int(base)]
        known.append(row)
    return known[len(before) :]


def _unpacked(text: str, count: int) -> Bits:
    size = (count + 7) // 8
    try:
        inflater = zlib.decompressobj()
        # One byte more than expected shows an error; a damaged text must not fill memory.
        packed = inflater.decompress(base64.b85decode(text), size + 1)
    except (zlib.error, ValueError) as error:  # base64 raises a ValueError
        raise RecordError(f"damaged: {error}") from error
    if not inflater.eof or len(packed) != size:
        raise RecordError(f"damaged: not the bits of {count:,} examples")
    return np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=count).astype(np.bool_)

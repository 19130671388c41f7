"""Converts rows of bits to short texts and back, for files under version control.

A row is packed into bytes, compressed and written in base 85.  Related rows, such as the errors on
the same examples under a growing epsilon, differ in few bits: each row is stored as its difference
from the nearest earlier row, which it names by its key.  So rows may change their places.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RecordError

Bits = NDArray[np.bool_]

MARK = ":"  # between the key of the other row and the bits; base 85 does not use it


def pack(rows: Mapping[str, Bits], *, before: Mapping[str, Bits] | None = None) -> dict[str, str]:
    """Returns each row as a text, by key; all rows, also those in ``before``, have one length.

    A text is the key of the row that this one is stored as a difference from, or nothing; a colon;
    and the packed bits.

    >>> row = np.array([0, 0, 1, 0, 1], dtype=bool)
    >>> texts = pack({"first": row, "inverse": ~row, "equal": row})
    >>> {key: text.partition(":")[0] for key, text in texts.items()}
    {'first': '', 'inverse': '', 'equal': 'first'}
    """
    known = {**(before or {}), **rows}
    if not known:
        return {}
    keys = list(known)
    matrix = np.stack(list(known.values())).astype(np.float32)  # exact up to 16 million examples
    ones = matrix.sum(axis=1)
    distance = ones[:, None] + ones - 2 * matrix @ matrix.T
    texts = {}
    for index in range(len(known) - len(rows), len(known)):
        row, base = known[keys[index]], ""
        nearest = int(distance[index, :index].argmin()) if index else 0
        if index and distance[index, nearest] < min(ones[index], len(row) - ones[index]):
            row, base = row ^ known[keys[nearest]], keys[nearest]
        packed = zlib.compress(np.packbits(row).tobytes(), 9)
        texts[keys[index]] = f"{base}{MARK}{base64.b85encode(packed).decode()}"
    return texts


def unpack(
    texts: Mapping[str, str], count: int, *, before: Mapping[str, Bits] | None = None
) -> dict[str, Bits]:
    """Returns the rows of ``count`` bits that `pack` wrote, in any order.  Raises `RecordError`.

    >>> row = np.array([0, 0, 1, 0, 1], dtype=bool)
    >>> texts = pack({"first": row, "equal": row})
    >>> unpack(dict(reversed(texts.items())), 5)["equal"].tolist() == row.tolist()
    True
    """
    known = dict(before or {})
    for key in texts:
        chain: dict[str, None] = {}
        while key not in known and key not in chain:
            if key not in texts:
                raise RecordError(
                    f"damaged: the row {key[:20]!r}, which others differ from, is gone"
                )
            chain[key] = None
            key = texts[key].partition(MARK)[0] or key
        if key not in known and texts[key].partition(MARK)[0]:
            raise RecordError(f"damaged: the row {key[:20]!r} differs from itself")
        for each in reversed(chain):
            base, _, packed = texts[each].partition(MARK)
            row = _unpacked(packed, count)
            known[each] = row ^ known[base] if base else row
    return {key: known[key] for key in texts}


def unpack_by_position(
    texts: Sequence[str], count: int, *, before: Sequence[Bits] = ()
) -> list[Bits]:
    """Returns rows of an earlier version, which refer to others by position from 0."""
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

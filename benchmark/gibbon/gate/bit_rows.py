"""Rows of bits as short texts, for files that are committed.

A row is written by where its bits are set: the gaps between them, deflated, in base 85.  Rows that
belong together (the same examples under a growing epsilon, say) differ in few bits, so that each is
written as its difference from the earlier row that is nearest to it.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RecordError

Bits = NDArray[np.bool_]

LONGEST = 255  # the byte that stands for so many zeros and no one after them
MARK = ":"  # neither base 64 nor base 85 has it


def pack(rows: Sequence[Bits], *, before: Sequence[Bits] = ()) -> list[str]:
    """Returns each row as a text; all of them and those ``before`` them have one length.

    A text is the position of the row that this one is a difference from, counted from the first
    of ``before``, or nothing; a colon; and the bits.

    >>> row = np.array([0, 0, 1, 0, 1], dtype=bool)
    >>> [text.partition(":")[0] for text in pack([row, ~row, row])]
    ['', '', '0']
    """
    known = [*before, *rows]
    if not known:
        return []
    matrix = np.stack(known).astype(np.float32)  # exact up to 16 million examples
    ones = matrix.sum(axis=1)
    apart = ones[:, None] + ones[None, :] - 2 * matrix @ matrix.T
    texts = []
    for index in range(len(before), len(known)):
        nearest = int(apart[index, :index].argmin()) if index else 0
        alone = min(ones[index], matrix.shape[1] - ones[index])
        if index and apart[index, nearest] < alone:
            texts.append(f"{nearest}{MARK}{_deflated(known[index] ^ known[nearest])}")
        else:
            texts.append(f"{MARK}{_deflated(known[index])}")
    return texts


def unpack(texts: Sequence[str], count: int, *, before: Sequence[Bits] = ()) -> list[Bits]:
    """Returns the rows of ``count`` bits that `pack` wrote.  Raises `RecordError`.

    >>> row = np.array([0, 0, 1, 0, 1], dtype=bool)
    >>> [each.tolist() == row.tolist() for each in unpack(pack([row, row]), 5)]
    [True, True]
    """
    known = list(before)
    for text in texts:
        place, mark, packed = text.partition(MARK)
        if not mark:
            known.append(_plain(text, count))
            continue
        row = _inflated(packed, count)
        if place:
            if not place.isdecimal() or int(place) >= len(known):
                raise RecordError(f"damaged: bits that differ from row {place[:20]!r}")
            row = row ^ known[int(place)]
        known.append(row)
    return known[len(before) :]


def _deflated(bits: Bits) -> str:
    gaps = np.diff(np.flatnonzero(bits), prepend=-1) - 1
    repeats = gaps // LONGEST + 1
    written = np.full(int(repeats.sum()), LONGEST, dtype=np.uint8)
    written[np.cumsum(repeats) - 1] = gaps % LONGEST
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return base64.b85encode(packer.compress(written.tobytes()) + packer.flush()).decode()


def _inflated(text: str, count: int) -> Bits:
    # No row of `count` bits takes more bytes than this: a damaged one must not fill memory.
    packed = _decompressed(text, base64.b85decode, limit=count + 1, window=-zlib.MAX_WBITS)
    gaps = np.frombuffer(packed, dtype=np.uint8).astype(np.int64)
    ends = np.cumsum(np.where(gaps == LONGEST, LONGEST, gaps + 1)) - 1
    places = ends[gaps != LONGEST]
    if len(places) and places[-1] >= count:
        raise RecordError(f"damaged: bit {places[-1]:,} of {count:,} examples")
    row = np.zeros(count, dtype=np.bool_)
    row[places] = True
    return row


def _plain(text: str, count: int) -> Bits:
    """Returns a row as it was written before rows were differences: packed, in base 64."""
    packed = _decompressed(text, _from_base64, limit=count // 8 + 2, window=zlib.MAX_WBITS)
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8))
    if not count <= len(bits) < count + 8:
        raise RecordError(f"damaged: {len(bits)} bits for {count} examples")
    return bits[:count].astype(np.bool_)


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _decompressed(text: str, decode: Callable[[str], bytes], *, limit: int, window: int) -> bytes:
    try:
        inflater = zlib.decompressobj(window)
        content = inflater.decompress(decode(text), limit)
    except (zlib.error, ValueError) as error:  # what base64 raises is a ValueError
        raise RecordError(f"damaged: {error}") from error
    if not inflater.eof:
        raise RecordError("damaged: bits that end too early, or too late")
    return content

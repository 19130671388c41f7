"""Amounts of memory, as a text or a number of bytes."""

from __future__ import annotations

import re

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
WRITTEN = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
EXPECTED = "an amount of memory such as 4GB, 512MiB, or a number of bytes"


def parse_bytes(written: object) -> int:
    """Returns a number of bytes from a text such as ``"4GB"`` or ``"512MiB"``, or from a number.

    Raises `ValueError` that says what was expected.

    >>> parse_bytes("4GB"), parse_bytes("1.5 MiB"), parse_bytes(10)
    (4000000000, 1572864, 10)
    """
    if isinstance(written, int) and not isinstance(written, bool):
        return written
    found = WRITTEN.fullmatch(written.strip()) if isinstance(written, str) else None
    if found is None or (found[3] and not found[2]):
        raise ValueError(EXPECTED)
    number = int(float(found[1]) * (BINARY if found[3] else UNITS)[found[2].lower()])
    if number < 1:
        raise ValueError(EXPECTED)
    return number

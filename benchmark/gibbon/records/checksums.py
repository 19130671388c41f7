"""Checksums of stored files, by which damage after writing is detected.

A JSON file holds the checksum of its content as its last key.  It covers values, not bytes, so that
other line endings or indentation change nothing.  A parquet file holds the checksum of all its
bytes in the metadata of its footer; there it is written over the zeros that it was computed with.
The checksum and the content of a file are so renamed into place together.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from gibbon.core.errors import RecordError

CHECKSUM: Final = "checksum"
MISMATCH: Final = "damaged: its content does not match its checksum"

_CONFLICT: Final = re.compile(rb"^(<{7}|={7}|>{7}|\|{7})(?=[ \r\n]|$)", re.MULTILINE)
_KEY: Final = b"gibbon-checksum"
_BLANK: Final = b"0" * 64
# In a footer a key is followed by the type of the value (a text) and its length in bytes.
_BEFORE: Final = _KEY + b"\x18" + bytes([len(_BLANK)])


def content_checksum(content: object) -> str:
    """Returns the SHA-256 of a value that JSON can hold, in hexadecimal digits.

    >>> content_checksum({"a": 1, "b": [0.5]}) == content_checksum({"b": [0.5], "a": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def with_checksum(text: str) -> str:
    """Returns the JSON text of an object, with indent 1, with its checksum as the last key.

    >>> list(json.loads(with_checksum(json.dumps({"a": 1}, indent=1))))
    ['a', 'checksum']
    """
    checksum = content_checksum(json.loads(text))
    return f'{text.rstrip().removesuffix("}").rstrip()},\n "{CHECKSUM}": "{checksum}"\n}}\n'


def checked_content(text: bytes) -> Any:
    """Returns the value of a JSON file without its checksum.

    A file of an earlier version has none, and is not checked.  Raises `RecordError` if the file is
    no JSON, or its content does not match.
    """
    try:
        content = json.loads(text)
        sealed = isinstance(content, dict) and CHECKSUM in content
        matches = not sealed or content.pop(CHECKSUM) == content_checksum(content)
    except (ValueError, RecursionError) as error:
        check_merged(text)
        raise RecordError(f"damaged: not JSON: {error}") from error
    if not matches:
        raise RecordError(MISMATCH)
    return content


def checked_text(text: bytes) -> str:
    """Returns the JSON text of a file without its checksum.  Raises as `checked_content` does."""
    content = checked_content(text)
    try:
        return json.dumps(content)
    except RecursionError as error:
        raise RecordError("damaged: it is nested too deeply") from error


def check_merged(text: bytes) -> None:
    """Raises `RecordError` that names the line if a merge left its conflict markers in a file.

    >>> check_merged(b"<<<<<<< HEAD")
    Traceback (most recent call last):
    gibbon.core.errors.RecordError: line 1: a merge has left its conflict markers
    """
    found = _CONFLICT.search(text)
    if found is not None:
        line = text.count(b"\n", 0, found.start()) + 1
        raise RecordError(f"line {line}: a merge has left its conflict markers")


def parquet_bytes(table: pa.Table) -> bytes:
    """Returns a table as a parquet file with a checksum of each page and of all bytes."""
    stream = pa.BufferOutputStream()
    with pq.ParquetWriter(
        stream, table.schema, compression="zstd", write_page_checksum=True
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_KEY: _BLANK})
    content = bytearray(stream.getvalue())
    at = content.rindex(_BEFORE + _BLANK) + len(_BEFORE)
    content[at : at + len(_BLANK)] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def has_checksum(content: bytes) -> bool:
    """Returns whether a parquet file holds a checksum, which matches.

    Files of earlier versions have none.  Raises `RecordError` if it does not match.
    """
    at = content.rfind(_BEFORE) + len(_BEFORE)
    if at < len(_BEFORE):
        return False
    view, end = memoryview(content), at + len(_BLANK)
    found = hashlib.sha256(view[:at])
    found.update(_BLANK)
    found.update(view[end:])
    if found.hexdigest().encode() != content[at:end]:
        raise RecordError(MISMATCH)
    return True


def file_checksum(content: bytes) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def row_checksum(content: Mapping[str, object], *bits: bytes) -> str:
    """Returns a checksum of a row in 16 hexadecimal digits: of its fields, and of packed bits."""
    found = hashlib.sha256(content_checksum(content).encode())
    for each in bits:
        found.update(hashlib.sha256(each).digest())
    return found.hexdigest()[:16]

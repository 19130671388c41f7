"""Reads files from outside: regular files only, of bounded size and depth.

Whatever is wrong with a path or a file is an error that names it, never another exception.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gibbon.core.errors import RequestError
from gibbon.core.plain_text import shown

TEXT_BYTES = 4 << 20  # of suites, recipes and limits, which people write
MAP_BYTES = 64 << 20  # of class maps
MOST_VALUES = 100_000  # keys and values of a suite
RECORD_BYTES = 1 << 30  # of records, baselines and lists of files
DEEPEST = 100  # tables and lists inside each other
LONGEST_INTEGER = 1100  # bits: beyond any float
NO_PATH = "is no path"


@contextmanager
def usable_path(written: object, problem: type[RequestError]) -> Iterator[None]:
    """Turns errors of a path, or of reading its file, into a ``problem``, for a ``with`` block.

    They are those of the file system, such as a name that is too long, of NUL characters and
    unpaired surrogates in a name, and of an unknown user after ``~``.
    """
    try:
        yield
    except OSError as error:
        raise problem(f"{shown_path(written)}: can't be read: {error.strerror or error}") from error
    except UnicodeEncodeError as error:
        raise problem(f"{shown_path(written)} {NO_PATH}: it is not valid Unicode") from error
    except (ValueError, RuntimeError) as error:
        if "null" in str(error):
            raise problem(f"{shown_path(written)} {NO_PATH}: it holds a NUL character") from error
        if "home directory" in str(error):
            raise problem(
                f"{shown_path(written)} {NO_PATH}: no user of this name has a home folder"
            ) from error
        raise


def shown_path(written: object) -> str:
    """Returns a path for a message: as it is if it can be shown, else its ``repr``."""
    text = str(written)
    return text if text.isprintable() and len(text) <= 1000 else shown(text)


def expanded(written: str | os.PathLike[str], problem: type[RequestError]) -> Path:
    """Returns a path with ``~`` replaced.  Raises ``problem`` if it is no path."""
    with usable_path(written, problem):
        path = Path(written).expanduser()
        path.exists()  # reports a name that is too long
        if "\0" in str(path):
            raise ValueError("embedded null character")
        str(path).encode(errors="surrogateescape")
        return path


def is_special(path: Path) -> bool:
    """Returns whether a path exists but is no regular file, such as a pipe."""
    return path.exists() and not path.is_file()


def check_regular(path: Path, problem: type[RequestError], *, limit: int | None = None) -> None:
    """Raises ``problem`` unless a path is a regular file of at most ``limit`` bytes.

    A pipe never ends to be read, nor does a device such as ``/dev/zero``.
    """
    with usable_path(path, problem):
        status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise problem(f"{shown_path(path)}: can't be read: {os.strerror(errno.EISDIR)}")
    if not stat.S_ISREG(status.st_mode):
        raise problem(f"{shown_path(path)}: can't be read: is a pipe or a device, expected a file")
    if limit is not None and status.st_size > limit:
        raise problem(
            f"{shown_path(path)}: has {status.st_size:,} bytes, at most {limit:,} are read"
        )


def read_bytes(path: Path, problem: type[RequestError], *, limit: int) -> bytes:
    """Returns the content of a regular file.  Raises ``problem``."""
    check_regular(path, problem, limit=limit)
    with usable_path(path, problem):
        return path.read_bytes()


def read_text_file(path: Path, problem: type[RequestError], *, limit: int = TEXT_BYTES) -> str:
    """Returns the text of a UTF-8 file, without a byte-order mark.  Raises ``problem``."""
    content = read_bytes(path, problem, limit=limit)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise problem(f"{path}: is not UTF-8: {error}; save it as UTF-8") from error


def parse_json(
    content: str | bytes, *, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Returns decoded JSON.  Raises ValueError that says what is wrong, whatever it is.

    ``pairs`` makes an object of its pairs, in which a key may come twice; a dictionary if None.
    """
    try:
        return json.loads(content, object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError as error:
        raise ValueError(f"it holds a number that is too long: {error}") from error


def check_tree(tree: Any, *, deepest: int = DEEPEST) -> None:
    r"""Raises ValueError if decoded data is nested too deeply, or a text in it is not usable.

    >>> check_tree({"a": [1, "b"]})
    >>> check_tree({"a": {"name": "b\0"}})
    Traceback (most recent call last):
    ValueError: a.name: holds a NUL character
    """
    waiting: list[tuple[Any, tuple[str, ...]]] = [(tree, ())]
    seen = 0
    while waiting:
        value, place = waiting.pop()
        seen += 1
        if seen + len(waiting) > MOST_VALUES:
            raise ValueError(f"holds more than {MOST_VALUES:,} keys and values")
        where = ".".join(place)
        if isinstance(value, str):
            problem = text_problem(value)
            if problem:
                raise ValueError(f"{where}: {problem}")
            continue
        if isinstance(value, int) and value.bit_length() > LONGEST_INTEGER:
            raise ValueError(f"{where}: an integer of more than {LONGEST_INTEGER} bits")
        if len(place) > deepest:
            raise ValueError(f"{'.'.join(place[:3])}: tables or lists are nested too deeply")
        if isinstance(value, dict):
            for key in value:
                problem = text_problem(key) if isinstance(key, str) else ""
                if problem:
                    raise ValueError(f"{where}: the key {shown(key)} {problem}")
            if len(value) > MOST_VALUES:
                raise ValueError(f"holds more than {MOST_VALUES:,} keys and values")
            waiting += [(each, (*place, shown_key(key))) for key, each in value.items()]
        elif isinstance(value, list | tuple):
            if len(value) > MOST_VALUES:
                raise ValueError(f"{where}: holds more than {MOST_VALUES:,} values")
            waiting += [(each, (*place, str(at))) for at, each in enumerate(value)]


def shown_key(key: object) -> str:
    """Returns a key for a message, shortened."""
    return str(key)[:80]


def text_problem(text: str) -> str:
    """Returns why a text can't be a name or a path, or an empty text."""
    if "\0" in text:
        return "holds a NUL character"
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        return "is not valid Unicode: it holds an unpaired surrogate"
    return ""

"""The standard streams, which other people's code may close, replace, detach or encode otherwise.

A copy of each descriptor is kept under a high number, so that a stream that was closed, or whose
descriptor leads elsewhere, can be opened again.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, NamedTuple

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

NAMES = ("stdin", "stdout", "stderr")
HIGH = 700  # where copies of descriptors are, out of the way of `os.closerange(3, 256)`
MOST_KEPT = 6
Identity = tuple[int, int]  # device and number of a file
_KEPT: dict[tuple[int, Identity], int] = {}  # descriptors of copies


class StreamState(NamedTuple):
    """A standard stream at one moment.

    Args:
        stream: the stream.
        usable: whether it is open.
        coding: its encoding, and its way with errors.
        attributes: attributes that were set on it.
        file: the file that the descriptor of this number leads to; None if it is closed.
    """

    stream: Any
    usable: bool
    coding: tuple[object, object]
    attributes: tuple[tuple[str, Any], ...]
    file: Identity | None


def read_streams() -> tuple[StreamState, ...]:
    """Returns the state of the three streams."""
    return tuple(_state(number, getattr(sys, name, None)) for number, name in enumerate(NAMES))


def write_streams(before: tuple[StreamState, ...]) -> None:
    """Restores the three streams; one that was closed is opened again."""
    for number, (name, state) in enumerate(zip(NAMES, before, strict=True)):
        _restore_descriptor(number, state.file)
        stream = state.stream
        if state.usable and not _is_usable(stream) and state.file is not None:
            encoding, errors = map(str, state.coding)
            mode = "r" if number == 0 else "w"
            stream = open(  # noqa: SIM115  it stays open
                number, mode, encoding=encoding, errors=errors, buffering=1, closefd=False
            )
            setattr(sys, f"__{name}__", stream)
        elif stream is not None:
            _restore_stream(stream, state)
        setattr(sys, name, stream)


def _state(number: int, stream: Any) -> StreamState:
    coding = _attribute(stream, "encoding"), _attribute(stream, "errors")
    attributes = tuple(_set_attributes(stream).items())
    return StreamState(stream, _is_usable(stream), coding, attributes, _file(number))


def _set_attributes(stream: Any) -> dict[str, Any]:
    """Returns the attributes that were set on a stream: all, or functions in place of its methods.

    A stream of another class, such as that of a notebook, has attributes of its own, which change
    while it is used: its buffer, for example.
    """
    own: dict[str, Any] = getattr(stream, "__dict__", {})
    if isinstance(stream, TextIOWrapper):
        return dict(own)
    kind = type(stream)
    return {name: own[name] for name in own if callable(getattr(kind, name, None))}


def _is_usable(stream: Any) -> bool:
    return _attribute(stream, "closed") is False and _attribute(stream, "buffer") is not _NONE


_NONE = object()


def _attribute(stream: Any, name: str) -> object:
    """Returns an attribute of a stream; `_NONE` if its buffer was taken away."""
    try:
        return getattr(stream, name, None)
    except Exception:  # noqa: BLE001  a stream of any library
        return _NONE


def _file(number: int) -> Identity | None:
    """Returns the file that a descriptor leads to, and keeps a copy of the descriptor."""
    try:
        status = os.fstat(number)
    except OSError:
        return None
    found = status.st_dev, status.st_ino
    if (number, found) not in _KEPT:
        with suppress(OSError):
            _KEPT[number, found] = _copy(number)
        if len(_KEPT) > MOST_KEPT:
            oldest = next(iter(_KEPT))
            with suppress(OSError):
                os.close(_KEPT.pop(oldest))
    return found


def _copy(number: int) -> int:
    if fcntl is not None:
        with suppress(OSError):
            return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, HIGH)
    return os.dup(number)


def _restore_descriptor(number: int, file: Identity | None) -> None:
    copy = None if file is None else _KEPT.get((number, file))
    if copy is None or _file(number) == file:
        return
    with suppress(OSError):
        os.dup2(copy, number)


def _restore_stream(stream: Any, before: StreamState) -> None:
    now, attributes = _set_attributes(stream), dict(before.attributes)
    if now != attributes:
        for name in now.keys() - attributes.keys():
            del stream.__dict__[name]
        stream.__dict__.update(attributes)
    coding = _attribute(stream, "encoding"), _attribute(stream, "errors")
    if coding != before.coding and hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding=before.coding[0], errors=before.coding[1])

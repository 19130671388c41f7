"""Checks which code a merge runs: that of the suite in the shards, which may come from others.

A merge loads the models of that suite.  A vouch in a record says nothing of the files that are here
now, and the folder of a shard holds results: no code is taken from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gibbon.core.errors import RunFolderError
from gibbon.core.plain_text import shown
from gibbon.runner.shards.read_shards import ReadShard
from gibbon.specs.vouches import vouches

SOURCE_FILES = (".py", ".pyc", ".so", ".pyd")


def check_code(shards: tuple[ReadShard, ...], *, trust_code: bool) -> None:
    """Raises `RunFolderError` if a suite vouches for files, or names code in a shard's folder.

    ``trust_code`` is whether the user of the merge vouches for the files, too.
    """
    first = shards[0]
    if not trust_code and (models := vouches(first.record.suite)):
        names = " and ".join(map(shown, models))
        raise RunFolderError(
            f"{first.path}: its suite vouches for the files of {names}, which may run any code "
            "when they are loaded: if you vouch for the files that are here, add --trust-code"
        )
    folders = [each.path.resolve() for each in shards]
    for text in _texts(first.record.suite.model_dump()):
        for path in (text, text.rpartition(":")[0]):
            if path.endswith(SOURCE_FILES) and "\0" not in path:
                place = Path(path).resolve()
                if any(place.is_relative_to(folder) for folder in folders):
                    raise RunFolderError(
                        f"{first.path}: its suite names code in the folder of a shard, "
                        f"{shown(text)}: a shard holds results, and no code is run from there"
                    )


def _texts(value: Any) -> Iterator[str]:
    """Yields all texts in nested data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)

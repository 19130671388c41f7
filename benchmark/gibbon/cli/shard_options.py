"""Shards on the command line: the option ``--shard``, and the default folder of results."""

from __future__ import annotations

from pathlib import Path

import typer

from gibbon.core.errors import SpecError
from gibbon.core.shard import Shard


def parsed_shard(text: str) -> Shard:
    """Returns the shard that a text names.  Raises `typer.BadParameter`."""
    try:
        return Shard.parse(text)
    except SpecError as error:
        raise typer.BadParameter(str(error).removeprefix("shard: ")) from None


def shard_folder(folder: Path, shard: Shard) -> Path:
    """Returns the default folder of a shard, next to that of the whole run.

    >>> shard_folder(Path("runs/mnist"), Shard(2, 4)).as_posix()
    'runs/mnist-shard-2-of-4'
    """
    return folder.with_name(f"{folder.name}-shard-{shard.index}-of-{shard.count}")

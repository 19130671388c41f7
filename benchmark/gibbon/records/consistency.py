"""Errors of records whose rows do not belong together, such as those of a missing model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from gibbon.core.errors import RecordError
from gibbon.core.plain_text import shown

P = ParamSpec("P")
R = TypeVar("R")


def of_one_record(
    function: Callable[Concatenate[Path, P], R],
) -> Callable[Concatenate[Path, P], R]:
    """Wraps a function of a stored record, whose path is its first argument.

    What it raises for rows that are missing, or do not belong together, becomes a `RecordError`.
    """

    def read(path: Path, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(path, *args, **kwargs)
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            missing = f"none for {shown(error.args[0])}" if isinstance(error, KeyError) else error
            raise RecordError(
                f"{path}: damaged, or changed by hand: its rows do not belong together: {missing}"
            ) from error

    functools.update_wrapper(read, function)
    return read

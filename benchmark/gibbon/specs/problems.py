"""Texts for keys of specs that are wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gibbon.core.errors import suggest
from gibbon.core.plain_text import shown
from gibbon.core.reading import shown_key

MOST_FAULTS = 20  # lines about wrong keys

# Options of `run` that people write into suites.
OF_A_RUN = (
    *("device", "batch_size", "limit", "workers", "output", "precision", "channels_last"),
    *("compile", "strict"),
)

# pydantic's messages about Python values, reworded for TOML.
WORDS = {
    "missing": "is missing",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "model_type": "must be a table",
    "path_type": "must be a path",
    "string_pattern_mismatch": "must be made of letters, digits and . _ + - and start with a "
    "letter or a digit",
}


def problem_lines(
    error: ValidationError, line: Callable[[ErrorDetails], str], *, where: str
) -> str:
    """Returns a line for each wrong key, of which ``line`` makes the text, up to `MOST_FAULTS`.

    ``where`` begins the last line if there are more.
    """
    # If a list is too short because its items were wrong, each of them has its own line.
    lines = (
        line(each) for each in error.errors() if each["type"] != "too_short" or not each["input"]
    )
    text = "\n".join(islice(lines, MOST_FAULTS))
    more = error.error_count() - MOST_FAULTS
    return text + (f"\n{where}: and {more:,} more" if more > 0 else "")


def problem_text(problem: ErrorDetails, known: Iterable[str]) -> str:
    """Returns the problem of a key in TOML's words; ``known`` are the valid keys of its table."""
    if problem["type"] == "extra_forbidden":
        keys, key = list(dict.fromkeys(known)), str(problem["loc"][-1])
        if key in OF_A_RUN:
            option = key.replace("_", "-")
            return f"unknown key: a suite doesn't say how it is run; give --{option} to run"
        valid = f" Valid keys: {', '.join(keys)}" if keys else ""
        return f"unknown key{suggest(key, keys)}{valid}"
    message = WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    came = shown(problem["input"])
    plain = isinstance(problem["input"], str | int | float)
    return f"{message}, got {came}" if plain and came not in message else message


def key_path(location: Sequence[str | int]) -> str:
    """Returns a key path as text: ``attacks[2].steps``.

    >>> key_path(["attacks", 2, "steps"])
    'attacks[2].steps'
    """
    parts = [f"[{part}]" if isinstance(part, int) else f".{shown_key(part)}" for part in location]
    return "".join(parts).lstrip(".")

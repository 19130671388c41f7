"""Shortens error messages of third-party code to one line."""

from __future__ import annotations

from gibbon.core.plain_text import message_of, shortened

LONG = 200  # characters: longer messages are cut after their first sentence


def gist(error: BaseException) -> str:
    r"""Returns an error's message, shortened to one line.

    >>> gist(ValueError("no such layer\n  in line 3"))
    'no such layer'
    """
    lines = [line.strip() for line in message_of(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # TorchScript puts a traceback in front of the message.
    line = lines[-1] if "TorchScript interpreter" in lines[0] else lines[0]
    return shortened(line.partition(". ")[0] if len(line) > LONG else line).rstrip(". ")


def many(number: int, noun: str) -> str:
    """Returns a number with its noun, in the singular or plural.

    >>> many(1, "channel"), many(3, "channel")
    ('1 channel', '3 channels')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"

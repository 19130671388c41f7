"""Checks that a run made, whether or not they raised a flag.

A report without flags says what was examined: these records, one a check.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from gibbon.records.flags import Flag
from gibbon.records.record import Record


class CheckDone(Record):
    """A check of a run.

    A check that had nothing to examine, or that abstained everywhere, has no record.

    Args:
        name: a few words, such as ``"order of attacks"``.
        looked_at: what it examined, with numbers; it continues a sentence, such as
            ``"the candidates of 12 attacked cells of 3 models"``.
        passed: whether it raised neither a serious flag nor a warning.
    """

    name: str = Field(min_length=1)
    looked_at: str = Field(min_length=1)
    passed: bool


def check_done(name: str, looked_at: str, flags: Iterable[Flag]) -> CheckDone:
    """Returns the record of a check that raised these flags.

    >>> check_done("candidates", "the candidates of 3 attacked cells", []).passed
    True
    """
    return CheckDone(
        name=name, looked_at=looked_at, passed=all(each.severity == "note" for each in flags)
    )

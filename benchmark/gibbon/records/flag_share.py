"""Shares of examples as counts, which flags are compared by."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import Field, model_validator

from gibbon.records.record import Record

_LARGEST: Final = 10**21  # a damaged file must not exceed the range of a float
# Records made before shares were stored as counts hold them in the text of the figure alone.
_WRITTEN: Final = re.compile(r"(\d[\d,]{,20}) of (\d[\d,]{,20})")


class FlagShare(Record):
    """A number of examples out of a total.

    Args:
        count: number of examples that something was seen for.
        of: number of examples that were looked at.

    >>> str(FlagShare(count=3, of=300))
    '3 of 300'
    """

    count: int = Field(ge=0)
    of: int = Field(ge=1, le=_LARGEST)

    @model_validator(mode="after")
    def _is_part(self) -> FlagShare:
        if self.count > self.of:
            raise ValueError(f"{self.count} examples are more than all {self.of}")
        return self

    def __str__(self) -> str:
        return f"{self.count} of {self.of}"


def with_share_text(written: Any, *, stored: bool) -> Any:
    """Returns the fields of a flag with its share and the share's text, as far as either is known.

    Args:
        written: the fields of a flag by name; anything else is returned as it is.
        stored: whether the fields were read from a file.  One without a field ``share`` is of an
            earlier version, which stored the text alone.
    """
    if not isinstance(written, dict):
        return written
    share, figure = written.get("share"), written.get("figure")
    if stored and "share" not in written and isinstance(figure, str):
        return {**written, "share": share_of_earlier_version(figure)}
    return (
        {**written, "figure": str(share)}
        if isinstance(share, FlagShare) and not figure
        else written
    )


def share_of_earlier_version(figure: str) -> FlagShare | None:
    """Returns the share in a figure of a record without typed shares; None if it holds none.

    >>> share_of_earlier_version("1,003 of 3,000")
    FlagShare(count=1003, of=3000)
    >>> share_of_earlier_version("relative error 0.31") is None
    True
    """
    found = _WRITTEN.fullmatch(figure)
    if found is None:
        return None
    count, total = (int(each.replace(",", "")) for each in found.groups())
    return FlagShare(count=count, of=total) if 0 < total >= count else None

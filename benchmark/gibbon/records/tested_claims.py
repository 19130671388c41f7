"""Tests of the claims of a suite, as a run stores them."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from gibbon.records.record import Record
from gibbon.specs.claims import ClaimOrder

LEVEL: Final = 0.05  # of all claims of a suite together


class ClaimTest(Record):
    """A claim of a suite that was tested: a row of ``claims.csv``.

    ``first`` and ``second`` are means over ``first_trainings`` and ``second_trainings`` trainings,
    the latter 0 for a constant.  ``difference`` is first minus second, with the ends of its 95 %
    interval.  ``p_value`` is two-sided, of no difference, and corrected by Holm's procedure over
    the claims of the suite; ``test`` names the test.  ``models`` are those that took part.
    ``flags`` holds the kinds of the flags that affect one of the measures, with ``;`` between them.
    """

    id: str
    order: ClaimOrder
    examples: int
    first: float
    second: float
    first_trainings: int
    second_trainings: int
    difference: float
    difference_low: float
    difference_high: float
    test: str
    p_value: Annotated[float, Field(ge=0, le=1)]
    models: tuple[str, ...]
    flags: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the order is as claimed; None if the test can't decide at 5 %."""
        if self.p_value >= LEVEL or self.difference == 0:
            return None
        return (self.difference < 0) == (self.order == "lower")

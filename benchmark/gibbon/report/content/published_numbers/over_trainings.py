"""A measure over the trainings of a model: mean, spread, and its difference from a number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from gibbon.metrics.order_tests import interval_over_trainings
from gibbon.report.content.parts.layout import NOTHING, TableCell
from gibbon.report.content.parts.lookup import Measured, RunLookup
from gibbon.report.content.parts.number_format import decimals_of
from gibbon.specs.published import PublishedRow


@dataclass(frozen=True)
class OverTrainings:
    """A measure in each training of a model, and in all of them together.

    Args:
        measured: the measure itself if there is one training; else the mean, with an interval that
            covers examples and trainings.
        rates: the measure of each training that has one.
    """

    measured: Measured
    rates: tuple[float, ...] = ()

    @classmethod
    def of(cls, row: PublishedRow, results: RunLookup, attack: str) -> Self:
        """Returns what was measured for a published row under an attack.

        If a training failed, so did the measure: the mean would be that of the others.  A training
        that was not run, or that has no examples to count, is left out.
        """
        found = results.trainings(row, attack)
        failed = [each for each in found if each.state == "failed"]
        if failed:
            return cls(failed[0])
        done = [each for each in found if each.rate is not None]
        if len(done) < 2:
            alone = done[0] if done else next((e for e in found if e.state == "done"), found[0])
            return cls(alone, () if alone.rate is None else (alone.rate,))
        rates = tuple(each.rate for each in done if each.rate is not None)
        interval = interval_over_trainings(rates, [_half_width(each) for each in done])
        flags = tuple(dict.fromkeys(flag for each in done for flag in each.flags))
        low, high = (None, None) if interval is None else (interval.low, interval.high)
        mean = math.fsum(rates) / len(rates)
        return cls(Measured("done", mean, low, high, flags=flags), rates)

    @property
    def count(self) -> int:
        """The number of trainings."""
        return len(self.rates)

    @property
    def deviation(self) -> float | None:
        """The standard deviation over trainings, with n - 1; None for one training."""
        if self.count < 2:
            return None
        if min(self.rates) == max(self.rates):  # their mean may round to another number
            return 0.0
        mean = math.fsum(self.rates) / self.count
        return math.sqrt(math.fsum((each - mean) ** 2 for each in self.rates) / (self.count - 1))

    @property
    def spread(self) -> tuple[float, str] | None:
        """The size that a difference is divided by, with the name of its unit.

        It is the standard deviation over trainings, ``sd``; with one training half the interval
        over the examples, ``hw``.  None if it is 0 or unknown.
        """
        unit, size = "sd", self.deviation
        if self.count < 2:
            unit, size = "hw", _half_width(self.measured)
        return (size, unit) if size else None

    def distance(self, value: float, *, judged_by: str) -> float | None:
        """Returns how far a number is from the mean, or from the range; None without a rate."""
        if not self.rates or self.measured.rate is None:
            return None
        if judged_by == "range":
            return max(0.0, min(self.rates) - value, value - max(self.rates))
        return abs(self.measured.rate - value)

    def spread_cell(self, *, clean: bool = False) -> TableCell:
        """Returns standard deviation and range over trainings in per cent; empty for one."""
        if self.deviation is None:
            return TableCell("")
        low, high = min(self.rates), max(self.rates)
        places = max(decimals_of(each, clean=clean) for each in (low, high, self.measured.rate))
        ends = f"{100 * low:.{places}f}–{100 * high:.{places}f}"
        text = f"±{100 * self.deviation:.{max(places, 2 if clean else 1)}f} [{ends}]"
        return TableCell(text, value=100 * self.deviation)

    def difference_cell(self, value: float) -> TableCell:
        """Returns the difference from a number in units of the spread, such as ``+2.1 sd``."""
        if self.spread is None or self.measured.rate is None:
            return NOTHING
        size, unit = self.spread
        difference = round((self.measured.rate - value) / size, 1)
        sign = "+" if difference > 0 else "−" if difference < 0 else ""
        return TableCell(f"{sign}{abs(difference):.1f} {unit}", value=difference)


def _half_width(measured: Measured) -> float | None:
    if measured.low is None or measured.high is None:
        return None
    return (measured.high - measured.low) / 2

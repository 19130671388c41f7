"""The rows of ``published.csv``: published numbers with what was measured, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.records.flags import kinds_text
from gibbon.records.record import Record
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.published_numbers.over_trainings import OverTrainings
from gibbon.report.content.published_numbers.verdicts import verdict
from gibbon.specs.base import EpsilonField
from gibbon.specs.published import MeasureName, PublishedRow


class PublishedResult(Record):
    """A published number under one of its attacks: a row of ``published.csv``.

    ``measured`` is the mean over the ``trainings``, with the ends of its 95 % interval, and
    ``deviation``, ``lowest`` and ``highest`` are the spread over them.  ``points`` is measured
    minus published in percentage points, and ``spreads`` the same in units of ``spread_unit``:
    ``sd``, the standard deviation over trainings, or ``hw``, half the interval if there is one
    training.  ``verdict`` is that of the row, and ``verdict_attack`` the attack that reproduced it;
    both are equal in all rows of one published number.  ``flags`` holds the kinds of the flags that
    affect the measured one, with ``;`` between them.
    """

    id: str
    section: str
    dataset: str
    model: str
    target: str
    compared_with: str
    measure: MeasureName
    attack: str
    epsilon: EpsilonField
    published: float | None
    tolerance: float | None
    judged_by: str
    state: str
    measured: float | None
    measured_low: float | None
    measured_high: float | None
    trainings: int
    deviation: float | None
    lowest: float | None
    highest: float | None
    points: float | None
    spreads: float | None
    spread_unit: str
    verdict: str
    verdict_attack: str
    why: str
    flags: str


def published_results(results: RunLookup) -> Iterator[PublishedResult]:
    """Yields the rows of a run, in the order of the suite and of each row's attacks."""
    for row in results.record.suite.published:
        found = verdict(row, results)
        for attack in row.attack:
            yield _result(row, attack, OverTrainings.of(row, results, attack)).model_copy(
                update={}
                if found is None
                else {"verdict": found.word, "verdict_attack": found.attack, "why": found.why}
            )


def _result(row: PublishedRow, attack: str, found: OverTrainings) -> PublishedResult:
    measured, published = found.measured, row.value
    known = measured.rate is not None and published is not None
    difference = (measured.rate or 0.0) - (published or 0.0)
    return PublishedResult(
        id=row.id or "",
        section=row.section,
        dataset=row.dataset,
        model=row.model,
        target=row.target or "",
        compared_with=row.compared_with or "",
        measure=row.measure,
        attack=attack,
        epsilon=row.epsilon,
        published=published,
        tolerance=row.tolerance,
        judged_by=row.judged_by,
        state=measured.state,
        measured=measured.rate,
        measured_low=measured.low,
        measured_high=measured.high,
        trainings=found.count,
        deviation=found.deviation,
        lowest=min(found.rates, default=None),
        highest=max(found.rates, default=None),
        points=100 * difference if known else None,
        spreads=difference / found.spread[0] if known and found.spread else None,
        spread_unit=found.spread[1] if known and found.spread else "",
        verdict="",
        verdict_attack="",
        why="",
        flags=kinds_text(measured.flags),
    )

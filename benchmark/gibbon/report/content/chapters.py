"""All tables of a run, made from its stored record alone.

`gibbon.report.content.parts.lookup` looks up the results of the suite's cells in a record; each
module of `gibbon.report.content.tables` makes one kind of `Table` from them; `chapters` puts the
tables in reading order.  A cell that failed is printed as ``failed``, never as a number; a cell of
the suite that the record lacks is printed as ``not run``; a rate of no examples is a dash.
"""

from __future__ import annotations

from collections.abc import Iterable

from gibbon.records.run import RunRecord
from gibbon.report.content.parts.layout import Chapter, ChapterKind
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.published_numbers.claims import CLAIMS
from gibbon.report.content.published_numbers.published import PAPER
from gibbon.report.content.summary.headline import HEADLINE
from gibbon.report.content.tables.attack_comparison import COMPARED
from gibbon.report.content.tables.certified import CERTIFIED
from gibbon.report.content.tables.distances import NEAREST
from gibbon.report.content.tables.error_curves import CURVES
from gibbon.report.content.tables.evaluations import EVALUATIONS
from gibbon.report.content.tables.failures_and_flags import failures_and_flags
from gibbon.report.content.tables.no_class import NO_CLASS
from gibbon.report.content.tables.training_seeds import SEEDS
from gibbon.report.content.tables.transfer import AGREEMENT, TRANSFER
from gibbon.report.content.tables.worst_case import MEMBERS, WORST_CASE

_TABLES = (
    *(PAPER, CLAIMS, EVALUATIONS, COMPARED, CURVES, NEAREST, WORST_CASE),
    *(CERTIFIED, MEMBERS, SEEDS, TRANSFER, AGREEMENT, NO_CLASS),
)


def chapters(record: RunRecord) -> tuple[Chapter, ...]:
    """Returns all tables of a run in reading order; without empty chapters."""
    return _chapters(record, _TABLES)


def report_chapters(record: RunRecord) -> tuple[Chapter, ...]:
    """Returns the chapters of ``tables.md``, with the headline after failures and flags."""
    return _chapters(record, (HEADLINE, *_TABLES))


def _chapters(record: RunRecord, kinds: Iterable[ChapterKind]) -> tuple[Chapter, ...]:
    results, first = RunLookup(record), failures_and_flags(record)
    found = [kind.chapter(results) for kind in kinds]
    start = [] if first.empty else [first]
    return (*start, *(each for each in found if each.tables or each.collapsed))

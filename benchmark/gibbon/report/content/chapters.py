"""All tables of a run, made from its stored record alone.

`gibbon.report.content.lookup` looks up the results of the suite's cells in a record; each function
here makes one kind of `Table` from them; `chapters` puts the tables in reading order.  A cell that
failed is printed as ``failed``, never as a number; a cell of the suite that the record lacks is
printed as ``not run``; a rate of no examples is a dash.
"""

from __future__ import annotations

from collections.abc import Iterable

from gibbon.records.run import RunRecord
from gibbon.report.content.attack_comparison import COMPARED
from gibbon.report.content.certified import CERTIFIED
from gibbon.report.content.claims import CLAIMS
from gibbon.report.content.distances import NEAREST
from gibbon.report.content.error_curves import CURVES
from gibbon.report.content.evaluations import EVALUATIONS
from gibbon.report.content.failures_and_flags import failures_and_flags
from gibbon.report.content.headline import HEADLINE
from gibbon.report.content.layout import Chapter, ChapterKind
from gibbon.report.content.lookup import RunLookup
from gibbon.report.content.no_class import NO_CLASS
from gibbon.report.content.published import PAPER
from gibbon.report.content.training_seeds import SEEDS
from gibbon.report.content.transfer import AGREEMENT, TRANSFER
from gibbon.report.content.worst_case import MEMBERS, WORST_CASE

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

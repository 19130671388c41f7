"""The chapters of a report in reading order: trouble first, then the headline, then the rest."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark.records import RunRecord
from benchmark.report.headline import HEADLINE, HEADLINE_NOTES, headline_tables
from benchmark.report.layout import Chapter
from benchmark.report.results import Results
from benchmark.report.tables import TROUBLE, chapters


def report_chapters(record: RunRecord) -> tuple[Chapter, ...]:
    """Returns the chapters of ``tables.md`` with the headline among them."""
    return tuple(_with_headline(record))


def _with_headline(record: RunRecord) -> Iterator[Chapter]:
    rest = chapters(record)
    yield from (chapter for chapter in rest if chapter.title == TROUBLE)
    yield Chapter(HEADLINE, tuple(headline_tables(Results(record))), HEADLINE_NOTES)
    yield from (chapter for chapter in rest if chapter.title != TROUBLE)

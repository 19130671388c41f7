"""The chapters of a report: failures and flags, the headline, and all tables."""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.records.run import RunRecord
from gibbon.report.content.chapters import TROUBLE, chapters
from gibbon.report.content.headline import HEADLINE, HEADLINE_NOTES, headline_tables
from gibbon.report.content.layout import Chapter
from gibbon.report.content.lookup import RunLookup


def report_chapters(record: RunRecord) -> tuple[Chapter, ...]:
    """Returns the chapters of ``tables.md``, with the headline after failures and flags."""
    return tuple(_with_headline(record))


def _with_headline(record: RunRecord) -> Iterator[Chapter]:
    rest = chapters(record)
    yield from (chapter for chapter in rest if chapter.title == TROUBLE)
    yield Chapter(HEADLINE, tuple(headline_tables(RunLookup(record))), HEADLINE_NOTES)
    yield from (chapter for chapter in rest if chapter.title != TROUBLE)

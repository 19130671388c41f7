"""The tables of a run as markdown.

The text contains no times, paths, host names or counts of reused cells, so that it is equal for an
interrupted and resumed run and for one without interruption, up to the rounding of confidences and
distances.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tabulate import tabulate

from gibbon.records.run import RunRecord
from gibbon.report.content.chapters import chapters, report_chapters
from gibbon.report.content.layout import Chapter, Table

ALL = 2  # the highest level of columns


def tables_markdown(record: RunRecord) -> str:
    """Returns the content of ``tables.md``."""
    return _document(record, chapters(record))


def report_markdown(record: RunRecord) -> str:
    """Returns ``tables.md`` with the headline after failures and flags."""
    return _document(record, report_chapters(record))


def chapter_markdown(chapter: Chapter, *, level: int = ALL) -> Iterator[str]:
    """Yields the blocks of a chapter: heading, notes, tables with their columns up to a level."""
    yield f"## {escape(chapter.title)}"
    if chapter.notes:
        yield bullets(chapter.notes)
    for table in chapter.tables:
        if table.title != chapter.title:
            yield f"### {heading(table)}"
        yield table_markdown(table, level=level)
        if table.notes:
            yield bullets(table.notes)


def table_markdown(table: Table, *, level: int = ALL) -> str:
    """Returns one table, without its title and notes, with its columns up to a level."""
    shown = [index for index, column in enumerate(table.columns) if column.level <= level]
    columns = [table.columns[index] for index in shown]
    return tabulate(
        [[escape(str(row[index])) for index in shown] for row in table.rows],
        headers=[escape(column.header) for column in columns],
        colalign=[column.align for column in columns] if table.rows else None,
        tablefmt="pipe",
        disable_numparse=True,
    )


def heading(table: Table) -> str:
    """Returns the title of a table as a heading, with a capital first letter."""
    return escape(table.title[0].upper() + table.title[1:])


def bullets(notes: tuple[str, ...]) -> str:
    """Returns notes as a list."""
    return "\n".join(f"- {escape(note)}" for note in notes)


def escape(text: str) -> str:
    r"""Returns text on one line, with special characters of markdown and HTML escaped.

    >>> print(escape("a|b <c> d*e"))
    a\|b \<c> d\*e
    """
    return re.sub(r"([\\|<*])", r"\\\1", " ".join(text.split()))


def _document(record: RunRecord, content: Iterable[Chapter]) -> str:
    suite = record.suite
    parts = [f"# {escape(suite.title or suite.name)}"]
    if suite.description:
        parts.append(escape(suite.description))
    parts.extend(part for chapter in content for part in chapter_markdown(chapter))
    parts.extend(_provenance(record))
    return "\n\n".join(parts) + "\n"


def _provenance(record: RunRecord) -> Iterator[str]:
    provenance = record.provenance
    limit = "all" if provenance.limit is None else f"the first {provenance.limit:,} of the sample"
    changed = {True: ", with uncommitted changes", False: "", None: ""}[provenance.dirty]
    commit = f"commit `{provenance.commit}`{changed}" if provenance.commit else "commit not known"
    libraries = ", ".join(
        f"{name} {version}" for name, version in sorted(provenance.libraries.items())
    )
    yield "## Where these numbers come from"
    lines = [
        f"Suite `{record.suite.name}`, seed {record.suite.seed}; examples: {limit}",
        f"Gibbon {provenance.gibbon}, {commit}; Python {provenance.python}",
        f"Libraries: {escape(libraries)}" if libraries else "",
        *(
            f"Dataset `{name}`: {_kind(name, each.name)}{each.examples:,} of {each.of:,} examples, "
            f"digest `{each.digest}`"
            for name, each in record.dataset_cards.items()
        ),
        *(
            f"Model `{each.name}`: {_kind(each.name, each.model)}{each.parameters:,} parameters, "
            f"outputs {escape(each.outputs)}, weights `{each.weights_digest}`, with its "
            f"predictions `{each.digest}`{''.join(f'; {escape(note)}' for note in each.notes)}"
            for each in record.models
        ),
        "Device, times and passes: run.json",
    ]
    yield "\n".join(f"- {line}" for line in lines if line)


def _kind(name: str, model: str) -> str:
    return "" if name == model else f"`{model}`, "

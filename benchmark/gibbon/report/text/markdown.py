"""The tables of a run as markdown.

The text contains no times, paths, host names or counts of reused cells, so that it is equal for an
interrupted and resumed run and for one without interruption, up to the rounding of confidences and
distances.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tabulate import tabulate

from gibbon.core.plain_text import printable
from gibbon.records.flag_kinds import MEANINGS
from gibbon.records.run import RunRecord
from gibbon.report.content.chapters import chapters, report_chapters
from gibbon.report.content.parts.flag_groups import FlagGroup, FlagLine, times
from gibbon.report.content.parts.layout import Chapter, Table
from gibbon.report.content.summary.opening import Opening, opening
from gibbon.report.html.table_view import code_and_text

ALL = 2  # the highest level of columns
FOLDED_FROM = 4  # lines of a group of flags


def tables_markdown(record: RunRecord) -> str:
    """Returns the content of ``tables.md``."""
    return _document(record, chapters(record))


def report_markdown(record: RunRecord) -> str:
    """Returns ``tables.md`` with the headline after failures and flags."""
    return _document(record, report_chapters(record))


def chapter_markdown(chapter: Chapter, *, level: int = ALL) -> Iterator[str]:
    """Yields the blocks of a chapter: heading, notes, tables with their columns up to a level."""
    yield f"## {escape(chapter.title)}"
    for group in chapter.flags:
        yield from _flags(group)
    if chapter.notes:
        yield bullets(chapter.notes)
    for table in chapter.tables:
        if table.title != chapter.title:
            yield f"### {heading(table)}"
        yield table_markdown(table, level=level)
        if table.notes:
            yield bullets(table.notes)


def opening_markdown(first: Opening) -> str:
    """Returns the first lines of a report as a block quote, with one line for each reason."""
    text = f" {escape_prose(first.text)}" if first.text else ""
    lines = [f"**{escape(first.title)}**:{text}" if text else f"**{escape(first.title)}**"]
    lines += ["", *(_reason(group) for group in first.reasons)] if first.reasons else []
    for note in first.notes:
        lines += ["", escape_prose(note)]
    return "\n".join(f"> {line}".rstrip() for line in lines)


def _reason(group: FlagGroup) -> str:
    return f"- `{group.kind}`: {escape_prose(group.summary)}. {escape_prose(group.advice)}".rstrip()


def _flags(group: FlagGroup) -> Iterator[str]:
    """Yields the flags of one kind: a line about the kind, then what was seen, folded if long."""
    status = escape(group.status.capitalize())
    meaning = "" if group.accepted else f" ({MEANINGS[group.severity]})"
    yield f"**{status}**{meaning}: `{group.kind}`, {escape_prose(group.summary)}."
    seen = "\n".join(line for each in group.lines for line in _seen(each))
    if sum(len(each.subjects) for each in group.lines) < FOLDED_FROM:
        yield seen
    else:
        yield f"<details><summary>Seen {times(group.count)}</summary>"
        yield seen
        yield "</details>"
    yield from _settling(group, indent="")
    yield f"More: `gibbon explain {group.kind}`"


def _seen(line: FlagLine) -> Iterator[str]:
    yield f"- {escape_prose(line.text)}"
    for block in _settling(line, indent="  "):
        yield ""
        yield block


def _settling(of: FlagGroup | FlagLine, *, indent: str) -> Iterator[str]:
    """Yields advice, suite lines and source, as blocks."""
    if of.advice:
        yield f"{indent}What to do: {escape_prose(of.advice)}"
    if of.suite:
        longest = max((len(run) for run in re.findall(r"`+", of.suite)), default=0)
        fence = "`" * max(3, longest + 1)
        yield "\n".join(
            f"{indent}{line}" for line in (f"{fence}toml", *of.suite.splitlines(), fence)
        )
    if of.source:
        yield f"{indent}Source: {escape_prose(of.source)}."


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
    return _escaped(printable(text))


def escape_text(text: str) -> str:
    r"""Returns text on one line of which nothing is markup: titles and descriptions of suites.

    >>> print(escape_text("# ![a](https://b/c.png) `d` _e_"))
    \# !\[a\](https://b/c.png) \`d\` \_e\_
    """
    line = re.sub(r"([\[\]_~$`])", r"\\\1", _escaped(printable(text), inert=False))
    return re.sub(r"^([#>+=-]|\d+(?=[.)]))", r"\\\1", line)


def code(text: str) -> str:
    """Returns text on one line as a code span, whatever backticks it holds.

    >>> print(code("a"), code("b `c`"))
    `a` `` b `c` ``
    """
    line = printable(text)
    if "`" not in line:
        return f"`{line}`"
    fence = "`" * (max(len(run) for run in re.findall(r"`+", line)) + 1)
    return f"{fence} {line} {fence}"


def _escaped(line: str, *, inert: bool = True) -> str:
    """Escapes special characters; with ``inert``, also fences of code, links and pictures."""
    line = re.sub(r"([\\|<*])", r"\\\1", line)
    if not inert:
        return line
    line = re.sub(r"`{3,}|~{3,}", lambda found: "".join(f"\\{each}" for each in found[0]), line)
    return line.replace("![", r"!\[").replace("](", r"]\(").replace("][", r"]\[")


def escape_prose(text: str) -> str:
    r"""Returns text on one line of which nothing is a link, emphasis, a picture or a formula.

    >>> print(escape_prose("![a](b) __c__ $d$ `e` <f>"))
    !\[a\](b) \_\_c\_\_ \$d\$ `e` \<f>
    """
    return "".join(
        f"`{part}`" if code else re.sub(r"([\[\]_~$])", r"\\\1", _escaped(part, inert=False))
        for code, part in code_and_text(printable(text))
    )


def _document(record: RunRecord, content: Iterable[Chapter]) -> str:
    suite = record.suite
    parts = [f"# {escape_text(suite.title or suite.name)}", opening_markdown(opening(record))]
    if suite.description:
        parts.append(escape_text(suite.description))
    parts.extend(part for chapter in content for part in chapter_markdown(chapter))
    parts.extend(_provenance(record))
    return "\n\n".join(parts) + "\n"


def _provenance(record: RunRecord) -> Iterator[str]:
    provenance = record.provenance
    limit = "all" if provenance.limit is None else f"the first {provenance.limit:,} of the sample"
    changed = {True: ", with uncommitted changes", False: "", None: ""}[provenance.dirty]
    commit = (
        f"commit {code(provenance.commit)}{changed}" if provenance.commit else "commit not known"
    )
    libraries = ", ".join(
        f"{name} {version}" for name, version in sorted(provenance.libraries.items())
    )
    yield "## Where these numbers come from"
    lines = [
        f"Suite {code(record.suite.name)}, seed {record.suite.seed}; examples: {limit}",
        f"Gibbon {escape(provenance.gibbon)}, {commit}; Python {escape(provenance.python)}",
        f"Libraries: {escape(libraries)}" if libraries else "",
        *(
            f"Dataset {code(name)}: {_kind(name, each.name)}{each.examples:,} of {each.of:,} "
            f"examples, digest {code(each.digest)}"
            for name, each in record.dataset_cards.items()
        ),
        *(
            f"Model {code(each.name)}: {_kind(each.name, each.model)}{each.parameters:,} "
            f"parameters, outputs {escape(each.outputs)}, weights {code(each.weights_digest)}, "
            f"with its predictions {code(each.digest)}"
            f"{''.join(f'; {escape(note)}' for note in each.notes)}"
            for each in record.models
        ),
        "Device, times and passes: run.json",
    ]
    yield "\n".join(f"- {line}" for line in lines if line)


def _kind(name: str, model: str) -> str:
    return "" if name == model else f"{code(model)}, "

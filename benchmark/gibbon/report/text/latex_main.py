r"""The main table of a run as LaTeX with booktabs: one ``table`` with a caption and a label."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from gibbon.records.run import RunRecord
from gibbon.report.content.parts.number_format import interval, percent_number, state_cell
from gibbon.report.content.tables.main_table import (
    MainCell,
    MainColumn,
    MainTable,
    MainTableChoice,
    main_table,
)
from gibbon.report.text.latex import AFTER, BEFORE, escape, label_of

_WIDE: Final = 8  # columns of numbers that fit into a line in footnotesize


def main_table_latex(record: RunRecord, choice: MainTableChoice) -> str:
    r"""Returns the main table as a document that compiles alone, and by ``\input`` in a paper.

    Raises `UnknownNameError` or `SpecError`, as `main_table` does.
    """
    table = main_table(record, choice)
    label = f"tab:{label_of(record.suite.name)}-main"
    return "\n".join([BEFORE, table_of_models(table, label=label), AFTER])


def table_of_models(table: MainTable, *, label: str) -> str:
    """Returns the table alone.  With many columns, its rows are the attacks and not the models."""
    turned = len(table.columns) > _WIDE and len(table.rows) <= _WIDE
    width = len(table.rows) if turned else len(table.columns)
    lines = list(_by_attack(table) if turned else _by_model(table))
    return "\n".join(
        [
            r"\begin{table}[!htbp]",
            rf"\centering\{'footnotesize' if width <= _WIDE else 'scriptsize'}",
            rf"\setlength{{\tabcolsep}}{{{3.5 if width <= _WIDE else 2}pt}}",
            f"\\caption{{{' '.join(map(escape, table.caption))}}}",
            f"\\label{{{label}}}",
            f"\\begin{{tabular}}{{l{'r' * width}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _by_model(table: MainTable) -> Iterator[str]:
    yield from _heads(table)
    yield r"\midrule"
    datasets = len({row.dataset for row in table.rows})
    groups = groupby(table.rows, key=lambda row: row.dataset)
    for number, (dataset, rows) in enumerate(groups):
        if datasets > 1:
            if number:
                yield r"\addlinespace"
            yield rf"\multicolumn{{{len(table.columns) + 1}}}{{l}}{{\emph{{{escape(dataset)}}}}} \\"
        for row in rows:
            cells = [escape(row.model), *map(_cell, row.cells)]
            yield " & ".join(cells) + r" \\[2pt]"


def _heads(table: MainTable) -> Iterator[str]:
    """Yields a line of the measures above their columns, if there are several, and of attacks."""
    groups = [
        (measure, len(list(columns)))
        for measure, columns in groupby(table.columns, key=lambda each: each.measure)
    ]
    grouped = [measure.of != "model" and length > 1 for measure, length in groups]
    if any(grouped):
        heads, rules, at = [""], [], 2
        for (measure, length), shown in zip(groups, grouped, strict=True):
            title = escape(measure.title) if shown else ""
            heads.append(rf"\multicolumn{{{length}}}{{c}}{{{title}}}")
            if shown:
                rules.append(rf"\cmidrule(lr){{{at}-{at + length - 1}}}")
            at += length
        yield " & ".join(heads) + r" \\"
        yield "".join(rules)
    names = [_head(column, alone=not any(grouped)) for column in table.columns]
    yield " & ".join(["Model", *names]) + r" \\"


def _head(column: MainColumn, *, alone: bool) -> str:
    if column.measure.of == "model":
        return escape(column.measure.title)
    lines = [escape(column.attack or column.measure.title), _epsilon(column)]
    lines += [escape(column.distinction)] if column.distinction else []
    if alone and column.attack and column.measure.name != "robust-accuracy":
        lines.insert(0, escape(column.measure.title))
    return r"\shortstack[r]{" + r" \\ ".join(lines) + "}"


def _epsilon(column: MainColumn) -> str:
    return escape(f"ε = {column.epsilon}")


def _by_attack(table: MainTable) -> Iterator[str]:
    several = len({row.dataset for row in table.rows}) > 1
    names = [
        r"\shortstack[r]{" + rf"{escape(row.model)} \\ {escape(row.dataset)}" + "}"
        if several
        else escape(row.model)
        for row in table.rows
    ]
    yield " & ".join(["Attack", *names]) + r" \\"
    yield r"\midrule"
    columns = list(enumerate(table.columns))
    for number, (measure, found) in enumerate(groupby(columns, key=lambda each: each[1].measure)):
        if number:
            yield r"\addlinespace"
        for at, column in found:
            name = column.attack or measure.title
            under = f", {_epsilon(column)}" if column.epsilon is not None else ""
            under += f", {escape(column.distinction)}" if column.distinction else ""
            more = "" if measure.name == "robust-accuracy" else f" ({measure.title.lower()})"
            head = escape(name + (more if column.attack else "")) + under
            yield " & ".join([head, *(_cell(row.cells[at]) for row in table.rows)]) + r" \\[2pt]"


def _cell(cell: MainCell) -> str:
    """Returns a number without its percent sign, bold if it is the best, above its interval."""
    measured = cell.measured
    if measured.rate is None:
        return "--" if measured.state != "failed" else escape(str(state_cell(measured.state)))
    number = escape(percent_number(measured.rate))
    number = rf"\textbf{{{number}}}" if cell.best else number
    number += rf"\,{escape(cell.mark)}" if cell.mark else ""
    if measured.low is None or measured.high is None:
        return number
    ends = interval(measured).text
    return rf"\shortstack[r]{{{number} \\ {{\tiny {escape(ends)}}}}}"

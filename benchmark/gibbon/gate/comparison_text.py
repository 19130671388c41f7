"""A comparison with a baseline as text: table, markdown and sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gibbon.gate.baseline import Key
from gibbon.gate.compare import BAD, CHANGES, Compared, Comparison, count_text
from gibbon.report.content.layout import NOTHING, Column, Table, TableCell, cells, columns
from gibbon.report.text.markdown import bullets, escape, table_markdown

QUIET = len(CHANGES)  # the place in the table of unchanged measures that need no sentence


def comparison_table(comparison: Comparison) -> Table:
    """Returns the comparison as a table, with regressions first and unchanged measures last."""
    return _table(comparison, sorted(comparison.measures, key=_rank))


def comparison_markdown(comparison: Comparison) -> str:
    """Returns the comparison as markdown: the conclusion, the reasons and a table.

    Unchanged measures are folded.
    """
    word = "passed" if comparison.passed else "failed"
    parts = [f"## Robustness gate: {word}", f"{escape(conclusion(comparison))}."]
    if reasons := sentences(comparison):
        parts.append(bullets(tuple(reasons)))
    ranked = sorted(comparison.measures, key=_rank)
    first = sum(_rank(each) != QUIET for each in ranked)
    changed, unchanged = ranked[:first], ranked[first:]
    if changed:
        parts.append(table_markdown(_table(comparison, changed)))
    if unchanged:
        # The blank lines around it are what makes GitHub read the table as markdown.
        parts += [
            f"<details><summary>{count_text(len(unchanged), 'measure')} unchanged</summary>",
            table_markdown(_table(comparison, unchanged)),
            "</details>",
        ]
    parts.append(bullets(_table(comparison, []).notes))
    return "\n\n".join(parts) + "\n"


def conclusion(comparison: Comparison) -> str:
    """Returns the number of measures of each verdict, as one line."""
    counts = Counter(each.verdict for each in comparison.measures)
    found = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in CHANGES if counts[verdict])
    return f"{count_text(len(comparison.measures), 'measure')}: {found}"


def sentences(comparison: Comparison) -> list[str]:
    """Returns a sentence for each measure that needs one.

    These are measures that regressed or are missing, and measures that are worse by more than
    allowed but were made on too few examples to be significant.
    """
    ranked = sorted(comparison.measures, key=_rank)
    return [sentence(each) for each in ranked if each.verdict in BAD or _undecided(each)]


def _rank(each: Compared) -> int:
    """Returns a measure's place in the table; unchanged measures without a reason are last."""
    if each.verdict == "unchanged" and not _undecided(each):
        return QUIET
    return CHANGES.index(each.verdict)


def _undecided(each: Compared) -> bool:
    return each.verdict == "unchanged" and bool(each.reason)


def _table(comparison: Comparison, measures: Iterable[Compared]) -> Table:
    return Table(
        f"{comparison.new} against {comparison.old}",
        (
            Column("Verdict", "left"),
            Column("Dataset", "left", 1),
            *columns("Model", "Attack", align="left"),
            Column("ε"),
            # In a narrow table the attack, or the arrow between two models, shows the measure.
            Column("Error", "left", 1),
            *columns("Old %", "New %", "Δ points"),
            *columns("Allowed", "Adjusted p", level=1),
            *columns("Fixed", "Broken", level=2),
            Column("Examples", level=1),
        ),
        tuple(_row(each) for each in measures),
        (
            "Regressed: worse by more percentage points than allowed, and significantly so at "
            f"{comparison.alpha:g} (McNemar's exact test, two-sided, Holm-adjusted over all "
            "measures compared). Fixed and broken: examples wrong in the old run alone, and in "
            "the new run alone.",
        ),
    )


def _row(each: Compared) -> tuple[TableCell, ...]:
    tested = each.p_value is not None
    key = each.key
    return cells(
        TableCell(each.verdict, f"({each.reason})" if each.reason else ""),
        key.dataset,
        f"{key.model} → {key.target}" if key.target else key.model,
        key.attack,
        str(key.epsilon) if key.measure != "clean_error" else NOTHING,
        key.measure.removesuffix("_error").replace("_", " "),
        _hundredths(each.old),
        _hundredths(each.new),
        _points(each),
        NOTHING if each.limit is None else f"+{each.limit:g}",
        _p_value(each.p_value),
        str(each.fixed) if tested else NOTHING,
        str(each.broken) if tested else NOTHING,
        f"{each.examples:,}" if each.examples else NOTHING,
    )


def measure_name(key: Key) -> str:
    """Returns the name of a measure, without its dataset and source model."""
    words = key.measure.replace("_", " ")
    if key.measure == "clean_error":
        return words
    on = f" on {key.target}" if key.target else ""
    return f"{words}{on} under {key.attack} at epsilon {key.epsilon}"


def sentence(each: Compared) -> str:
    """Returns a sentence on the change of a measure, with its p-value and the limit."""
    # A check in a pytest test uses one name for its dataset and its model.
    names = dict.fromkeys([each.key.dataset, each.key.model])
    place = f"{', '.join(names)}: {measure_name(each.key)}"
    if each.verdict == "missing":
        return f"{place}: missing: {each.reason}"
    if each.verdict == "new":
        return f"{place} is {_percent(each.new)}: not in the baseline"
    change = (
        f"{place} went from {_percent(each.old)} to {_percent(each.new)} ({_points(each)} points, "
        f"{each.limit:g} allowed, adjusted p {_p_value(each.p_value, equals='= ')})"
    )
    if not _undecided(each):
        return change
    return (
        f"{change}: more than allowed, but {count_text(each.examples, 'example')} can't show that "
        "it is more than chance; measure on more"
    )


def _points(each: Compared) -> str:
    return str(NOTHING) if each.points is None else f"{each.points:+.2f}".replace("-", "−")


def _hundredths(rate: float | None) -> str:
    return str(NOTHING) if rate is None else f"{100 * rate:.2f}"


def _percent(rate: float | None) -> str:
    return str(NOTHING) if rate is None else f"{_hundredths(rate)} %"


def _p_value(p_value: float | None, *, equals: str = "") -> str:
    if p_value is None:
        return str(NOTHING)
    return "< 0.0001" if p_value < 1e-4 else f"{equals}{p_value:.4f}"

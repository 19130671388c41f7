"""A comparison with a baseline as text: table, markdown, sentences and JUnit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from gibbon.core.files import write_atomically
from gibbon.gate.baseline import Key
from gibbon.gate.compare import BAD, VERDICTS, Compared, Comparison, _counted
from gibbon.report.content.layout import NOTHING, Cell, Column, Table, cells
from gibbon.report.text.markdown import bullets, escape, table_markdown

QUIET = len(VERDICTS)  # the place in the table of what is unchanged and needs no word


def comparison_table(comparison: Comparison) -> Table:
    """Returns the comparison as a table: what is bad first, what is unchanged last."""
    ranked = sorted(comparison.measures, key=_rank)
    return _table(comparison, ranked)


def comparison_markdown(comparison: Comparison) -> str:
    """Returns the comparison as markdown: how it ended, why, and a table.

    What is unchanged is folded up.
    """
    word = "passed" if comparison.passed else "failed"
    parts = [f"## Robustness gate: {word}", f"{escape(conclusion(comparison))}."]
    if told := sentences(comparison):
        parts.append(bullets(tuple(told)))
    ranked = sorted(comparison.measures, key=_rank)
    plain = [each for each in ranked if _rank(each) == QUIET]
    loud = [each for each in ranked if _rank(each) != QUIET]
    if loud:
        parts.append(table_markdown(_table(comparison, loud)))
    if plain:
        # The blank lines around it are what makes GitHub read the table as markdown.
        parts += [
            f"<details><summary>{_counted(len(plain), 'measure')} unchanged</summary>",
            table_markdown(_table(comparison, plain)),
            "</details>",
        ]
    parts.append(bullets(_table(comparison, []).notes))
    return "\n\n".join(parts) + "\n"


def conclusion(comparison: Comparison) -> str:
    """Returns how a comparison ended, as one line."""
    counts = Counter(each.verdict for each in comparison.measures)
    found = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in VERDICTS if counts[verdict])
    return f"{_counted(len(comparison.measures), 'measure')}: {found}"


def sentences(comparison: Comparison) -> list[str]:
    """Returns a sentence for all that needs one.

    That is what regressed, what is missing, and what is worse by more than allowed although too
    few examples were measured to say so.
    """
    ranked = sorted(comparison.measures, key=_rank)
    return [_sentence(each) for each in ranked if each.verdict in BAD or _undecided(each)]


def write_junit(comparison: Comparison, path: Path) -> None:
    """Writes the comparison as a JUnit report: a test a measure, bad ones as failures.

    Raises `RunFolderError` where it can't be written.
    """
    bad = sum(each.verdict in BAD for each in comparison.measures)
    counts = {
        "name": "gibbon compare",
        "tests": str(len(comparison.measures)),
        "failures": str(bad),
        "errors": "0",
        "time": "0",
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {**counts, "skipped": "0"})
    for each in comparison.measures:
        key = each.key
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"{key.dataset}.{key.model}",
            name=_title(key),
            time="0",
        )
        if each.verdict in BAD:
            failure = ElementTree.SubElement(
                case, "failure", type=each.verdict, message=_sentence(each)
            )
            failure.text = _sentence(each)
        else:
            ElementTree.SubElement(case, "system-out").text = _sentence(each)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    write_atomically(path, text + b"\n")


def _rank(each: Compared) -> int:
    """Returns where a measure stands in the table: what is unchanged and needs no word is last."""
    place = VERDICTS.index(each.verdict)
    return QUIET if each.verdict == "unchanged" and not _undecided(each) else place


def _undecided(each: Compared) -> bool:
    return each.verdict == "unchanged" and bool(each.reason)


def _table(comparison: Comparison, measures: Iterable[Compared]) -> Table:
    return Table(
        f"{comparison.new} against {comparison.old}",
        (
            Column("Verdict", "left"),
            Column("Dataset", "left", 1),
            Column("Model", "left"),
            Column("Attack", "left"),
            Column("ε"),
            # Told by the attack, or the arrow between two models, where there is little room.
            Column("Error", "left", 1),
            Column("Old %"),
            Column("New %"),
            Column("Δ points"),
            Column("Allowed", level=1),
            Column("Adjusted p", level=1),
            Column("Fixed", level=2),
            Column("Broken", level=2),
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


def _row(each: Compared) -> tuple[Cell, ...]:
    tested = each.p_value is not None
    key = each.key
    return cells(
        Cell(each.verdict, f"({each.reason})" if each.reason else ""),
        key.dataset,
        f"{key.model} → {key.target}" if key.target else key.model,
        key.attack,
        str(key.epsilon) if key.measure != "clean_error" else NOTHING,
        key.measure.removesuffix("_error").replace("_", " "),
        _percent(each.old).removesuffix(" %"),
        _percent(each.new).removesuffix(" %"),
        _points(each),
        NOTHING if each.limit is None else f"+{each.limit:g}",
        _p_value(each.p_value),
        str(each.fixed) if tested else NOTHING,
        str(each.broken) if tested else NOTHING,
        f"{each.examples:,}" if each.examples else NOTHING,
    )


def _title(key: Key) -> str:
    """Returns what is measured, without the dataset and the model."""
    words = key.measure.replace("_", " ")
    if key.measure == "clean_error":
        return words
    on = f" on {key.target}" if key.target else ""
    return f"{words}{on} under {key.attack} at epsilon {key.epsilon}"


def _sentence(each: Compared) -> str:
    # A check in a test has one name for its data and its model.
    names = dict.fromkeys([each.key.dataset, each.key.model])
    place = f"{', '.join(names)}: {_title(each.key)}"
    if each.verdict == "missing":
        return f"{place}: missing: {each.reason}"
    if each.verdict == "new":
        return f"{place} is {_percent(each.new)}: not in the baseline"
    told = (
        f"{place} went from {_percent(each.old)} to {_percent(each.new)} ({_points(each)} points, "
        f"{each.limit:g} allowed, adjusted p {_equals(each.p_value)})"
    )
    if not _undecided(each):
        return told
    return (
        f"{told}: more than allowed, but {_counted(each.examples, 'example')} can't show that it "
        "is more than chance; measure on more"
    )


def _points(each: Compared) -> str:
    return NOTHING if each.points is None else f"{each.points:+.2f}".replace("-", "−")


def _percent(rate: float | None) -> str:
    return NOTHING if rate is None else f"{100 * rate:.2f} %"


def _equals(p_value: float | None) -> str:
    text = _p_value(p_value)
    return text if text.startswith("<") else f"= {text}"


def _p_value(p_value: float | None) -> str:
    if p_value is None:
        return NOTHING
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.4f}"

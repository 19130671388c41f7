"""A comparison with a baseline as text: table, markdown and sentences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from gibbon.gate.compare import BAD, CHANGES, Compared, Comparison, count_text
from gibbon.gate.flag_text import (
    flag_lines,
    flag_sentence,
    flags_by_advice,
    group_sentences,
    kinds_in_words,
)
from gibbon.gate.limits import MAX_INCREASE
from gibbon.gate.measures import UNATTACKED_MEASURES, Key
from gibbon.metrics.paired_tests import rounded
from gibbon.records.acceptance import acceptance_text
from gibbon.records.flags import Flag
from gibbon.report.content.parts.layout import NOTHING, Column, Table, TableCell, cells, columns
from gibbon.report.text.markdown import bullets, escape, table_markdown

MANY = 1_000_000_000  # examples: more than any dataset has
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
    if flags := "\n".join(_flag_bullets(comparison)):
        parts += ["### Flags of the new run", flags]
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
    """Returns the number of measures of each verdict, as one line.

    It says so if there are too few examples for a measure that passed.
    """
    counts = Counter(each.verdict for each in comparison.measures)
    found = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in CHANGES if counts[verdict])
    return f"{count_text(len(comparison.measures), 'measure')}: {found}{_too_few(comparison)}"


def _too_few(comparison: Comparison) -> str:
    """Returns the words about measures that could not have shown an increase; empty if all could.

    A measure that regressed has shown it.
    """
    few = [each for each in comparison.inconclusive if each.verdict != "regressed"]
    least = comparison.least_increase
    if not few or least is None:
        return ""
    fewest, allowed = min(each.examples for each in few), few[0].limit or MAX_INCREASE
    needed = max(
        min(least * each.examples / (each.limit or MAX_INCREASE), MANY)
        for each in few
        if each.examples == fewest
    )
    enough = f"about {rounded(math.ceil(needed)):,}" if needed < MANY else f"more than {MANY:,}"
    points = "point is" if allowed == 1 else "points are"
    return (
        f"; inconclusive: {count_text(fewest, 'example')} can show an increase from {least:.1f} "
        f"points on, where {allowed:g} {points} allowed ({enough} would be needed "
        f"for {count_text(len(few), 'measure')})"
    )


def sentences(comparison: Comparison) -> list[str]:
    """Returns a sentence for each measure that needs one.

    These are measures that regressed, are doubtful or are missing, and measures that are worse by
    more than allowed but were made on too few examples to be significant.
    """
    ranked = sorted(comparison.measures, key=_rank)
    return [sentence(each) for each in ranked if each.verdict in BAD or _undecided(each)]


def flag_notes(comparison: Comparison) -> list[str]:
    """Returns lines about the serious flags of the new run, with their advice, and the acceptances.

    First the flags that the old run has not, then those that it has too; then the accepted kinds.
    """
    lines = [line for head, flags in _serious(comparison) for line in flag_lines(head, flags)]
    return [*lines, *_remarks(comparison)]


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
            "Doubtful: not worse, but with a serious flag in the new run that nobody accepted and "
            "that the old run has not.",
        ),
    )


def _row(each: Compared) -> tuple[TableCell, ...]:
    tested = each.p_value is not None
    key = each.key
    return cells(
        TableCell(each.verdict, f"({detail})" if (detail := _detail(each)) else ""),
        key.dataset,
        f"{key.model} → {key.target}" if key.target else key.model,
        key.attack,
        NOTHING if key.measure in UNATTACKED_MEASURES else str(key.epsilon),
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


def _detail(each: Compared) -> str:
    """Returns the reason of a verdict and the kinds of flags, for the table."""
    kinds = {
        "": each.doubts,
        " in both runs": each.known,
        " accepted": each.accepted,
    }
    flags = [f"{kinds_in_words(flags)}{words}" for words, flags in kinds.items() if flags]
    return "; ".join([*([each.reason] if each.reason else []), *flags])


def _serious(comparison: Comparison) -> Iterator[tuple[str, Sequence[Flag]]]:
    """Yields the serious flags that nobody accepted, with the words that introduce them."""
    doubts, known = comparison.doubts, comparison.known
    yield f"serious flag, not in {comparison.old}", doubts
    yield f"serious flag, in {comparison.old} too", known
    shown = {*doubts, *known, *(flag for _, flags in comparison.accepted for flag in flags)}
    others = [flag for flag in comparison.flags if flag.counts and flag not in shown]
    yield "serious flag, on no measure that is compared", others


def _remarks(comparison: Comparison) -> Iterator[str]:
    """Yields lines about what is accepted, and about an old run without flags."""
    for acceptance, flags in comparison.accepted:
        yield acceptance_text(acceptance, flags)
    if comparison.without_flags:
        yield (
            f"{comparison.old} was made by an earlier version of Gibbon, which did not record the "
            "kinds of flags: every serious flag of the new run counts as new"
        )


def _flag_bullets(comparison: Comparison) -> Iterator[str]:
    """Yields the lines of `flag_notes` as a list in markdown, suite lines as code."""
    groups = [
        (head, group) for head, flags in _serious(comparison) for group in flags_by_advice(flags)
    ]
    for head, group in groups:
        for sentence in group_sentences(group):
            yield f"- {escape(f'{head}: {sentence}')}"
        if group[0].advice:
            yield f"  - {escape(group[0].advice)}"
        if suite := group[0].suite.strip():
            code = suite.replace("```", "").splitlines()
            yield from ("", *(f"    {line}".rstrip() for line in ("```toml", *code, "```")), "")
    for remark in _remarks(comparison):
        yield f"- {escape(remark)}"


def measure_name(key: Key) -> str:
    """Returns the name of a measure, without its dataset and source model."""
    words = key.measure.replace("_", " ")
    if key.measure in UNATTACKED_MEASURES:
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
    if each.old is None:
        change = f"{place} is {_percent(each.new)}: not in the baseline"
    else:
        change = (
            f"{place} went from {_percent(each.old)} to {_percent(each.new)} "
            f"({_points(each)} points, {each.limit:g} allowed, adjusted p "
            f"{_p_value(each.p_value, equals='= ')})"
        )
    if each.verdict == "doubtful":
        return f"{change}: doubtful: {'; '.join(_doubts(each))}"
    if not _undecided(each):
        return change
    return (
        f"{change}: more than allowed, but {count_text(each.examples, 'example')} can't show that "
        "it is more than chance; measure on more"
    )


def _doubts(each: Compared) -> Iterable[str]:
    """Returns what makes a measure doubtful, once for all attacks of a worst case.

    The sentence on the measure names its subject already, except the target of a transfer.
    """
    return dict.fromkeys(
        flag_sentence(flag, subject=bool(each.key.target and flag.model == each.key.target))
        for flag in each.doubts
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

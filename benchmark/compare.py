"""One run against a baseline: the regression gate.

Runs are paired by dataset, model, attack, epsilon and example id.  A measure has regressed where it
is worse by more than a stated number of percentage points *and* the difference is significant by
McNemar's exact test, adjusted over all measures that were compared (Holm).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from xml.etree import ElementTree

import numpy as np
from pydantic import Field, ValidationError

from benchmark.baseline import Side, Wrong
from benchmark.errors import RecordError, SpecError
from benchmark.records import write_atomically
from benchmark.report.layout import NOTHING, Cell, Column, Table, cells
from benchmark.report.markdown import bullets, table_markdown
from benchmark.specs import Name, Spec, key_path, parse_toml, read_text
from benchmark.statistics import holm, mcnemar
from benchmark.threat import Epsilon

Verdict = Literal["regressed", "improved", "unchanged", "missing", "new"]
BAD: tuple[Verdict, ...] = ("regressed", "missing")
MAX_INCREASE = 1.0  # percentage points
ALPHA = 0.05

Points = Annotated[float, Field(ge=0, le=100)]


class Limit(Spec):
    """How much worse some measures may become; what is not named matches everything."""

    max_increase: Points
    dataset: Name | None = None
    model: Name | None = None
    attack: Name | None = None

    def covers(self, measured: Wrong) -> bool:
        """Says whether this limit is about a measure."""
        pairs = (
            (self.dataset, measured.dataset),
            (self.model, measured.model),
            (self.attack, measured.attack),
        )
        return all(asked is None or asked == own for asked, own in pairs)


class Limits(Spec):
    """The limits of a comparison: a general one, and those of single models and attacks.

    Of several limits that cover a measure the last one counts.
    """

    max_increase: Points = MAX_INCREASE
    limits: tuple[Limit, ...] = ()

    def of(self, measured: Wrong) -> float:
        """Returns by how many percentage points a measure may increase."""
        fitting = [limit.max_increase for limit in self.limits if limit.covers(measured)]
        return fitting[-1] if fitting else self.max_increase


@dataclass(frozen=True)
class Compared:
    """One measure of two runs.

    Args:
        old, new: errors as fractions of 1, over the ``examples`` that both runs have.
        fixed, broken: examples wrong in the old run alone, and in the new run alone.
        p_value: of McNemar's exact test, adjusted for the number of comparisons.
        limit: percentage points by which the error may increase.
    """

    dataset: str
    model: str
    attack: str
    epsilon: Epsilon
    measure: str
    verdict: Verdict
    examples: int = 0
    old: float | None = None
    new: float | None = None
    fixed: int = 0
    broken: int = 0
    p_value: float | None = None
    limit: float | None = None
    reason: str = ""

    @property
    def points(self) -> float | None:
        """The difference in percentage points; positive is worse."""
        return None if self.old is None or self.new is None else 100 * (self.new - self.old)


@dataclass(frozen=True)
class Comparison:
    """Two runs compared, measure by measure."""

    old: str
    new: str
    alpha: float
    measures: tuple[Compared, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing regressed and nothing is missing."""
        return not any(each.verdict in BAD for each in self.measures)


def compare(
    old: Side, new: Side, *, limits: Limits | None = None, alpha: float = ALPHA
) -> Comparison:
    """Returns how a new run compares with an old one.

    Raises `RecordError` where a dataset of one name has another content in the two runs.
    """
    _check_data(old, new)
    allowed = limits if limits is not None else Limits()
    olds = {cell.key: cell for cell in old.cells}
    news = {cell.key: cell for cell in new.cells}
    reasons = {key: _incomparable(cell, news.get(key), new) for key, cell in olds.items()}
    counted = [_count(cell, news[key], allowed) for key, cell in olds.items() if not reasons[key]]
    tested = [each.p_value for each in counted if each.p_value is not None]
    judged = [
        _judge(each, p_value, alpha) for each, p_value in zip(counted, holm(tested), strict=True)
    ]
    missing = [_single(cell, "missing", reasons[key]) for key, cell in olds.items() if reasons[key]]
    added = [_single(cell, "new") for key, cell in news.items() if key not in olds]
    if not olds:
        raise RecordError(f"{old.name}: holds nothing to compare with")
    return Comparison(old.name, new.name, alpha, (*judged, *missing, *added))


def read_limits(path: Path) -> Limits:
    """Returns the limits in a TOML file.  Raises `SpecError`."""
    try:
        return Limits.model_validate(parse_toml(read_text(path), where=str(path)))
    except ValidationError as error:
        lines = [f"{key_path(list(each['loc']))}: {each['msg']}" for each in error.errors()]
        raise SpecError("; ".join(lines), where=str(path)) from error


def limits_beside(baseline: Path) -> Path | None:
    """Returns the file of limits that stands beside a baseline, if there is one.

    ``limits.toml`` inside a run's folder; ``NAME.toml`` beside a baseline file ``NAME.json``.
    """
    place = baseline / "limits.toml" if baseline.is_dir() else baseline.with_suffix(".toml")
    return place if place.is_file() else None


def comparison_table(comparison: Comparison) -> Table:
    """Returns the comparison as a table, what is bad first."""
    ranked = sorted(comparison.measures, key=lambda each: each.verdict not in BAD)
    return Table(
        f"{comparison.new} against {comparison.old}",
        (
            Column("Verdict", "left"),
            Column("Dataset", "left", 1),
            Column("Model", "left"),
            Column("Attack", "left"),
            Column("ε"),
            Column("Measure", "left", 2),
            Column("Old"),
            Column("New"),
            Column("Δ points"),
            Column("Allowed", level=1),
            Column("Adjusted p", level=1),
            Column("Fixed", level=2),
            Column("Broken", level=2),
            Column("Examples", level=1),
        ),
        tuple(_row(each) for each in ranked),
        (
            "Regressed: worse by more percentage points than allowed, and significantly so at "
            f"{comparison.alpha:g} (McNemar's exact test, two-sided, Holm-adjusted over all "
            "measures compared). Fixed and broken: examples wrong in the old run alone, and in "
            "the new run alone.",
        ),
    )


def comparison_markdown(comparison: Comparison) -> str:
    """Returns the comparison as markdown, with a heading that says how it ended."""
    table = comparison_table(comparison)
    word = "passed" if comparison.passed else "failed"
    return f"## Robustness gate: {word}\n\n{table_markdown(table)}\n\n{bullets(table.notes)}\n"


def write_junit(comparison: Comparison, path: Path) -> None:
    """Writes the comparison as a JUnit report: a test a measure, bad ones as failures."""
    bad = [each for each in comparison.measures if each.verdict in BAD]
    suite = ElementTree.Element(
        "testsuite",
        name="gibbon compare",
        tests=str(len(comparison.measures)),
        failures=str(len(bad)),
        errors="0",
    )
    for each in comparison.measures:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"{each.dataset}.{each.model}",
            name=f"{each.attack} epsilon {each.epsilon} {each.measure}",
        )
        if each.verdict in BAD:
            failure = ElementTree.SubElement(case, "failure", message=_sentence(each))
            failure.text = _sentence(each)
    ElementTree.indent(suite)
    write_atomically(path, ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))


def _check_data(old: Side, new: Side) -> None:
    for name, digest in old.datasets.items():
        if new.datasets.get(name, digest) != digest:
            raise RecordError(
                f"dataset {name!r} has another content in {new.name} than in {old.name} "
                f"({new.datasets[name][:12]}… and {digest[:12]}…): runs on different data can't "
                "be compared; save a new baseline"
            )


def _count(old: Wrong, new: Wrong, limits: Limits) -> Compared:
    common, of_old, of_new = np.intersect1d(old.example_id, new.example_id, return_indices=True)
    before, after = old.wrong[of_old], new.wrong[of_new]
    fixed = int(np.count_nonzero(before & ~after))
    broken = int(np.count_nonzero(after & ~before))
    return Compared(
        old.dataset,
        old.model,
        old.attack,
        old.epsilon,
        old.measure,
        "unchanged",
        examples=len(common),
        old=float(np.mean(before)),
        new=float(np.mean(after)),
        fixed=fixed,
        broken=broken,
        p_value=mcnemar(fixed, broken),
        limit=limits.of(old),
    )


def _judge(counted: Compared, p_value: float, alpha: float) -> Compared:
    # Compared in whole examples, so that rounding decides nothing.
    increase = counted.broken - counted.fixed
    limit = (counted.limit or 0.0) / 100 * counted.examples
    verdict: Verdict = "unchanged"
    if p_value < alpha and increase > limit + 1e-9:
        verdict = "regressed"
    elif p_value < alpha and increase < 0:
        verdict = "improved"
    return Compared(**{**counted.__dict__, "verdict": verdict, "p_value": p_value})


def _incomparable(old: Wrong, new: Wrong | None, run: Side) -> str:
    """Returns why the new run has nothing that may stand against a measure, or an empty string.

    A gate must not be passed by attacking less: with other parameters, on fewer examples, or with
    candidates that count for nothing.
    """
    if new is None:
        return "failed in the new run" if old.key in run.failed else "not in the new run"
    if new.made_with != old.made_with:
        return f"made with {new.made_with}, not with {old.made_with}"
    common = np.isin(old.example_id, new.example_id)
    if not common.all():
        return f"only {np.count_nonzero(common):,} of {len(common):,} examples"
    if new.invalid > old.invalid:
        return f"{new.invalid:,} candidates out of budget"
    return ""


def _single(cell: Wrong, verdict: Verdict, reason: str = "") -> Compared:
    error = float(np.mean(cell.wrong))
    old, new = (error, None) if verdict == "missing" else (None, error)
    return Compared(
        cell.dataset,
        cell.model,
        cell.attack,
        cell.epsilon,
        cell.measure,
        verdict,
        examples=len(cell.wrong),
        old=old,
        new=new,
        reason=reason,
    )


def _row(each: Compared) -> tuple[Cell, ...]:
    tested = each.p_value is not None
    return cells(
        each.verdict + (f" ({each.reason})" if each.reason else ""),
        each.dataset,
        each.model,
        each.attack,
        str(each.epsilon) if each.measure != "clean_error" else NOTHING,
        each.measure.replace("_", " "),
        _percent(each.old),
        _percent(each.new),
        NOTHING if each.points is None else f"{each.points:+.2f}".replace("-", "−"),
        NOTHING if each.limit is None else f"+{each.limit:g}",
        _p_value(each.p_value),
        str(each.fixed) if tested else NOTHING,
        str(each.broken) if tested else NOTHING,
        f"{each.examples:,}",
    )


def _sentence(each: Compared) -> str:
    place = f"{each.dataset}, {each.model}, {each.attack} at epsilon {each.epsilon}"
    if each.verdict == "missing":
        return f"{place}: missing: {each.reason}"
    return (
        f"{place}: {each.measure.replace('_', ' ')} went from {_percent(each.old)} to "
        f"{_percent(each.new)} ({each.points:+.2f} points, {each.limit:g} allowed, adjusted "
        f"p = {_p_value(each.p_value)})"
    )


def _percent(rate: float | None) -> str:
    return NOTHING if rate is None else f"{100 * rate:.2f} %"


def _p_value(p_value: float | None) -> str:
    if p_value is None:
        return NOTHING
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.4f}"


def bad_sentences(measures: Iterable[Compared]) -> list[str]:
    """Returns a sentence for everything that regressed or is missing."""
    return [_sentence(each) for each in measures if each.verdict in BAD]

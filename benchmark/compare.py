"""One run against a baseline: the regression gate.

Runs are paired by dataset, model, attack, epsilon and example id.  A measure has regressed where it
is worse by more than a stated number of percentage points *and* the difference is significant by
McNemar's exact test, adjusted over all measures that were compared (Holm).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal
from xml.etree import ElementTree

import numpy as np
from pydantic import Field, ValidationError

from benchmark.baseline import Key, Measure, Side, Wrong
from benchmark.errors import RecordError, SpecError, suggest
from benchmark.records import write_atomically
from benchmark.report.layout import NOTHING, Cell, Column, Table, cells
from benchmark.report.markdown import bullets, escape, table_markdown
from benchmark.specs import WORDS, Name, Spec, key_path, parse_toml, read_text
from benchmark.statistics import holm, mcnemar

Verdict = Literal["regressed", "improved", "unchanged", "missing", "new"]
VERDICTS: tuple[Verdict, ...] = ("regressed", "missing", "improved", "new", "unchanged")
BAD: tuple[Verdict, ...] = ("regressed", "missing")
QUIET = len(VERDICTS)  # the place in the table of what is unchanged and needs no word
MAX_INCREASE = 1.0  # percentage points
ALPHA = 0.05

Points = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Limit(Spec):
    """How much worse some measures may become; what is not named matches everything.

    Of a transfer ``model`` is the source and ``target`` the model that is scored.
    """

    max_increase: Points
    dataset: Name | None = None
    model: Name | None = None
    attack: Name | None = None
    measure: Measure | None = None
    target: Name | None = None

    def covers(self, measured: Key) -> bool:
        """Says whether this limit is about a measure."""
        return all(
            asked is None or asked == getattr(measured, name) for name, asked in self.named.items()
        )

    @property
    def named(self) -> dict[str, str]:
        """What this limit names, by key."""
        keys = ("dataset", "model", "attack", "measure", "target")
        return {key: asked for key in keys if (asked := getattr(self, key)) is not None}


class Limits(Spec):
    """The limits of a comparison: a general one, and those of single measures.

    Of several limits that cover a measure the last one counts.
    """

    max_increase: Points = MAX_INCREASE
    limits: tuple[Limit, ...] = ()

    def allowing(self, points: float) -> Limits:
        """Returns these with another general limit.  Raises `SpecError`."""
        if not 0 <= points <= 100:
            raise SpecError(f"max_increase must be 0 to 100 percentage points, got {points:g}")
        return self.model_copy(update={"max_increase": points})

    def of(self, measured: Key) -> float:
        """Returns by how many percentage points a measure may increase."""
        fitting = [limit.max_increase for limit in self.limits if limit.covers(measured)]
        return fitting[-1] if fitting else self.max_increase

    def check(self, known: Iterable[Key], *, where: str = "") -> None:
        """Raises `SpecError` where a limit covers nothing: a name in it must be misspelt."""
        keys = list(known)
        for place, limit in enumerate(self.limits):
            if any(limit.covers(key) for key in keys):
                continue
            problem = "covers no measure"
            for name, asked in limit.named.items():
                there = {getattr(key, name) for key in keys} - {""}
                if asked not in there:
                    problem = f"{name}: no {name} {asked!r} is compared{suggest(asked, there)}"
                    break
            raise SpecError(f"limits[{place}]: {problem}", where=where)


@dataclass(frozen=True)
class Compared:
    """One measure of two runs.

    Args:
        old, new: errors as fractions of 1, over the ``examples`` that both runs have.
        fixed, broken: examples wrong in the old run alone, and in the new run alone.
        p_value: of McNemar's exact test, adjusted for the number of comparisons.
        limit: percentage points by which the error may increase.
        reason: why the verdict is not what the errors alone would say.
    """

    key: Key
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
    old: Side, new: Side, *, limits: Limits | None = None, alpha: float = ALPHA, where: str = ""
) -> Comparison:
    """Returns how a new run compares with an old one.

    ``where`` is what error messages call the limits, such as their file.

    Raises `RecordError` where a dataset of one name has another content in the two runs, or where
    the old one holds nothing, and `SpecError` for limits that cover nothing.
    """
    if not 0 < alpha <= 1:
        raise SpecError(f"alpha must be above 0 and at most 1, got {alpha:g}")
    if not old.cells:
        raise RecordError(f"{old.name}: holds nothing to compare with")
    _check_data(old, new)
    allowed = limits if limits is not None else Limits()
    olds = {cell.key: cell for cell in old.cells}
    news = {cell.key: cell for cell in new.cells}
    allowed.check([*olds, *news], where=where)
    pairs = {
        key: (cell, news[key].over(cell.made_with) if key in news else None)
        for key, cell in olds.items()
    }
    reasons = {key: _incomparable(*pair, new) for key, pair in pairs.items()}
    counted = [
        _count(before, after, allowed)
        for before, after in pairs.values()
        if after is not None and not reasons[before.key]
    ]
    tested = [each.p_value for each in counted if each.p_value is not None]
    judged = [
        _judge(each, p_value, alpha) for each, p_value in zip(counted, holm(tested), strict=True)
    ]
    missing = [_single(cell, "missing", reasons[key]) for key, cell in olds.items() if reasons[key]]
    # What fails may be new: it must not read as robustness either.
    crashed = sorted(new.failed - olds.keys(), key=str)
    failed = [Compared(key, "missing", reason="failed in the new run") for key in crashed]
    added = [_single(cell, "new") for key, cell in news.items() if key not in olds]
    return Comparison(old.name, new.name, alpha, (*judged, *missing, *failed, *added))


def read_limits(path: Path) -> Limits:
    """Returns the limits in a TOML file.  Raises `SpecError`."""
    try:
        return Limits.model_validate(parse_toml(read_text(path), where=str(path)))
    except ValidationError as error:
        raise SpecError("; ".join(_explain(error)), where=str(path)) from error


def limits_beside(baseline: Path) -> Path | None:
    """Returns the file of limits that stands beside a baseline, if there is one.

    ``limits.toml`` inside a run's folder; ``NAME.toml`` beside a baseline file ``NAME.json``.
    """
    place = baseline / "limits.toml" if baseline.is_dir() else baseline.with_suffix(".toml")
    return place if place.is_file() else None


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


def _check_data(old: Side, new: Side) -> None:
    for name, content in old.datasets.items():
        other = new.datasets.get(name, content)
        if other.digest != content.digest:
            raise RecordError(
                f"dataset {name!r} has another content in {new.name} than in {old.name} "
                f"({other.of:,} examples of digest {other.digest[:12]}…, and {content.of:,} of "
                f"{content.digest[:12]}…): runs on different data can't be compared; save a new "
                "baseline"
            )


def _count(old: Wrong, new: Wrong, limits: Limits) -> Compared:
    common, of_old, of_new = np.intersect1d(old.example_id, new.example_id, return_indices=True)
    before, after = old.wrong[of_old], new.wrong[of_new]
    fixed = int(np.count_nonzero(before & ~after))
    broken = int(np.count_nonzero(after & ~before))
    return Compared(
        old.key,
        "unchanged",
        examples=len(common),
        old=float(np.mean(before)),
        new=float(np.mean(after)),
        fixed=fixed,
        broken=broken,
        p_value=mcnemar(fixed, broken),
        limit=limits.of(old.key),
    )


def _judge(counted: Compared, p_value: float, alpha: float) -> Compared:
    judged = replace(counted, p_value=p_value)
    # Compared in whole examples, so that rounding decides nothing.
    increase = counted.broken - counted.fixed
    limit = (counted.limit or 0.0) / 100 * counted.examples
    worse = increase > limit + 1e-9
    if p_value < alpha and worse:
        return replace(judged, verdict="regressed")
    if p_value < alpha and increase < 0:
        return replace(judged, verdict="improved")
    if worse:
        return replace(judged, reason=f"{_counted(counted.examples, 'example')} can't show it")
    return judged


def _incomparable(old: Wrong, new: Wrong | None, run: Side) -> str:
    """Returns why the new run has nothing that may stand against a measure, or an empty string.

    A gate must not be passed by attacking less: with other parameters, on fewer examples, or with
    candidates that count for nothing.
    """
    if new is None:
        return "failed in the new run" if old.key in run.failed else "not in the new run"
    if new.made_with != old.made_with:
        return f"made with {_difference(old.made_with, new.made_with)}"
    common = np.isin(old.example_id, new.example_id)
    if not common.all():
        return f"only {np.count_nonzero(common):,} of {len(common):,} examples"
    if new.invalid > old.invalid:
        return f"{new.invalid:,} candidates out of budget"
    return ""


def _difference(old: str, new: str) -> str:
    """Returns how an attack was made otherwise than before, by parameter where they can be told.

    >>> _difference('pgd {"steps": 40} in linf, clipped', 'pgd {"steps": 1} in linf, clipped')
    'steps 1 instead of 40'
    >>> _difference("fgsm, pgd", "fgsm")
    'fgsm instead of fgsm, pgd'
    """
    whole = f"{new} instead of {old}"
    (before, were, then), (after, are, now) = _apart(old), _apart(new)
    if (before, then) != (after, now):
        return whole
    told = [
        f"{key} {are.get(key, NOTHING)} instead of {were.get(key, NOTHING)}"
        for key in sorted({*were, *are})
        if were.get(key) != are.get(key)
    ]
    return ", ".join(told) or whole


def _apart(made_with: str) -> tuple[str, dict[str, object], str]:
    """Returns an attack's name, its parameters, and the rest."""
    name, _, written = made_with.partition(" {")
    parameters, _, rest = written.rpartition("}")
    try:
        return name, json.loads(f"{{{parameters}}}"), rest
    except ValueError:
        return made_with, {}, ""


def _single(cell: Wrong, verdict: Verdict, reason: str = "") -> Compared:
    error = float(np.mean(cell.wrong))
    old, new = (error, None) if verdict == "missing" else (None, error)
    return Compared(cell.key, verdict, examples=len(cell.wrong), old=old, new=new, reason=reason)


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


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        location = list(problem["loc"])
        if problem["type"] == "extra_forbidden":
            owner = Limit if len(location) > 1 else Limits
            message = "unknown key" + suggest(str(location[-1]), owner.model_fields)
        else:
            message = WORDS.get(problem["type"], problem["msg"])
            if isinstance(problem["input"], str | int | float):
                message += f", got {problem['input']!r}"
        yield f"{key_path(location)}: {message}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


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

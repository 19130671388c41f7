"""One run against a baseline: the regression gate.

Runs are paired by dataset, model, attack, epsilon and example id.  A measure has regressed where it
is worse by more than a stated number of percentage points *and* the difference is significant by
McNemar's exact test, adjusted over all measures that were compared (Holm).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gibbon.core.errors import RecordError, SpecError
from gibbon.gate.baseline import Key, Side, Wrong
from gibbon.gate.limits import Limits
from gibbon.metrics.intervals import holm, mcnemar
from gibbon.report.content.layout import NOTHING

Verdict = Literal["regressed", "improved", "unchanged", "missing", "new"]
VERDICTS: tuple[Verdict, ...] = ("regressed", "missing", "improved", "new", "unchanged")
BAD: tuple[Verdict, ...] = ("regressed", "missing")

ALPHA = 0.05


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


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"

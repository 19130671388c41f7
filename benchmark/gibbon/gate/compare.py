"""The regression gate: compares a run with a baseline.

Runs are paired by dataset, model, attack, epsilon and example id.  A measure has regressed if it is
worse by more than a stated number of percentage points *and* the difference is significant by
McNemar's exact test, adjusted over all measures compared (Holm).

A measure that did not get worse is doubtful if the new run has a serious flag on it that nobody
accepted and that the old run has not: of another kind, through another attack, or on significantly
more examples.  An error that is smaller because gradients are masked is no improvement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gibbon.core.errors import RecordError, SpecError
from gibbon.core.files import StrPath
from gibbon.core.reading import expanded
from gibbon.gate.accepted_flags import AcceptedFlags
from gibbon.gate.baseline import AttackSetup, MeasuredErrors, Side, read_side
from gibbon.gate.limits import MAX_INCREASE, Limits
from gibbon.gate.measures import Key
from gibbon.metrics.intervals import wilson_interval
from gibbon.metrics.paired_tests import fewest_broken, holm, mcnemar
from gibbon.records.acceptance import Acceptance
from gibbon.records.flag_share import FlagShare
from gibbon.records.flags import Flag
from gibbon.report.content.parts.layout import NOTHING

Change = Literal["regressed", "doubtful", "improved", "unchanged", "missing", "new"]
CHANGES: tuple[Change, ...] = (
    "regressed",
    "doubtful",
    "missing",
    "improved",
    "new",
    "unchanged",
)
BAD: tuple[Change, ...] = ("regressed", "doubtful", "missing")

ALPHA = 0.05
ROUNDING = 1e-9  # of percentage points


@dataclass(frozen=True)
class Compared:
    """A measure compared between two runs.

    Args:
        old, new: errors as fractions of 1, over the ``examples`` that both runs have.
        fixed, broken: number of examples misclassified in the old run only, and in the new run
            only.
        p_value: of McNemar's exact test, adjusted for the number of comparisons.
        limit: percentage points by which the error may increase.
        reason: why the verdict does not follow from the errors alone.
        doubts: the serious flags of the new run that nobody accepted and that the old run has not.
        known: the serious flags that nobody accepted and that the old run has too.
        accepted: the serious flags that are accepted.
    """

    key: Key
    verdict: Change
    examples: int = 0
    old: float | None = None
    new: float | None = None
    fixed: int = 0
    broken: int = 0
    p_value: float | None = None
    limit: float | None = None
    reason: str = ""
    doubts: tuple[Flag, ...] = ()
    known: tuple[Flag, ...] = ()
    accepted: tuple[Flag, ...] = ()

    @property
    def points(self) -> float | None:
        """The difference in percentage points; positive is worse."""
        return None if self.old is None or self.new is None else 100 * (self.new - self.old)


@dataclass(frozen=True)
class Comparison:
    """The measures of two runs compared with each other.

    Args:
        flags: all flags of the new run, of any severity.
        accepted: the acceptances that hold for the new run, with the flags that each covers.
        without_flags: whether the old run has no record of its flags, so that all are new.
    """

    old: str
    new: str
    alpha: float
    measures: tuple[Compared, ...]
    flags: tuple[Flag, ...] = ()
    accepted: tuple[tuple[Acceptance, tuple[Flag, ...]], ...] = ()
    without_flags: bool = False

    @property
    def passed(self) -> bool:
        """Whether no measure regressed, is doubtful or is missing."""
        return not any(each.verdict in BAD for each in self.measures)

    @property
    def inconclusive(self) -> tuple[Compared, ...]:
        """The measures with too few examples to show an increase by what is allowed.

        Such a measure passes whatever the new run does within that.  If nothing is allowed, one
        percentage point is looked for.
        """
        return tuple(
            each
            for each in self._tested
            if self._least_increase(each) > (each.limit or MAX_INCREASE) + ROUNDING
        )

    @property
    def least_increase(self) -> float | None:
        """The smallest increase in points that every compared measure could show; None without."""
        return max(map(self._least_increase, self._tested), default=None)

    @property
    def _tested(self) -> tuple[Compared, ...]:
        return tuple(each for each in self.measures if each.p_value is not None and each.examples)

    def _least_increase(self, each: Compared) -> float:
        """Returns the smallest significant increase, in points, if no example becomes right."""
        fewest = fewest_broken(0, alpha=self.alpha, tests=len(self._tested))
        return 100 * fewest / each.examples

    @property
    def doubts(self) -> tuple[Flag, ...]:
        """The serious flags of the new run that make a measure doubtful, or would."""
        return tuple(dict.fromkeys(flag for each in self.measures for flag in each.doubts))

    @property
    def known(self) -> tuple[Flag, ...]:
        """The serious flags that nobody accepted, and that the old run has on each measure."""
        found = dict.fromkeys(flag for each in self.measures for flag in each.known)
        return tuple(flag for flag in found if flag not in self.doubts)


def compare(
    old: Side | StrPath,
    new: Side | StrPath,
    *,
    limits: Limits | None = None,
    alpha: float = ALPHA,
    where: str = "",
    accept: Sequence[str | Acceptance] = (),
) -> Comparison:
    """Returns the measures of a new run compared with those of an old one.

    Args:
        old: the run to compare with: a baseline file, the folder of a run, or a `Side`.
        new: the run that is judged, given in the same way.
        limits: increases that are allowed, such as `read_limits` reads them from a file; one
            percentage point for every measure if None, also if a file of limits is beside the
            baseline.
        alpha: significance level.
        where: source of the limits, such as their file, in messages.
        accept: kinds of flags that you take responsibility for, besides those that the new run's
            suite and the limits accept.

    Raises `RecordError` if a path is neither a run nor a baseline, if a dataset has the same name
    but another content in the two runs, or if the old run is empty; `SpecError` for a limit that
    covers no measure, and for a kind of flag that does not exist.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from gibbon.core.threat import Epsilon
    >>> from gibbon.gate.baseline import Content, write_baseline
    >>> key = Key("mnist", "rbf", "fgsm", Epsilon.parse("0.25"), "adversarial_error")
    >>> def side(wrong):
    ...     measured = MeasuredErrors(key, AttackSetup(), 0, np.arange(len(wrong)), wrong)
    ...     return Side("example", "mine", {"mnist": Content("1f2e", len(wrong))}, (measured,))
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "robust.json")
    ...     baseline = write_baseline(side(np.arange(200) < 50), file, gibbon="0.1.0")
    ...     comparison = compare(file, side(np.arange(200) < 80))
    >>> comparison.passed, comparison.measures[0].verdict
    (False, 'regressed')
    """
    if not 0 < alpha <= 1:
        raise SpecError(f"alpha must be above 0 and at most 1, got {alpha:g}")
    old, new = (
        each if isinstance(each, Side) else read_side(expanded(each, RecordError))
        for each in (old, new)
    )
    if not old.cells:
        raise RecordError(f"{old.name}: holds nothing to compare with")
    _check_data(old, new)
    allowed = limits if limits is not None else Limits()
    if isinstance(accept, str):
        raise SpecError(f"accept must be a list of kinds of flags, got {accept!r}")
    accepted = AcceptedFlags.of_call(accept, suite=new.accepted, limits=allowed, where=where)
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
    p_values = holm([mcnemar(each.fixed, each.broken) for each in counted])
    judged = [_judge(each, p, alpha) for each, p in zip(counted, p_values, strict=True)]
    missing = [_single(cell, "missing", reasons[key]) for key, cell in olds.items() if reasons[key]]
    # A new measure that failed must not read as robustness either.
    crashed = sorted(new.failed - olds.keys(), key=str)
    failed = [Compared(key, "missing", reason="failed in the new run") for key in crashed]
    added = [_single(cell, "new") for key, cell in news.items() if key not in olds]
    fitted = {**news, **{key: after for key, (_, after) in pairs.items() if after is not None}}
    measures = (
        _with_flags(each, olds.get(each.key), fitted.get(each.key), accepted)
        for each in (*judged, *missing, *failed, *added)
    )
    return Comparison(
        old.name,
        new.name,
        alpha,
        tuple(measures),
        new.flags,
        _used(accepted, fitted, new.flags),
        old.without_flags,
    )


def _with_flags(
    each: Compared,
    before: MeasuredErrors | None,
    cell: MeasuredErrors | None,
    accept: AcceptedFlags,
) -> Compared:
    """Returns a measure with its serious flags, doubtful if they contradict its verdict.

    Args:
        each: the measure, with its verdict from the errors alone.
        before: the measure in the old run, or None.
        cell: the measure in the new run, or None.
        accept: what is accepted.
    """
    doubts, known, accepted = [], [], []
    for attack, flag in cell.serious() if cell is not None else ():
        if accept.of(flag, each.key, attack=attack) is not None:
            accepted.append(flag)
        elif before is not None and _has(before, flag, attack):
            known.append(flag)
        else:
            doubts.append(flag)
    return replace(
        each,
        verdict="doubtful" if doubts and each.verdict not in BAD else each.verdict,
        doubts=tuple(dict.fromkeys(doubts)),
        known=tuple(dict.fromkeys(known)),
        accepted=tuple(dict.fromkeys(accepted)),
    )


def _used(
    accept: AcceptedFlags, cells: Mapping[Key, MeasuredErrors], flags: Iterable[Flag]
) -> tuple[tuple[Acceptance, tuple[Flag, ...]], ...]:
    """Returns each acceptance with the flags that it covers, serious or not."""
    covered: dict[Acceptance, dict[Flag, None]] = {each: {} for each in accept}
    found = [
        (flag, accept.of(flag, key, attack=attack))
        for key, cell in cells.items()
        for attack, raised in (cell.flags or {}).items()
        for flag in raised
    ]
    found += [(flag, accept.of(flag)) for flag in flags]  # also those that affect no measure
    for flag, acceptance in found:
        if acceptance is not None:
            covered.setdefault(acceptance, {})[flag] = None
    return tuple((acceptance, tuple(each)) for acceptance, each in covered.items())


def _has(before: MeasuredErrors, flag: Flag, attack: str) -> bool:
    """Returns whether a measure of the old run has a flag of the new one.

    It has a serious flag of that kind through that attack, and not on significantly fewer examples.
    """
    known = [each for at, each in before.serious() if (at, each.kind) == (attack, flag.kind)]
    return any(not _grew(each.share, flag.share) for each in known)


def _grew(old: FlagShare | None, new: FlagShare | None) -> bool:
    """Returns whether a flag is about a larger share of examples, by intervals that do not overlap.

    Flags that count no examples are not compared.

    >>> few, more, most = (FlagShare(count=count, of=300) for count in (3, 5, 290))
    >>> _grew(few, more), _grew(few, most), _grew(None, most)
    (False, True, False)
    """
    if old is None or new is None:
        return False
    before, after = (wilson_interval(each.count, each.of) for each in (old, new))
    return after.low > before.high


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


def _count(old: MeasuredErrors, new: MeasuredErrors, limits: Limits) -> Compared:
    common, of_old, of_new = np.intersect1d(old.example_id, new.example_id, return_indices=True)
    before, after = old.wrong[of_old], new.wrong[of_new]
    return Compared(
        old.key,
        "unchanged",
        examples=len(common),
        old=float(np.mean(before)),
        new=float(np.mean(after)),
        fixed=int(np.count_nonzero(before & ~after)),
        broken=int(np.count_nonzero(after & ~before)),
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
        return replace(judged, reason=f"{count_text(counted.examples, 'example')} can't show it")
    return judged


def _incomparable(old: MeasuredErrors, new: MeasuredErrors | None, run: Side) -> str:
    """Returns why a measure can't be compared with the new run, or an empty string.

    A weaker attack must not pass the gate: one with other parameters, on fewer examples, or with
    candidates that are not counted.
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


def _difference(old: AttackSetup, new: AttackSetup) -> str:
    """Returns how a setup differs from the old one; parameter by parameter if only they differ.

    >>> one = AttackSetup(algorithm="pgd", parameters={"steps": 40})
    >>> _difference(one, AttackSetup(algorithm="pgd", parameters={"steps": 1}))
    'steps 1 instead of 40'
    >>> _difference(AttackSetup(attacks=("fgsm", "pgd")), AttackSetup(attacks=("fgsm",)))
    'fgsm instead of fgsm, pgd'
    """
    before, after = old.parameters, new.parameters
    changed = [
        f"{name} {after.get(name, NOTHING)} instead of {before.get(name, NOTHING)}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    only_parameters = old.model_copy(update={"parameters": after}) == new
    return ", ".join(changed) if changed and only_parameters else f"{new} instead of {old}"


def _single(cell: MeasuredErrors, verdict: Change, reason: str = "") -> Compared:
    error = float(np.mean(cell.wrong))
    old, new = (error, None) if verdict == "missing" else (None, error)
    return Compared(cell.key, verdict, examples=len(cell.wrong), old=old, new=new, reason=reason)


def count_text(number: int, noun: str) -> str:
    """Returns a number with its noun, in the plural unless it is 1."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"

"""Checks a model in a test: compares measured errors with fixed limits and a baseline.

A serious flag that the check does not accept fails it, whatever the errors and the baseline are.

A baseline file holds the checks of many tests, each under its own name, which stands for both the
dataset and the model of the check.  Tests share a file, and each test updates its own part.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock
from tabulate import tabulate

from gibbon.core.errors import SpecError
from gibbon.gate.baseline import (
    MeasuredErrors,
    Side,
    all_attacks,
    evaluation_key,
    read_side,
    side_of,
    write_baseline,
)
from gibbon.gate.compare import BAD, compare
from gibbon.gate.comparison_text import measure_name, sentences
from gibbon.gate.flag_text import flag_lines, flag_sentence, kinds_in_words, serious_flags_text
from gibbon.gate.limits import Limits
from gibbon.gate.measures import Key
from gibbon.records.acceptance import Acceptance, acceptance_text
from gibbon.records.flags import Flag
from gibbon.records.outcomes import Outcome
from gibbon.records.run import Failure, RunRecord
from gibbon.report.content.parts.layout import NOTHING
from gibbon.report.content.parts.lookup import (
    Measured,
    adversarial_error,
    clean_error,
    worst_case_error,
)
from gibbon.report.content.parts.number_format import count_of, interval, percent
from gibbon.report.text.markdown import bullets, escape
from gibbon.specs.base import UNATTACKED

UPDATE = "--robustness-update-baseline"
SUITE = "pytest"
OK, ABOVE, FLAGGED = "ok", "above its limit", "serious flag"
DASH = NOTHING.text
LOCK_TIMEOUT = 60.0  # seconds to wait for another process that writes the same file


@dataclass(frozen=True)
class CheckLimits:
    """The limits of a check: errors as fractions of 1, and an increase in percentage points."""

    max_error: float | None
    max_clean_error: float | None
    max_increase: float
    alpha: float

    def check(self, *, compared: bool) -> None:
        """Raises `SpecError` if there is no limit, or a limit is impossible."""
        for name in ("max_error", "max_clean_error"):
            limit = getattr(self, name)
            if limit is not None and not 0 <= limit <= 1:
                raise SpecError(f"{name} is a fraction of 1, such as 0.4 for 40 %, got {limit!r}")
        if self.max_error is None and self.max_clean_error is None and not compared:
            raise SpecError(
                "nothing is checked: give max_error=0.4, a baseline='robust.json', or both"
            )
        if not 0 < self.alpha <= 1:
            raise SpecError(f"alpha must be above 0 and at most 1, got {self.alpha!r}")
        Limits().allowing(self.max_increase)


@dataclass(frozen=True)
class CheckLine:
    """An error of a check, in plain values that can be sent between processes.

    Args:
        rate, low, high: the error and its interval, fractions of 1; None if it failed.
        limit: the largest error that is allowed; None if there is no limit.
        old: the error of the baseline, over the examples that both have.
        verdict: ``"ok"``, or the problem.
        accepted: the kinds of the serious flags that are accepted.
    """

    check: str
    error: str = DASH
    attack: str = DASH
    epsilon: str = DASH
    rate: float | None = None
    low: float | None = None
    high: float | None = None
    wrong: int | None = None
    examples: int = 0
    limit: float | None = None
    old: float | None = None
    verdict: str = OK
    accepted: str = DASH


@dataclass(frozen=True)
class CheckResult:
    """The result of a check: its lines, and a sentence for each problem.

    ``flagged`` says whether there is a serious flag that is not accepted.  ``remarks`` are lines to
    print also if the check passed: accepted flags, and warnings.
    """

    lines: tuple[CheckLine, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    flagged: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether a baseline may hold the errors.

        Every error was measured with valid candidates, and every serious flag is accepted.
        """
        return not self.flagged and all(line.verdict in (OK, ABOVE) for line in self.lines)

    @property
    def message(self) -> str:
        """The message of a failed test: a line for each problem, and the table."""
        checks = {line.check for line in self.lines}
        parts = [*self.problems, "", *(f"{check}:" for check in checks), "", text_table(self.lines)]
        return "\n".join([*parts, *(["", *self.notes] if self.notes else [])])


def named_side(record: RunRecord, outcomes: Mapping[str, Outcome], *, name: str) -> Side:
    """Returns the errors of a check, with the check's name for its dataset and its one model."""
    side = side_of(record, outcomes.get, name=name)
    (content,) = side.datasets.values()
    cells = tuple(replace(cell, key=_renamed(cell.key, name)) for cell in side.cells)
    failed = frozenset(_renamed(key, name) for key in side.failed)
    accepted = tuple(Acceptance(each.kind, f"accept of {name}") for each in side.accepted)
    return Side(side.name, SUITE, {name: content}, cells, failed, side.flags, accepted)


def judge_check(
    record: RunRecord, side: Side, *, allowed: CheckLimits, baseline: Path | None
) -> CheckResult:
    """Returns the result of a check.

    Args:
        record: of the run that measured the errors.
        side: the record's errors, as `named_side` returns them.
        allowed: the limits.
        baseline: the file to compare with, or None.

    Raises `RecordError` if that file is not a baseline.
    """
    serious = tuple(flag for flag in record.flags if flag.counts)
    problems = [serious_flags_text(serious)] if serious else []
    problems += [f"{_cell_name(failure)} failed: {failure.text}" for failure in record.failures]
    notes = _notes(record.flags)
    notes += [each.traceback.rstrip() for each in record.failures[:1] if each.traceback]
    found = list(_lines(record, side, allowed))
    lines = {key: line for key, line, _ in found}
    problems += [problem for _, _, problem in found if problem]
    if baseline is not None:
        against = _against(baseline, side, allowed)
        problems += against.problems
        notes += against.notes
        for key, line in lines.items():
            verdict = against.verdicts.get(key, OK) if line.verdict == OK else line.verdict
            lines[key] = replace(line, old=against.old.get(key), verdict=verdict)
    for cell in side.cells:
        if cell.key in lines:
            lines[cell.key] = _with_flags(lines[cell.key], [flag for _, flag in cell.serious()])
    return CheckResult(
        tuple(lines.values()),
        tuple(problems),
        tuple(notes),
        flagged=bool(serious),
        remarks=tuple(_remarks(record, side)),
    )


def _notes(flags: Sequence[Flag]) -> list[str]:
    """Returns the lines about flags that fail no check: those that are accepted, or not serious."""
    lines = flag_lines("accepted", (flag for flag in flags if flag.accepted))
    for severity in ("warning", "note"):
        chosen = (each for each in flags if each.severity == severity and not each.accepted)
        lines += flag_lines(severity, chosen)
    return lines


def _with_flags(line: CheckLine, flags: Sequence[Flag]) -> CheckLine:
    """Returns a line with the kinds of its serious flags; another problem keeps its verdict."""
    open_ = [flag for flag in flags if flag.counts]
    accepted = [flag for flag in flags if not flag.counts]
    if open_ and line.verdict == OK:
        line = replace(line, verdict=f"{FLAGGED}: {kinds_in_words(open_)}")
    return replace(line, accepted=kinds_in_words(accepted)) if accepted else line


def _remarks(record: RunRecord, side: Side) -> Iterator[str]:
    """Yields a line for each accepted kind, and for each warning."""
    (name,) = side.datasets
    for acceptance in side.accepted:
        covered = [flag for flag in record.flags if flag.kind == acceptance.kind]
        yield acceptance_text(acceptance, covered)
    for flag in record.flags:
        if flag.severity == "warning" and not flag.accepted:
            yield f"warning of {name}: {flag_sentence(flag)}"


def update_baseline(file: Path, side: Side, *, gibbon: str) -> None:
    """Replaces a check's part of a baseline file atomically; the other parts stay.

    Several processes may do this at the same time.

    Raises `RecordError` if the file is not a baseline, `RunFolderError` if it can't be written.
    """
    (name,) = side.datasets
    with _locked(file):
        before = read_side(file) if file.exists() else replace(side, cells=())
        own = {cell.key for cell in side.cells}
        stale = before.datasets.get(name) != side.datasets[name]
        ids = side.cells[0].example_id
        kept = [
            cell
            for cell in before.cells
            if cell.key.dataset != name
            or not (stale or cell.key in own or cell.example_id.tolist() != ids.tolist())
        ]
        merged = {**before.datasets, **side.datasets}
        cells = sorted([*kept, *side.cells], key=lambda cell: _sort_key(cell.key))
        write_baseline(replace(before, datasets=merged, cells=tuple(cells)), file, gibbon=gibbon)


def text_table(lines: tuple[CheckLine, ...]) -> str:
    """Returns the lines of one check as a table in plain text."""
    return _tabulated(
        {
            "error": [line.error for line in lines],
            "attack": [line.attack for line in lines],
            "epsilon": [line.epsilon for line in lines],
            "measured": [percent(line.rate) for line in lines],
            "95 % interval": [
                interval(Measured("done", line.rate, line.low, line.high)) for line in lines
            ],
            "wrong": [count_of(line.wrong, line.examples) for line in lines],
            "limit": [percent(line.limit) for line in lines],
            "baseline": [percent(line.old) for line in lines],
            "verdict": [line.verdict for line in lines],
            "accepted": [line.accepted for line in lines],
        }
    )


def checks_table(lines: tuple[CheckLine, ...], *, style: str = "simple") -> str:
    """Returns the lines of all checks of a session as a table, in one of tabulate's styles."""
    return _tabulated(
        {
            "check": [line.check for line in lines],
            "attack": ["clean" if line.error == "clean" else line.attack for line in lines],
            "epsilon": [line.epsilon for line in lines],
            "error": [percent(line.rate) for line in lines],
            "limit": [percent(line.limit) for line in lines],
            "baseline": [percent(line.old) for line in lines],
            "verdict": [line.verdict for line in lines],
            "accepted": [line.accepted for line in lines],
        },
        style=style,
    )


def checks_markdown(
    lines: tuple[CheckLine, ...], rewritten: tuple[str, ...], remarks: tuple[str, ...] = ()
) -> str:
    """Returns the checks of a session as markdown, with their result as heading."""
    word = "passed" if all(line.verdict == OK for line in lines) else "failed"
    parts = [f"## Robustness checks: {word}", checks_table(lines, style="pipe")]
    if remarks:
        parts.append(bullets(remarks))
    if rewritten:
        parts.append(bullets(tuple(f"Baseline rewritten: {file}" for file in rewritten)))
    return "\n\n".join(parts) + "\n"


def _renamed(key: Key, name: str) -> Key:
    return replace(key, dataset=name, model=name)


def _lines(
    record: RunRecord, side: Side, allowed: CheckLimits
) -> Iterator[tuple[Key, CheckLine, str]]:
    """Yields each error of a check with its line, and a sentence if it has a problem."""
    (name,) = side.datasets
    for row in record.evaluations:
        limit = allowed.max_clean_error if row.unattacked else allowed.max_error
        measured = clean_error(row) if row.unattacked else adversarial_error(row)
        key = _renamed(evaluation_key(row), name)
        line = _line(key, measured, row.examples, limit)
        problem = ""
        if measured.rate is None:
            line = replace(line, verdict="failed")
        elif row.invalid_candidates:
            # They count as classified correctly: without this an attack that breaks its contract
            # would pass the check.
            line = replace(line, verdict=f"{row.invalid_candidates:,} candidates out of budget")
            problem = f"{measure_name(key)} does not count: {line.verdict}"
        elif limit is not None and measured.rate > limit:
            line = replace(line, verdict=ABOVE)
            problem = (
                f"{measure_name(key)} is {percent(line.rate)}, above the limit of "
                f"{percent(limit)}: {count_of(line.wrong, line.examples)} examples, 95 % "
                f"interval {interval(measured)}"
            )
        yield key, line, problem
    known = {cell.key for cell in side.cells}
    for worst in record.worst_cases:
        key = Key(name, name, all_attacks(worst), worst.epsilon, "worst_case_error")
        if key in known:
            yield key, _line(key, worst_case_error(worst), worst.examples, None), ""


def _line(key: Key, measured: Measured, examples: int, limit: float | None) -> CheckLine:
    clean = key.measure == "clean_error"
    return CheckLine(
        key.dataset,
        key.measure.removesuffix("_error").replace("_", " "),
        DASH if clean else key.attack,
        DASH if clean else str(key.epsilon),
        measured.rate,
        measured.low,
        measured.high,
        measured.part,
        examples,
        limit,
    )


@dataclass(frozen=True)
class _Against:
    """A check compared with a baseline, by measure and in sentences."""

    old: Mapping[Key, float]
    verdicts: Mapping[Key, str]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def _against(file: Path, side: Side, allowed: CheckLimits) -> _Against:
    (name,) = side.datasets
    own = {cell.key for cell in side.cells}
    old = read_side(file)
    known = tuple(cell for cell in old.cells if cell.key in own | side.failed)
    lacking = sorted(own - {cell.key for cell in known}, key=_sort_key)
    verdicts: dict[Key, str] = dict.fromkeys(lacking, "no baseline")
    what = ", ".join(map(measure_name, lacking))
    problem = f"{file.name} holds no {what} of {name}: make it with pytest {UPDATE}"
    problems = (problem,) if lacking else ()
    if not known:
        return _Against({}, verdicts, problems)
    content, measured = old.datasets[name], side.datasets[name].digest
    if content.digest != measured:
        problem = (
            f"{file.name} was made on other data (of digest {content.digest[:12]}…, not "
            f"{measured[:12]}…); if that is meant, run pytest {UPDATE}"
        )
        return _Against({}, dict.fromkeys(own, "other data"), (problem,))
    # Errors alone: a serious flag fails the check anyway.
    comparison = compare(
        Side(file.name, old.suite, {name: content}, tuple(map(_unflagged, known))),
        replace(side, name="this test", cells=tuple(map(_unflagged, side.cells)), flags=()),
        limits=Limits(max_increase=allowed.max_increase),
        alpha=allowed.alpha,
    )
    bad = tuple(each for each in comparison.measures if each.verdict in BAD)
    reasons = sentences(replace(comparison, measures=bad))
    return _Against(
        {each.key: each.old for each in comparison.measures if each.old is not None},
        verdicts | {each.key: each.verdict for each in bad},
        (*problems, *reasons),
        tuple(each for each in sentences(comparison) if each not in reasons),
    )


def _unflagged(cell: MeasuredErrors) -> MeasuredErrors:
    return replace(cell, flags={})


def _tabulated(columns: Mapping[str, Sequence[object]], *, style: str = "simple") -> str:
    texts = {name: [str(each) for each in column] for name, column in columns.items()}
    shown = {
        name: [escape(text) if style == "pipe" else text for text in column]
        for name, column in texts.items()
        if any(text != DASH for text in column)  # an empty column takes room
    }
    return tabulate(shown, headers="keys", tablefmt=style, disable_numparse=True)


def _cell_name(failure: Failure) -> str:
    if failure.attack == UNATTACKED:
        return "the unattacked model"
    return f"{failure.attack} at epsilon {failure.epsilon}"


def _sort_key(key: Key) -> tuple[str, str, float, str]:
    """Returns a key that sorts the measures of a file independently of the order of tests."""
    return key.dataset, key.attack, float(key.epsilon), key.measure


def _locked(file: Path) -> FileLock:
    """Returns the lock of a file, in a temporary folder so that it is not committed."""
    place = hashlib.sha256(f"{Path.home()} {file.resolve()}".encode()).hexdigest()[:32]
    return FileLock(Path(tempfile.gettempdir()) / f"gibbon-{place}.lock", timeout=LOCK_TIMEOUT)

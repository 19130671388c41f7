"""One check of a model in a test: what was measured, against fixed limits and a baseline.

A baseline file holds the checks of many tests, each under its own name: the data and the model of a
check go by that name in it.  So tests share a file, and each of them renews its own part.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock
from tabulate import tabulate

from gibbon.core.errors import SpecError
from gibbon.core.threat import ZERO
from gibbon.gate.baseline import Key, Side, all_attacks, read_side, side_of, write_baseline
from gibbon.gate.compare import BAD, compare
from gibbon.gate.comparison_text import sentences
from gibbon.gate.limits import Limits
from gibbon.records.outcomes import Outcome
from gibbon.records.run import Evaluation, Failure, RunRecord
from gibbon.report.content.layout import NOTHING
from gibbon.report.content.lookup import Measured, adversarial_error, clean_error
from gibbon.report.content.number_format import interval, percent, share
from gibbon.report.text.markdown import bullets, escape
from gibbon.specs.base import UNATTACKED

UPDATE = "--robustness-update-baseline"
SUITE = "pytest"
OK, ABOVE = "ok", "above its limit"
PATIENCE = 60.0  # seconds to wait for another process that writes the same file


@dataclass(frozen=True)
class Allowed:
    """What a check allows: errors as fractions of 1, and an increase in percentage points."""

    max_error: float | None
    max_clean_error: float | None
    max_increase: float
    alpha: float

    def check(self, *, compared: bool) -> None:
        """Raises `SpecError` where nothing is limited, or a limit is impossible."""
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
class Line:
    """One error of a check: plain values, so that it can be sent from process to process.

    Args:
        rate, low, high: the error and its interval, fractions of 1; None where it failed.
        limit: what the error may be at most; None where it is free.
        old: the error of the baseline, over the examples that both have.
        verdict: ``"ok"``, or what is wrong.
    """

    check: str
    error: str
    attack: str
    epsilon: str
    rate: float | None
    low: float | None
    high: float | None
    wrong: int | None
    examples: int
    limit: float | None
    old: float | None
    verdict: str


def unmeasured(check: str, *, verdict: str) -> Line:
    """Returns the line of a check that was not made, and why."""
    return Line(check, NOTHING, NOTHING, NOTHING, None, None, None, None, 0, None, None, verdict)


@dataclass(frozen=True)
class Finding:
    """How a check ended: its lines, and a sentence for everything that is wrong."""

    lines: tuple[Line, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether every error was measured, and counts: what a baseline may be made of."""
        return all(line.verdict in (OK, ABOVE) for line in self.lines)

    @property
    def message(self) -> str:
        """What a failed test says: what is wrong, in a line each, and the table."""
        checks = {line.check for line in self.lines}
        parts = [*self.problems, "", *(f"{check}:" for check in checks), "", text_table(self.lines)]
        return "\n".join([*parts, *(["", *self.notes] if self.notes else [])])


def named_side(record: RunRecord, outcomes: Mapping[str, Outcome], *, name: str) -> Side:
    """Returns the errors of a check's one model, its data and its model under the check's name."""
    side = side_of(record, outcomes.get, name=name)
    (content,) = side.datasets.values()
    cells = tuple(replace(cell, key=_renamed(cell.key, name)) for cell in side.cells)
    return replace(
        side,
        suite=SUITE,
        datasets={name: content},
        cells=cells,
        failed=frozenset(_renamed(key, name) for key in side.failed),
    )


def examine(record: RunRecord, side: Side, *, allowed: Allowed, baseline: Path | None) -> Finding:
    """Returns how a check ended.

    ``side`` is what `named_side` made of the record; ``baseline`` the file to compare it with.

    Raises `RecordError` where that file is not a baseline.
    """
    notes = [f"flag: {flag}" for flag in record.flags]
    problems = [f"{_tried(failure)} failed: {failure.error}" for failure in record.failures]
    notes += [each.traceback.rstrip() for each in record.failures[:1] if each.traceback]
    lines = dict(_lines(record, side, allowed))
    for key, line in lines.items():
        if line.verdict == ABOVE:
            problems.append(
                f"{_named(key)} is {percent(line.rate)}, above the limit of "
                f"{percent(line.limit)}: {share(line.wrong, line.examples)} examples, 95 % "
                f"interval {_interval(line)}"
            )
        elif line.verdict.endswith("out of budget"):
            problems.append(f"{_named(key)} does not count: {line.verdict}")
    if baseline is not None:
        compared = _against(baseline, side, allowed)
        problems += compared.problems
        notes += compared.notes
        for key, line in lines.items():
            verdict = compared.verdicts.get(key, OK)
            lines[key] = replace(
                line,
                old=compared.old.get(key),
                verdict=verdict if line.verdict == OK else line.verdict,
            )
    return Finding(tuple(lines.values()), tuple(problems), tuple(notes))


def update_baseline(file: Path, side: Side, *, gibbon: str) -> None:
    """Renews a check's part of a baseline file, all of it or nothing; the other parts stay.

    Several processes may do so at once.

    Raises `RecordError` where the file is not a baseline, or `RunFolderError` where it can't be
    written.
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
            if cell.key not in own
            and (
                cell.key.dataset != name or (not stale and cell.example_id.tolist() == ids.tolist())
            )
        ]
        merged = {**before.datasets, **side.datasets}
        cells = sorted([*kept, *side.cells], key=lambda cell: _place(cell.key))
        write_baseline(replace(before, datasets=merged, cells=tuple(cells)), file, gibbon=gibbon)


def text_table(lines: tuple[Line, ...]) -> str:
    """Returns the lines of one check as a table in plain text."""
    return _tabulated(
        {
            "error": [line.error for line in lines],
            "attack": [line.attack for line in lines],
            "epsilon": [line.epsilon for line in lines],
            "measured": [percent(line.rate) for line in lines],
            "95 % interval": [_interval(line) for line in lines],
            "wrong": [share(line.wrong, line.examples) for line in lines],
            "limit": [percent(line.limit) for line in lines],
            "baseline": [percent(line.old) for line in lines],
            "verdict": [line.verdict for line in lines],
        }
    )


def checks_table(lines: tuple[Line, ...], *, style: str = "simple") -> str:
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
        },
        style=style,
    )


def checks_markdown(lines: tuple[Line, ...], rewritten: tuple[str, ...]) -> str:
    """Returns the checks of a session as markdown, with a heading that says how they ended."""
    word = "passed" if all(line.verdict == OK for line in lines) else "failed"
    parts = [f"## Robustness checks: {word}", checks_table(lines, style="pipe")]
    if rewritten:
        parts.append(bullets(tuple(f"Baseline rewritten: {file}" for file in rewritten)))
    return "\n\n".join(parts) + "\n"


def _renamed(key: Key, name: str) -> Key:
    return replace(key, dataset=name, model=name)


def _lines(record: RunRecord, side: Side, allowed: Allowed) -> Iterator[tuple[Key, Line]]:
    (name,) = side.datasets
    for row in record.evaluations:
        limit = allowed.max_clean_error if row.unattacked else allowed.max_error
        measured = clean_error(row) if row.unattacked else adversarial_error(row)
        yield _key(row, name), _line(name, row, measured, limit)
    known = {cell.key for cell in side.cells}
    for worst in record.worst_cases:
        key = Key(name, name, all_attacks(worst), worst.epsilon, "worst_case_error")
        if key in known:
            yield (
                key,
                Line(
                    name,
                    "worst case",
                    key.attack,
                    str(worst.epsilon),
                    worst.worst_case_error,
                    worst.worst_case_error_low,
                    worst.worst_case_error_high,
                    worst.misclassified,
                    worst.examples,
                    None,
                    None,
                    OK,
                ),
            )


def _key(row: Evaluation, name: str) -> Key:
    if row.unattacked:
        return Key(name, name, row.attack, ZERO, "clean_error")
    return Key(name, name, row.attack, row.epsilon, "adversarial_error")


def _line(name: str, row: Evaluation, measured: Measured, limit: float | None) -> Line:
    verdict = OK
    if measured.rate is None:
        verdict = "failed"
    elif row.invalid_candidates:
        # They count as not misled: an attack that breaks its contract must not pass the check.
        verdict = f"{row.invalid_candidates:,} candidates out of budget"
    elif limit is not None and measured.rate > limit:
        verdict = ABOVE
    return Line(
        name,
        "clean" if row.unattacked else "adversarial",
        NOTHING if row.unattacked else row.attack,
        NOTHING if row.unattacked else str(row.epsilon),
        measured.rate,
        measured.low,
        measured.high,
        measured.part,
        row.examples,
        limit,
        None,
        verdict,
    )


@dataclass(frozen=True)
class _Compared:
    """What a baseline says of a check: by measure, and in sentences."""

    old: Mapping[Key, float]
    verdicts: Mapping[Key, str]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def _against(file: Path, side: Side, allowed: Allowed) -> _Compared:
    (name,) = side.datasets
    own = {cell.key for cell in side.cells}
    old = read_side(file)
    known = tuple(cell for cell in old.cells if cell.key in own | side.failed)
    lacking = sorted(own - {cell.key for cell in known}, key=_place)
    verdicts: dict[Key, str] = dict.fromkeys(lacking, "no baseline")
    problems = []
    if lacking:
        what = ", ".join(map(_named, lacking))
        problems.append(f"{file.name} holds no {what} of {name}: make it with pytest {UPDATE}")
    if not known:
        return _Compared({}, verdicts, tuple(problems))
    content = old.datasets[name]
    if content.digest != side.datasets[name].digest:
        return _Compared(
            {},
            dict.fromkeys(own, "other data"),
            (
                f"{file.name} was made on other data (of digest {content.digest[:12]}…, not "
                f"{side.datasets[name].digest[:12]}…); if that is meant, run pytest {UPDATE}",
            ),
        )
    comparison = compare(
        Side(file.name, old.suite, {name: content}, known),
        replace(side, name="this test"),
        limits=Limits(max_increase=allowed.max_increase),
        alpha=allowed.alpha,
    )
    bad = tuple(each for each in comparison.measures if each.verdict in BAD)
    told = sentences(replace(comparison, measures=bad))
    return _Compared(
        {each.key: each.old for each in comparison.measures if each.old is not None},
        verdicts | {each.key: each.verdict for each in bad},
        (*problems, *told),
        tuple(each for each in sentences(comparison) if each not in told),
    )


def _tabulated(columns: Mapping[str, list[str]], *, style: str = "simple") -> str:
    # A column with nothing in it takes room and says nothing.
    shown = {
        name: [escape(text) if style == "pipe" else text for text in texts]
        for name, texts in columns.items()
        if any(text != NOTHING for text in texts)
    }
    return tabulate(shown, headers="keys", tablefmt=style, disable_numparse=True)


def _tried(failure: Failure) -> str:
    if failure.attack == UNATTACKED:
        return "the unattacked model"
    return f"{failure.attack} at epsilon {failure.epsilon}"


def _named(key: Key) -> str:
    words = key.measure.replace("_", " ")
    if key.measure == "clean_error":
        return words
    return f"{words} under {key.attack} at epsilon {key.epsilon}"


def _place(key: Key) -> tuple[str, str, float, str]:
    """Returns where a measure stands in a file, whichever test was the first to write."""
    return key.dataset, key.attack, float(key.epsilon), key.measure


def _interval(line: Line) -> str:
    return interval(line.low, line.high, rate=line.rate)


def _locked(file: Path) -> FileLock:
    """Returns the lock of a file; it is elsewhere, so that nobody commits it."""
    place = hashlib.sha256(f"{Path.home()} {file.resolve()}".encode()).hexdigest()[:32]
    return FileLock(Path(tempfile.gettempdir()) / f"gibbon-{place}.lock", timeout=PATIENCE)

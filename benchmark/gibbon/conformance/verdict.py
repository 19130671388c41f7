"""What came of the laws, and how it is printed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from gibbon.conformance.laws import Law
from gibbon.core.threat import Norm
from gibbon.report.content.layout import NOTHING, Column, Table, cells


class Standing(StrEnum):
    """How an attack stands to a law."""

    KEPT = "kept"
    DEPARTS = "departs"
    BROKEN = "BROKEN"


@dataclass(frozen=True)
class Finding:
    """What came of one law in one norm.

    Args:
        law: the law.
        norm: the norm it was tried in.
        standing: whether it is kept.
        figure: the number that tells how closely; empty where there is none.
        sentence: what was seen where it is not kept, and why the attack says it departs or what its
            author can do.
    """

    law: Law
    norm: Norm
    standing: Standing
    figure: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class AttackVerdict:
    """How an attack stands to all laws.

    Args:
        attack: what it was called.
        parameters: its parameters, as they are printed.
        findings: one a law and norm.
        seconds: what it took.
    """

    attack: str
    parameters: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The laws that are broken without a departure being written down."""
        return self._of(Standing.BROKEN)

    @property
    def departures(self) -> tuple[Finding, ...]:
        """The laws that are not kept, as the attack says itself."""
        return self._of(Standing.DEPARTS)

    @property
    def passed(self) -> bool:
        """Whether no law is broken."""
        return not self.broken

    @property
    def sentence(self) -> str:
        """The verdict in a sentence."""
        kept = len(self._of(Standing.KEPT))
        words = [f"{kept} of {len(self.findings)} laws and norms kept"]
        if self.departures:
            words.append(f"{len(self.departures)} departed from as written down")
        words.append(f"{len(self.broken)} broken" if self.broken else "none broken")
        return f"{self.attack}: {', '.join(words)} ({self.seconds:.1f} s)."

    def _of(self, standing: Standing) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.standing is standing)


def verdict_table(verdict: AttackVerdict) -> Table:
    """Returns the verdict as a table: a row a law, or several where the norms differ.

    Its notes say what was seen of each law that is not kept, then the verdict.
    """
    rows = []
    for group in _grouped(verdict.findings):
        first = group[0]
        figures = dict.fromkeys(each.figure for each in group if each.figure)
        rows.append(
            cells(
                first.law.name,
                first.law.says,
                _norms(group),
                first.standing.value,
                " / ".join(figures) or NOTHING,
            )
        )
    columns = (
        Column("law", "left"),
        Column("the attack ...", "left", level=1),
        Column("norm", "left"),
        Column("verdict", "left"),
        Column("measured", "left"),
    )
    notes = [
        f"{group[0].standing.value}, {group[0].law.name} in {_norms(group)}: {group[0].sentence}"
        for group in _grouped(verdict.findings)
        if group[0].sentence
    ]
    if verdict.parameters:
        notes.append(f"Parameters: {verdict.parameters}.")
    notes.append(verdict.sentence)
    return Table(f"Conformance of {verdict.attack}", columns, tuple(rows), tuple(notes))


def _norms(group: list[Finding]) -> str:
    return ", ".join(each.norm.symbol for each in group)


def _grouped(findings: tuple[Finding, ...]) -> Iterator[list[Finding]]:
    """Yields the findings that share a row: of one law, with the same outcome in several norms."""
    groups: dict[tuple[str, Standing, str], list[Finding]] = {}
    for each in findings:
        groups.setdefault((each.law.name, each.standing, each.sentence), []).append(each)
    yield from sorted(groups.values(), key=lambda group: _place(group[0], findings))


def _place(finding: Finding, findings: tuple[Finding, ...]) -> int:
    order = list(dict.fromkeys(each.law.name for each in findings))
    return order.index(finding.law.name)

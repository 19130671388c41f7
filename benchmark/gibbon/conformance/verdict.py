"""Results of the laws, and their table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gibbon.conformance.laws import Law
from gibbon.core.threat import Norm
from gibbon.report.content.parts.layout import NOTHING, Column, Table, cells


class LawStatus(StrEnum):
    """Whether an attack keeps a law."""

    KEPT = "kept"
    DEPARTS = "departs"
    BROKEN = "BROKEN"


@dataclass(frozen=True)
class LawResult:
    """The result of one law in one norm.

    Args:
        law: the law.
        norm: the norm.
        status: whether it is kept.
        figure: the measured number; empty if there is none.
        sentence: for a law that is not kept, the observation, and the reason of the departure or
            advice for the author.
    """

    law: Law
    norm: Norm
    status: LawStatus
    figure: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class AttackVerdict:
    """The results of all laws for an attack.

    Args:
        attack: the attack's name.
        parameters: its parameters, as they are printed.
        results: one a law and norm.
        seconds: the duration.
    """

    attack: str
    parameters: str
    results: tuple[LawResult, ...]
    seconds: float

    @property
    def broken(self) -> tuple[LawResult, ...]:
        """The results of laws that are broken without a declared departure."""
        return self._of(LawStatus.BROKEN)

    @property
    def departures(self) -> tuple[LawResult, ...]:
        """The results of laws from which the attack departs by its own declaration."""
        return self._of(LawStatus.DEPARTS)

    @property
    def passed(self) -> bool:
        """Whether no law is broken."""
        return not self.broken

    @property
    def sentence(self) -> str:
        """The verdict in a sentence."""
        kept = len(self._of(LawStatus.KEPT))
        words = [f"{kept} of {len(self.results)} laws and norms kept"]
        if self.departures:
            words.append(f"{len(self.departures)} departed from as written down")
        words.append(f"{len(self.broken)} broken" if self.broken else "none broken")
        return f"{self.attack}: {', '.join(words)} ({self.seconds:.1f} s)."

    def _of(self, status: LawStatus) -> tuple[LawResult, ...]:
        return tuple(each for each in self.results if each.status is status)


def verdict_table(verdict: AttackVerdict) -> Table:
    """Returns the verdict as a table: a row a law, or several if the norms differ.

    Its notes hold the sentence of each law that is not kept, then the verdict.
    """
    rows, notes = [], []
    for group in _grouped(verdict.results):
        law, status, sentence = group[0].law, group[0].status.value, group[0].sentence
        norms = ", ".join(each.norm.symbol for each in group)
        figures = " / ".join(dict.fromkeys(each.figure for each in group if each.figure))
        rows.append(cells(law.name, law.says, norms, status, figures or NOTHING))
        if sentence:
            notes.append(f"{status}, {law.name} in {norms}: {sentence}")
    columns = (
        Column("law", "left"),
        Column("the attack ...", "left", level=1),
        Column("norm", "left"),
        Column("verdict", "left"),
        Column("measured", "left"),
    )
    if verdict.parameters:
        notes.append(f"Parameters: {verdict.parameters}.")
    notes.append(verdict.sentence)
    return Table(f"Conformance of {verdict.attack}", columns, tuple(rows), tuple(notes))


def _grouped(results: tuple[LawResult, ...]) -> list[list[LawResult]]:
    """Returns the results that share a row: equal results of one law in several norms."""
    order = list(dict.fromkeys(each.law.name for each in results))
    groups: dict[tuple[str, LawStatus, str], list[LawResult]] = {}
    for each in sorted(results, key=lambda result: order.index(result.law.name)):
        groups.setdefault((each.law.name, each.status, each.sentence), []).append(each)
    return list(groups.values())

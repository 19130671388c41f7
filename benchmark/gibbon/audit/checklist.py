"""Items of a checklist, and their table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gibbon.audit.facts import Facts
from gibbon.records.flags import Flag
from gibbon.report.content.parts.layout import Column, Table, cells

ItemState = Literal["done", "fails", "not done", "not applicable"]


@dataclass(frozen=True)
class ItemAnswer:
    """The answer to one item for one experiment.

    Args:
        state: ``done``; ``fails``: done, and what was seen speaks against the figures; ``not
            done``; or ``not applicable``.
        evidence: one sentence: what was seen, or what is missing.
        attacks: entries of a suite that would do it.
        transfer: whether transferring the attacks would do it.
    """

    state: ItemState
    evidence: str
    attacks: tuple[Mapping[str, Any], ...] = ()
    transfer: bool = False


@dataclass(frozen=True)
class Item:
    """An item of a published list.

    Args:
        name: its name.
        asks: what it requires, in our words.
        check: answers it for one experiment.
    """

    name: str
    asks: str
    check: Callable[[Facts], ItemAnswer]


@dataclass(frozen=True)
class Checklist:
    """A published list.

    Args:
        name: its name on the command line.
        title: its title in tables.
        source: where it was published.
        items: its items in order.
    """

    name: str
    title: str
    source: str
    items: tuple[Item, ...]

    def answers(self, facts: Iterable[Facts]) -> Iterator[tuple[Facts, Item, ItemAnswer]]:
        """Yields the answer to each item for each experiment."""
        for each in facts:
            for item in self.items:
                yield each, item, item.check(each)


@dataclass(frozen=True)
class Audit:
    """The answers to all lists for a run."""

    checklists: tuple[Checklist, ...]
    facts: tuple[Facts, ...]
    answers: Mapping[str, tuple[tuple[Facts, Item, ItemAnswer], ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, checklists: Iterable[Checklist], facts: Iterable[Facts]) -> Audit:
        """Returns the audit of a run's experiments."""
        lists, found = tuple(checklists), tuple(facts)
        return cls(lists, found, {each.name: tuple(each.answers(found)) for each in lists})

    @property
    def gaps(self) -> tuple[tuple[Facts, Item, ItemAnswer], ...]:
        """The items that are not done."""
        return self._in_state("not done")

    @property
    def failures(self) -> tuple[tuple[Facts, Item, ItemAnswer], ...]:
        """The items whose evidence speaks against the figures."""
        return self._in_state("fails")

    def _in_state(self, state: ItemState) -> tuple[tuple[Facts, Item, ItemAnswer], ...]:
        return tuple(
            each for answers in self.answers.values() for each in answers if each[2].state == state
        )

    def tables(self) -> Iterator[Table]:
        """Yields a table for each list and experiment."""
        for checklist in self.checklists:
            for facts in self.facts:
                rows = [
                    cells(item.name, item.asks, answer.state, answer.evidence)
                    for about, item, answer in self.answers[checklist.name]
                    if about is facts
                ]
                several = len(self.facts) > 1
                title = f"{checklist.title}, {facts.dataset}" if several else checklist.title
                yield Table(
                    title,
                    (
                        Column("Item", "left"),
                        Column("Requires", "left", level=1),
                        Column("State", "left"),
                        Column("Evidence", "left"),
                    ),
                    tuple(rows),
                    (f"Source: {checklist.source}.",),
                )


def done_unless(
    flags: Iterable[Flag], evidence: str, *, facts: Facts | None = None, checks: Iterable[str] = ()
) -> ItemAnswer:
    """Returns ``done`` with the evidence, or ``fails`` with the first of the flags.

    It is ``not done`` if there is no flag and the run made none of these checks of the facts.
    """
    found, needed = tuple(flags), tuple(checks)
    if not found:
        if facts is not None and needed and not facts.made(*needed):
            return ItemAnswer(
                "not done", f"the run did not check this ({listed(needed)}): run it again"
            )
        return ItemAnswer("done", evidence)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return ItemAnswer("fails", f"{found[0]}{more}")


def listed(names: Iterable[str], *, at_most: int = 4) -> str:
    """Returns names with commas between them, the first few."""
    found = tuple(dict.fromkeys(names))
    more = f" and {len(found) - at_most} more" if len(found) > at_most else ""
    return ", ".join(found[:at_most]) + more

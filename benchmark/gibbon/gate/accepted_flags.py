"""Decides which flags of which measures are accepted: by the suite, a file of limits, or a call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from gibbon.gate.limits import Limits
from gibbon.gate.measures import Key
from gibbon.records.acceptance import Acceptance, acceptances
from gibbon.records.flags import Flag

CALL = "accept"  # how a list in a Python call is named


@dataclass(frozen=True)
class AcceptedFlags:
    """The acceptances that hold for the flags of one run.

    Args:
        everywhere: those that hold for all measures.
        limits: limits, of which those with ``accept`` hold for the measures that they cover.
        where: source of the limits, such as their file.
    """

    everywhere: tuple[Acceptance, ...]
    limits: Limits
    where: str

    @classmethod
    def of_call(
        cls,
        accept: Iterable[str | Acceptance],
        *,
        suite: tuple[Acceptance, ...],
        limits: Limits,
        where: str,
    ) -> AcceptedFlags:
        """Returns the acceptances of a run's suite, of a file of limits, and of a call.

        Raises `SpecError` if ``accept`` names no kind of flag.
        """
        given = tuple(accept)
        in_words = acceptances([each for each in given if isinstance(each, str)], where=CALL)
        others = tuple(each for each in given if isinstance(each, Acceptance))
        where = where or "limits"
        general = acceptances(limits.accept, where=where)
        return cls((*suite, *others, *in_words, *general), limits, where)

    def __iter__(self) -> Iterator[Acceptance]:
        yield from self.everywhere
        for place, limit in enumerate(self.limits.limits):
            yield from (Acceptance(kind, self._table(place)) for kind in limit.accept)

    def of(self, flag: Flag, key: Key | None = None, *, attack: str = "") -> Acceptance | None:
        """Returns the acceptance of a flag, or None if nobody accepted it.

        Args:
            flag: the flag.
            key: the measure that it affects; None for a flag that affects none.
            attack: the label of the attack that it affects the measure through.
        """
        for each in self.everywhere:
            if each.kind == flag.kind:
                return each
        names = list(_names(flag, key, attack)) if key is not None else []
        for place, limit in enumerate(self.limits.limits):
            if flag.kind in limit.accept and any(map(limit.covers, names)):
                return Acceptance(flag.kind, self._table(place))
        return Acceptance(flag.kind, "the run") if flag.accepted else None

    def _table(self, place: int) -> str:
        return f"{self.where}: limits[{place}]"


def _names(flag: Flag, key: Key, attack: str) -> Iterator[Key]:
    """Yields the keys by which a limit may name a flag on a measure.

    A worst case is named by the attack that raised the flag too, and a transfer by its target if
    the flag is about the target.
    """
    yield key
    if attack and attack != key.attack:
        yield replace(key, attack=attack)
    if key.target and flag.model in ("", key.target):
        yield replace(key, model=key.target)

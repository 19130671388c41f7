"""Flags: signs that a number of a run is better than the model or the attack behind it.

Flags change no number.  They are in ``run.json``, and by kind in every row that they affect;
reports and the terminal print them first, and verdicts read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gibbon.core.errors import SpecError
from gibbon.core.threat import Epsilon
from gibbon.records.flag_kinds import KINDS, SEVERITIES, Severity, flag_kind
from gibbon.records.flag_share import FlagShare, with_share_text
from gibbon.records.record import Record
from gibbon.specs.base import EpsilonField

EARLIER = "earlier-version"
SEPARATOR = ";"  # between the kinds in a row of a table


class Flag(Record):
    """A sign that a number may be wrong.

    Args:
        kind: name of its kind, of a closed list (`gibbon.records.flag_kinds`).
        severity: ``serious``: the number must not be used as it is; ``warning``: it needs a
            check; ``note``: a reader should know.  That of the kind by default.
        dataset, model, attack, epsilon: the rows that it is about; an empty one stands for all.
        figure: the figure seen, as text; that of the share by default.
        share: the examples that it was seen for, if they are counted: flags of two runs are
            compared by it.
        sentence: one sentence about what was seen, without its subject.
        advice: one line: what to do.  That of the kind by default.
        suite: lines of a suite that would settle it, in TOML; empty if none would.
        source: where the check is described.  That of the kind by default.
        accepted: whether the user takes responsibility (``accept``): verdicts pass over it.

    >>> flag = Flag(kind="zero-gradient", dataset="mnist", model="net",
    ...     share=FlagShare(count=9, of=9), sentence="the gradient is zero for 9 of 9 examples")
    >>> flag.severity, flag.figure, str(flag)
    ('serious', '9 of 9', 'mnist, net: the gradient is zero for 9 of 9 examples')
    """

    kind: str
    severity: Severity = "serious"  # only until `_completed` fills in that of the kind
    dataset: str = ""
    model: str = ""
    attack: str = ""
    epsilon: EpsilonField | None = None
    figure: str = ""
    share: FlagShare | None = None
    sentence: str = Field(min_length=1)
    advice: str = ""
    suite: str = ""
    source: str = ""
    accepted: bool = False

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, written: Any, info: ValidationInfo) -> Any:
        if isinstance(written, str):  # flags were sentences once
            written = {"kind": EARLIER, "sentence": written}
        written = with_share_text(written, stored=info.mode == "json")
        kind = KINDS.get(str(written.get("kind"))) if isinstance(written, dict) else None
        if kind is None:
            return written
        ours = {"severity": kind.severity, "advice": kind.advice, "source": kind.source}
        return {**ours, **written}

    @field_validator("kind")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            return flag_kind(name).name
        except SpecError as error:
            raise ValueError(str(error)) from error

    @property
    def subject(self) -> str:
        """Dataset, model, attack and epsilon, as far as they are given."""
        names = [each for each in (self.dataset, self.model, self.attack) if each]
        if self.epsilon is not None:
            names[-1:] = [f"{' '.join(names[-1:])} at epsilon {self.epsilon}".strip()]
        return ", ".join(names)

    @property
    def counts(self) -> bool:
        """Whether verdicts fail on it: it is serious, and nobody took responsibility."""
        return self.severity == "serious" and not self.accepted

    def is_about(
        self, *, dataset: str, model: str = "", attack: str = "", epsilon: Epsilon | None = None
    ) -> bool:
        """Returns whether it affects the row of this dataset, model, attack and epsilon."""
        return (
            self.dataset in ("", dataset)
            and self.model in ("", model)
            and self.attack in ("", attack)
            and self.epsilon in (None, epsilon)
        )

    def __str__(self) -> str:
        subject = self.subject
        return f"{subject}: {self.sentence}" if subject else self.sentence


class FlagIndex:
    """Flags by subject, for the flags of many rows.

    >>> one = Flag(kind="wide-budget", dataset="mnist", attack="pgd", sentence="a")
    >>> other = Flag(kind="wide-budget", dataset="mnist", model="b", sentence="b")
    >>> index = FlagIndex([one, other])
    >>> [index[place].sentence for place in index.places("mnist", "a", "pgd", None)]
    ['a']
    """

    def __init__(self, flags: Iterable[Flag]) -> None:
        self._flags = tuple(flags)
        self._places: dict[tuple[str, str, str, Epsilon | None], list[int]] = {}
        for place, each in enumerate(self._flags):
            key = (each.dataset, each.model, each.attack, each.epsilon)
            self._places.setdefault(key, []).append(place)

    def __getitem__(self, place: int) -> Flag:
        return self._flags[place]

    def __iter__(self) -> Iterator[Flag]:
        return iter(self._flags)

    def places(
        self, dataset: str, model: str, attack: str, epsilon: Epsilon | None
    ) -> Iterator[int]:
        """Yields the places of the flags that affect a subject, as `Flag.is_about` defines it."""
        names = ({"", dataset}, {"", model}, {"", attack}, {None, epsilon})
        for key in product(*names):
            yield from self._places.get(key, ())


def sorted_flags(flags: Iterable[Flag]) -> tuple[Flag, ...]:
    """Returns flags, each once, the serious ones first; the order is kept otherwise."""
    return tuple(sorted(dict.fromkeys(flags), key=lambda each: SEVERITIES.index(each.severity)))


def kinds_of(flags: Iterable[Flag]) -> tuple[str, ...]:
    """Returns the kinds of flags, each once, those of serious ones first."""
    return tuple(dict.fromkeys(each.kind for each in sorted_flags(flags)))


def kinds_in(column: str) -> tuple[str, ...]:
    """Returns the kinds of flags in a stored column ``flags``, as `kinds_text` writes it."""
    return tuple(column.split(SEPARATOR)) if column else ()


def kinds_text(flags: Iterable[Flag]) -> str:
    """Returns the kinds of flags as the column ``flags`` of stored rows, each once.

    >>> one = Flag(kind="zero-gradient", sentence="a")
    >>> kinds_text([one, Flag(kind="wide-budget", sentence="b"), one])
    'zero-gradient;wide-budget'
    """
    return SEPARATOR.join(kinds_of(flags))


def with_accepted(flags: Iterable[Flag], accepted: Iterable[str]) -> tuple[Flag, ...]:
    """Returns flags, with those of the accepted kinds marked."""
    names = frozenset(accepted)
    return tuple(
        each.model_copy(update={"accepted": True}) if each.kind in names else each for each in flags
    )

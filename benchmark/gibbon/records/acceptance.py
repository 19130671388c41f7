"""Acceptance of flags: a kind that somebody takes responsibility for, and where that is written.

Verdicts ignore flags of an accepted kind, and print the acceptance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gibbon.core.errors import SpecError
from gibbon.records.flag_kinds import KINDS, flag_kind
from gibbon.records.flags import Flag


@dataclass(frozen=True)
class Acceptance:
    """A kind of flag that is accepted.

    Args:
        kind: name of the kind.
        where: the place where it is accepted, such as ``robust.toml`` or ``--accept``.
    """

    kind: str
    where: str


def acceptances(kinds: Iterable[str], *, where: str) -> tuple[Acceptance, ...]:
    """Returns the acceptance of each kind, each once.

    Raises `SpecError`, a line for each name that is not a kind of flag, with the nearest kind.

    >>> acceptances(["zero-gradent"], where="robust.toml")
    Traceback (most recent call last):
    gibbon.core.errors.SpecError: robust.toml: accept[0]: there is no kind of flag 'zero-gradent'; \
did you mean 'zero-gradient'?
    """
    names = tuple(kinds)
    check_kinds(names, where=where)
    return tuple(Acceptance(kind, where) for kind in dict.fromkeys(names))


def check_kinds(kinds: Iterable[str], *, where: str) -> None:
    """Raises `SpecError`, a line for each name that is not a kind of flag, with the nearest kind.

    ``where`` is the place of the list ``accept``, such as the file.
    """
    lines = []
    for place, name in enumerate(kinds):
        try:
            flag_kind(name)
        except SpecError as error:
            lines.append(f"{where}: accept[{place}]: {error}")
    if lines:
        raise SpecError("\n".join(lines))


def acceptance_text(acceptance: Acceptance, flags: Iterable[Flag]) -> str:
    """Returns a line about an acceptance and the flags that it covers.

    >>> one = Flag(kind="zero-gradient", sentence="a")
    >>> acceptance_text(Acceptance("zero-gradient", "robust.toml"), [one])
    'accepted: zero-gradient (robust.toml): 1 flag'
    >>> acceptance_text(Acceptance("zero-gradient", "robust.toml"), [])
    'accepted: zero-gradient (robust.toml): not raised'
    """
    covered = list(dict.fromkeys(flags))
    head = f"accepted: {acceptance.kind} ({acceptance.where})"
    if not covered:
        return f"{head}: not raised"
    count = f"{len(covered)} {'flag' if len(covered) == 1 else 'flags'}"
    if any(each.severity == "serious" for each in covered):
        return f"{head}: {count}"
    return f"{head}: {count}, a {KINDS[acceptance.kind].severity} only: no verdict depends on it"

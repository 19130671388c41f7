"""Flags as the text of a verdict: kind, subject, sentence, figure, advice and suite lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gibbon.records.flags import Flag

INDENT = "    "
MOST = 5  # of many flags of one kind, so many are written out


def flag_sentence(flag: Flag, *, subject: bool = True) -> str:
    """Returns the kind, the subject, the sentence and the figure of a flag, as one line.

    ``subject`` says whether to name the subject.

    >>> flag_sentence(Flag(kind="zero-gradient", model="net", figure="9 of 9", sentence="it is 0"))
    'zero-gradient: net: it is 0 (9 of 9)'
    """
    text = " ".join((str(flag) if subject else flag.sentence).split())
    figure = "" if not flag.figure or flag.figure in text else f" ({flag.figure})"
    return f"{flag.kind}: {text}{figure}"


def flags_by_advice(flags: Iterable[Flag]) -> list[list[Flag]]:
    """Returns flags in groups of one kind with the same advice and suite lines, in their order."""
    groups: dict[tuple[str, str, str], list[Flag]] = {}
    for flag in dict.fromkeys(flags):
        groups.setdefault((flag.kind, flag.advice, flag.suite), []).append(flag)
    return list(groups.values())


def group_sentences(group: Sequence[Flag]) -> list[str]:
    """Returns the sentences of a group of flags; of many flags the first ones, and a count."""
    lines = [flag_sentence(flag) for flag in group[:MOST]]
    more = len(group) - MOST
    return [*lines, f"{group[0].kind}: and {more:,} more"] if more > 0 else lines


def flag_lines(head: str, flags: Iterable[Flag]) -> list[str]:
    """Returns flags as lines, each with ``head`` in front, which says what they mean for a verdict.

    The advice and the suite lines of each kind follow its flags, indented.
    """
    lines = []
    for group in flags_by_advice(flags):
        lines += [f"{head}: {sentence}" for sentence in group_sentences(group)]
        if group[0].advice:
            lines.append(f"{INDENT}{' '.join(group[0].advice.split())}")
        suite = group[0].suite.strip().splitlines()
        lines += [f"{INDENT}{INDENT}{line}".rstrip() for line in suite]
    return lines


def serious_flags_text(flags: Iterable[Flag]) -> str:
    """Returns serious flags as the text of a failure, each kind with its advice and suite lines."""
    return "\n".join(flag_lines("serious flag", flags))


def kinds_in_words(flags: Iterable[Flag]) -> str:
    """Returns the kinds of flags, each once, with commas between them."""
    return ", ".join(dict.fromkeys(each.kind for each in flags))

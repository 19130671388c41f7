"""The number of examples that a serious flag requires, if its evidence is a count of examples.

One or two examples of a sound model may show a sign of a fault for a reason of their own: a unit
that is dead for this input, an odd picture, a kink of a rectifier just there.  If one example of
twenty does, which is more than was found in any sound network, three of three examples do by chance
once in 8,000 times.  Signs that one example proves, such as a candidate out of budget, need no
more.
"""

from __future__ import annotations

from gibbon.records.flag_kinds import Severity

LEAST_SERIOUS = 3  # examples with the sign
SURE_LEAST = 2  # of a sign that is at least five times as strong as in any sound network


def severity_by_count(
    count: int, total: int, *, least: int = LEAST_SERIOUS
) -> tuple[Severity, str]:
    """Returns the severity of a flag by its count of examples, with the reason if it is a warning.

    Args:
        count: number of examples with the sign.
        total: number of examples that were looked at.
        least: number of examples that are enough.

    >>> severity_by_count(3, 3), severity_by_count(1, 3)[0]
    (('serious', ''), 'warning')
    """
    if count >= least:
        return "serious", ""
    few = "one or two" if least > SURE_LEAST else "one"
    return "warning", (
        f"; {count} of {total} looked at, where a serious flag needs {least}, because {few} may be "
        "odd"
    )

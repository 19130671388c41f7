"""The laws that an attack keeps, for the authors of attacks to try on their own.

`check_attack` runs every law of `gibbon.conformance.laws` on small models made for it
(`gibbon.conformance.subjects`), in every norm that the attack claims, and returns an
`AttackVerdict`: which laws are kept, which are broken, and from which the attack departs as it has
written down (`gibbon.attacks.base.Attack.departures`).  Our own tests run the same laws.

>>> verdict = check_attack("fgsm")
>>> verdict.passed, len(verdict.broken)
(True, 0)
"""

from __future__ import annotations

from gibbon.conformance.checking import check_attack
from gibbon.conformance.verdict import AttackVerdict, Finding, Standing, verdict_table

__all__ = [
    "AttackVerdict",
    "Finding",
    "Standing",
    "check_attack",
    "verdict_table",
]

"""Conformance tests of attacks, for the authors of attacks to run on their own.

`check_attack` runs every law of `gibbon.conformance.laws` on small models made for it
(`gibbon.conformance.subjects`), in every norm that the attack claims, and returns an
`AttackVerdict`: which laws are kept, which are broken, and from which the attack departs by its own
declaration (`gibbon.attacks.base.Attack.departures`).  Our own tests run these laws too.

>>> verdict = check_attack("fgsm")
>>> verdict.passed, len(verdict.broken)
(True, 0)
"""

from __future__ import annotations

from gibbon.conformance.checking import check_attack
from gibbon.conformance.verdict import AttackVerdict, LawResult, LawStatus, verdict_table

__all__ = ["AttackVerdict", "LawResult", "LawStatus", "check_attack", "verdict_table"]

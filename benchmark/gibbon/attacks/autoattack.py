"""AutoAttack's standard version: four attacks, each on the survivors of the earlier ones.

APGD on the cross-entropy, APGD on the targeted difference of logits ratio, the targeted fast
adaptive boundary attack and the square attack, none of which has a parameter to choose.  In L1 APGD
on the cross-entropy makes five runs, and the targeted ratio has five target classes.  The attacks
run as a list of `gibbon.attacks.worst_of`.

Sources: F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020, section 6, https://arxiv.org/abs/2003.01690; for L1,
F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers",
ICML 2021, the section on AutoAttack in L1, https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic.dataclasses import dataclass

from gibbon.attacks.apgd import APGDCE, APGDT
from gibbon.attacks.base import STOPPING, STRICT, Attack, Count
from gibbon.attacks.fab_t import FABT
from gibbon.attacks.square import SCHEDULE, Square
from gibbon.attacks.worst_of import AttackList, Member
from gibbon.core.threat import Norm

NAMES = ("apgd-ce", "apgd-t", "fab-t", "square")
AHEAD = 64  # queries of the square attack in one batch for an example, at most


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AutoAttack(AttackList):
    """AutoAttack's standard version, in L∞ and L2.

    It yields one candidate a member, as `worst-of` does.  With fewer than ten classes all wrong
    ones are targets; with fewer than four the targeted ratio has no fourth output, and is the
    difference of the two outputs, undivided.  Windows of the square attack shrink as for 10,000
    queries, as in the authors' code; if few examples are left, several of its queries go into one
    batch, which costs more forward passes than ``queries`` and does not change the result.

    Args:
        steps: gradient steps of each run of APGD and of FAB.
        target_classes: number of target classes, the likeliest wrong ones.
        queries: of the square attack, for each example.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    departures: ClassVar[Mapping[str, str]] = APGDCE.departures

    steps: Count = 100
    target_classes: Count = 9
    queries: Count = 5000

    @property
    def listed(self) -> tuple[Member, ...]:
        """The four attacks in order."""
        return _named(
            APGDCE(steps=self.steps, keep=STOPPING),
            APGDT(steps=self.steps, n_target_classes=self.target_classes, keep=STOPPING),
            FABT(steps=self.steps, target_classes=self.target_classes),
            Square(queries=self.queries, schedule=SCHEDULE, ahead=AHEAD),
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AutoAttackL1(AttackList):
    """AutoAttack's standard version in L1: ``autoattack`` with ``norm = "l1"``.

    It yields one candidate a member, as `AutoAttack` does.

    Args:
        steps: gradient steps of each run of APGD and of FAB.
        restarts: runs of APGD on the cross-entropy.
        target_classes: number of target classes of the targeted ratio, the likeliest wrong ones.
        boundary_classes: number of target classes of FAB.
        queries: of the square attack, for each example.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L1,)
    departures: ClassVar[Mapping[str, str]] = APGDCE.departures

    steps: Count = 100
    restarts: Count = 5
    target_classes: Count = 5
    boundary_classes: Count = 9
    queries: Count = 5000

    @property
    def listed(self) -> tuple[Member, ...]:
        """The four attacks in order."""
        return _named(
            APGDCE(steps=self.steps, restarts=self.restarts, keep=STOPPING),
            APGDT(steps=self.steps, n_target_classes=self.target_classes, keep=STOPPING),
            FABT(steps=self.steps, target_classes=self.boundary_classes),
            Square(queries=self.queries, schedule=SCHEDULE, ahead=AHEAD),
        )


def _named(*attacks: Attack) -> tuple[Member, ...]:
    return tuple(map(Member, NAMES, attacks))

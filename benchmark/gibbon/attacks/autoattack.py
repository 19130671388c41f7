"""AutoAttack's standard version: four attacks in turn, each on what no earlier one misled.

APGD on the cross-entropy, APGD on the targeted ratio, the targeted fast adaptive boundary attack
and the square attack, none of which has a parameter to choose.  In L1 APGD on the cross-entropy
makes five runs, and the targeted ratio aims at five classes.  See `gibbon.attacks.worst_of` for
how they follow one another.

Sources: F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020, section 6, https://arxiv.org/abs/2003.01690; for L1,
F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers",
ICML 2021, the section on AutoAttack in L1, https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.apgd import APGDCE, APGDT
from gibbon.attacks.base import STOPPING, STRICT, Attack
from gibbon.attacks.fab_t import FABT
from gibbon.attacks.square import SCHEDULE, Square
from gibbon.attacks.worst_of import Member, in_turn
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.models.classifier import Classifier

NAMES = ("apgd-ce", "apgd-t", "fab-t", "square")
AHEAD = 64  # queries of the square attack that may be asked of an example at once

Count = Annotated[int, Field(ge=1)]


class Standard(Attack):
    """What the standard versions have in common: they run a list, and yield one try a member."""

    departures: ClassVar[Mapping[str, str]] = APGDCE.departures

    @property
    @abstractmethod
    def listed(self) -> tuple[Attack, ...]:
        """The four attacks in order."""

    @property
    def made_of(self) -> tuple[Attack, ...]:
        """The members."""
        return self.listed

    @property
    def members(self) -> tuple[str, ...]:
        """The members' names."""
        return NAMES

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields one try a member."""
        list_ = tuple(map(Member, NAMES, self.listed))
        return in_turn(list_, classifier, inputs, labels=labels, threat=threat, streams=streams)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AutoAttack(Standard):
    """The standard version; its name is ``autoattack``, and it has no others.

    It yields one try a member, as `worst-of` does.  With fewer than ten classes all wrong ones are
    targets; with fewer than four the targeted ratio has no fourth output, and is the difference of
    the two outputs, undivided.  Windows of the square attack shrink as if 10,000 queries were made,
    as in the authors' code; where few examples are left several of its queries are asked at once.
    It then makes more forward passes than ``queries``, and finds what it would find without.

    Args:
        steps: gradient steps of each run of APGD and of FAB.
        target_classes: how many classes are aimed at, the likeliest wrong ones.
        queries: of the square attack, for each example.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)

    steps: Count = 100
    target_classes: Count = 9
    queries: Count = 5000

    @property
    def listed(self) -> tuple[Attack, ...]:
        """The four attacks in order."""
        return (
            APGDCE(steps=self.steps, keep=STOPPING),
            APGDT(steps=self.steps, n_target_classes=self.target_classes, keep=STOPPING),
            FABT(steps=self.steps, target_classes=self.target_classes),
            Square(queries=self.queries, schedule=SCHEDULE, ahead=AHEAD),
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AutoAttackL1(Standard):
    """The standard version in L1: ``autoattack`` with ``norm = "l1"``.

    It yields one try a member; the rest is as in L∞ and L2.

    Args:
        steps: gradient steps of each run of APGD and of FAB.
        restarts: runs of APGD on the cross-entropy.
        target_classes: how many classes the targeted ratio aims at, the likeliest wrong ones.
        boundary_classes: the same for FAB.
        queries: of the square attack, for each example.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L1,)

    steps: Count = 100
    restarts: Count = 5
    target_classes: Count = 5
    boundary_classes: Count = 9
    queries: Count = 5000

    @property
    def listed(self) -> tuple[Attack, ...]:
        """The four attacks in order."""
        return (
            APGDCE(steps=self.steps, restarts=self.restarts, keep=STOPPING),
            APGDT(steps=self.steps, n_target_classes=self.target_classes, keep=STOPPING),
            FABT(steps=self.steps, target_classes=self.boundary_classes),
            Square(queries=self.queries, schedule=SCHEDULE, ahead=AHEAD),
        )

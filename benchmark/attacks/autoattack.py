"""AutoAttack's standard version: four attacks in turn, each on what no earlier one misled.

APGD on the cross-entropy, APGD on the targeted ratio, the targeted fast adaptive boundary attack
and the square attack, none of which has a parameter to choose.  See `benchmark.attacks.worst_of`
for how they follow one another.

Source: F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020, section 6, https://arxiv.org/abs/2003.01690.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from benchmark.attacks.apgd import APGDCE, APGDT
from benchmark.attacks.base import STRICT, Attack
from benchmark.attacks.fab_t import FABT
from benchmark.attacks.square import Square
from benchmark.attacks.worst_of import STOPPING, Member, in_turn
from benchmark.classifier import Classifier
from benchmark.rng import ExampleStreams
from benchmark.threat import Norm, ThreatModel

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AutoAttack(Attack):
    """The standard version; its name is ``autoattack``, and it has no others.

    It yields one try a member, as `worst-of` does.  With fewer than ten classes all wrong ones are
    targets; with fewer than four the targeted ratio has no fourth output, and is the difference of
    the two outputs, undivided.  In L1 the authors' version ends with a square attack that is none
    of ours: it is L∞ and L2 here.

    Args:
        steps: gradient steps of each run of APGD and of FAB.
        target_classes: how many classes are aimed at, the likeliest wrong ones.
        queries: of the square attack, for each example.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    departures: ClassVar[Mapping[str, str]] = APGDCE.departures

    steps: Count = 100
    target_classes: Count = 9
    queries: Count = 5000

    @property
    def made_of(self) -> tuple[Attack, ...]:
        """The members."""
        return tuple(each.attack for each in self._list)

    @property
    def members(self) -> tuple[str, ...]:
        """The members' names."""
        return tuple(each.label for each in self._list)

    @property
    def _list(self) -> tuple[Member, ...]:
        steps, targets = self.steps, self.target_classes
        return (
            Member("apgd-ce", APGDCE(steps=steps, keep=STOPPING)),
            Member("apgd-t", APGDT(steps=steps, n_target_classes=targets, keep=STOPPING)),
            Member("fab-t", FABT(steps=steps, target_classes=targets)),
            Member("square", Square(queries=self.queries)),
        )

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
        return in_turn(
            self._list, classifier, inputs, labels=labels, threat=threat, streams=streams
        )

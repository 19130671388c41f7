r"""APGD: projected gradient ascent without a step size to choose, on three objectives.

`APGDCE` maximises the cross-entropy, `APGDDLR` the difference of logits ratio, and `APGDT` the
targeted ratio of one likely class after another (`gibbon.attacks.toolkit.objectives`).  Algorithm 1
is in `gibbon.attacks.toolkit.apgd_search`.

Sources: F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020, algorithm 1 and sections 3 to 5,
https://arxiv.org/abs/2003.01690; for L1, F. Croce and M. Hein, "Mind the box: l1-APGD for sparse
adversarial attacks on image classifiers", ICML 2021, https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Attack, Count, SearchMethod
from gibbon.attacks.toolkit.apgd_search import APGDSearch, KeptPoint, Run
from gibbon.attacks.toolkit.objectives import DLR, CrossEntropy, TargetedDLR
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.models.classifier import Classifier

ShareParameter = Annotated[float, Field(ge=0, le=1)]


class APGD(Attack):
    """Interface of the three attacks, which differ in the objective of a run."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)
    search_method: ClassVar[SearchMethod] = SearchMethod.ITERATIVE
    departures: ClassVar[Mapping[str, str]] = {
        "batch": "near a maximum, the rounding of another batch size may turn a comparison of two "
        "values, and with it a later step size"
    }

    steps: int
    restarts: int
    rho: float
    keep: KeptPoint

    @abstractmethod
    def runs(
        self, classifier: Classifier, inputs: Tensor, *, labels: Tensor, streams: ExampleStreams
    ) -> Iterator[Run]:
        """Yields each run before it is restarted: its objective and its random numbers."""

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields the one candidate."""
        runs = (
            Run(run.objective, run.streams.child(number))
            for run in self.runs(classifier, inputs, labels=labels, streams=streams)
            for number in range(self.restarts)
        )
        search = APGDSearch(classifier, threat, self.steps, self.rho, self.keep)
        yield search.best_points(inputs, runs)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class APGDCE(APGD):
    """APGD on the cross-entropy, in its exact form: the loss does not saturate.

    Args:
        steps: gradient steps of one run.
        restarts: runs from different random points; the best point of all is returned.
        rho: share of the steps between checkpoints that must increase the loss, else the step size
            is halved; not used in L1.
        keep: ``"best-loss"``, the misclassified point of the highest loss, or the point of the
            highest loss if none is misclassified; ``"first-success"``, the first misclassified
            point, which gives the same error in fewer passes.
    """

    steps: Count = 100
    restarts: Count = 1
    rho: ShareParameter = 0.75
    keep: KeptPoint = "best-loss"

    def runs(
        self, classifier: Classifier, inputs: Tensor, *, labels: Tensor, streams: ExampleStreams
    ) -> Iterator[Run]:
        """Yields the one run."""
        yield Run(CrossEntropy(labels, classifier.outputs), streams)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class APGDDLR(APGD):
    """APGD on the difference of logits ratio; with two classes, on the margin.

    Args:
        steps: gradient steps of one run.
        restarts: runs from different random points; the best point of all is returned.
        rho: share of the steps between checkpoints that must increase the ratio, else the step size
            is halved; not used in L1.
        keep: which point is returned, as in `APGDCE`.
    """

    steps: Count = 100
    restarts: Count = 1
    rho: ShareParameter = 0.75
    keep: KeptPoint = "best-loss"

    def caveats(self, classes: int) -> Iterator[str]:
        """Yields that the margin is maximised if the model has too few classes for the ratio."""
        if classes < (needed := len(DLR.divisor)):
            yield (
                f"the difference of logits ratio needs {needed} classes, the model has "
                f"{classes}: the margin was climbed instead"
            )

    def runs(
        self, classifier: Classifier, inputs: Tensor, *, labels: Tensor, streams: ExampleStreams
    ) -> Iterator[Run]:
        """Yields the one run."""
        yield Run(DLR(labels), streams)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class APGDT(APGD):
    """APGD on the targeted difference of logits ratio, for one likely wrong class after another.

    With fewer than four classes the ratio is the difference of the two outputs.  The target classes
    are those with the largest outputs for the clean input: one forward pass.

    Args:
        steps: gradient steps of one run.
        restarts: runs from different random points for each target.
        n_target_classes: number of target classes; all wrong ones if there are fewer.
        rho: share of the steps between checkpoints that must increase the ratio, else the step size
            is halved; not used in L1.
        keep: which point is returned, as in `APGDCE`.
    """

    steps: Count = 100
    restarts: Count = 1
    n_target_classes: Count = 9
    rho: ShareParameter = 0.75
    keep: KeptPoint = "best-loss"

    def caveats(self, classes: int) -> Iterator[str]:
        """Yields that a difference is maximised if the model has too few classes for the ratio."""
        if classes < (needed := len(TargetedDLR.divisor)):
            yield (
                f"the targeted ratio needs {needed} classes, the model has "
                f"{classes}: the difference of two outputs was climbed instead"
            )

    def runs(
        self, classifier: Classifier, inputs: Tensor, *, labels: Tensor, streams: ExampleStreams
    ) -> Iterator[Run]:
        """Yields a run for each target class, the likeliest first."""
        with torch.no_grad():
            clean = classifier(inputs)
        wrong = min(self.n_target_classes, classifier.classes - 1)
        likely = clean.scatter(1, labels.unsqueeze(1), -torch.inf).topk(wrong).indices
        for number, targets in enumerate(likely.unbind(1)):
            yield Run(TargetedDLR(labels, targets), streams.child(f"target {number}"))

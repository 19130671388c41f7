"""Answers of targets to the candidates of a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from gibbon.core.plain_tensors import version_of
from gibbon.datasets.base import Batch
from gibbon.records.outcomes import TargetOutcome
from gibbon.runner.failures.boundary import Attempt, boundary
from gibbon.runner.failures.raised_by import attributed
from gibbon.runner.job_results.outcome_arrays import target_outcome
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.verify.answers import ask


@dataclass
class TargetScores:
    """The answers of targets to a cell's candidates, and their errors; by target digest."""

    answers: dict[str, TargetOutcome] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def score(self, target: LoadedModel, candidates: Batch, attempt: Attempt) -> None:
        """Appends the answers of a target to the next candidates, or records its error."""
        with boundary(partial(self.fail, target), attempt):
            more = target_outcome(ask(target.classifier, candidates.inputs, batch=candidates))
            before = self.answers.get(target.digest)
            self.answers[target.digest] = more if before is None else before.then(more)

    def fail(self, target: LoadedModel, error: BaseException) -> None:
        """Records the error of a target."""
        self.errors[target.digest] = attributed(error)

    def update(self, other: TargetScores) -> None:
        """Takes over the answers and errors of other targets."""
        self.answers.update(other.answers)
        self.errors.update(other.errors)


def scores_of(targets: Sequence[LoadedModel], candidates: Batch, attempt: Attempt) -> TargetScores:
    """Returns the answers of several targets to a batch of candidates.

    A target that writes into its input, which is an error of that target, does not change the
    candidates for the targets after it.
    """
    scores, version = TargetScores(), version_of(candidates.inputs)
    spare = candidates.inputs.clone() if len(targets) > 1 else candidates.inputs
    for target in targets:
        scores.score(target, candidates, attempt)
        if version_of(candidates.inputs) != version:
            candidates = replace(candidates, inputs=spare.clone())
            version = version_of(candidates.inputs)
    return scores

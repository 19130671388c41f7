"""The parts of a plan that are about inputs without a class, and their digests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gibbon.core.threat import ZERO
from gibbon.records.run import Failure
from gibbon.runner.plan.cell_digest import digest_of
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Plan, PlannedExperiment
from gibbon.specs.base import UNATTACKED
from gibbon.specs.suite import FoolingSpec

NO_CLASS_VERSION = 1  # goes up when the meaning of stored answers changes


@dataclass(frozen=True)
class PlannedAnswers:
    """A model's answers to inputs without a class, or to the fooling images made of them.

    Args:
        experiment: the experiment.
        source: the model.
        fooling: the step that is taken from each input; None for the inputs themselves.
        digest: the name that the answers are stored under.
    """

    experiment: PlannedExperiment
    source: LoadedModel
    fooling: FoolingSpec | None
    digest: str

    @property
    def dataset(self) -> str:
        """The name of the dataset in the suite."""
        return self.experiment.spec.dataset.name

    @property
    def work(self) -> int:
        """Estimated number of passes for one example."""
        classes = self.source.card.classes
        return self.source.draws * (1 if self.fooling is None else classes) + (
            0 if self.fooling is None else 1 + classes
        )

    def failure(self, error: str, *, traceback: str = "", raised_by: str = "") -> Failure:
        """Returns the record of an error that made the answers fail."""
        return Failure(
            dataset=self.dataset,
            model=self.source.name,
            attack=UNATTACKED if self.fooling is None else "fooling",
            epsilon=ZERO if self.fooling is None else self.fooling.step,
            error=error,
            traceback=traceback,
            raised_by=raised_by,
        )

    def __str__(self) -> str:
        if self.fooling is None:
            return f"{self.dataset}, {self.source.name}, inputs without a class"
        return f"{self.dataset}, {self.source.name}, fooling images at step {self.fooling.step}"


def plan_answers(plan: Plan) -> Iterator[PlannedAnswers]:
    """Yields the answers of a plan by experiment and model, to the inputs themselves first."""
    for experiment in plan.without_classes:
        for source in experiment.models:
            yield answers_of(experiment, source, None)
            if experiment.spec.fooling is not None:
                yield answers_of(experiment, source, experiment.spec.fooling)


def count_cells(plan: Plan) -> int:
    """Returns the number of cells of a plan; answers to inputs without a class count as cells."""
    return len(tuple(plan.cells)) + len(tuple(plan_answers(plan)))


def answers_of(
    experiment: PlannedExperiment, source: LoadedModel, fooling: FoolingSpec | None
) -> PlannedAnswers:
    """Returns a model's answers in an experiment; neither threshold nor names enter the digest."""
    step = None if fooling is None else [str(fooling.step.value), fooling.direction]
    digest = digest_of(
        no_class=NO_CLASS_VERSION, data=experiment.data_digest, source=source.digest, step=step
    )
    return PlannedAnswers(experiment, source, fooling, digest)

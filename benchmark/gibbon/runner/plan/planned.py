"""The records of a plan: experiments, their attacks, and cells.

A `Cell` is one source model, attack, epsilon and dataset, scored on its targets.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.attacks.base import Attack, SharedWork, parameters_of
from gibbon.core.threat import ZERO, Epsilon, ThreatModel
from gibbon.datasets.base import Dataset
from gibbon.models.memory import BatchSize
from gibbon.models.sources import BuiltModel
from gibbon.records.run import Failure
from gibbon.runner.boundary import described
from gibbon.runner.model_pool import ModelPool
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.settings import RunSettings
from gibbon.specs.base import UNATTACKED
from gibbon.specs.suite import AttackSpec, Experiment, Suite


@dataclass(frozen=True)
class PlannedAttack:
    """An attack of an experiment with its threat models, one an epsilon."""

    spec: AttackSpec
    attack: Attack
    threats: tuple[ThreatModel, ...]
    stream_key: int
    transferred: bool

    @property
    def label(self) -> str:
        """What the tables call it."""
        return self.spec.label

    @property
    def shares_work(self) -> bool:
        """Whether the epsilons share work: one direction, or one search."""
        return self.attack.shares is not SharedWork.NOTHING

    @property
    def carries_in_batch(self) -> bool:
        """Whether the epsilons are carried along one direction, within each batch."""
        return self.spec.carried and self.attack.shares is SharedWork.DIRECTION

    def passes(self, epsilons: int) -> int:
        """Returns the estimated number of passes for one example at so many epsilons."""
        steps, tries = _steps_and_tries(self.attack)
        searches = 1 if self.shares_work else epsilons
        return 2 * searches * steps + tries * epsilons


@dataclass(frozen=True)
class Cell:
    """One source model, attack, epsilon and dataset, with the targets that it is scored on.

    Args:
        dataset: the dataset's name.
        source: the model under attack.
        attack: None for the unattacked cell, which has epsilon 0.
        threat: None for the unattacked cell.
        targets: the models that are scored, the source first.
        digest: names the outcome.
        follows: digest of the earlier outcome whose misclassified examples this cell takes over: of
            a smaller epsilon, of an earlier member of a list, or unattacked; None if all examples
            are attacked.
        members: for a list of attacks that is run member by member, a cell for each member.  Each
            follows the one before it, and the last one has the digest of the list.
        member: the position of the member in its list; None if the cell is no member's.
    """

    dataset: str
    source: LoadedModel
    attack: PlannedAttack | None
    threat: ThreatModel | None
    targets: tuple[LoadedModel, ...]
    digest: str
    follows: str | None = None
    members: tuple[Cell, ...] = ()
    member: int | None = None

    @property
    def label(self) -> str:
        """What the tables call the attack."""
        return self.attack.label if self.attack is not None else UNATTACKED

    @property
    def epsilon(self) -> Epsilon:
        """The budget; zero for the unattacked cell."""
        return self.threat.epsilon if self.threat is not None else ZERO

    @property
    def asks_source(self) -> bool:
        """Whether the source is among the targets."""
        return any(each.digest == self.source.digest for each in self.targets)

    @property
    def others(self) -> tuple[LoadedModel, ...]:
        """The targets other than the source."""
        return tuple(each for each in self.targets if each.digest != self.source.digest)

    def failure(self, error: BaseException) -> Failure:
        """Returns the record of an exception that made the cell fail."""
        return Failure(
            dataset=self.dataset,
            model=self.source.name,
            attack=self.label,
            epsilon=self.epsilon,
            error=described(error),
            traceback="".join(traceback.format_exception(error)),
        )

    def __str__(self) -> str:
        if self.attack is None:
            return f"{self.dataset}, {self.source.name}, unattacked"
        return f"{self.dataset}, {self.source.name}, {self.label} at epsilon {self.epsilon}"


@dataclass(frozen=True)
class PlannedExperiment:
    """An experiment with everything looked at.

    ``skipped`` says why examples were left out, one sentence each; ``flags`` what a reader of the
    results should know of both dataset and models.  ``batch_sizes`` go by the name of the source.
    """

    spec: Experiment
    dataset: Dataset
    ids: NDArray[np.int64]
    models: tuple[LoadedModel, ...]
    attacks: tuple[PlannedAttack, ...]
    cells: tuple[Cell, ...]
    batch_sizes: Mapping[str, BatchSize]
    skipped: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A suite with everything loaded and checked."""

    suite: Suite
    settings: RunSettings
    device: torch.device
    experiments: tuple[PlannedExperiment, ...]
    pool: ModelPool


@dataclass(frozen=True)
class Supplied:
    """Models, datasets and attacks that are there already, by what a suite calls them.

    They stand before whatever their specs say of where they come from.  Attacks go by label.
    """

    models: Mapping[str, BuiltModel] = field(default_factory=dict)
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    attacks: Mapping[str, Attack] = field(default_factory=dict)


NOTHING_SUPPLIED = Supplied()


def goes_by_member(experiment: Experiment, planned: PlannedAttack) -> bool:
    """Says whether a list of attacks is run member by member, each on all that is left over."""
    return experiment.error_only and bool(planned.attack.made_of)


def _steps_and_tries(attack: Attack) -> tuple[int, int]:
    """Returns how many gradients and how many tries an attack may take, members added up."""
    if attack.made_of:
        return sum(_steps_and_tries(each)[0] for each in attack.made_of), len(attack.made_of)
    parameters = parameters_of(attack)
    restarts = _positive(parameters.get("restarts"))
    return _positive(parameters.get("steps")) * restarts, restarts


def _positive(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 1

"""The contents of a plan: experiments, their attacks, and their cells."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gibbon.attacks.base import Attack, SharedWork, parameters_of
from gibbon.attacks.worst_of import members_of
from gibbon.core.threat import PIXEL_BOUNDS, ZERO, Epsilon, ThreatModel
from gibbon.datasets.base import Batch, Dataset
from gibbon.models.attacked_view import attacked_view
from gibbon.models.classifier import Classifier
from gibbon.models.memory import BatchSize
from gibbon.models.sources import BuiltModel
from gibbon.records.flags import Flag
from gibbon.records.run import DatasetCard, Failure
from gibbon.runner.device.model_pool import ModelPool
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.settings import RunSettings
from gibbon.specs.adaptation import UNCHANGED, Adaptation
from gibbon.specs.base import UNATTACKED
from gibbon.specs.suite import AttackSpec, Experiment, Suite


@dataclass(frozen=True)
class PlannedAttack:
    """An attack of an experiment with a threat model for each epsilon."""

    spec: AttackSpec
    attack: Attack
    threats: tuple[ThreatModel, ...]
    stream_key: int
    transferred: bool
    adaptation: Adaptation = UNCHANGED

    def seen(self, source: Classifier, inputs: Tensor) -> Classifier:
        """Returns a model as the attack sees it, with clean inputs, shape (N, *input_shape)."""
        return attacked_view(source, self.adaptation, inputs=inputs, key=self.stream_key)

    @property
    def views(self) -> tuple[Adaptation, ...]:
        """How each member of a list sees a model; for any other attack, how it does."""
        own = tuple(each.adaptation(self.adaptation) for each in members_of(self.attack))
        return own or (self.adaptation,)

    @property
    def eot(self) -> int:
        """The largest number of draws that a gradient is averaged over."""
        return max(each.eot for each in self.views)

    @property
    def least_eot(self) -> int | None:
        """The smallest number of draws of a gradient; None for an attack without gradients."""
        members = members_of(self.attack)
        needs = [each.attack.needs_gradient for each in members] or [self.attack.needs_gradient]
        averaged = [view.eot for view, one in zip(self.views, needs, strict=True) if one]
        return min(averaged, default=None)

    @property
    def label(self) -> str:
        """The attack's name in the tables."""
        return self.spec.label

    @property
    def shares_work(self) -> bool:
        """Whether the epsilons share work, which is one direction or one search."""
        return self.attack.shares is not SharedWork.NOTHING

    @property
    def carries_in_batch(self) -> bool:
        """Whether successes are carried to larger epsilons along one direction, in each batch."""
        return self.spec.carried and self.attack.shares is SharedWork.DIRECTION

    def reach(self, threat: ThreatModel) -> float:
        """Returns the largest distance of a success on a path that starts at this threat model.

        A direction serves the largest epsilon too; a search has none.  No point is a success on
        the path of an adapted attack, which does not see the model itself.
        """
        if self.adaptation:  # what the attack sees is not what counts
            return -math.inf
        if self.attack.shares is SharedWork.SEARCH:
            return math.inf
        shared = self.threats if self.shares_work else (threat,)
        return max(each.radius for each in shared)

    def passes(self, epsilons: int) -> int:
        """Returns the estimated number of passes for one example at this number of epsilons."""
        steps, tries = _steps_and_tries(self.attack)
        searches = 1 if self.shares_work else epsilons
        return 2 * searches * steps * self.eot + tries * epsilons


@dataclass(frozen=True)
class Cell:
    """A source model, attack, epsilon and dataset, with the targets that it is scored on.

    Args:
        dataset: the dataset's name.
        source: the model under attack.
        attack: None for the unattacked cell, which has epsilon 0.
        threat: None for the unattacked cell.
        targets: the models that are scored, the source first.
        digest: the name that the outcome is stored under.
        follows: digest of the earlier outcome whose misclassified examples this cell takes over,
            which is that of a smaller epsilon, of an earlier member of a list, or of the unattacked
            cell; None if all examples are attacked.
        members: for a list of attacks that is run member by member, a cell for each member.  Each
            follows the one before it, and the last one has the digest of the list.
        member: the position of the member in its list; None for the cell of another attack.
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
        """The name of the attack in the tables."""
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

    def failure(self, error: str, *, traceback: str = "", raised_by: str = "") -> Failure:
        """Returns the record of an error that made the cell, or one of its targets, fail."""
        return Failure(
            dataset=self.dataset,
            model=self.source.name,
            attack=self.label,
            epsilon=self.epsilon,
            error=error,
            traceback=traceback,
            raised_by=raised_by,
        )

    def __str__(self) -> str:
        if self.attack is None:
            return f"{self.dataset}, {self.source.name}, unattacked"
        return f"{self.dataset}, {self.source.name}, {self.label} at epsilon {self.epsilon}"


@dataclass(frozen=True)
class PlannedExperiment:
    """An experiment with its dataset, models and attacks, loaded and checked.

    Args:
        spec: the experiment in the suite.
        dataset: the dataset.
        ids: int64, shape (N,): ids of the examples to evaluate.
        models: the models; each is a source.
        attacks: the attacks.
        cells: the cells, by source, the unattacked one first.
        batch_sizes: batch sizes by the name of the source.
        skipped: reasons why examples were left out, a sentence for each.
        flags: what a reader of the results should know about dataset, models and attacks.
        eot_sizes: batch sizes of attacks with ``eot``, by source and number of draws.
        data_digest: digest of the dataset's content and the ids of the whole run.
        whole: number of examples of the whole run, if ``ids`` are those of a shard.
    """

    spec: Experiment
    dataset: Dataset
    ids: NDArray[np.int64]
    models: tuple[LoadedModel, ...]
    attacks: tuple[PlannedAttack, ...]
    cells: tuple[Cell, ...]
    batch_sizes: Mapping[str, BatchSize]
    skipped: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    data_digest: str = ""
    eot_sizes: dict[tuple[str, int], BatchSize] = field(default_factory=dict, repr=False)
    whole: int | None = None

    @property
    def total(self) -> int:
        """Number of examples of the whole run."""
        return len(self.ids) if self.whole is None else self.whole

    def cells_of(self, source: LoadedModel) -> tuple[Cell, ...]:
        """Returns the cells of a source, the unattacked one first."""
        return self._by_source.get(id(source), ())

    def times_scored(self, target: LoadedModel) -> int:
        """Returns how many cells of other sources are scored on a model."""
        return self._scored[id(target)]

    @cached_property
    def _scored(self) -> Counter[int]:
        return Counter(id(each) for cell in self.cells for each in cell.others)

    @cached_property
    def _by_source(self) -> Mapping[int, tuple[Cell, ...]]:
        found: dict[int, list[Cell]] = {}
        for cell in self.cells:
            found.setdefault(id(cell.source), []).append(cell)
        return {source: tuple(own) for source, own in found.items()}

    def batch_of(self, points: NDArray[np.float32], part: slice) -> Batch:
        """Returns some of the examples with points, shape (N, *input_shape), as their inputs."""
        ids = self.ids[part]
        arrays = ids, points[part], self.dataset.labels[ids]
        return Batch(*(torch.from_numpy(np.array(each)) for each in arrays))

    def batch_size(self, source: LoadedModel, attack: PlannedAttack | None) -> BatchSize:
        """Returns the batch size of a source under an attack.

        With ``eot`` one pass holds several draws of each example: the batch has fewer examples,
        unless the user chose its size.
        """
        usual, eot = self.batch_sizes[source.name], 1 if attack is None else attack.eot
        if eot == 1 or usual.fixed:
            return usual
        return self.eot_sizes.setdefault((source.name, eot), usual.divided(eot))

    @property
    def card(self) -> DatasetCard:
        """The record of the dataset."""
        bounds = self.dataset.bounds
        return DatasetCard(
            name=self.dataset.name,
            digest=self.dataset.digest,
            examples=len(self.ids),
            of=len(self.dataset),
            classes=self.dataset.classes,
            input_shape=self.dataset.input_shape,
            notes=self.dataset.notes,
            skipped=self.skipped,
            class_order=self.dataset.class_order,
            no_class=self.dataset.info.no_class,
            bounds=None if bounds == PIXEL_BOUNDS else (bounds.low, bounds.high),
        )


@dataclass(frozen=True)
class Plan:
    """A suite with everything loaded and checked.

    ``experiments`` are those whose inputs have classes; ``without_classes`` have no cells and no
    attacks: what they measure is in `gibbon.runner.no_class`.
    """

    suite: Suite
    settings: RunSettings
    device: torch.device
    experiments: tuple[PlannedExperiment, ...]
    pool: ModelPool
    without_classes: tuple[PlannedExperiment, ...] = ()

    @property
    def all_experiments(self) -> tuple[PlannedExperiment, ...]:
        """The experiments of both kinds, in the order of the suite."""
        names = [each.dataset.name for each in self.suite.experiments]
        both = (*self.experiments, *self.without_classes)
        return tuple(sorted(both, key=lambda each: names.index(each.spec.dataset.name)))

    def clean_experiment(self, experiment: PlannedExperiment) -> PlannedExperiment | None:
        """Returns the experiment whose inputs those without a class are compared with, or None."""
        clean = self.suite.clean_experiment(experiment.spec)
        name = None if clean is None else clean.dataset.name
        return next((each for each in self.experiments if each.spec.dataset.name == name), None)

    @property
    def cells(self) -> Iterator[Cell]:
        """The cells of all experiments, without those of members of lists."""
        return (cell for experiment in self.experiments for cell in experiment.cells)


@dataclass(frozen=True)
class Supplied:
    """Models and datasets by their names in a suite, and attacks by their labels.

    They are used in place of what the specs of these names describe.
    """

    models: Mapping[str, BuiltModel] = field(default_factory=dict)
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    attacks: Mapping[str, Attack] = field(default_factory=dict)


NOTHING_SUPPLIED = Supplied()


def _steps_and_tries(attack: Attack) -> tuple[int, int]:
    """Returns the largest numbers of gradients and tries of an attack, summed over its members."""
    if attack.made_of:
        return sum(_steps_and_tries(each)[0] for each in attack.made_of), len(attack.made_of)
    parameters = parameters_of(attack)
    restarts = _positive(parameters.get("restarts"))
    return _positive(parameters.get("steps")) * restarts, restarts


def _positive(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 1

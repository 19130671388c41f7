"""From a suite to cells: everything is resolved and checked here, before anything is computed.

A `Cell` is one source model, attack, epsilon and dataset.  Cells that differ in epsilon alone make
one `Job`, because an attack may serve several epsilons from shared work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.attacks.base import Attack
from gibbon.core.threat import ZERO, Epsilon, ThreatModel
from gibbon.datasets.base import Dataset
from gibbon.models.sources import BuiltModel
from gibbon.runner.execute.model_pool import Stage
from gibbon.runner.plan.loading import LoadedModel
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


@dataclass(frozen=True)
class Cell:
    """One source model, attack, epsilon and dataset, with the targets it is to be scored on.

    ``threat`` is None for the unattacked cell.  ``targets`` hold the source first.  ``follows`` is
    the digest of the cell whose misled examples this one takes over, of a smaller epsilon or
    unattacked; None where all examples are attacked.
    """

    dataset: str
    source: LoadedModel
    attack: PlannedAttack | None
    threat: ThreatModel | None
    targets: tuple[LoadedModel, ...]
    digest: str
    follows: str | None = None

    @property
    def label(self) -> str:
        """What the tables call the attack."""
        return self.attack.label if self.attack is not None else UNATTACKED

    @property
    def epsilon(self) -> Epsilon:
        """The budget; zero for the unattacked cell."""
        return self.threat.epsilon if self.threat is not None else ZERO

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
    batch_sizes: Mapping[str, int]
    skipped: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A suite with everything loaded and checked."""

    suite: Suite
    settings: RunSettings
    device: torch.device
    experiments: tuple[PlannedExperiment, ...]
    stage: Stage


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

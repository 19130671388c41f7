"""Facts about the attacks of a run, read from its record, for the lists of an audit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gibbon.core.threat import Epsilon, Norm
from gibbon.records.flags import Flag
from gibbon.records.run import Evaluation, RunRecord, Transfer
from gibbon.specs.suite import AttackSpec, Experiment

SINGLE_STEP = frozenset({"fgsm", "fgsm-naive"})
TARGETED = frozenset({"apgd-t", "fab-t", "autoattack"})
# Attacks of other libraries that see the predicted class alone.
HARD_LABEL = ("boundary", "hopskipjump", "geoda", "qeba", "sign-opt", "rays", "pointwise")
# Names of checks in the record of a run.
PATHS = "paths of attacks"
ORDER = "order of attacks"
PAIRED = "errors against clean and smaller budgets"
GRADIENT = "gradient at the data"
TWICE = "the same inputs twice"
OUTPUTS = "form of the outputs"
AUTOGRAD = "autograd inside of forward"
CALLS = "the same inputs after many calls"
SINGLE_PASS = 1.5  # backward passes for each example, up to which an attack is a single step


@dataclass(frozen=True)
class AttackFact:
    """An attack of an experiment, with its rows and members.

    Args:
        spec: the entry of the attack in the suite.
        rows: the rows of the attack, one for each model and epsilon, without failed ones.
        members: the names of the attacks that it is a list of; empty for another attack.
    """

    spec: AttackSpec
    rows: tuple[Evaluation, ...]
    members: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the attack and of its members, in small letters."""
        return tuple(each.lower() for each in (self.spec.name, *self.members))

    @property
    def noise(self) -> bool:
        """Whether the attack adds random noise alone."""
        return self.spec.name.startswith("noise-")

    @property
    def gradient_free(self) -> bool:
        """Whether the attack, or a member, searches without gradients, other than by noise."""
        if "square" in self.names:
            return True
        counted = [row for row in self.rows if row.forward_passes]
        return not self.noise and bool(counted) and not any(row.backward_passes for row in counted)

    @property
    def hard_label(self) -> bool:
        """Whether the attack uses predicted classes alone, according to its name."""
        return any(part in name for name in self.names for part in HARD_LABEL)

    @property
    def single_step(self) -> bool:
        """Whether the attack takes one gradient for each example."""
        if self.spec.name in SINGLE_STEP:
            return True
        return not self.members and 0 < self._gradients <= SINGLE_PASS

    @property
    def iterative(self) -> bool:
        """Whether the attack, or a member, takes several gradients for each example."""
        return bool(self.members) or (not self.single_step and self._gradients > SINGLE_PASS)

    @property
    def targeted(self) -> bool:
        """Whether the attack, or a member, is targeted, according to its name or parameters."""
        names = TARGETED.intersection(self.names)
        return bool(names) or any("target" in key for key in self.spec.parameters)

    @property
    def adaptive(self) -> bool:
        """Whether the attack was adapted to a model by ``eot``, ``backward`` or ``before``."""
        own = self.spec.eot is not None or self.spec.backward or self.spec.before
        return bool(own) or "." in self.spec.name

    @property
    def epsilons(self) -> tuple[Epsilon, ...]:
        """The budgets of the attack, in ascending order."""
        return tuple(sorted(self.spec.epsilon))

    @property
    def norms(self) -> frozenset[Norm]:
        """The norms of the attack's rows."""
        return frozenset(row.norm for row in self.rows if row.norm is not None)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the attack with their defaults, as stored."""
        return next((row.parameter_values for row in self.rows), {})

    @property
    def _gradients(self) -> float:
        """Backward passes for each example and row, at most; 0 if none was counted."""
        per_row = [row.backward_passes / row.examples for row in self.rows if row.examples]
        return max(per_row, default=0.0)


@dataclass(frozen=True)
class Facts:
    """An experiment of a run, with its rows and flags."""

    record: RunRecord
    experiment: Experiment

    @property
    def dataset(self) -> str:
        """The name of the experiment's dataset."""
        return self.experiment.dataset.name

    @cached_property
    def attacks(self) -> tuple[AttackFact, ...]:
        """The attacks of the experiment that were done, on one model at least."""
        return tuple(each for each in map(self._fact, self.experiment.attacks) if each.rows)

    @cached_property
    def rows(self) -> tuple[Evaluation, ...]:
        """The rows of the experiment, without failed ones."""
        return tuple(
            row
            for row in self.record.evaluations
            if row.dataset == self.dataset and row.status == "done"
        )

    @cached_property
    def transfers(self) -> tuple[Transfer, ...]:
        """The rows of examples that were made on another model than the target."""
        return tuple(
            row
            for row in self.record.transfers
            if row.dataset == self.dataset and row.source != row.target and row.status == "done"
        )

    @property
    def unbounded(self) -> tuple[Evaluation, ...]:
        """The rows with a budget as wide as the box of inputs in [0, 1]."""
        return tuple(row for row in self.rows if row.norm is Norm.LINF and float(row.epsilon) >= 1)

    def made(self, *checks: str) -> bool:
        """Returns whether the run made one of the checks of these names."""
        return any(each.name in checks for each in self.record.checks)

    def flagged(self, *kinds: str) -> tuple[Flag, ...]:
        """Returns the flags of these kinds, of the dataset or of the whole run."""
        return tuple(
            each
            for each in self.record.flags
            if each.kind in kinds and each.dataset in ("", self.dataset)
        )

    def _fact(self, spec: AttackSpec) -> AttackFact:
        rows = tuple(row for row in self.rows if row.attack == spec.label)
        members = dict.fromkeys(
            each.member
            for each in self.record.members
            if (each.dataset, each.attack) == (self.dataset, spec.label)
        )
        return AttackFact(spec, rows, tuple(members))


def facts_of(record: RunRecord) -> Iterator[Facts]:
    """Yields the facts of each experiment of a run."""
    for experiment in record.suite.with_classes:
        yield Facts(record, experiment)

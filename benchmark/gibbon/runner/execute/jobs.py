"""Groups the cells that remain to be computed into jobs, by source and attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gibbon.core.rng import derive_key
from gibbon.core.threat import ZERO
from gibbon.models.memory import BatchSize
from gibbon.records.outcomes import Outcome
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Cell, Plan, PlannedAttack, PlannedExperiment
from gibbon.runner.run_folder import RunFolder


@dataclass(frozen=True)
class Job:
    """Cells of one source and attack that are computed together.

    The targets of the cells are those whose answers are not recorded yet.  The unattacked cell, if
    there is one, comes first: the attack's first forward pass is often the clean prediction.
    ``follows`` is the digest of an earlier outcome, whose survivors the job attacks; None if it
    attacks all examples.
    """

    experiment: PlannedExperiment
    cells: tuple[Cell, ...]
    follows: str | None = None

    @property
    def source(self) -> LoadedModel:
        """The model under attack."""
        return self.cells[-1].source

    @property
    def attack(self) -> PlannedAttack | None:
        """The attack; None if the unattacked cell is the only one."""
        return self.cells[-1].attack

    @property
    def unattacked(self) -> bool:
        """Whether the unattacked cell is among the cells."""
        return self.cells[0].attack is None

    @property
    def batch_size(self) -> BatchSize:
        """The batch size of the source."""
        return self.experiment.batch_size(self.source, self.attack)

    @property
    def name(self) -> str:
        """Source and attack, for progress bars and notes."""
        return f"{self.source.name}, {self.attack.label if self.attack else 'unattacked'}"

    @property
    def digest(self) -> str:
        """The name of the file that an unfinished job is saved in."""
        parts = [f"{each.digest}:{','.join(t.digest for t in each.targets)}" for each in self.cells]
        return f"{derive_key(*parts):016x}"

    @property
    def models(self) -> tuple[LoadedModel, ...]:
        """The source and the other targets."""
        others = (other for each in self.cells for other in each.others)
        return (self.source, *dict.fromkeys(others))

    @property
    def on_source(self) -> Job:
        """The job without its other targets."""
        cells = [replace(each, targets=each.targets[: each.asks_source]) for each in self.cells]
        return replace(self, cells=tuple(cells))

    @property
    def work(self) -> int:
        """Estimated number of passes for one example."""
        attacked = len(self.cells) - self.unattacked
        passes = self.attack.passes(attacked) if self.attack is not None else 0
        return passes + sum(len(each.others) for each in self.cells) + self.unattacked


def find_jobs(plan: Plan, folder: RunFolder) -> list[Job]:
    """Returns the jobs that are left to do, in the order of the suite.

    Cells with one digest, such as those of a model with two names, are computed once.
    """
    wanted: dict[str, dict[str, LoadedModel]] = {}
    for cell in plan.cells:
        targets = wanted.setdefault(cell.digest, {})
        for target in cell.targets:
            targets.setdefault(target.digest, target)
    jobs = []
    for experiment in plan.experiments:
        for source in experiment.models:
            missing = [
                left
                for cell in experiment.cells
                if cell.source is source
                and (targets := wanted.pop(cell.digest, {}))
                and (left := _missing(cell, tuple(targets.values()), folder)).targets
            ]
            jobs.extend(_jobs_of(experiment, missing, folder))
    return jobs


def _missing(cell: Cell, targets: tuple[LoadedModel, ...], folder: RunFolder) -> Cell:
    """Returns a cell with those of its targets whose answers are not recorded."""
    recorded = folder.read(cell.digest)
    if recorded is not None and cell.source.digest in recorded.scores:
        targets = tuple(each for each in targets if each.digest not in recorded.scores)
    return replace(cell, targets=targets)


def recorded_of(cell: Cell, folder: RunFolder) -> Outcome | None:
    """Returns a cell's recorded outcome without older answers under the names of its targets."""
    recorded = folder.read(cell.digest)
    names = {each.name for each in cell.others}
    return recorded and recorded.without(names, but=cell.source.digest)


def _jobs_of(
    experiment: PlannedExperiment, missing: Sequence[Cell], folder: RunFolder
) -> list[Job]:
    """Returns the jobs of one source.

    The unattacked cell is computed with the first attack of the suite or alone, never with a later
    one, so that the passes counted for an attack don't depend on where an earlier run was
    interrupted.
    """
    unattacked = tuple(cell for cell in missing if cell.attack is None)
    jobs = [
        job
        for attack in experiment.attacks
        for job in _jobs_for(experiment, attack, missing, folder)
    ]
    if not unattacked:
        return jobs
    if jobs and jobs[0].attack is experiment.attacks[0] and jobs[0].follows is None:
        return [replace(jobs[0], cells=unattacked + jobs[0].cells), *jobs[1:]]
    return [Job(experiment, unattacked), *jobs]


def _jobs_for(
    experiment: PlannedExperiment, attack: PlannedAttack, missing: Sequence[Cell], folder: RunFolder
) -> list[Job]:
    """Returns the jobs of one source and attack.

    Epsilons at which all examples are attacked are one job.  So are those whose successes are
    carried along one direction: there the job attacks all examples, since the pass that gives the
    direction gives the clean prediction too.  Every member of a list is a job of its own.
    """
    jobs: list[Job] = []
    along, smallest = attack.carries_in_batch, min(each.epsilon for each in attack.threats)
    cells = [each for each in missing if each.attack is attack]
    # Ascending if successes are carried to larger epsilons, otherwise in the order of the suite.
    for cell in sorted(cells, key=lambda each: each.epsilon if attack.spec.carried else ZERO):
        for member in cell.members:
            if member.digest == cell.digest or folder.read(member.digest) is None:
                member_left = replace(member, targets=cell.targets)
                jobs.append(Job(experiment, (member_left,), member.follows))
        last = jobs[-1] if jobs else None
        if cell.members:
            continue
        if last and (not cell.follows or (along and cell.follows == last.cells[-1].digest)):
            jobs[-1] = replace(last, cells=(*last.cells, cell))
        else:
            whole = along and attack.attack.needs_gradient and cell.epsilon == smallest
            jobs.append(Job(experiment, (cell,), None if whole else cell.follows))
    return jobs

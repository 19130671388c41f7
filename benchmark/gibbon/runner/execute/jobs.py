"""Groups the cells that remain to be computed into jobs, by source and attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gibbon.core.rng import derive_key
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
    attacks all examples.  ``again`` holds the cells that are recorded: they are computed because
    their passes are shared with a lost cell, whose passes are then those of the first time.
    """

    experiment: PlannedExperiment
    cells: tuple[Cell, ...]
    follows: str | None = None
    again: frozenset[str] = frozenset()

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
    first: dict[str, Cell] = {}
    for cell in plan.cells:
        first.setdefault(cell.digest, cell)
        targets = wanted.setdefault(cell.digest, {})
        for target in cell.targets:
            targets.setdefault(target.digest, target)
    jobs = []
    for experiment in plan.experiments:
        for source in experiment.models:
            own = [
                _missing(cell, tuple(wanted[cell.digest].values()), folder)
                for cell in experiment.cells_of(source)
                if first[cell.digest] is cell
            ]
            jobs.extend(_jobs_of(experiment, own, folder))
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


def _jobs_of(experiment: PlannedExperiment, own: Sequence[Cell], folder: RunFolder) -> list[Job]:
    """Returns the jobs of one source, whose cells have the targets that are missing.

    The unattacked cell is computed with the first cell of the first attack or alone, never with a
    later one, so that the passes counted for an attack don't depend on where an earlier run was
    interrupted.
    """
    jobs = [job for each in experiment.attacks for job in _jobs_for(experiment, each, own, folder)]
    unattacked = [cell for cell in own if cell.attack is None]
    missing = any(cell.targets for cell in unattacked)
    head = jobs[0].cells[0] if jobs and jobs[0].follows is None else None
    first = [cell.digest for each in experiment.attacks[:1] for cell in _ordered(own, each)[:1]]
    if head is None or [head.digest] != first:
        return [*(Job(experiment, (cell,)) for cell in unattacked if missing), *jobs]
    lost = head.digest not in jobs[0].again and folder.was_made(head.digest)
    with_head, again = (
        _whole(unattacked) if missing or (lost and head.asks_source) else ([], frozenset[str]())
    )
    cells = (*with_head, *jobs[0].cells)
    return [replace(jobs[0], cells=cells, again=jobs[0].again | again), *jobs[1:]]


def _jobs_for(
    experiment: PlannedExperiment, attack: PlannedAttack, own: Sequence[Cell], folder: RunFolder
) -> list[Job]:
    """Returns the jobs of one source and attack.

    Epsilons at which all examples are attacked are one job.  So are those whose successes are
    carried along one direction: there the job attacks all examples, since the pass that gives the
    direction gives the clean prediction too.  Every member of a list is a job of its own.
    """
    jobs: list[Job] = []
    along, smallest = attack.carries_in_batch, min(each.epsilon for each in attack.threats)
    cells, again = _ordered(own, attack), frozenset[str]()
    lost = any(cell.asks_source and folder.was_made(cell.digest) for cell in cells)
    if lost and attack.shares_work and (along or not attack.spec.carried):
        cells, again = _whole(cells)
    for cell in cells:
        for member in cell.members:
            last_one = member.digest == cell.digest
            if cell.targets if last_one else folder.read(member.digest) is None:
                jobs.append(Job(experiment, (member,), member.follows))
        last = jobs[-1] if jobs else None
        if cell.members or not cell.targets:
            continue
        if last and (not cell.follows or (along and cell.follows == last.cells[-1].digest)):
            jobs[-1] = replace(last, cells=(*last.cells, cell))
        else:
            whole = along and attack.attack.needs_gradient and cell.epsilon == smallest
            jobs.append(Job(experiment, (cell,), None if whole else cell.follows, again))
    return jobs


def _ordered(own: Sequence[Cell], attack: PlannedAttack) -> list[Cell]:
    """Returns the cells of an attack, ascending if successes are carried to larger epsilons."""
    cells = [cell for cell in own if cell.attack is attack]
    return sorted(cells, key=lambda cell: cell.epsilon) if attack.spec.carried else cells


def _whole(cells: Sequence[Cell]) -> tuple[list[Cell], frozenset[str]]:
    """Returns cells with those that are recorded computed again, and the digests of the latter."""
    again = frozenset(cell.digest for cell in cells if not cell.targets)
    return [replace(c, targets=c.targets or (c.source,)) for c in cells], again

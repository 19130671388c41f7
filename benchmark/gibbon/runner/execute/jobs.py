"""Jobs: the cells of a plan that remain to be computed, grouped by source and attack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gibbon.attacks.base import Attack, SharedWork, parameters_of
from gibbon.core.rng import derive_key
from gibbon.records.outcomes import Outcome, OutcomeMeta
from gibbon.runner.plan.cell import Cell, Plan, PlannedAttack, PlannedExperiment, goes_by_member
from gibbon.runner.plan.loading import LoadedModel
from gibbon.runner.run_folder import RunFolder


@dataclass(frozen=True)
class CellWork:
    """A cell and the targets whose answers are not recorded yet."""

    cell: Cell
    targets: tuple[LoadedModel, ...]
    recorded: Outcome | None

    @property
    def asks_source(self) -> bool:
        """Whether the source's own answers are among what is missing."""
        return any(each.digest == self.cell.source.digest for each in self.targets)

    @property
    def others(self) -> tuple[LoadedModel, ...]:
        """The missing targets other than the source."""
        return tuple(each for each in self.targets if each.digest != self.cell.source.digest)


@dataclass(frozen=True)
class Chain:
    """What a job goes on from: the outcome of an earlier one, whose misled examples it leaves out.

    So the examples that are left fill whole batches again, whatever batches they were in before.

    Args:
        follows: the digest that the earlier outcome is filed under.
        member: where the job is one attack of a list, its position there.
        of: the digest of the cell of the whole list; empty where the job is no part of one.
        last: whether the cell is finished with this job.
    """

    follows: str
    member: int | None = None
    of: str = ""
    last: bool = True

    def left(self, before: Outcome) -> NDArray[np.int64]:
        """Returns the positions of the examples that the job is about."""
        return np.flatnonzero(~before.any_misclassified)

    def joined(self, before: Outcome, found: Outcome | None, *, meta: OutcomeMeta) -> Outcome:
        """Returns the outcome of all examples; ``meta`` is for where none was left."""
        if found is None:  # what earlier members of the list took was spent all the same
            spent = meta.after(before.meta) if self.member else meta
            return replace(before, saturated=None, meta=spent)
        if self.member is not None:
            by = np.where(found.any_misclassified, self.member, -1).astype(np.int16)
            found = replace(found, misled_by=by)
        joined = before.at(self.left(before), found, only_misled=bool(self.member))
        return replace(joined, meta=joined.meta.after(before.meta)) if self.member else joined


def prefix(cell: str, member: int) -> str:
    """Returns what the outcome of a list of attacks is filed under until the list is through."""
    return f"{cell}-{member}.partial"


@dataclass(frozen=True)
class Job:
    """Cells of one source and attack that are computed together.

    ``clean`` is the unattacked cell where that is missing too: it rides along, because the
    attack's first forward pass is often the clean prediction.  ``chain`` is there where the job
    takes over what an earlier one misled.  It has several cells then, as without, only for attacks
    along one direction: each takes over what the one before it misled, batch by batch.
    """

    experiment: PlannedExperiment
    source: LoadedModel
    attack: PlannedAttack | None
    cells: tuple[CellWork, ...]
    clean: CellWork | None
    chain: Chain | None = None

    @property
    def name(self) -> str:
        """What progress bars call it."""
        label = self.attack.label if self.attack is not None else "unattacked"
        return f"{self.source.name}, {label}"

    @property
    def work(self) -> int:
        """Estimated passes for one example."""
        steps, tries = 1, 1
        if self.attack is not None:
            steps, tries = _steps_and_tries(self.attack.attack)
        shares = self.attack.attack.shares if self.attack is not None else SharedWork.NOTHING
        searches = len(self.cells) if shares is SharedWork.NOTHING else min(1, len(self.cells))
        gradients = searches * steps
        answers = tries * len(self.cells) + self.others
        return 2 * gradients + answers + (self.clean is not None)

    @property
    def finishes(self) -> bool:
        """Whether its cells are done when it is: not so for all attacks of a list but the last."""
        return self.chain is None or self.chain.last

    @property
    def others(self) -> int:
        """How many answers of other models than the source it needs for one example."""
        return sum(len(each.others) for each in self.cells)

    def effort(self, keeper: Keeper | None) -> int:
        """Estimated passes for one example, those that are left for later not counted."""
        return self.work if keeper is None else self.work - self.others

    @property
    def models(self) -> tuple[LoadedModel, ...]:
        """The source and all models that are asked."""
        asked = (other for each in self.cells for other in each.others)
        return (self.source, *dict.fromkeys(asked))

    @property
    def digest(self) -> str:
        """Names what the job saves while it is under way."""
        parts = [
            f"{each.cell.digest}:{','.join(target.digest for target in each.targets)}"
            for each in self.all_cells
        ]
        return f"{derive_key(*parts):016x}"

    @property
    def all_cells(self) -> tuple[CellWork, ...]:
        """The attacked cells and the unattacked one."""
        return self.cells + ((self.clean,) if self.clean is not None else ())


def find_jobs(plan: Plan, folder: RunFolder) -> list[Job]:
    """Returns the jobs that are left to do, in the order of the suite.

    Cells of one digest (a model under two names, say) are one piece of work.  The unattacked cell
    rides with the first attack of the suite or alone, never with a later one: so the passes that
    are booked on an attack don't depend on where an earlier run was interrupted.
    """
    wanted: dict[str, dict[str, LoadedModel]] = {}
    for experiment in plan.experiments:
        for cell in experiment.cells:
            targets = wanted.setdefault(cell.digest, {})
            for target in cell.targets:
                targets.setdefault(target.digest, target)
    jobs = []
    for experiment in plan.experiments:
        for source in experiment.models:
            missing = [
                work
                for cell in experiment.cells
                if cell.source is source
                and (targets := wanted.pop(cell.digest, {}))
                and (work := _missing(cell, tuple(targets.values()), folder)).targets
            ]
            clean = next((work for work in missing if work.cell.attack is None), None)
            for attack in experiment.attacks:
                works = tuple(work for work in missing if work.cell.attack is attack)
                later: list[tuple[CellWork, ...]] = []
                if attack.spec.carried or goes_by_member(experiment.spec, attack):
                    works, later = _sweeps(experiment, attack, works)
                if works:
                    rider = clean if attack is experiment.attacks[0] else None
                    jobs.append(Job(experiment, source, attack, works, rider))
                    clean = None if rider is not None else clean
                if later and clean is not None:
                    jobs.append(Job(experiment, source, None, (), clean))
                    clean = None
                for sweep in later:
                    jobs.extend(_chained(experiment, sweep, folder))
            if clean is not None:
                jobs.append(Job(experiment, source, None, (), clean))
    return jobs


def _sweeps(
    experiment: PlannedExperiment, planned: PlannedAttack, works: Iterable[CellWork]
) -> tuple[tuple[CellWork, ...], list[tuple[CellWork, ...]]]:
    """Returns the cells that are computed of all examples, and those that go on from recorded ones.

    Along one direction cells that follow each other are computed together: from the smallest
    epsilon on of all examples, where asking for the direction gives the clean prediction too.
    Every other cell goes on by itself.
    """
    together = _along(planned) and not goes_by_member(experiment.spec, planned)
    sweeps: list[tuple[CellWork, ...]] = []
    for work in sorted(works, key=lambda each: each.cell.epsilon):
        if together and sweeps and work.cell.follows == sweeps[-1][-1].cell.digest:
            sweeps[-1] += (work,)
        else:
            sweeps.append((work,))
    smallest = min(each.epsilon for each in planned.threats)
    if not (together and sweeps and sweeps[0][0].cell.epsilon == smallest):
        return (), sweeps
    return (sweeps[0], sweeps[1:]) if planned.attack.needs_gradient else ((), sweeps)


def _along(planned: PlannedAttack) -> bool:
    return planned.spec.carried and planned.attack.shares is SharedWork.DIRECTION


def _chained(
    experiment: PlannedExperiment, works: tuple[CellWork, ...], folder: RunFolder
) -> Iterator[Job]:
    """Yields the jobs of cells that take over what an earlier one misled, one after the other."""
    work = works[0]
    cell, planned = work.cell, work.cell.attack
    if planned is None or cell.threat is None:
        return
    follows = cell.follows or next(
        each.digest
        for each in experiment.cells
        if each.attack is None and each.source is cell.source
    )
    if not goes_by_member(experiment.spec, planned):
        yield Job(experiment, cell.source, planned, works, None, Chain(follows))
        return
    members = planned.attack.made_of
    for number, member in enumerate(members):
        digest = cell.digest if number == len(members) - 1 else prefix(cell.digest, number)
        if digest == cell.digest or folder.read(digest) is None:
            attack = replace(planned, attack=member.for_one(cell.threat))
            yield Job(
                experiment,
                cell.source,
                attack,
                (replace(work, cell=replace(cell, attack=attack, digest=digest)),),
                None,
                Chain(follows, number, cell.digest, last=digest == cell.digest),
            )
        follows = digest


class Keeper(Protocol):
    """Takes the candidates of a job, to have other models asked later."""

    def keep(self, cell: str, candidates: Tensor) -> None:
        """Takes the candidates of a cell's next examples."""


def _missing(cell: Cell, targets: tuple[LoadedModel, ...], folder: RunFolder) -> CellWork:
    recorded = folder.read(cell.digest)
    if recorded is None or cell.source.digest not in recorded.scores:
        return CellWork(cell, targets, None)
    missing = tuple(each for each in targets if each.digest not in recorded.scores)
    replaced = {each.name for each in missing}  # a model that changed leaves its old answers
    kept = [
        digest
        for digest, name in recorded.meta.targets.items()
        if digest == cell.source.digest or name not in replaced
    ]
    return CellWork(cell, missing, recorded.only(kept))


def _steps_and_tries(attack: Attack) -> tuple[int, int]:
    """Returns how many gradients and how many tries an attack may take, members added up."""
    if attack.made_of:
        return sum(_steps_and_tries(each)[0] for each in attack.made_of), len(attack.made_of)
    parameters = parameters_of(attack)
    restarts = _positive(parameters.get("restarts"))
    return _positive(parameters.get("steps")) * restarts, restarts


def _positive(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 1

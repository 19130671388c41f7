"""Attacks a few survivors of each model once more, by a short attack of Gibbon's own.

An attack that is broken, too weak or stopped early leaves examples that a few steps misclassify.
The passes come out of those that the examination of the model may make.  Results are stored in the
run's folder, by the cells whose outcomes they looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gibbon.attacks.base import is_targeted
from gibbon.core.threat import ThreatModel
from gibbon.diagnostics.examination.examine import budget_of_run, undisturbed
from gibbon.diagnostics.examination.short_attack import Effort, ShortAttack
from gibbon.diagnostics.examination.subject import Subject, interleaved_by_class
from gibbon.records.outcomes import Outcome
from gibbon.records.survivor_check import (
    SurvivorCheck,
    read_survivor_check,
    write_survivor_check,
)
from gibbon.runner.device.precision import uncompiled_classifier
from gibbon.runner.failures.boundary import boundary
from gibbon.runner.failures.raised_by import attributed
from gibbon.runner.model_checks.examine_models import Examined, passes_made
from gibbon.runner.own_processes.worker import IN_THIS_PROCESS, Worker
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Cell, Plan, PlannedExperiment
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import SILENT, Progress

FEWEST = 4  # survivors of a threat model that are worth an attack
MOST_GROUPS = 3  # threat models of a model
FOR_CANDIDATES = 64  # passes that are left for the gradient at candidates, if there are more
MORE = 2  # times the budget of a stored check that is worth making again


@dataclass(frozen=True)
class SurvivorGroup:
    """The attacked cells of one model with one threat model, and their survivors.

    Args:
        threat: the threat model.
        cells: the cells; all of them have an outcome.
        survivors: ids of the examples that no attack misclassifies, int64.
        examples: number of examples that the attacks were run on.
    """

    threat: ThreatModel
    cells: tuple[Cell, ...]
    survivors: NDArray[np.int64]
    examples: int

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests of the cells, sorted."""
        return tuple(sorted({cell.digest for cell in self.cells}))


def check_survivors(
    plan: Plan, folder: RunFolder, examined: Examined, *, worker: Worker = IN_THIS_PROCESS
) -> tuple[SurvivorCheck, ...]:
    """Returns the checks of the survivors of each model; new ones are stored.

    Of each attack, the largest epsilon with survivors is looked at, with all other attacks at this
    epsilon.  Nothing is raised: what an exception prevents is recorded with the reason.
    ``worker`` runs the models.
    """
    if not plan.settings.examination:
        return ()
    checks: list[SurvivorCheck] = []
    for experiment in plan.experiments:
        outcomes = {cell.digest: folder.read(cell.digest) for cell in experiment.cells}
        for model in experiment.models:
            known = examined.found.get((model.digest, experiment.dataset.digest))
            groups = groups_of(experiment, model, outcomes)
            if known is None or not groups:
                continue
            left = budget_of_run(passes_made(experiment, model, outcomes)) - known.passes
            if not known.at_candidates and left >= 4 * FOR_CANDIDATES:
                left -= FOR_CANDIDATES
            for number, group in enumerate(groups):
                check = _check_of(group, left // (len(groups) - number))
                found = _checked(plan, folder, experiment, group, check, worker)
                left -= found.passes
                checks.append(found)
    return tuple(checks)


def groups_of(
    experiment: PlannedExperiment, model: LoadedModel, outcomes: Mapping[str, Outcome | None]
) -> list[SurvivorGroup]:
    """Returns the threat models of a model to look at, those of the most attacks first."""
    clean = next(
        (outcomes.get(cell.digest) for cell in experiment.cells_of(model) if cell.attack is None),
        None,
    )
    if clean is None or not model.probed.steady:
        return []
    cells: dict[ThreatModel, list[Cell]] = {}
    for cell in experiment.cells_of(model):
        if cell.threat is not None and cell.threat.radius > 0:
            cells.setdefault(cell.threat, []).append(cell)
    groups: dict[ThreatModel, SurvivorGroup] = {}
    for threat, attacked in cells.items():
        group = _group(threat, attacked, clean, outcomes)
        if group is not None:
            groups[threat] = group
    largest: dict[tuple[str, str, bool], ThreatModel] = {}
    for threat, group in groups.items():
        for cell in group.cells:
            key = cell.label, threat.norm.value, threat.bounds is None
            if key not in largest or threat.radius > largest[key].radius:
                largest[key] = threat
    chosen = [groups[threat] for threat in dict.fromkeys(largest.values())]
    return sorted(chosen, key=lambda each: -len(each.cells))[:MOST_GROUPS]


def _group(
    threat: ThreatModel,
    cells: list[Cell],
    clean: Outcome,
    outcomes: Mapping[str, Outcome | None],
) -> SurvivorGroup | None:
    found = [outcomes.get(cell.digest) for cell in cells]
    untargeted = tuple(
        cell for cell in cells if cell.attack is None or not is_targeted(cell.attack.attack)
    )
    survives = ~clean.any_misclassified
    for outcome in found:
        if outcome is None or not np.array_equal(outcome.example_id, clean.example_id):
            return None
        survives = survives & ~outcome.any_misclassified
    survivors = clean.example_id[survives]
    if not untargeted or len(survivors) < FEWEST:
        return None
    return SurvivorGroup(threat, untargeted, survivors, len(clean.example_id))


def _check_of(group: SurvivorGroup, budget: int) -> SurvivorCheck:
    """Returns the check of a group, before anything is attacked."""
    cell = group.cells[0]
    return SurvivorCheck(
        dataset=cell.dataset,
        model=cell.source.name,
        norm=group.threat.norm.value,
        epsilon=str(group.threat.epsilon),
        attacks=tuple(dict.fromkeys(each.label for each in group.cells)),
        cells=group.digests,
        survivors=len(group.survivors),
        examples=group.examples,
        budget=max(0, budget),
    )


def _checked(
    plan: Plan,
    folder: RunFolder,
    experiment: PlannedExperiment,
    group: SurvivorGroup,
    check: SurvivorCheck,
    worker: Worker,
) -> SurvivorCheck:
    """Returns the stored check of a group, or a new one, which is stored."""
    stored = read_survivor_check(folder.path, check.cells)
    if stored is not None and not (stored.reason and check.budget >= MORE * stored.budget):
        names = {"dataset": check.dataset, "model": check.model, "attacks": check.attacks}
        return stored.model_copy(update=names)
    effort = Effort.within(check.budget, len(group.survivors))
    if effort is None:
        reason = f"it needs more than the {check.budget} passes that are left"
        return check.model_copy(update={"reason": reason})

    def work(_: Progress) -> SurvivorCheck:
        plan.pool.load([group.cells[0].source.handle])
        return _attacked(plan, experiment, group, check, effort)

    errors: list[BaseException] = []
    found = check
    with boundary(errors.append):
        found = worker.run(work, SILENT)
        write_survivor_check(folder.path, found)
    return found.model_copy(update={"reason": attributed(errors[0])}) if errors else found


def _attacked(
    plan: Plan,
    experiment: PlannedExperiment,
    group: SurvivorGroup,
    check: SurvivorCheck,
    effort: Effort,
) -> SurvivorCheck:
    """Returns a check with what the short attack finds."""
    source = group.cells[0].source
    labels = experiment.dataset.labels[group.survivors].tolist()
    ids = group.survivors[sorted(interleaved_by_class(labels)[: effort.examples])]
    batch = experiment.dataset.batch(ids).to(plan.device)
    classifier = uncompiled_classifier(source.classifier)
    with undisturbed(classifier, plan.device):
        subject = Subject(classifier, source.probed.observed, plan.device, check.budget)
        attack = ShortAttack(subject, batch, group.threat, effort.steps)
        attack.run()
    return check.model_copy(
        update={
            "tried": len(ids),
            "misclassified": tuple(batch.ids[attack.done].cpu().tolist()),
            "methods": tuple(attack.methods),
            "passes": subject.spent,
        }
    )

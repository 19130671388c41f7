"""Examines the models of a plan before they are attacked, and at candidates afterwards.

The examination of a model is stored in the run's folder under its digest and that of the dataset,
and is made once.  It is made again if checks were left out and a run allows more passes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gibbon.attacks import registered_name
from gibbon.attacks.base import STOPPING, SharedWork, can_stop, iterates_of
from gibbon.diagnostics.examination.examine import (
    Candidates,
    budget_of_run,
    examine,
    examine_candidates,
)
from gibbon.diagnostics.examination.loss_jumps import are_serious
from gibbon.models.classifier import Classifier
from gibbon.records.checks import CheckDone
from gibbon.records.examination import (
    Examination,
    ExaminedCheck,
    read_examination,
    write_examination,
)
from gibbon.records.flags import Flag
from gibbon.records.outcomes import Outcome
from gibbon.records.survivor_check import SurvivorCheck
from gibbon.runner.device.precision import in_float32, uncompiled_classifier
from gibbon.runner.failures.boundary import boundary
from gibbon.runner.failures.raised_by import attributed
from gibbon.runner.model_checks.keep_candidates import CandidateKeeper
from gibbon.runner.own_processes.worker import IN_THIS_PROCESS, Worker
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Cell, Plan, PlannedAttack, PlannedExperiment
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import SILENT, Progress

DatasetModel = tuple[str, str]  # digests of model and dataset
LATER_SHARE = 3  # of the passes, one in this many is kept for candidates and survivors
# Of a model that misclassifies so many examples unattacked the reason is worth more than survivors,
# of which there are few: one pass in this many is kept.
MANY_ERRORS, LATER_SHARE_OF_WEAK = 0.6, 10
MORE = 2  # times the budget of a stored examination that is worth making again
LEAST_BUDGET = 2  # of a check at candidates
ABOUT_GRADIENTS = (
    "gradient-mismatch",
    "zero-gradient",
    "rounded-inputs",
    "saturated-outputs",
    "tiny-outputs",
)
ADAPTED = "attacks with backward or before are adapted to it"
LEFT_OUT = "the model was not examined: --no-examination"


@dataclass
class Examined:
    """The examinations of a plan's models, by digest, and why others could not be made.

    ``survivors``: what a short attack found after the attacks.
    """

    found: dict[DatasetModel, Examination] = field(default_factory=dict)
    errors: dict[DatasetModel, str] = field(default_factory=dict)
    candidates: CandidateKeeper = field(default_factory=CandidateKeeper)
    survivors: tuple[SurvivorCheck, ...] = ()

    def flags(self, plan: Plan) -> Iterator[Flag]:
        """Yields the flags of the models of a plan."""
        for experiment, model, key in _models(plan):
            subject = {"dataset": experiment.spec.dataset.name, "model": model.name}
            if key in self.found:
                for flag in self.found[key].flags(**subject):
                    # If the probe found a model random, `random_flags` decides by its draws.
                    if model.probed.steady or flag.kind != "random-answers":
                        yield from _for_attacks(flag, experiment)
                continue
            reason = self.errors.get(key)
            sentence = f"the model could not be examined: {reason}" if reason else LEFT_OUT
            yield Flag(kind="not-examined", sentence=sentence, **subject)

    def checks(self, plan: Plan) -> Iterator[CheckDone]:
        """Yields the checks that decided, each for all models."""
        made: dict[str, list[ExaminedCheck]] = {}
        for _, _, key in _models(plan):
            for check in self.found[key].checks if key in self.found else ():
                if check.result in ("passed", "flagged"):
                    made.setdefault(check.name, []).append(check)
        for name, checks in made.items():
            several = f", of each of {len(checks)} models" if len(checks) > 1 else ""
            yield CheckDone(
                name=name,
                looked_at=f"{checks[0].looked_at}{several}",
                passed=all(each.result == "passed" for each in checks),
            )


def _for_attacks(flag: Flag, experiment: PlannedExperiment) -> Iterator[Flag]:
    """Yields a flag of a model for the attacks whose numbers it affects.

    A flag about the gradient is a note if every attack with gradients has another backward pass, or
    attacks the outputs before the part that loses it; if some have, it is about the others.
    """
    gradient = [each for each in experiment.attacks if each.attack.needs_gradient]
    plain = [
        each for each in gradient if not all(view.backward or view.before for view in each.views)
    ]
    if flag.kind not in ABOUT_GRADIENTS or len(plain) == len(gradient):
        yield flag
        return
    yield flag.model_copy(
        update={"severity": "note", "sentence": f"{flag.sentence}; {ADAPTED}", "suite": ""}
    )
    for each in plain:
        yield flag.model_copy(update={"attack": each.label})


def examine_models(
    plan: Plan,
    folder: RunFolder,
    *,
    progress: Progress,
    known: Iterable[Examination] = (),
    wanted: Container[DatasetModel] | None = None,
    worker: Worker = IN_THIS_PROCESS,
) -> Examined:
    """Returns the examinations of a plan's models: the stored ones, or new ones, which are stored.

    ``known`` are those in the record of an earlier run: they stand in for files that were lost,
    because the candidates that a model was examined at are not made again.  ``wanted`` restricts
    new examinations to some digests of model and dataset, the others being made elsewhere.  A model
    that can't be examined, such as one that raises, is reported to ``progress``.  ``worker`` runs
    the models.
    """
    examined = Examined()
    if not plan.settings.examination:
        return examined
    recorded = {(each.model, each.dataset): each for each in known}
    budgets: dict[DatasetModel, int] = {}
    for experiment, model, key in _models(plan):
        budgets[key] = budgets.get(key, 0) + passes_of(experiment, model)
    for _, model, key in _models(plan):
        if key in examined.found or key in examined.errors:
            continue
        budget = budget_of_run(budgets[key])
        budget -= budget // (LATER_SHARE_OF_WEAK if _is_weak(model) else LATER_SHARE)
        stored = read_examination(folder.path, model=key[0], dataset=key[1])
        if stored is None and key in recorded and not recorded[key].outdated:
            stored = recorded[key]
            write_examination(folder.path, stored)
        enough = stored is not None and budget < MORE * stored.allowed_at_data
        if stored is not None and (enough or not stored.incomplete):
            examined.found[key] = stored
            continue
        if wanted is not None and key not in wanted:
            continue
        errors: list[BaseException] = []
        with boundary(errors.append):

            def work(_: Progress, model: LoadedModel = model, budget: int = budget) -> Examination:
                plan.pool.load([model.handle])
                return _examine(model, budget, plan)

            made = worker.run(work, progress)
            examined.found[key] = made.model_copy(update={"model": key[0], "dataset": key[1]})
        if errors:
            examined.errors[key] = attributed(errors[0])
            progress.note(f"{model.name} could not be examined: {examined.errors[key]}")
        else:
            write_examination(folder.path, examined.found[key])
    for key, each in examined.found.items():
        if not each.at_candidates:
            examined.candidates.want(key[0])
    return examined


def examine_at_candidates(
    plan: Plan, folder: RunFolder, examined: Examined, *, worker: Worker = IN_THIS_PROCESS
) -> None:
    """Checks the gradients at candidates of the first attack with gradients, and stores the result.

    The passes that the run has made on the model by then allow it more or fewer.
    """
    for experiment, model, key in _models(plan):
        kept, before = examined.candidates.of(key[0]), examined.found.get(key)
        if kept is None or before is None or before.at_candidates:
            continue
        own = {cell.digest for cell in experiment.cells_of(model)}
        outcomes = {digest: folder.read(digest) for digest in own}
        budget = budget_of_run(passes_made(experiment, model, outcomes)) - before.passes
        budget -= sum(
            each.passes
            for each in examined.survivors
            if (each.dataset, each.model) == (experiment.spec.dataset.name, model.name)
        )
        if budget < LEAST_BUDGET:
            continue
        errors: list[BaseException] = []
        with boundary(errors.append):
            points = Candidates(kept.inputs, kept.ids, kept.labels)

            def work(
                _: Progress,
                model: LoadedModel = model,
                points: Candidates = points,
                budget: int = budget,
                jumps: bool = are_serious(before.found),
            ) -> Examination:
                return _examine_at(model, points, budget, plan, jumps=jumps)

            later = worker.run(work, SILENT)
            examined.found[key] = before.then(later)
            write_examination(folder.path, examined.found[key])


def passes_made(
    experiment: PlannedExperiment, model: LoadedModel, outcomes: Mapping[str, Outcome | None]
) -> int:
    """Returns the passes on a model that its recorded outcomes count."""
    found = (outcomes.get(cell.digest) for cell in experiment.cells_of(model))
    metas = [outcome.meta for outcome in found if outcome is not None]
    return sum(each.forward_passes + each.backward_passes for each in metas)


def passes_of(experiment: PlannedExperiment, model: LoadedModel) -> int:
    """Returns the passes that a run makes on a model at least, by example.

    Attacks that stop at an example's first success, or whose number of steps is not known, count
    with one step.
    """
    cells: dict[str, list[Cell]] = {}  # an attack's parameters may have no hash
    for cell in experiment.cells_of(model):
        cells.setdefault(cell.label, []).append(cell)
    scored = experiment.times_scored(model)
    own = sum(_least_passes(each[0].attack, len(each)) for each in cells.values())
    return (own + scored) * len(experiment.ids)


def _least_passes(planned: PlannedAttack | None, epsilons: int) -> int:
    if planned is None:
        return 1
    attack = planned.attack
    if not attack.needs_gradient:
        return epsilons
    stops = STOPPING in iterates_of(attack) or attack.made_of or planned.spec.carried
    ours = ":" not in (registered_name(type(attack)) or ":")
    whole = ours and not stops and attack.shares is not SharedWork.SEARCH
    known = whole and (can_stop(type(attack)) or attack.shares is SharedWork.DIRECTION)
    searches = 1 if planned.shares_work else epsilons
    return planned.passes(epsilons) if known else 2 * searches + epsilons


def _models(plan: Plan) -> Iterator[tuple[PlannedExperiment, LoadedModel, DatasetModel]]:
    for experiment in plan.experiments:
        for model in experiment.models:
            yield experiment, model, (model.digest, experiment.dataset.digest)


def _is_weak(model: LoadedModel) -> bool:
    observed = model.probed.observed
    wrong = observed.outputs.argmax(1) != observed.sample.labels.cpu()
    return float(wrong.double().mean()) >= MANY_ERRORS


def _examine(model: LoadedModel, budget: int, plan: Plan) -> Examination:
    observed = model.probed.observed
    main, exact = _classifiers(model)
    return examine(
        main, observed.sample, budget=budget, observed=observed, exact=exact, device=plan.device
    )


def _examine_at(
    model: LoadedModel, points: Candidates, budget: int, plan: Plan, *, jumps: bool
) -> Examination:
    plan.pool.load([model.handle])
    main, exact = _classifiers(model)
    observed = model.probed.observed
    return examine_candidates(
        main, observed, points, budget=budget, exact=exact, device=plan.device, jumps=jumps
    )


def _classifiers(model: LoadedModel) -> tuple[Classifier, Classifier | None]:
    """Returns the classifier to examine, and that in float32 if it has fewer digits."""
    return uncompiled_classifier(model.classifier), in_float32(model.classifier)

"""Makes the record of a run from the outcomes of its cells: rows, flags, failures and checks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gibbon.attacks.base import SearchMethod, SharedWork
from gibbon.diagnostics.answers_in_run import answers_in_run_flags
from gibbon.diagnostics.attacked_cell import AttackedCell
from gibbon.diagnostics.cell_flags import cell_flags
from gibbon.diagnostics.effort_flags import source_flags
from gibbon.diagnostics.error_confidence_flags import sure_error_flags
from gibbon.diagnostics.gradient_use_flags import (
    gradient_use_flags,
    noise_only_flags,
    single_step_flags,
    targeted_only_flags,
)
from gibbon.diagnostics.label_flags import label_flags
from gibbon.diagnostics.order_flags import ComparedCell, order_flags
from gibbon.diagnostics.paired_flags import paired_flags
from gibbon.diagnostics.perturbed_share import gradient_share
from gibbon.diagnostics.random_flags import changing_flag, random_flags
from gibbon.diagnostics.sample_size_flags import sample_size_flags
from gibbon.diagnostics.survivor_flags import KIND as SURVIVORS
from gibbon.diagnostics.survivor_flags import search_methods, survivor_flags
from gibbon.models.repeatability import Cause
from gibbon.records.checks import CheckDone, check_done
from gibbon.records.flags import Flag
from gibbon.records.outcomes import Outcome
from gibbon.records.proofs import Proofs
from gibbon.records.run import (
    Agreement,
    Evaluation,
    Failure,
    MemberEvaluation,
    ModelCard,
    ModelComparison,
    Provenance,
    RunRecord,
    SeedStatistics,
    Transfer,
    WorstCase,
)
from gibbon.runner.counting import count
from gibbon.runner.counting.claim_tests import claim_tests
from gibbon.runner.counting.compare_models import model_comparisons, seed_statistics
from gibbon.runner.counting.compared_cells import compared_cells
from gibbon.runner.folder_state.lost import unexplained_failures
from gibbon.runner.model_checks.examine_models import Examined
from gibbon.runner.no_class.count_no_class import NoClassRows, count_no_class
from gibbon.runner.plan.planned import Cell, Plan, PlannedExperiment
from gibbon.runner.proofs.count_proofs import proved_ids
from gibbon.runner.proofs.plan_proofs import PlannedProof
from gibbon.runner.run_folder import RunFolder

STATEFUL, OF_BATCHES = "stateful-answers", "batch-dependent"  # kinds of flags of an examination
# Kinds of flags that candidates raise, and the path of an attack.
OF_CANDIDATES = (
    "invalid-candidates",
    "inputs-unchanged",
    "zero-gradient",
    "no-gradient-taken",
    "partial-perturbation",
)
OF_ORDER = (
    "weaker-attack-stronger",
    "black-box-stronger",
    "transfer-stronger",
    "noise-only",
    "single-step-only",
    "targeted-only",
)
OF_PATHS = (
    "zero-gradient-on-path",
    "loss-did-not-rise",
    "not-converged",
    "success-lost",
    "budget-unused",
    "few-steps",
    "unbounded-attack-fails",
)


def make_record(
    plan: Plan,
    folder: RunFolder,
    examined: Examined,
    failures: list[Failure],
    origin: Provenance,
    proofs: Sequence[tuple[PlannedProof, Proofs]],
) -> RunRecord:
    """Returns the record of a run.

    Args:
        plan: the plan.
        folder: holds the outcomes.
        examined: the examinations of the models.
        failures: those of the jobs; those of targets are appended.
        origin: provenance of the numbers.
        proofs: the proofs of the models.
    """
    parts = _RecordParts(folder, failures, [*examined.flags(plan)])
    parts.add_changing_models(plan)
    for experiment in plan.experiments:
        parts.add(experiment)
    parts.add_comparisons(plan, examined, proofs)
    no_class = count_no_class(plan, folder, failures)
    failures.extend(no_class.failures)
    return RunRecord(
        suite=plan.suite,
        status="failed" if failures else "done",
        provenance=origin,
        models=tuple(_cards(plan)),
        datasets=tuple(experiment.card for experiment in plan.all_experiments),
        evaluations=tuple(parts.evaluations),
        transfers=tuple(parts.transfers),
        agreements=tuple(parts.agreements),
        worst_cases=tuple(parts.worst_cases),
        members=tuple(parts.members),
        comparisons=tuple(parts.comparisons),
        seeds=tuple(parts.seeds),
        failures=tuple(failures),
        examinations=tuple(examined.found.values()),
        survivors=examined.survivors,
        checks=(
            *examined.checks(plan),
            *_checks(plan, parts.evaluations, parts.transfers, parts.flags, parts.followed),
            *_survivor_checks(examined, parts.flags),
            *_no_class_checks(no_class),
        ),
        no_class=tuple(no_class.evaluations),
        no_class_shares=tuple(no_class.shares),
        fooling=tuple(no_class.fooling),
        claims=tuple(claim_tests(plan, folder)),
    ).with_flags(parts.flags)


@dataclass
class _RecordParts:
    """Rows, flags and failures of a record, collected experiment by experiment.

    Args:
        folder: holds the outcomes.
        failures: those that are known; those that rows show are appended.
        flags: those of the examinations; those of outcomes are appended.
    """

    folder: RunFolder
    failures: list[Failure]
    flags: list[Flag]
    evaluations: list[Evaluation] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    worst_cases: list[WorstCase] = field(default_factory=list)
    members: list[MemberEvaluation] = field(default_factory=list)
    comparisons: list[ModelComparison] = field(default_factory=list)
    seeds: list[SeedStatistics] = field(default_factory=list)
    followed: int = 0  # attacked cells with gradients
    _compared: list[ComparedCell] = field(default_factory=list)
    _methods: dict[tuple[str, str], dict[str, SearchMethod]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    _explained: set[tuple[str, str]] = field(default_factory=set)

    def add_changing_models(self, plan: Plan) -> None:
        """Adds the flags of models whose answers change, and notes which are known to change."""
        known = {(each.dataset, each.model) for each in self.flags if each.kind == STATEFUL}
        batches = {(each.dataset, each.model) for each in self.flags if each.kind == OF_BATCHES}
        self._explained = known | batches  # why a run gives other answers than loading
        self.flags.extend(_model_flags(plan, known))

    def add(self, experiment: PlannedExperiment) -> None:
        """Adds the rows, flags and failures of an experiment."""
        outcomes = {
            cell.digest: outcome
            for cell in experiment.cells
            if (outcome := self.folder.read(cell.digest)) is not None
        }
        self.failures.extend(_target_failures(experiment.cells, outcomes))
        rows = tuple(count.evaluations(experiment, outcomes))
        scored = tuple(count.transfers(experiment, outcomes))
        agreed = tuple(count.agreements(experiment, outcomes))
        stored = self.folder.outcomes
        self.failures.extend(
            unexplained_failures(experiment, (*rows, *scored, *agreed), self.failures, stored)
        )
        worst = tuple(count.worst_cases(experiment, outcomes))
        compared = tuple(model_comparisons(experiment, outcomes))
        self.evaluations.extend(rows)
        self.transfers.extend(scored)
        self.agreements.extend(agreed)
        self.worst_cases.extend(worst)
        self.members.extend(count.members(experiment, outcomes))
        self.comparisons.extend(compared)
        self.seeds.extend(seed_statistics(experiment, rows))
        attacked = list(_attacked_cells(experiment, rows, outcomes))
        self.followed += sum(cell.steps > 0 for cell in attacked)
        self.flags.extend(flag for cell in attacked for flag in cell_flags(cell))
        self.flags.extend(_changed_since_loading(experiment, outcomes, self._explained))
        self.flags.extend(_wrong_labels(experiment, outcomes))
        self.flags.extend((*paired_flags(attacked), *source_flags(attacked), *experiment.flags))
        self.flags.extend(sample_size_flags(worst, compared))
        of_experiment = tuple(compared_cells(experiment, outcomes))
        self._compared.extend(of_experiment)
        for model, label, method in search_methods(of_experiment, attacked):
            self._methods[experiment.spec.dataset.name, model][label] = method

    def add_comparisons(
        self, plan: Plan, examined: Examined, proofs: Sequence[tuple[PlannedProof, Proofs]]
    ) -> None:
        """Adds the flags that compare attacks, after all experiments."""
        cells = self._compared
        self.flags.extend(order_flags(cells))
        self.flags.extend((*gradient_use_flags(cells), *noise_only_flags(cells)))
        published = frozenset(
            (row.dataset, row.model, label) for row in plan.suite.published for label in row.attack
        )
        self.flags.extend(targeted_only_flags(cells, published=published))
        self.flags.extend(single_step_flags(cells, proved=proved_ids(proofs), published=published))
        for check in examined.survivors:
            self.flags.extend(survivor_flags(check, self._methods[check.dataset, check.model]))


def _cards(plan: Plan) -> Iterator[ModelCard]:
    """Yields the cards of all models, each once.

    A model has one digest for each dataset that it is evaluated on.  Inputs without a class add
    none to a model that is evaluated on others, too.
    """
    cards = {
        (model.name, model.digest): model.card
        for experiment in plan.experiments
        for model in experiment.models
    }
    known = {(each.name, each.weights_digest) for each in cards.values()}
    for experiment in plan.without_classes:
        for model in experiment.models:
            if (model.name, model.card.weights_digest) not in known:
                cards[model.name, model.digest] = model.card
    yield from cards.values()


def _no_class_checks(rows: NoClassRows) -> Iterator[CheckDone]:
    """Yields the check that a model's outputs keep their rule off the data, too.

    A model that breaks it fails.
    """
    done = [each for each in rows.evaluations if each.status == "done"]
    if done:
        total, models = sum(each.examples for each in done), len({each.model for each in done})
        looked_at = (
            f"outputs for {_number(total, 'input')} without a class of {_number(models, 'model')}"
        )
        yield check_done("finite outputs off the data", looked_at, ())


def _checks(
    plan: Plan,
    evaluations: Iterable[Evaluation],
    transfers: Iterable[Transfer],
    flags: Iterable[Flag],
    followed: int,
) -> Iterator[CheckDone]:
    """Yields the checks that were made, each with the flags of its kinds.

    ``followed`` is the number of attacked cells with evidence of the attack's path.
    """

    def check(name: str, looked_at: str, *kinds: str) -> CheckDone:
        return check_done(name, looked_at, (each for each in flags if each.kind in kinds))

    attacked = [row for row in evaluations if row.status == "done" and not row.unattacked]
    models = len({(row.dataset, row.model) for row in attacked})
    budgets = sum(len(each.threats) for one in plan.experiments for each in one.attacks)
    if budgets:
        looked_at = f"{_number(budgets, 'budget')} of the attacks"
        yield check("budgets", looked_at, "wide-budget", "tiny-budget")
    if attacked:
        cells = f"{_number(len(attacked), 'attacked cell')} of {_number(models, 'model')}"
        looked_at = f"distance, bounds and gradient of each candidate of {cells}"
        yield check("candidates", looked_at, *OF_CANDIDATES)
        kinds = ("error-below-clean", "error-falls-with-epsilon", "noise-as-strong")
        looked_at = f"the same examples unattacked and at each epsilon, of {cells}"
        yield check("errors against clean and smaller budgets", looked_at, *kinds)
    if followed:
        looked_at = f"gradients and loss along the way in {_number(followed, 'attacked cell')}"
        yield check("paths of attacks", looked_at, *OF_PATHS)
    scored = sum(row.status == "done" and row.source != row.target for row in transfers)
    if len(attacked) > models or scored:
        also = f" and {_number(scored, 'transfer')}" if scored else ""
        looked_at = f"the errors of {_number(len(attacked), 'attacked cell')}{also}, in pairs"
        yield check("order of attacks", looked_at, *OF_ORDER)


def _survivor_checks(examined: Examined, flags: Iterable[Flag]) -> Iterator[CheckDone]:
    tried = [each for each in examined.survivors if each.tried]
    if tried:
        total = sum(each.tried for each in tried)
        looked_at = (
            f"{_number(total, 'example')} that all attacks missed, in "
            f"{_number(len(tried), 'threat model')} of models, by a short attack"
        )
        yield check_done("survivors", looked_at, (each for each in flags if each.kind == SURVIVORS))


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _model_flags(plan: Plan, known: Collection[tuple[str, str]]) -> Iterator[Flag]:
    """Yields the flags of models that answer differently from call to call.

    ``known`` are dataset and model of those whose state the examination has flagged.
    """
    for experiment in plan.experiments:
        dataset = experiment.spec.dataset.name
        for model in experiment.models:
            if model.probed.observed.cause is Cause.STATE:
                if (dataset, model.name) not in known:
                    yield changing_flag(dataset, model.name)
            elif not model.probed.steady:
                yield from random_flags(
                    dataset,
                    model.name,
                    draws=model.draws,
                    repeatable=bool(model.probed.draws),
                    eot={each.label: each.least_eot for each in experiment.attacks},
                    searches={
                        each.label
                        for each in experiment.attacks
                        if each.attack.shares is SharedWork.SEARCH
                    },
                )


def _changed_since_loading(
    experiment: PlannedExperiment,
    outcomes: Mapping[str, Outcome],
    known: Collection[tuple[str, str]],
) -> Iterator[Flag]:
    """Yields the flags of models that give examples other answers than when they were loaded.

    ``known`` are dataset and model of those whose flags say why.
    """
    dataset = experiment.spec.dataset.name
    for cell in experiment.cells:
        clean, model = outcomes.get(cell.digest), cell.source
        if cell.attack is None and clean is not None and (dataset, model.name) not in known:
            yield from answers_in_run_flags(
                dataset,
                model.name,
                observed=model.probed.observed,
                rule=model.classifier.outputs,
                clean=clean,
                digest=model.digest,
            )


def _wrong_labels(experiment: PlannedExperiment, outcomes: Mapping[str, Outcome]) -> Iterator[Flag]:
    """Yields the flags of labels that look wrong, by each model's answers.

    Labels that are those of other examples have a flag of their own, which says more.
    """
    for cell in experiment.cells:
        clean, model = outcomes.get(cell.digest), cell.source
        if cell.attack is None and clean is not None:
            dataset = experiment.spec.dataset.name
            displaced = tuple(
                label_flags(
                    dataset,
                    model.name,
                    clean=clean,
                    digest=model.digest,
                    labels=experiment.dataset.labels,
                    classes=model.classifier.classes,
                )
            )
            yield from displaced or sure_error_flags(
                dataset, model.name, clean=clean, digest=model.digest
            )


def _attacked_cells(
    experiment: PlannedExperiment, rows: Iterable[Evaluation], outcomes: Mapping[str, Outcome]
) -> Iterator[AttackedCell]:
    """Yields the attacked cells that have an outcome, with what their flags need."""
    planned = {(cell.source.name, cell.digest): cell for cell in experiment.cells}
    clean: dict[str, Outcome | None] = {}
    shares: dict[str, float | None] = {}
    for row in rows:  # the unattacked row of each model comes first
        cell, outcome = planned[row.model, row.digest], outcomes.get(row.digest)
        if cell.attack is None:
            clean[row.model] = outcome
        elif outcome is not None:
            if row.model not in shares:
                bounds = cell.source.classifier.bounds
                shares[row.model] = gradient_share(cell.source.probed.observed, bounds)
            yield AttackedCell(
                row,
                outcome,
                clean[row.model],
                cell.threat,
                steady=cell.source.probed.steady,
                adapted=any(cell.attack.views),
                attack=cell.attack.attack,
                gradient_share=shares[row.model],
            )


def _target_failures(cells: Iterable[Cell], outcomes: dict[str, Outcome]) -> Iterator[Failure]:
    for cell in cells:
        outcome = outcomes.get(cell.digest)
        for target in cell.targets:
            error = outcome and outcome.meta.target_errors.get(target.digest)
            if error is not None:
                yield cell.failure(f"scored on {target.name}: {error}")

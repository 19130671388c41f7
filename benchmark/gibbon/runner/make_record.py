"""Makes the record of a run from the outcomes of its cells: rows, flags, failures and checks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from gibbon.attacks.base import SearchMethod, SharedWork
from gibbon.diagnostics.answers_in_run import answers_in_run_flags
from gibbon.diagnostics.attacked_cell import AttackedCell
from gibbon.diagnostics.cell_flags import cell_flags
from gibbon.diagnostics.effort_flags import source_flags
from gibbon.diagnostics.gradient_use_flags import (
    gradient_use_flags,
    noise_only_flags,
    single_step_flags,
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
from gibbon.runner import count
from gibbon.runner.claim_tests import claim_tests
from gibbon.runner.compare_models import model_comparisons, seed_statistics
from gibbon.runner.compared_cells import compared_cells
from gibbon.runner.examine_models import Examined
from gibbon.runner.lost import unexplained_failures
from gibbon.runner.no_class.count_no_class import NoClassRows, count_no_class
from gibbon.runner.plan.planned import Cell, Plan, PlannedExperiment
from gibbon.runner.proofs.count_proofs import proved_ids
from gibbon.runner.proofs.plan_proofs import PlannedProof
from gibbon.runner.run_folder import RunFolder

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
    evaluations: list[Evaluation] = []
    transfers: list[Transfer] = []
    agreements: list[Agreement] = []
    worst_cases: list[WorstCase] = []
    members: list[MemberEvaluation] = []
    comparisons: list[ModelComparison] = []
    seeds: list[SeedStatistics] = []
    ordered: list[ComparedCell] = []
    methods: defaultdict[tuple[str, str], dict[str, SearchMethod]] = defaultdict(dict)
    followed = 0
    flags = [*examined.flags(plan)]
    known = {(each.dataset, each.model) for each in flags if each.kind == "stateful-answers"}
    batches = {(each.dataset, each.model) for each in flags if each.kind == "batch-dependent"}
    explained = known | batches  # why a run gives other answers than loading
    flags.extend(_model_flags(plan, known))
    for experiment in plan.experiments:
        outcomes = {
            cell.digest: outcome
            for cell in experiment.cells
            if (outcome := folder.read(cell.digest)) is not None
        }
        failures.extend(_target_failures(experiment.cells, outcomes))
        rows = tuple(count.evaluations(experiment, outcomes))
        scored = tuple(count.transfers(experiment, outcomes))
        agreed = tuple(count.agreements(experiment, outcomes))
        failures.extend(
            unexplained_failures(experiment, (*rows, *scored, *agreed), failures, folder.outcomes)
        )
        evaluations.extend(rows)
        attacked = list(_attacked_cells(experiment, rows, outcomes))
        followed += sum(cell.steps > 0 for cell in attacked)
        flags.extend(flag for cell in attacked for flag in cell_flags(cell))
        flags.extend(_changed_since_loading(experiment, outcomes, explained))
        flags.extend(_displaced_labels(experiment, outcomes))
        flags.extend((*paired_flags(attacked), *source_flags(attacked), *experiment.flags))
        transfers.extend(scored)
        agreements.extend(agreed)
        worst = tuple(count.worst_cases(experiment, outcomes))
        worst_cases.extend(worst)
        members.extend(count.members(experiment, outcomes))
        compared = tuple(model_comparisons(experiment, outcomes))
        comparisons.extend(compared)
        seeds.extend(seed_statistics(experiment, rows))
        of_experiment = tuple(compared_cells(experiment, outcomes))
        ordered.extend(of_experiment)
        for model, label, method in search_methods(of_experiment, attacked):
            methods[experiment.spec.dataset.name, model][label] = method
        flags.extend(sample_size_flags(worst, compared))
    flags.extend(order_flags(ordered))
    flags.extend((*gradient_use_flags(ordered), *noise_only_flags(ordered)))
    published = frozenset(
        (row.dataset, row.model, label) for row in plan.suite.published for label in row.attack
    )
    flags.extend(single_step_flags(ordered, proved=proved_ids(proofs), published=published))
    for check in examined.survivors:
        flags.extend(survivor_flags(check, methods[check.dataset, check.model]))
    no_class = count_no_class(plan, folder, failures)
    failures.extend(no_class.failures)
    return RunRecord(
        suite=plan.suite,
        status="failed" if failures else "done",
        provenance=origin,
        models=tuple(_cards(plan)),
        datasets=tuple(experiment.card for experiment in plan.all_experiments),
        evaluations=tuple(evaluations),
        transfers=tuple(transfers),
        agreements=tuple(agreements),
        worst_cases=tuple(worst_cases),
        members=tuple(members),
        comparisons=tuple(comparisons),
        seeds=tuple(seeds),
        failures=tuple(failures),
        examinations=tuple(examined.found.values()),
        survivors=examined.survivors,
        checks=(
            *examined.checks(plan),
            *_checks(plan, evaluations, transfers, flags, followed),
            *_survivor_checks(examined, flags),
            *_no_class_checks(no_class),
        ),
        no_class=tuple(no_class.evaluations),
        no_class_shares=tuple(no_class.shares),
        fooling=tuple(no_class.fooling),
        claims=tuple(claim_tests(plan, folder)),
    ).with_flags(flags)


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


def _displaced_labels(
    experiment: PlannedExperiment, outcomes: Mapping[str, Outcome]
) -> Iterator[Flag]:
    """Yields the flags of labels that are those of other examples, by each model's answers."""
    for cell in experiment.cells:
        clean, model = outcomes.get(cell.digest), cell.source
        if cell.attack is None and clean is not None:
            yield from label_flags(
                experiment.spec.dataset.name,
                model.name,
                clean=clean,
                digest=model.digest,
                labels=experiment.dataset.labels,
                classes=model.classifier.classes,
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

"""Counts outcomes: makes the rows of the tables from the outcomes of cells."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gibbon.attacks.base import iterates_of, parameters_of
from gibbon.attacks.toolkit.parameter_text import holds_arrays, parameter_text
from gibbon.core.threat import Epsilon, Norm
from gibbon.metrics.bootstrap import BOOTSTRAP_SEED, Bootstrap, quantile_interval
from gibbon.metrics.intervals import Interval
from gibbon.metrics.nearest import MEDIAN, NINE_TENTHS, TENTH, quantile
from gibbon.metrics.rates import Flags, MeanShare, Share, attack_success, mean, mean_share, share
from gibbon.metrics.transfer import Scored, agreement_share, transfer_shares
from gibbon.records.outcomes import Outcome
from gibbon.records.run import Agreement, Evaluation, MemberEvaluation, Transfer, WorstCase
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Cell, PlannedExperiment
from gibbon.specs.base import UNATTACKED

CARRIED = "carried"  # added to the iterate kept if smaller epsilons' successes are carried over
CONFIDENCES = tuple(
    f"{name}{end}"
    for name in ("confidence_on_misclassified", "mean_confidence")
    for end in ("", "_low", "_high")
)
Outcomes = Mapping[str, Outcome]
Columns = dict[str, object]
Threat = tuple[Norm, Epsilon, bool]  # whether attacks stay in the bounds


def evaluations(experiment: PlannedExperiment, outcomes: Outcomes) -> Iterator[Evaluation]:
    """Yields a row for every cell, the unattacked one of each model first."""
    clean = _clean(experiment, outcomes)
    bootstrap = Bootstrap(len(experiment.ids), seed=BOOTSTRAP_SEED)
    for model in experiment.models:
        for cell in experiment.cells_of(model):
            columns = _columns(cell, experiment) | _attack_columns(cell)
            columns |= {"model": model.name, "digest": cell.digest}
            outcome = outcomes.get(cell.digest)
            if outcome is None:
                columns["status"] = "failed"
            else:
                columns |= _evaluation_columns(cell, outcome, clean[model.name])
                columns |= _mean_columns(cell, outcome, bootstrap)
                if experiment.spec.error_only and cell.attack is not None:
                    # What an early stop leaves of confidence says nothing about the model.
                    columns |= dict.fromkeys(CONFIDENCES)
            yield Evaluation.model_validate(columns)


def transfers(experiment: PlannedExperiment, outcomes: Outcomes) -> Iterator[Transfer]:
    """Yields a row for every source, target and attack that is transferred."""
    clean = _clean(experiment, outcomes)
    clean_errors = {
        model.name: _error(outcome, model).value
        for model in experiment.models
        if (outcome := clean[model.name]) is not None
    }
    for cell in _transferred(experiment):
        outcome = outcomes.get(cell.digest)
        for target in experiment.models:
            columns = _columns(cell, experiment) | {
                "source": cell.source.name,
                "target": target.name,
                "target_clean_error": clean_errors.get(target.name),
                "digest": cell.digest,
            }
            if outcome is None or target.digest not in outcome.scores:
                columns["status"] = "failed"
            else:
                columns |= _transfer_columns(
                    _scored(outcome, cell.source), _scored(outcome, target)
                )
                columns |= _rate("error", _error(outcome, target))
            yield Transfer.model_validate(columns)


def agreements(experiment: PlannedExperiment, outcomes: Outcomes) -> Iterator[Agreement]:
    """Yields a row for every two targets on each source's examples."""
    for cell in _transferred(experiment):
        outcome = outcomes.get(cell.digest)
        others = [model for model in experiment.models if model is not cell.source]
        for first, second in combinations(others, 2):
            columns = _columns(cell, experiment) | {
                "source": cell.source.name,
                "first": first.name,
                "second": second.name,
            }
            if outcome is None or not {first.digest, second.digest} <= outcome.scores.keys():
                columns["status"] = "failed"
            else:
                counted = agreement_share(_scored(outcome, first), _scored(outcome, second))
                columns["both_misclassified"] = counted.total
                columns |= _rate("same_class_given_both_misclassified", counted)
            yield Agreement.model_validate(columns)


@dataclass(frozen=True)
class WorstErrors:
    """The examples that a model misclassifies clean or under any attack of one threat model.

    Args:
        model: the model's name.
        threat: norm, epsilon and whether the attacks stay in the bounds.
        cells: the cells of the attacks, those within the bounds after the others.
        wrong: bool, shape (N,).
    """

    model: str
    threat: Threat
    cells: tuple[Cell, ...]
    wrong: Flags


def worst_errors(experiment: PlannedExperiment, outcomes: Outcomes) -> Iterator[WorstErrors]:
    """Yields the errors of every model and threat model, over all attacks that were done under it.

    A candidate inside the bounds is also allowed under the threat model without bounds, so the
    attacks of this threat model include the clipped ones with the same epsilon.
    """
    unattacked = _clean(experiment, outcomes)
    for model in experiment.models:
        clean = unattacked[model.name]
        if clean is None:
            continue
        groups: dict[Threat, list[Cell]] = {}
        for cell in experiment.cells_of(model):
            if cell.threat is not None and cell.digest in outcomes:
                key = (cell.threat.norm, cell.epsilon, cell.threat.bounds is not None)
                groups.setdefault(key, []).append(cell)
        for (norm, epsilon, clip), own in groups.items():
            cells = own if clip else [*own, *groups.get((norm, epsilon, True), [])]
            wrong = clean.misclassified(model.digest)
            for cell in cells:
                wrong = wrong | outcomes[cell.digest].any_misclassified
            threat = (norm, cells[0].epsilon, clip)
            yield WorstErrors(model.name, threat, tuple(cells), wrong)


def worst_cases(experiment: PlannedExperiment, outcomes: Outcomes) -> Iterator[WorstCase]:
    """Yields a row for every model and threat model: see `worst_errors`."""
    for worst in worst_errors(experiment, outcomes):
        norm, epsilon, clip = worst.threat
        counted = share(worst.wrong)
        columns: Columns = {
            "dataset": experiment.spec.dataset.name,
            "model": worst.model,
            "norm": norm,
            "epsilon": epsilon,
            "clip": clip,
            "attacks": tuple(cell.label for cell in worst.cells),
            "examples": counted.total,
            "misclassified": counted.count,
        }
        yield WorstCase.model_validate(columns | _rate("worst_case_error", counted))


def members(experiment: PlannedExperiment, outcomes: Outcomes) -> Iterator[MemberEvaluation]:
    """Yields a row for each member of every attack that is a list."""
    clean = _clean(experiment, outcomes)
    for cell in experiment.cells:
        if cell.attack is None:
            continue
        columns = _columns(cell, experiment)
        columns |= {"model": cell.source.name, "digest": cell.digest}
        outcome = outcomes.get(cell.digest)
        unattacked = clean[cell.source.name]
        done = unattacked.misclassified(cell.source.digest) if unattacked is not None else None
        for position, name in enumerate(cell.attack.attack.members):
            columns["member"] = name
            if outcome is None or done is None:
                columns["status"] = "failed"
            else:
                before = share(done)
                done = done | (outcome.first_misled == position)
                after = share(done)
                columns["given"] = before.total - before.count
                columns["misled"] = after.count - before.count
                columns |= _rate("error_after", after)
            yield MemberEvaluation.model_validate(columns)


def _clean(experiment: PlannedExperiment, outcomes: Outcomes) -> dict[str, Outcome | None]:
    """Returns the outcomes of the unattacked cells, by the names of the models."""
    cells = [cell for cell in experiment.cells if cell.attack is None]
    return {cell.source.name: outcomes.get(cell.digest) for cell in cells}


def _columns(cell: Cell, experiment: PlannedExperiment) -> Columns:
    """Returns the columns that the rows of a cell have in every table."""
    return {
        "dataset": cell.dataset,
        "attack": cell.label,
        "epsilon": cell.epsilon,
        "examples": len(experiment.ids),
    }


def _error(
    outcome: Outcome, model: LoadedModel, *, clean_wrong: Flags | None = None
) -> Share | MeanShare:
    """Returns the error of a model: of one with random answers the mean share of wrong ones.

    With ``clean_wrong`` it is the success rate, among the examples classified correctly when clean.
    """
    if model.draws == 1:
        wrong = outcome.misclassified(model.digest)
        return (
            share(wrong)
            if clean_wrong is None
            else attack_success(wrong, clean_misclassified=clean_wrong)
        )
    among = None if clean_wrong is None else ~clean_wrong
    return mean_share(outcome.wrong_share(model.digest), draws=model.draws, among=among)


def _rate(name: str, counted: Share | MeanShare) -> Columns:
    """Returns the columns of a rate and of its interval."""
    interval = counted.interval
    return {
        name: counted.value,
        f"{name}_low": interval and interval.low,
        f"{name}_high": interval and interval.high,
    }


def _attack_columns(cell: Cell) -> Columns:
    """Returns the columns that describe the attack and its threat model."""
    if cell.attack is None or cell.threat is None:
        return {"algorithm": UNATTACKED}
    attack, spec = cell.attack.attack, cell.attack.spec
    return {
        "algorithm": spec.name,
        "norm": cell.threat.norm,
        "clip": cell.threat.bounds is not None,
        "iterate": ", ".join([*iterates_of(attack), *([CARRIED] if spec.carried else [])]),
        "parameters": json.dumps(
            {**parameters_of(attack), **cell.attack.adaptation.shown}, default=_parameter_text
        ),
    }


def _parameter_text(parameter: object) -> str:
    return parameter_text(parameter) if holds_arrays(parameter) else str(parameter)


def _evaluation_columns(cell: Cell, outcome: Outcome, clean: Outcome | None) -> Columns:
    source = cell.source.digest
    wrong = outcome.misclassified(source)
    columns = _rate("adversarial_error", _error(outcome, cell.source)) | {
        "misclassified": share(wrong).count,
        "forward_passes": outcome.meta.forward_passes,
        "backward_passes": outcome.meta.backward_passes,
        "seconds": outcome.meta.seconds,
        "draws": cell.source.draws,
    }
    if clean is not None:
        clean_wrong = clean.misclassified(source)
        error = share(clean_wrong)
        saturated = clean.saturated
        columns |= _rate("clean_error", _error(clean, cell.source))
        columns |= _rate("worst_case_error", share(clean_wrong | outcome.any_misclassified))
        columns["clean_correct"] = error.total - error.count
        columns["saturated_share"] = None if saturated is None else share(saturated).value
        if cell.attack is not None:
            success = _error(outcome, cell.source, clean_wrong=clean_wrong)
            columns |= _rate("attack_success_rate", success)
    if cell.attack is not None:
        columns |= _candidate_columns(outcome)
    reached = outcome.reached_target(source)
    if reached is not None and len(reached):
        columns |= {**_rate("target_rate", share(reached)), "targeted": len(reached)}
    if outcome.nearest is not None:
        columns |= {
            "nearest_found": int(np.count_nonzero(np.isfinite(outcome.nearest))),
            "nearest_median": quantile(outcome.nearest, MEDIAN),
            "nearest_q10": quantile(outcome.nearest, TENTH),
            "nearest_q90": quantile(outcome.nearest, NINE_TENTHS),
        }
    return columns


def _mean_columns(cell: Cell, outcome: Outcome, bootstrap: Bootstrap) -> Columns:
    """Returns the columns of mean confidences and of the median distance, with intervals."""
    wrong = outcome.misclassified(cell.source.digest)
    confidence = outcome.scores[cell.source.digest].confidence
    columns: Columns = {
        "confidence_on_misclassified": mean(confidence, among=wrong),
        "mean_confidence": mean(confidence),
        **_ends("confidence_on_misclassified", bootstrap.mean(confidence, among=wrong)),
        **_ends("mean_confidence", bootstrap.mean(confidence)),
    }
    if outcome.nearest is not None:
        columns |= _ends("nearest_median", quantile_interval(outcome.nearest, MEDIAN))
    return columns


def _ends(name: str, interval: Interval | None) -> Columns:
    """Returns the columns of the ends of an interval; None for an infinite one."""
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    finite = high is not None and math.isfinite(high)
    return {f"{name}_low": low, f"{name}_high": high if finite else None}


def _candidate_columns(outcome: Outcome) -> Columns:
    zero, distance, verdict = outcome.zero_gradient, outcome.distance, outcome.verdict
    finite = np.isfinite(distance)
    return {
        "zero_gradient_share": None if zero is None else share(zero).value,
        "invalid_candidates": int(np.count_nonzero(verdict)),
        "mean_distance": mean(distance, among=finite),
        "max_distance": float(distance[finite].max()) if finite.any() else None,
    }


def _transfer_columns(source: Scored, target: Scored) -> Columns:
    shares = transfer_shares(source, target)
    columns: Columns = {
        "source_misclassified": shares.error_given_source.total,
        "both_misclassified": shares.same_class_given_both.total,
        "confidence_on_misclassified": mean(target.confidence, among=target.misled),
    }
    columns |= _rate("error_given_source_misclassified", shares.error_given_source)
    columns |= _rate("same_class_given_source_misclassified", shares.same_class_given_source)
    columns |= _rate("same_class_given_both_misclassified", shares.same_class_given_both)
    return columns


def _transferred(experiment: PlannedExperiment) -> Iterator[Cell]:
    for cell in experiment.cells:
        if cell.attack is not None and cell.attack.transferred:
            yield cell


def _scored(outcome: Outcome, target: LoadedModel) -> Scored:
    answers = outcome.scores[target.digest]
    return Scored(
        answers.predicted.astype(np.int64), outcome.misclassified(target.digest), answers.confidence
    )

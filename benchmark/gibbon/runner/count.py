"""From outcomes to the rows of the tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gibbon.attacks.base import iterates_of, parameters_of
from gibbon.attacks.toolkit.parameter_text import holds_arrays, parameter_text
from gibbon.core.threat import Norm
from gibbon.metrics.nearest import MEDIAN, NINE_TENTHS, TENTH, quantile
from gibbon.metrics.rates import Share, attack_success, mean, share
from gibbon.metrics.transfer import Scored, agreement_share, transfer_shares
from gibbon.records.flags import candidate_flags
from gibbon.records.outcomes import Outcome
from gibbon.records.run import Agreement, Evaluation, MemberEvaluation, Transfer, WorstCase
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Cell, PlannedExperiment
from gibbon.specs.base import UNATTACKED

CARRIED = "carried"  # what the column of the iterate kept says besides
Outcomes = Mapping[str, Outcome]
Row = TypeVar("Row", Evaluation, Transfer, MemberEvaluation)


def evaluations(experiment: PlannedExperiment, outcomes: Outcomes) -> Iterator[Evaluation]:
    """Yields a row for every cell, the unattacked one of each model first."""
    for model in experiment.models:
        cells = [cell for cell in experiment.cells if cell.source is model]
        clean = next((outcomes.get(cell.digest) for cell in cells if cell.attack is None), None)
        for cell in cells:
            row = _evaluation(cell, outcomes.get(cell.digest), clean, len(experiment.ids))
            if experiment.spec.error_only and cell.attack is not None:
                # What an early stop leaves of confidence says nothing of the model.
                row = row.model_copy(
                    update={"confidence_on_misclassified": None, "mean_confidence": None}
                )
            yield row


def transfers(experiment: PlannedExperiment, outcomes: Outcomes) -> Iterator[Transfer]:
    """Yields a row for every pair of models and attack that is transferred, both ways."""
    clean_errors = {
        cell.source.name: share(outcome.misclassified(cell.source.digest)).value
        for cell in experiment.cells
        if cell.attack is None and (outcome := outcomes.get(cell.digest)) is not None
    }
    for cell in _transferred(experiment):
        outcome = outcomes.get(cell.digest)
        for target in experiment.models:
            yield _transfer(
                cell, target, outcome, clean_errors.get(target.name), len(experiment.ids)
            )


def agreements(experiment: PlannedExperiment, outcomes: Outcomes) -> Iterator[Agreement]:
    """Yields a row for every two targets on each source's examples."""
    for cell in _transferred(experiment):
        outcome = outcomes.get(cell.digest)
        others = [model for model in experiment.models if model is not cell.source]
        for first, second in combinations(others, 2):
            known = outcome is not None and {first.digest, second.digest} <= outcome.scores.keys()
            counted = (
                agreement_share(_scored(outcome, first), _scored(outcome, second))
                if outcome is not None and known
                else None
            )
            low, high = _interval(counted)
            yield Agreement(
                dataset=cell.dataset,
                source=cell.source.name,
                first=first.name,
                second=second.name,
                attack=cell.label,
                epsilon=cell.epsilon,
                examples=len(experiment.ids),
                both_misclassified=counted.total if counted else None,
                same_class_given_both_misclassified=counted.value if counted else None,
                same_class_given_both_misclassified_low=low,
                same_class_given_both_misclassified_high=high,
                status="done" if known else "failed",
            )


def worst_cases(experiment: PlannedExperiment, outcomes: Outcomes) -> Iterator[WorstCase]:
    """Yields a row for every model and threat model, over all attacks that were done under it.

    A candidate that stays in the bounds is allowed without them too, so that a threat model without
    bounds has the clipped attacks of its epsilon among its own.
    """
    for model in experiment.models:
        cells = [
            cell
            for cell in experiment.cells
            if cell.source is model and cell.digest in outcomes and cell.attack is not None
        ]
        clean = _clean_of(experiment, model, outcomes)
        if clean is None:
            continue
        groups: dict[tuple[Norm, object, bool], list[Cell]] = {}
        for cell in cells:
            if cell.threat is not None:
                key = (cell.threat.norm, cell.epsilon, cell.threat.bounds is not None)
                groups.setdefault(key, []).append(cell)
        for (norm, epsilon, clip), own in groups.items():
            members = own if clip else [*own, *groups.get((norm, epsilon, True), [])]
            wrong = clean.misclassified(model.digest)
            for cell in members:
                wrong = wrong | outcomes[cell.digest].any_misclassified
            counted = share(wrong)
            low, high = _interval(counted)
            yield WorstCase(
                dataset=experiment.spec.dataset.name,
                model=model.name,
                norm=norm,
                epsilon=members[0].epsilon,
                clip=clip,
                attacks=tuple(cell.label for cell in members),
                examples=counted.total,
                misclassified=counted.count,
                worst_case_error=counted.value,
                worst_case_error_low=low,
                worst_case_error_high=high,
            )


def members(experiment: PlannedExperiment, outcomes: Outcomes) -> Iterator[MemberEvaluation]:
    """Yields a row for each member of every attack that is several in turn."""
    for cell in experiment.cells:
        if cell.attack is None:
            continue
        names = cell.attack.attack.members
        rows = [
            MemberEvaluation(
                dataset=cell.dataset,
                model=cell.source.name,
                attack=cell.label,
                epsilon=cell.epsilon,
                member=name,
                examples=len(experiment.ids),
                digest=cell.digest,
            )
            for name in names
        ]
        outcome = outcomes.get(cell.digest)
        clean = _clean_of(experiment, cell.source, outcomes)
        if outcome is None or clean is None:
            yield from (row.model_copy(update={"status": "failed"}) for row in rows)
            continue
        done = clean.misclassified(cell.source.digest)
        for position, row in enumerate(rows):
            before = int(np.count_nonzero(done))
            done = done | (outcome.first_misled == position)
            after = share(done)
            low, high = _interval(after)
            counts: dict[str, object] = {
                "given": after.total - before,
                "misled": after.count - before,
                "error_after": after.value,
                "error_after_low": low,
                "error_after_high": high,
            }
            yield _completed(row, counts)


def _evaluation(
    cell: Cell, outcome: Outcome | None, clean: Outcome | None, examples: int
) -> Evaluation:
    row = _description(cell, examples)
    source = cell.source.digest
    if outcome is None:
        return row.model_copy(update={"status": "failed"})
    misled = outcome.misclassified(source)
    counted = share(misled)
    confidence = outcome.scores[source].confidence
    low, high = _interval(counted)
    found: dict[str, object] = {
        "adversarial_error": counted.value,
        "adversarial_error_low": low,
        "adversarial_error_high": high,
        "misclassified": counted.count,
        "confidence_on_misclassified": mean(confidence, among=misled),
        "mean_confidence": mean(confidence),
        "forward_passes": outcome.meta.forward_passes,
        "backward_passes": outcome.meta.backward_passes,
        "seconds": outcome.meta.seconds,
    }
    if clean is not None:
        found |= _against_clean(outcome, clean, misled, source, attacked=cell.attack is not None)
    if cell.attack is not None:
        found |= _about_candidates(outcome, epsilon=float(cell.epsilon))
    if outcome.nearest is not None:
        found |= _about_distances(outcome.nearest)
    return _completed(row, found)


def _completed(row: Row, found: Mapping[str, object]) -> Row:
    """Returns a row with what was found, checked: a rate outside [0, 1] must not be written."""
    return type(row).model_validate({**dict(row), **found})


def _against_clean(
    outcome: Outcome, clean: Outcome, misled: NDArray[np.bool_], source: str, *, attacked: bool
) -> dict[str, object]:
    wrong = clean.misclassified(source)
    error, worst = share(wrong), share(wrong | outcome.any_misclassified)
    success = attack_success(misled, clean_misclassified=wrong)
    found: dict[str, object] = {
        "clean_error": error.value,
        "clean_correct": error.total - error.count,
        "worst_case_error": worst.value,
        "saturated_share": float(np.mean(clean.saturated)) if clean.saturated is not None else None,
    }
    found["clean_error_low"], found["clean_error_high"] = _interval(error)
    found["worst_case_error_low"], found["worst_case_error_high"] = _interval(worst)
    if attacked:
        found["attack_success_rate"] = success.value
        low, high = _interval(success)
        found["attack_success_rate_low"], found["attack_success_rate_high"] = low, high
    return found


def _written(parameter: object) -> str:
    return parameter_text(parameter) if holds_arrays(parameter) else str(parameter)


def _about_candidates(outcome: Outcome, *, epsilon: float) -> dict[str, object]:
    zero = outcome.zero_gradient
    finite = np.isfinite(outcome.distance)
    flags = candidate_flags(
        outcome.verdict.astype(np.int64),
        outcome.distance,
        epsilon=epsilon,
        zero_gradient=zero,
        done=_done(outcome),
    )
    return {
        "zero_gradient_share": float(np.mean(zero)) if zero is not None else None,
        "invalid_candidates": int(np.count_nonzero(outcome.verdict)),
        "mean_distance": mean(outcome.distance, among=finite),
        "max_distance": float(outcome.distance[finite].max()) if finite.any() else None,
        "flags": "; ".join(flags),
    }


def _done(outcome: Outcome) -> NDArray[np.bool_]:
    """Says for which examples an attack may leave the input as it is: for those that it misleads.

    A search that found points beyond epsilon may do so for all.
    """
    if outcome.nearest is not None and np.any(outcome.nearest > 0):
        return np.ones_like(outcome.any_misclassified)
    return outcome.any_misclassified


def _about_distances(nearest: NDArray[np.float32]) -> dict[str, object]:
    return {
        "nearest_found": int(np.count_nonzero(np.isfinite(nearest))),
        "nearest_median": quantile(nearest, MEDIAN),
        "nearest_q10": quantile(nearest, TENTH),
        "nearest_q90": quantile(nearest, NINE_TENTHS),
    }


def _description(cell: Cell, examples: int) -> Evaluation:
    row = Evaluation(
        dataset=cell.dataset,
        model=cell.source.name,
        attack=cell.label,
        epsilon=cell.epsilon,
        examples=examples,
        digest=cell.digest,
    )
    if cell.attack is None or cell.threat is None:
        return row.model_copy(update={"algorithm": UNATTACKED})
    parameters = dict(parameters_of(cell.attack.attack))
    return row.model_copy(
        update={
            "algorithm": cell.attack.spec.name,
            "norm": cell.threat.norm,
            "clip": cell.threat.bounds is not None,
            "iterate": ", ".join(
                [
                    *iterates_of(cell.attack.attack),
                    *([CARRIED] if cell.attack.spec.carried else []),
                ]
            ),
            "parameters": json.dumps(parameters, default=_written),
        }
    )


def _transfer(
    cell: Cell,
    target: LoadedModel,
    outcome: Outcome | None,
    clean_error: float | None,
    examples: int,
) -> Transfer:
    row = Transfer(
        dataset=cell.dataset,
        source=cell.source.name,
        target=target.name,
        attack=cell.label,
        epsilon=cell.epsilon,
        examples=examples,
        target_clean_error=clean_error,
        digest=cell.digest,
    )
    if outcome is None or target.digest not in outcome.scores:
        return row.model_copy(update={"status": "failed"})
    scored = _scored(outcome, target)
    shares = transfer_shares(_scored(outcome, cell.source), scored)
    found: dict[str, object] = {
        "error": shares.error.value,
        "source_misclassified": shares.error_given_source.total,
        "error_given_source_misclassified": shares.error_given_source.value,
        "same_class_given_source_misclassified": shares.same_class_given_source.value,
        "both_misclassified": shares.same_class_given_both.total,
        "same_class_given_both_misclassified": shares.same_class_given_both.value,
        "confidence_on_misclassified": mean(scored.confidence, among=scored.misled),
    }
    for name, counted in {
        "error": shares.error,
        "error_given_source_misclassified": shares.error_given_source,
        "same_class_given_source_misclassified": shares.same_class_given_source,
        "same_class_given_both_misclassified": shares.same_class_given_both,
    }.items():
        found[f"{name}_low"], found[f"{name}_high"] = _interval(counted)
    return _completed(row, found)


def _transferred(experiment: PlannedExperiment) -> Iterator[Cell]:
    for cell in experiment.cells:
        if cell.attack is not None and cell.attack.transferred:
            yield cell


def _clean_of(
    experiment: PlannedExperiment, model: LoadedModel, outcomes: Outcomes
) -> Outcome | None:
    for cell in experiment.cells:
        if cell.attack is None and cell.source is model:
            return outcomes.get(cell.digest)
    return None


def _scored(outcome: Outcome, target: LoadedModel) -> Scored:
    answers = outcome.scores[target.digest]
    return Scored(
        answers.predicted.astype(np.int64), outcome.misclassified(target.digest), answers.confidence
    )


def _interval(counted: Share | None) -> tuple[float | None, float | None]:
    interval = counted.interval if counted is not None else None
    return (interval.low, interval.high) if interval is not None else (None, None)

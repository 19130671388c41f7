"""Measures the outputs of models along the direction of an attack, far beyond its usual budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gibbon.attacks import ATTACKS
from gibbon.attacks.base import SharedWork
from gibbon.core.errors import SpecError
from gibbon.core.rng import ExampleStreams
from gibbon.metrics.bootstrap import Bootstrap
from gibbon.metrics.linearity import first_error, linear_share, steadiness
from gibbon.models.classifier import Classifier
from gibbon.records.swept_outputs import SweptExample, SweptModel, SweptOutputs
from gibbon.runner.plan.planned import Plan, PlannedAttack, PlannedExperiment
from gibbon.verify.guard import guarding
from gibbon.verify.proposal import direction_of

MOST_EXAMPLES = 1_000  # all outputs are held: examples x epsilons x classes
ReportDone = Callable[[int, int], None]


def epsilons_between(low: float, high: float, points: int) -> NDArray[np.float64]:
    """Returns evenly spaced epsilons from ``low`` to ``high``, with 0 added if it is between them.

    Raises `SpecError` unless there are at least three on each side of 0 that is swept.

    >>> epsilons_between(-1.0, 1.0, 5).tolist()
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    if not low < high or not low <= 0 <= high:
        raise SpecError(
            f"a sweep goes from zero or less to zero or more, got {low:g} to {high:g}",
            where="--from, --to",
        )
    found = np.unique(np.append(np.linspace(low, high, points), 0.0))
    for name, side in (("--from", found[found <= 0]), ("--to", found[found >= 0])):
        if 1 < len(side) < 3:
            raise SpecError(f"{points} points leave fewer than three on one side of 0", where=name)
    return found


def sweep_outputs(
    plan: Plan, epsilons: NDArray[np.float64], *, report: ReportDone = lambda done, total: None
) -> Iterator[SweptOutputs]:
    """Yields the outputs of each model of a plan's one experiment along its one direction.

    The points are not clipped to the bounds of the inputs.  Raises `SpecError` if the attack
    follows no direction.
    """
    (experiment,) = plan.experiments
    planned = _one_direction(experiment)
    total = len(experiment.models) * len(experiment.ids)
    for place, model in enumerate(experiment.models):
        found: list[tuple[Tensor, Tensor]] = []
        size = max(1, experiment.batch_sizes[model.name].now // 4)
        with model.classifier.evaluating(plan.device) as source:
            for start in range(0, len(experiment.ids), size):
                ids = experiment.ids[start : start + size]
                found.append(_outputs(experiment, source, planned, ids, epsilons, plan.device))
                report(place * len(experiment.ids) + start + len(ids), total)
        batch = experiment.dataset.batch(experiment.ids)
        yield SweptOutputs(
            dataset=experiment.spec.dataset.name,
            model=model.name,
            attack=planned.label,
            rule=model.classifier.outputs.name,
            epsilons=epsilons,
            ids=experiment.ids,
            labels=batch.labels.cpu().numpy().astype(np.int64),
            outputs=torch.cat([outputs for outputs, _ in found]).numpy(),
            confidence=torch.cat([confidence for _, confidence in found]).numpy(),
        )


def _one_direction(experiment: PlannedExperiment) -> PlannedAttack:
    if len(experiment.attacks) != 1:
        labels = ", ".join(each.label for each in experiment.attacks)
        raise SpecError(f"a sweep follows one attack, got {labels or 'none'}", where="--attack")
    (planned,) = experiment.attacks
    if planned.attack.shares is not SharedWork.DIRECTION:
        known = [
            entry.name
            for entry in ATTACKS.entries()
            if getattr(entry.load(), "shares", None) is SharedWork.DIRECTION
        ]
        raise SpecError(
            f"attack {planned.label!r} follows no single direction: a sweep takes one of "
            f"{', '.join(known)}",
            where="--attack",
        )
    return planned


def _outputs(
    experiment: PlannedExperiment,
    source: Classifier,
    planned: PlannedAttack,
    ids: NDArray[np.int64],
    epsilons: NDArray[np.float64],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Returns outputs, shape (n, E, K), and confidences, (n, E), of some examples."""
    batch = experiment.dataset.batch(ids).to(device)
    attack = planned.attack
    streams = ExampleStreams.derive(planned.stream_key, batch.ids)
    with guarding(source, batch, seed=planned.stream_key, room=len(ids), attack=attack) as guarded:
        seen = planned.seen(source, guarded.batch.inputs)
        direction = direction_of(attack, seen, guarded.batch, streams=streams)
    outputs = [
        source.predict(batch.inputs.add(direction, alpha=float(epsilon))) for epsilon in epsilons
    ]
    stacked = torch.stack(outputs, 1)
    confidence = source.outputs.confidence(stacked.flatten(0, 1)).view(stacked.shape[:2])
    return stacked.float().cpu(), confidence.float().cpu()


def swept_examples(swept: SweptOutputs) -> Iterator[SweptExample]:
    """Yields a row for each example of a sweep."""
    epsilons, outputs = swept.epsilons, swept.outputs.astype(np.float64)
    down, up = epsilons <= 0, epsilons >= 0
    linear = [
        linear_share(outputs[:, side], epsilons[side])
        if np.count_nonzero(side) > 1
        else np.ones(len(outputs))
        for side in (down, up)
    ]
    predicted = swept.predicted
    wrong = predicted != swept.labels[:, None]
    first = first_error(wrong, epsilons)
    steady = steadiness(predicted, epsilons, start=first)
    for row, example in enumerate(swept.ids):
        after = wrong[row][(epsilons >= first[row])]
        found = bool(np.isfinite(first[row]))
        at_zero = int(np.flatnonzero(epsilons == 0)[0])
        yield SweptExample(
            dataset=swept.dataset,
            model=swept.model,
            attack=swept.attack,
            example_id=int(example),
            label=int(swept.labels[row]),
            linear_down=float(linear[0][row]),
            linear_up=float(linear[1][row]),
            first_error=float(first[row]) if found else None,
            wrong_after=float(after.mean()) if found else None,
            steady=float(steady[row]) if found else None,
            confidence_at_zero=float(swept.confidence[row, at_zero]),
            confidence_at_low=float(swept.confidence[row, 0]),
            confidence_at_high=float(swept.confidence[row, -1]),
        )


def swept_model(swept: SweptOutputs, rows: list[SweptExample]) -> SweptModel:
    """Returns the summary of a sweep from its rows."""
    bootstrap = Bootstrap(len(rows), seed=0)
    columns: dict[str, float | int | str | None] = {}
    for name in ("linear_down", "linear_up"):
        values = np.array([getattr(each, name) for each in rows], dtype=np.float64)
        interval = bootstrap.mean(values)
        columns[name] = float(values.mean())
        columns[f"{name}_low"] = None if interval is None else interval.low
        columns[f"{name}_high"] = None if interval is None else interval.high
    for name in ("confidence_at_zero", "confidence_at_low", "confidence_at_high"):
        columns[name] = float(np.mean([getattr(each, name) for each in rows]))
    fooled = [each for each in rows if each.first_error is not None and each.first_error > 0]
    for name in ("wrong_after", "steady"):
        columns[name] = float(np.mean([getattr(e, name) for e in fooled])) if fooled else None
    firsts = [each.first_error for each in fooled if each.first_error is not None]
    median = float(np.median(firsts)) if firsts else None
    return SweptModel.model_validate(
        {
            "dataset": swept.dataset,
            "model": swept.model,
            "attack": swept.attack,
            "examples": len(rows),
            "lowest": float(swept.epsilons[0]),
            "highest": float(swept.epsilons[-1]),
            "points": len(swept.epsilons),
            "fooled": len(fooled),
            "first_error_median": median,
            **columns,
        }
    )

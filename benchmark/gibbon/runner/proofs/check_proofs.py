"""Adds proofs to a record, and flags examples that an attack claims although they are proved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gibbon.core.threat import ThreatModel
from gibbon.diagnostics.proof_flags import OURS, proof_flags, published_bound_flags
from gibbon.records.flags import Flag
from gibbon.records.outcomes import Outcome
from gibbon.records.proofs import Proofs
from gibbon.records.run import Evaluation, RunRecord, Transfer
from gibbon.runner.plan.planned import Cell, Plan, PlannedExperiment
from gibbon.runner.proofs.count_proofs import bound_of, key_of, with_bounds
from gibbon.runner.proofs.plan_proofs import PlannedProof
from gibbon.runner.proofs.published_proofs import published_proofs
from gibbon.runner.run_folder import RunFolder

# The ids of the examples that are proved robust, of a model under a threat model, by whom.
Claims = Mapping[tuple[str, ThreatModel], Sequence[tuple[str, NDArray[np.int64]]]]


def with_proofs(
    record: RunRecord,
    plan: Plan,
    folder: RunFolder,
    proofs: Sequence[tuple[PlannedProof, Proofs]],
) -> RunRecord:
    """Returns a record with its bounds, the columns that they add, and their flags."""
    bounds = {key_of(row): row for row in (bound_of(*each) for each in proofs)}
    record = record.model_copy(
        update={
            "bounds": tuple(bounds.values()),
            "evaluations": tuple(with_bounds(record.evaluations, bounds)),
            "worst_cases": tuple(with_bounds(record.worst_cases, bounds)),
        }
    )
    flags = [
        flag
        for experiment in plan.experiments
        for flag in _contradictions(record, experiment, folder, _claims(plan, experiment, proofs))
    ]
    for row in plan.suite.published:
        card = record.dataset_cards.get(row.dataset)
        if card is not None:
            whole = card.examples == card.of
            flags.extend(published_bound_flags(row, record.evaluations, whole=whole))
    return record.with_flags([*record.flags, *flags]) if flags or bounds else record


def _claims(
    plan: Plan, experiment: PlannedExperiment, proofs: Sequence[tuple[PlannedProof, Proofs]]
) -> Claims:
    found: dict[tuple[str, ThreatModel], list[tuple[str, NDArray[np.int64]]]] = {}
    for planned, each in proofs:
        if planned.experiment is experiment:
            key = planned.source.name, planned.threat
            found.setdefault(key, []).append((OURS, each.example_id[each.proved]))
    for name, threat, by, ids in published_proofs(plan.suite, experiment):
        found.setdefault((name, threat), []).append((by, ids))
    return found


def _contradictions(
    record: RunRecord, experiment: PlannedExperiment, folder: RunFolder, claims: Claims
) -> Iterator[Flag]:
    dataset = experiment.spec.dataset.name
    rows = {
        (row.model, row.attack, row.epsilon): row
        for row in record.evaluations
        if row.dataset == dataset
    }
    transfers = {
        (row.source, row.target, row.attack, row.epsilon): row
        for row in record.transfers
        if row.dataset == dataset
    }
    for cell in experiment.cells:
        threat = cell.threat
        concerned = threat is not None and any(
            (target.name, threat) in claims for target in cell.targets
        )
        outcome = folder.read(cell.digest) if concerned else None
        if threat is None or outcome is None:
            continue
        for target in cell.targets:
            row: Evaluation | Transfer | None = rows.get((target.name, cell.label, cell.epsilon))
            if target is not cell.source:
                row = transfers.get((cell.source.name, target.name, cell.label, cell.epsilon))
            claimed = _claimed(cell, outcome, target.digest, own=target is cell.source)
            for by, ids in claims.get((target.name, threat), ()):
                proved = np.isin(outcome.example_id, ids)
                if row is not None and claimed is not None:
                    yield from proof_flags(
                        row, outcome.example_id, claimed=claimed, proved=proved, by=by
                    )


def _claimed(cell: Cell, outcome: Outcome, digest: str, *, own: bool) -> NDArray[np.bool_] | None:
    if own:
        return outcome.any_misclassified
    return outcome.misclassified(digest) if digest in outcome.scores else None

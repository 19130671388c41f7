"""Counts proofs: the rows of bounds, and the columns that they add to other rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gibbon.core.threat import Epsilon, Norm, ThreatModel
from gibbon.metrics.rates import share
from gibbon.records.proofs import PROOF_METHODS, Proofs, code_of
from gibbon.records.run import CertifiedBound, Evaluation, WorstCase
from gibbon.runner.proofs.plan_proofs import PlannedProof

Row = TypeVar("Row", Evaluation, WorstCase)
# Dataset, model, norm, epsilon, and whether candidates stay in the box.
BoundKey = tuple[str, str, Norm, Epsilon, bool]

COLUMNS = ("certified_error", "certified_error_low", "certified_error_high", "certified_by")


def bound_of(planned: PlannedProof, proofs: Proofs) -> CertifiedBound:
    """Returns the row of the proofs of one model under one threat model."""
    meta, threat = proofs.meta, planned.threat
    counts = {
        f"proved_{method}": int(np.count_nonzero(proofs.proved_by == code_of(method)))
        for method in PROOF_METHODS
    }
    found = share(~proofs.proved)
    interval = found.interval
    known: dict[str, object] = {}
    if proofs.method is not None:
        known = {
            "certified_error": found.value,
            "certified_error_low": interval and interval.low,
            "certified_error_high": interval and interval.high,
            "certified_by": proofs.method,
            "proved": found.total - found.count,
            **counts,
        }
    left = [f"{method} proved none of a trial" for method in meta.left]
    columns = {
        "dataset": planned.experiment.spec.dataset.name,
        "model": planned.source.name,
        "norm": threat.norm,
        "epsilon": threat.epsilon,
        "clip": threat.bounds is not None,
        "examples": found.total,
        "reason": "; ".join([*left, *([meta.reason] if meta.reason else [])]),
        "requested": planned.bounding == "all",
        "forward_passes": meta.forward_passes,
        "backward_passes": meta.backward_passes,
        "seconds": meta.seconds,
        "digest": meta.digest,
    }
    return CertifiedBound.model_validate(columns | known)


def with_bounds(rows: Iterable[Row], bounds: Mapping[BoundKey, CertifiedBound]) -> list[Row]:
    """Returns rows with the certified error under their threat models."""
    found = []
    for row in rows:
        bound = None
        if row.norm is not None and row.clip is not None:
            bound = bounds.get((row.dataset, row.model, row.norm, row.epsilon, row.clip))
        values = {} if bound is None else {each: getattr(bound, each) for each in COLUMNS}
        found.append(row.model_copy(update=values))
    return found


def key_of(row: CertifiedBound) -> BoundKey:
    """Returns the model and the threat model of a row."""
    return (row.dataset, row.model, row.norm, row.epsilon, row.clip)


def proved_ids(
    proofs: Sequence[tuple[PlannedProof, Proofs]],
) -> dict[tuple[str, str, ThreatModel], NDArray[np.int64]]:
    """Returns the ids of the examples that are proved robust, by dataset, model and threat."""
    return {
        (planned.experiment.spec.dataset.name, planned.source.name, planned.threat): (
            found.example_id[found.proved]
        )
        for planned, found in proofs
    }

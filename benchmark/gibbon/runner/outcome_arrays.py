"""Converts answers and judged candidates to the arrays of outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gibbon.datasets.base import Batch
from gibbon.models.trajectory import Trajectory
from gibbon.records.outcomes import Outcome, OutcomeMeta, TargetOutcome
from gibbon.records.path_evidence import PATH_ARRAYS, PathEvidence
from gibbon.verify.answers import Answers
from gibbon.verify.judge import Judged

Scalar = TypeVar("Scalar", bound=np.generic)

LOOKED_AT = 64  # examples of a batch whose changed coordinates are counted
ROUNDING = 1e-3  # of an example's largest change: less is none
MANY, EVERY = 512, 8  # coordinates, and the step through more of them


def judged_outcome(
    batch: Batch,
    judged: Judged,
    *,
    path: Trajectory | None,
    scores: Mapping[str, TargetOutcome],
    meta: OutcomeMeta,
) -> Outcome:
    """Returns the outcome of a batch.

    ``path`` holds the evidence of the attack's passes; ``scores`` maps digests of models to
    answers.
    """
    nearest, first, margin = judged.nearest, judged.misled_by, judged.margin
    zero = None if path is None else path.zero_gradient
    targets = None if path is None else path.targets
    return Outcome(
        example_id=as_array(batch.ids, np.int64),
        label=as_array(batch.labels, np.int32),
        verdict=as_array(judged.verdict, np.int8),
        distance=as_array(judged.distance, np.float32),
        any_misclassified=as_array(judged.any_misled, np.bool_),
        saturated=None,
        zero_gradient=None if zero is None else as_array(zero, np.bool_),
        scores=scores,
        meta=meta,
        nearest=None if nearest is None else as_array(nearest, np.float32),
        misled_by=None if first is None else as_array(first, np.int16),
        margin=None if margin is None else as_array(margin, np.float32),
        changed_share=None if path is None else _changed_share(batch.inputs, judged.candidates),
        path=None if path is None else _path_evidence(path),
        target_class=None if targets is None else as_array(targets, np.int32),
    )


def _changed_share(inputs: Tensor, candidates: Tensor) -> NDArray[np.float32]:
    """Returns the share of coordinates that differ, shape (N,), of the first examples; else NaN.

    Of many coordinates every eighth is looked at: their number is evidence, not a result.
    """
    shares = np.full(len(inputs), np.nan, dtype=np.float32)
    few = slice(min(LOOKED_AT, len(inputs)))
    before, after = inputs[few].flatten(1), candidates[few].flatten(1)
    if before.shape[1] > MANY:
        before, after = before[:, ::EVERY], after[:, ::EVERY]
    sizes = (after - before).abs()
    changed = sizes > ROUNDING * sizes.amax(1, keepdim=True)
    shares[few] = as_array(changed.float().mean(1), np.float32)
    return shares


def _path_evidence(path: Trajectory) -> PathEvidence:
    found = path.evidence.cpu()
    arrays: dict[str, Any] = {
        name: as_array(getattr(found, name), kind) for name, kind in PATH_ARRAYS.items()
    }
    return PathEvidence(**arrays)


def target_outcome(answers: Answers) -> TargetOutcome:
    """Returns a model's answers as arrays."""
    share = answers.wrong_share
    return TargetOutcome(
        as_array(answers.predicted, np.int32),
        as_array(answers.confidence, np.float32),
        None if share is None else as_array(share, np.float32),
    )


def as_array(values: Tensor, kind: type[Scalar]) -> NDArray[Scalar]:
    """Returns a tensor as an array of this type."""
    return values.detach().cpu().numpy().astype(kind)

"""Converts answers and judged candidates to the arrays of outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gibbon.datasets.base import Batch
from gibbon.records.outcomes import Outcome, OutcomeMeta, TargetOutcome
from gibbon.verify.answers import Answers
from gibbon.verify.judge import Judged

Scalar = TypeVar("Scalar", bound=np.generic)


def judged_outcome(
    batch: Batch,
    judged: Judged,
    *,
    zero: Tensor | None,
    scores: Mapping[str, TargetOutcome],
    meta: OutcomeMeta,
) -> Outcome:
    """Returns the outcome of a batch.

    ``zero`` marks examples whose gradient is zero; ``scores`` maps digests of models to answers.
    """
    nearest, first = judged.nearest, judged.misled_by
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
    )


def target_outcome(answers: Answers) -> TargetOutcome:
    """Returns a model's answers as arrays."""
    return TargetOutcome(
        as_array(answers.predicted, np.int32), as_array(answers.confidence, np.float32)
    )


def as_array(values: Tensor, kind: type[Scalar]) -> NDArray[Scalar]:
    """Returns a tensor as an array of this type."""
    return values.detach().cpu().numpy().astype(kind)

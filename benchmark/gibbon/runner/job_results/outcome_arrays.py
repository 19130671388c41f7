"""Converts answers and judged candidates to the arrays of outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gibbon.datasets.base import Batch
from gibbon.diagnostics.perturbed_share import LOOKED_AT
from gibbon.models.trajectory import Trajectory
from gibbon.records.outcomes import Outcome, OutcomeMeta, TargetOutcome
from gibbon.records.path_evidence import PATH_ARRAYS, PathEvidence
from gibbon.verify.answers import Answers
from gibbon.verify.judge import Judged

Scalar = TypeVar("Scalar", bound=np.generic)

ROUNDING = 1e-3  # of an example's largest change: less is none
MANY, EVERY = 512, 8  # coordinates, and the step through more of them


def judged_outcome(
    batch: Batch,
    judged: Judged,
    *,
    path: Trajectory | None,
    source: str | None,
    meta: OutcomeMeta,
    saturated: Tensor | None = None,
) -> Outcome:
    """Returns the outcome of a batch, whose arrays are copied from the device at once.

    ``path`` holds the evidence of the attack's passes; ``source`` is the digest that the source's
    answers are recorded under, None to leave them out.
    """
    answers = None if source is None else judged.answers
    changed = None if path is None else _changed_share(batch.inputs, judged.candidates)
    columns = {
        "ids": batch.ids,
        "labels": batch.labels,
        "verdict": judged.verdict,
        "distance": judged.distance,
        "any_misled": judged.any_misled,
        "nearest": judged.nearest,
        "misled_by": judged.misled_by,
        "margin": judged.margin,
        "saturated": saturated,
        "changed": changed,
        "zero": None if path is None else path.zero_gradient,
        "targets": None if path is None else path.targets,
        "predicted": None if answers is None else answers.predicted,
        "confidence": None if answers is None else answers.confidence,
        "wrong_share": None if answers is None else answers.wrong_share,
    }
    evidence = {} if path is None else vars(path.evidence)
    host = _on_host({**columns, **{f"path {name}": each for name, each in evidence.items()}})
    arrays: dict[str, Any] = {
        name: host[f"path {name}"].astype(PATH_ARRAYS[name]) for name in evidence
    }

    def array(name: str, kind: type[Scalar]) -> NDArray[Scalar] | None:
        return host[name].astype(kind) if name in host else None

    scores = {}
    if source is not None and answers is not None:
        share = array("wrong_share", np.float32)
        classes, confidence = host["predicted"], host["confidence"]
        scores[source] = TargetOutcome(
            classes.astype(np.int32), confidence.astype(np.float32), share
        )
    return Outcome(
        example_id=host["ids"].astype(np.int64),
        label=host["labels"].astype(np.int32),
        verdict=host["verdict"].astype(np.int8),
        distance=host["distance"].astype(np.float32),
        any_misclassified=host["any_misled"].astype(np.bool_),
        saturated=array("saturated", np.bool_),
        zero_gradient=array("zero", np.bool_),
        scores=scores,
        meta=meta,
        nearest=array("nearest", np.float32),
        misled_by=array("misled_by", np.int16),
        margin=array("margin", np.float32),
        changed_share=array("changed", np.float32),
        path=PathEvidence(**arrays) if arrays else None,
        target_class=array("targets", np.int32),
    )


def _on_host(columns: Mapping[str, Tensor | None]) -> dict[str, NDArray[Any]]:
    """Returns the tensors that there are, of shape (N,), as arrays.

    From a GPU they are copied in one block of float64, which holds a float32 and a count exactly;
    Metal has no float64.
    """
    given = {name: each.detach() for name, each in columns.items() if each is not None}
    first, *others = given.values()
    if first.device.type in ("cpu", "mps"):
        return {name: each.cpu().numpy() for name, each in given.items()}
    block = torch.stack([first.to(torch.float64), *others]).cpu().numpy()
    return dict(zip(given, block, strict=True))


def _changed_share(inputs: Tensor, candidates: Tensor) -> Tensor:
    """Returns the share of coordinates that differ, shape (N,), of the first examples; else NaN.

    Of many coordinates every eighth is looked at: their number is evidence, not a result.
    """
    few = slice(min(LOOKED_AT, len(inputs)))
    before, after = inputs[few].flatten(1), candidates[few].flatten(1)
    if before.shape[1] > MANY:
        before, after = before[:, ::EVERY], after[:, ::EVERY]
    sizes = (after - before).abs()
    changed = sizes > ROUNDING * sizes.amax(1, keepdim=True)
    shares = changed.float().mean(1)
    return functional.pad(shares, (0, len(inputs) - len(shares)), value=torch.nan)


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

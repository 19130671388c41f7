"""Outputs of models along one direction: what a sweep measured, and the rows of its tables."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gibbon.core.errors import RecordError
from gibbon.core.reading import RECORD_BYTES, read_bytes
from gibbon.records.record import Record
from gibbon.records.run import Provenance

SWEEP_FILE: Final = "sweep.json"


@dataclass(frozen=True)
class SweptOutputs:
    """The outputs of one model along the direction of an attack.

    Args:
        dataset, model, attack: names.
        rule: how the outputs are interpreted: ``logits``, ``log-scores``.
        epsilons: float64, shape (E,), ascending, with 0 among them.
        ids: int64, shape (N,): example ids.
        labels: int64, shape (N,): true classes.
        outputs: float32, shape (N, E, K).
        confidence: float32, shape (N, E): of the predicted class.
    """

    dataset: str
    model: str
    attack: str
    rule: str
    epsilons: NDArray[np.float64]
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    outputs: NDArray[np.float32]
    confidence: NDArray[np.float32]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Predicted classes, int64, shape (N, E)."""
        return np.asarray(self.outputs.argmax(2), dtype=np.int64)


class SweptExample(Record):
    """One example along a direction: a row of ``sweep.csv``.

    ``linear_up`` and ``linear_down`` are the shares of the variation of the outputs that straight
    lines explain, for epsilons of zero and more, and of zero and less.  ``first_error`` is the
    smallest epsilon of zero or more with a wrong class, None if there is none; ``wrong_after`` the
    share of the points from there on that are misclassified, ``steady`` the share of them with the
    class that is predicted most often there.  ``confidence_at_zero``, ``confidence_at_low`` and
    ``confidence_at_high`` are those at the input and at both ends.
    """

    dataset: str
    model: str
    attack: str
    example_id: int
    label: int
    linear_down: float
    linear_up: float
    first_error: float | None
    wrong_after: float | None
    steady: float | None
    confidence_at_zero: float
    confidence_at_low: float
    confidence_at_high: float


class SweptModel(Record):
    """A model along a direction: a row of the summary in ``sweep.json``.

    Means over the examples, with the ends of bootstrap intervals (BCa, 95 %).  ``fooled`` is the
    number of examples with a first error above zero, of which ``first_error_median`` is the median.
    """

    dataset: str
    model: str
    attack: str
    examples: int
    lowest: float
    highest: float
    points: int
    linear_down: float
    linear_down_low: float | None
    linear_down_high: float | None
    linear_up: float
    linear_up_low: float | None
    linear_up_high: float | None
    fooled: int
    first_error_median: float | None
    wrong_after: float | None
    steady: float | None
    confidence_at_zero: float
    confidence_at_low: float
    confidence_at_high: float


class SweepRecord(Record):
    """The content of ``sweep.json``: provenance and a summary of each model."""

    provenance: Provenance
    models: tuple[SweptModel, ...]

    @classmethod
    def read(cls, folder: Path) -> SweepRecord:
        """Returns the record in a folder.  Raises `RecordError`."""
        path = folder / SWEEP_FILE
        try:
            return cls.model_validate_json(read_bytes(path, RecordError, limit=RECORD_BYTES))
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise RecordError(f"{path}: not the record of a sweep: {problem}") from error


def outputs_csv(sweeps: Iterable[SweptOutputs], *, examples: int) -> str:
    """Returns the outputs of the first examples, one row a model, example and epsilon."""
    lines = []
    head = "dataset,model,attack,example_id,label,epsilon,predicted,confidence"
    classes = 0
    for each in sweeps:
        classes = max(classes, each.outputs.shape[2])
        for row in range(min(examples, len(each.ids))):
            for at, epsilon in enumerate(each.epsilons):
                values = ",".join(f"{value:.7g}" for value in each.outputs[row, at])
                lines.append(
                    f"{each.dataset},{each.model},{each.attack},{each.ids[row]},"
                    f"{each.labels[row]},{epsilon:.10g},{each.predicted[row, at]},"
                    f"{each.confidence[row, at]:.7g},{values}"
                )
    columns = "".join(f",output_{index}" for index in range(classes))
    return "\n".join([head + columns, *lines, ""])


def sweep_text(record: SweepRecord) -> str:
    """Returns the content of ``sweep.json``."""
    return json.dumps(record.model_dump(mode="json"), indent=1) + "\n"

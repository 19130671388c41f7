"""Stored answers of a model to inputs without a class, and the parquet files that hold them.

A file ``no_class/DIGEST.parquet`` holds the answers of one model to the inputs of one dataset, or
to the fooling images that were made of them.  Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gibbon.core.errors import RecordError
from gibbon.records.outcomes import META_KEY, read_table, unusable_as_reason, write_table
from gibbon.records.record import Record

NO_CLASS: Final = "no_class"
NO_CLASS_FORMAT: Final = 1
AS_DRAWN: Final = -1  # the wanted class of an input that no step was taken from

_COLUMNS: Final = {
    "example_id": pa.int64(),
    "wanted": pa.int32(),
    "draw": pa.int32(),
    "predicted": pa.int32(),
    "confidence": pa.float32(),
}


class NoClassMeta(Record):
    """The metadata of a file of answers.

    Args:
        cell: words for dataset, model and what was measured.
        digest: digest of the data, the model and the step.
        forward_passes, backward_passes, seconds: what the answers took.
    """

    format: int = NO_CLASS_FORMAT
    cell: str = ""
    digest: str = ""
    forward_passes: int = 0
    backward_passes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class NoClassAnswers:
    """A model's answers, one row an example, wanted class and draw; every array has shape (R,).

    Args:
        example_id: int64.
        wanted: int32: the class that a step was taken towards; `AS_DRAWN` for the input itself.
        draw: int32: the draw of a model whose answers are random; 0 for any other.
        predicted: int32: the predicted class.
        confidence: float32: the model's probability for it.
        meta: the metadata.
    """

    example_id: NDArray[np.int64]
    wanted: NDArray[np.int32]
    draw: NDArray[np.int32]
    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    meta: NoClassMeta = field(default_factory=NoClassMeta)

    def then(self, more: NoClassAnswers) -> NoClassAnswers:
        """Returns these answers followed by those to more examples."""
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), getattr(more, name)]) for name in _COLUMNS
        }
        update = {
            name: getattr(self.meta, name) + getattr(more.meta, name)
            for name in ("forward_passes", "backward_passes", "seconds")
        }
        return replace(self, **joined, meta=self.meta.model_copy(update=update))

    def covers(self, ids: NDArray[np.int64]) -> bool:
        """Returns whether there are answers for all of these examples."""
        return bool(np.isin(ids, self.example_id).all())


def load_answers(folder: Path, digest: str) -> NoClassAnswers:
    """Returns the answers stored in a run's folder.

    Raises `RecordError`, whose message is a reason such as "is missing", if they can't be used.
    """
    with unusable_as_reason():
        stored = read_table(answers_file(folder, digest))
        meta = NoClassMeta.model_validate_json(stored.table.schema.metadata[META_KEY])
        stored.check_format(meta.format, now=NO_CLASS_FORMAT, unchecked=NO_CLASS_FORMAT)
        if meta.digest != digest:
            raise RecordError("is the file of another cell")
        columns = {name: stored.table.column(name).to_numpy() for name in _COLUMNS}
        return NoClassAnswers(**columns, meta=meta)


def read_answers(folder: Path, digest: str) -> NoClassAnswers | None:
    """Returns the answers stored in a run's folder, or None if there are none that can be used."""
    try:
        return load_answers(folder, digest)
    except RecordError:
        return None


def write_answers(folder: Path, answers: NoClassAnswers) -> None:
    """Writes answers into a run's folder, atomically.  Raises `RunFolderError`."""
    columns = {name: pa.array(getattr(answers, name), type=kind) for name, kind in _COLUMNS.items()}
    table = pa.table(columns).replace_schema_metadata({META_KEY: answers.meta.model_dump_json()})
    write_table(table, answers_file(folder, answers.meta.digest))


def answers_file(folder: Path, digest: str) -> Path:
    """Returns the file of answers in a run's folder."""
    return folder / NO_CLASS / f"{digest}.parquet"

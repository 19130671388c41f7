"""Stored proofs: for each example a lower bound of its margin, and the method that proved it.

Imports no torch.  A file ``bounds/DIGEST.parquet`` holds the proofs of one model on one dataset
under one threat model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gibbon.core.errors import RecordError
from gibbon.records.outcomes import (
    META_KEY,
    OTHER_EXAMPLES,
    read_table,
    unusable_as_reason,
    write_table,
)
from gibbon.records.record import Record

PROOFS = "bounds"
PROOF_FORMAT = 2  # 2: with a checksum of the whole file
_COLUMNS = {
    "example_id": pa.int64(),
    "margin": pa.float64(),
    "proved_by": pa.int8(),
    "tried": pa.uint8(),
}
UNCHECKED_FORMAT = 1  # the earlier format that is still read: it differs only in having none

# In the order in which they are tried; the code of a method in a file is its position from 1.
ProofMethod = Literal["exact", "ibp", "crown"]
PROOF_METHODS: tuple[ProofMethod, ...] = ("exact", "ibp", "crown")


class ProofMeta(Record):
    """The metadata of a file of proofs.

    Args:
        digest: digest of the model, the data and the threat model.
        reason: why there is no bound; empty if there is one.
        settled: requests that have been carried out completely.
        left: methods that proved none of a trial, and were not used on the other examples.
        forward_passes, backward_passes, seconds: what the proofs took.
    """

    format: int = PROOF_FORMAT
    digest: str = ""
    reason: str = ""
    settled: tuple[str, ...] = ()
    left: tuple[ProofMethod, ...] = ()
    forward_passes: int = 0
    backward_passes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Proofs:
    """Proofs for the examples of a dataset; every array has shape (N,).

    Args:
        example_id: int64.
        margin: float64: no point of the threat model has a smaller margin; minus infinity if none
            is known.
        proved_by: int8: code of the method that proved the example robust, 0 if none did.
        tried: uint8: bit of each method that was tried.
        meta: the metadata.
    """

    example_id: NDArray[np.int64]
    margin: NDArray[np.float64]
    proved_by: NDArray[np.int8]
    tried: NDArray[np.uint8]
    meta: ProofMeta = field(default_factory=ProofMeta)

    @classmethod
    def none_of(cls, ids: NDArray[np.int64], *, digest: str) -> Proofs:
        """Returns proofs in which no method was tried on these examples."""
        count = len(ids)
        return cls(
            ids,
            np.full(count, -np.inf),
            np.zeros(count, np.int8),
            np.zeros(count, np.uint8),
            ProofMeta(digest=digest),
        )

    @property
    def proved(self) -> NDArray[np.bool_]:
        """Which examples are proved robust."""
        return self.proved_by > 0

    @property
    def method(self) -> ProofMethod | None:
        """The strongest method that proved an example, or that was tried if none did."""
        used = [code_of(each) for each in PROOF_METHODS if self.has_tried(each).any()]
        found = [each for each in used if (self.proved_by == each).any()] or used
        return PROOF_METHODS[max(found) - 1] if found else None

    def has_tried(self, method: ProofMethod) -> NDArray[np.bool_]:
        """Returns for which examples a method was tried."""
        return (self.tried & _bit(method)) > 0

    def found(
        self,
        rows: NDArray[np.int64],
        method: ProofMethod,
        *,
        margin: NDArray[np.float64],
        proved: NDArray[np.bool_],
    ) -> Proofs:
        """Returns the proofs updated by the margins of a method for the rows at these positions."""
        margins, by, tried = self.margin.copy(), self.proved_by.copy(), self.tried.copy()
        margins[rows] = np.maximum(margins[rows], margin)
        by[rows] = np.where((by[rows] == 0) & proved, code_of(method), by[rows])
        tried[rows] |= _bit(method)
        return replace(self, margin=margins, proved_by=by, tried=tried)

    def untried(self, rows: NDArray[np.int64]) -> Proofs:
        """Returns the proofs without those of the rows at these positions."""
        margins, by, tried = self.margin.copy(), self.proved_by.copy(), self.tried.copy()
        margins[rows], by[rows], tried[rows] = -np.inf, 0, 0
        return replace(self, margin=margins, proved_by=by, tried=tried)

    def then(self, more: Proofs) -> Proofs:
        """Returns these proofs followed by those of more examples; no request is settled."""
        meta = self.meta.model_copy(
            update={
                "settled": (),
                "left": (),
                "reason": "",
                "forward_passes": self.meta.forward_passes + more.meta.forward_passes,
                "backward_passes": self.meta.backward_passes + more.meta.backward_passes,
                "seconds": self.meta.seconds + more.meta.seconds,
            }
        )
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), getattr(more, name)]) for name in _COLUMNS
        }
        return replace(self, **arrays, meta=meta)

    def with_meta(self, **update: object) -> Proofs:
        """Returns the proofs with fields of the metadata replaced."""
        return replace(self, meta=self.meta.model_copy(update=update))


def code_of(method: ProofMethod) -> int:
    """Returns the code of a method in a file.

    >>> code_of("exact"), code_of("crown")
    (1, 3)
    """
    return PROOF_METHODS.index(method) + 1


def load_proofs(folder: Path, digest: str, *, examples: NDArray[np.int64] | None = None) -> Proofs:
    """Returns the proofs stored in a run's folder; ``examples`` are their ids if known.

    Raises `RecordError`, whose message is a reason such as "is missing", if they can't be used.
    """
    with unusable_as_reason():
        stored = read_table(proofs_file(folder, digest))
        meta = ProofMeta.model_validate_json(stored.table.schema.metadata[META_KEY])
        stored.check_format(meta.format, now=PROOF_FORMAT, unchecked=UNCHECKED_FORMAT)
        if meta.digest != digest:
            raise RecordError("is the file of other proofs")
        proofs = Proofs(**{name: _column(stored.table, name) for name in _COLUMNS}, meta=meta)
        if not np.isin(proofs.proved_by, range(len(PROOF_METHODS) + 1)).all():
            raise RecordError("is damaged: it names a method that there is not")
        if examples is not None and not np.array_equal(proofs.example_id, examples):
            raise RecordError(OTHER_EXAMPLES)
        return proofs


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    """Returns a column as an array.  Raises an error of pyarrow if it holds anything else."""
    column = table.column(name)
    if column.null_count:
        raise RecordError(f"is damaged: it lacks values of {name}")
    values: NDArray[Any] = column.cast(_COLUMNS[name]).to_numpy()
    return values


def read_proofs(
    folder: Path, digest: str, *, examples: NDArray[np.int64] | None = None
) -> Proofs | None:
    """Returns the proofs stored in a run's folder, or None if there are none that can be used."""
    try:
        return load_proofs(folder, digest, examples=examples)
    except RecordError:
        return None


def write_proofs(folder: Path, proofs: Proofs) -> None:
    """Writes proofs into a run's folder, atomically.  Raises `RunFolderError`."""
    proofs = proofs.with_meta(format=PROOF_FORMAT)  # also if they were read from an earlier one
    columns = {
        "example_id": proofs.example_id,
        "margin": proofs.margin,
        "proved_by": proofs.proved_by,
        "tried": proofs.tried,
    }
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    table = table.replace_schema_metadata({META_KEY: proofs.meta.model_dump_json()})
    write_table(table, proofs_file(folder, proofs.meta.digest))


def proofs_file(folder: Path, digest: str) -> Path:
    """Returns the file of proofs in a run's folder."""
    return folder / PROOFS / f"{digest}.parquet"


def _bit(method: ProofMethod) -> int:
    return 1 << PROOF_METHODS.index(method)

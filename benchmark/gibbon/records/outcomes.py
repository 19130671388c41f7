"""Outcomes of cells, one row an example, and the parquet files that store them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from gibbon.core.errors import RecordError
from gibbon.core.files import own_folder, read_plain_file, unwritable, write_atomically
from gibbon.core.threat import Verdict
from gibbon.records.checksums import MISMATCH, has_checksum, parquet_bytes
from gibbon.records.path_evidence import PATH_ARRAYS, PathEvidence
from gibbon.records.record import Record

Scalar = TypeVar("Scalar", bound=np.generic)

OUTCOMES = "outcomes"
MANY_BYTES = 1 << 20  # of a file: threads take longer than they save below

META_KEY = b"gibbon"
OUTCOME_FORMAT = 3  # 3: with a checksum of the whole file
UNCHECKED_FORMAT = 2  # the earlier format that is still read: it differs only in having none
SHARES = "wrong_share"  # column of a file: only if a target's answers are random
OTHER_EXAMPLES = "holds other examples than the cell has"
SAME_SHARE = 0.95  # of candidates that were made again: see `Outcome.has_candidates_of`

# The arrays of an outcome that are equal for all its targets, and their types in a file.
_ARRAYS: Final = {
    "example_id": pa.int64(),
    "label": pa.int32(),
    "verdict": pa.int8(),
    "distance": pa.float32(),
    "any_misclassified": pa.bool_(),
    "saturated": pa.bool_(),
    "zero_gradient": pa.bool_(),
    "nearest": pa.float32(),
    "misled_by": pa.int16(),
    "margin": pa.float32(),
    "changed_share": pa.float32(),
    "target_class": pa.int32(),
}
_COLUMNS: Final = {"nearest": "nearest_distance"}  # the others have their array's name
# Without them a file has no such column.
_OPTIONAL: Final = ("nearest", "misled_by", "margin", "changed_share", "target_class")
_NULLABLE: Final = ("saturated", "zero_gradient", *_OPTIONAL)
_PATH: Final = "path_"  # before the names of the columns of the path's evidence


class OutcomeMeta(Record):
    """The metadata of an outcome file.

    ``digest`` is the cell's: a file that was copied to another's name is not taken for it.
    ``targets`` maps the digest of each model whose answers are there to its name at that time;
    ``target_errors`` the digest of each that failed to what it raised.
    """

    format: int = OUTCOME_FORMAT
    cell: str = ""
    digest: str = ""
    forward_passes: int = 0
    backward_passes: int = 0
    seconds: float = 0.0
    targets: dict[str, str] = Field(default_factory=dict)
    target_errors: dict[str, str] = Field(default_factory=dict)

    def after(self, before: OutcomeMeta) -> OutcomeMeta:
        """Returns the metadata with the passes and seconds of an earlier part added."""
        return self.model_copy(
            update={
                "forward_passes": before.forward_passes + self.forward_passes,
                "backward_passes": before.backward_passes + self.backward_passes,
                "seconds": before.seconds + self.seconds,
            }
        )


@dataclass(frozen=True)
class TargetOutcome:
    """A model's answers to a cell's candidates: predicted int32 and confidence float32, (N,).

    ``wrong_share``, float32, (N,), is the share of wrong answers of a model that was evaluated
    several times, because its answers are random; None for any other model.  ``predicted`` is then
    a wrong class if more than half of the answers are wrong, else the true class.
    """

    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    wrong_share: NDArray[np.float32] | None = None

    def then(self, more: TargetOutcome) -> TargetOutcome:
        """Returns these answers followed by those to more candidates."""
        own, other = self.wrong_share, more.wrong_share
        return TargetOutcome(
            np.concatenate([self.predicted, more.predicted]),
            np.concatenate([self.confidence, more.confidence]),
            None if own is None or other is None else np.concatenate([own, other]),
        )

    def taken(self, rows: NDArray[np.int64]) -> TargetOutcome:
        """Returns the answers to the candidates in these rows, in their order."""
        share = self.wrong_share
        return TargetOutcome(
            self.predicted[rows], self.confidence[rows], None if share is None else share[rows]
        )


@dataclass(frozen=True)
class Outcome:
    """The results of one cell for each example; every array has shape (N,).

    ``zero_gradient`` is None for attacks that took no gradient.  ``scores`` go by the digest of the
    model that answered: what a suite calls it does not matter.  ``nearest`` is the smallest
    adversarial distance, NaN if none was found, and None for attacks that stay within an
    epsilon.  ``misled_by`` is the position of the first try that was misclassified, -1 if
    none was, and None if there was one try.  ``margin`` is the source's output for the best wrong
    class minus that for the true one, at the candidate; None if the source was not asked.
    ``changed_share`` is the share of the coordinates in which the candidate differs from the input,
    NaN for examples that were not looked at.  ``path`` and it are None for unattacked examples.
    ``target_class`` is the class that a targeted attack aimed at, -1 for an example without a
    target; None for untargeted attacks and those of earlier versions.
    """

    example_id: NDArray[np.int64]
    label: NDArray[np.int32]
    verdict: NDArray[np.int8]
    distance: NDArray[np.float32]
    any_misclassified: NDArray[np.bool_]
    saturated: NDArray[np.bool_] | None
    zero_gradient: NDArray[np.bool_] | None
    scores: Mapping[str, TargetOutcome]
    meta: OutcomeMeta = field(default_factory=OutcomeMeta)
    nearest: NDArray[np.float32] | None = None
    misled_by: NDArray[np.int16] | None = None
    margin: NDArray[np.float32] | None = None
    changed_share: NDArray[np.float32] | None = None
    path: PathEvidence | None = None
    target_class: NDArray[np.int32] | None = None

    @property
    def first_misled(self) -> NDArray[np.int16]:
        """``misled_by``; with one try, 0 for the examples that it misclassified, else -1."""
        if self.misled_by is not None:
            return self.misled_by
        return np.where(self.any_misclassified, 0, -1).astype(np.int16)

    def misclassified(self, target: str) -> NDArray[np.bool_]:
        """Returns which candidates are valid and misclassified by the target of that digest.

        If the target's answers are random, more than half of them are wrong.
        """
        wrong: NDArray[np.bool_] = self.scores[target].predicted != self.label
        valid: NDArray[np.bool_] = self.verdict == Verdict.VALID
        return np.logical_and(wrong, valid)

    def reached_target(self, target: str) -> NDArray[np.bool_] | None:
        """Returns which valid candidates the model of that digest takes for their target class.

        Shape (M,), only of the examples that have a target; None if the attack was not targeted.
        """
        if self.target_class is None:
            return None
        aimed = self.target_class >= 0
        reached = self.scores[target].predicted == self.target_class
        valid: NDArray[np.bool_] = self.verdict == Verdict.VALID
        found: NDArray[np.bool_] = (reached & valid)[aimed]
        return found

    def wrong_share(self, target: str) -> NDArray[np.float64]:
        """Returns the share of answers to each candidate that are wrong, 0 if it is not valid.

        It is 0 or 1 unless the target's answers are random.
        """
        share = self.scores[target].wrong_share
        if share is None:
            return self.misclassified(target).astype(np.float64)
        return np.where(self.verdict == Verdict.VALID, share, 0.0).astype(np.float64)

    def then(self, more: Outcome) -> Outcome:
        """Returns this outcome followed by that of more examples of the cell."""
        scores = {
            digest: answers.then(more.scores[digest])
            for digest, answers in self.scores.items()
            if digest in more.scores
        }
        joined: dict[str, Any] = {
            name: None if one is None or other is None else np.concatenate([one, other])
            for name in _ARRAYS
            for one, other in [(getattr(self, name), getattr(more, name))]
        }
        if self.misled_by is not None or more.misled_by is not None:
            joined["misled_by"] = np.concatenate([self.first_misled, more.first_misled])
        meta = self.meta.after(more.meta).model_copy(
            update={
                "targets": {digest: self.meta.targets[digest] for digest in scores},
                "target_errors": {**self.meta.target_errors, **more.meta.target_errors},
            }
        )
        path = self.path.then(more.path) if self.path and more.path else None
        return replace(self, **joined, scores=scores, meta=meta, path=path)

    def in_order(self, ids: NDArray[np.int64]) -> Outcome:
        """Returns the outcome with its rows in the order of ``ids``, which hold its examples."""
        if np.array_equal(self.example_id, ids):
            return self
        place = {each: at for at, each in enumerate(self.example_id.tolist())}
        rows = np.array([place[each] for each in ids.tolist()], dtype=np.int64)
        return self.taken(rows)

    def taken(self, rows: NDArray[np.int64]) -> Outcome:
        """Returns the outcome of the examples in these rows, in their order."""
        arrays: dict[str, Any] = {
            name: None if values is None else values[rows]
            for name in _ARRAYS
            for values in [getattr(self, name)]
        }
        scores = {digest: each.taken(rows) for digest, each in self.scores.items()}
        path = self.path and self.path.taken(rows)
        return replace(self, **arrays, scores=scores, path=path)

    def at(self, rows: NDArray[np.int64], found: Outcome, *, only_misled: bool = False) -> Outcome:
        """Returns the outcome with the rows at these positions replaced by those of ``found``.

        The digest, the passes and the seconds are those of ``found``.  With ``only_misled`` what
        is invalid here stays, so that it is reported, unless the example found is misclassified.
        """
        here = np.ones(len(rows), dtype=np.bool_)
        if only_misled:
            here = found.any_misclassified | (self.verdict[rows] == Verdict.VALID)
        places = rows[here]

        def put(old: NDArray[Scalar], new: NDArray[Scalar]) -> NDArray[Scalar]:
            filled = old.copy()
            filled[places] = new[here]
            return filled

        zero = self.zero_gradient
        if found.zero_gradient is not None:
            none = np.zeros(len(self.label), dtype=np.bool_)
            zero = put(none if zero is None else zero, found.zero_gradient)
        first = self.misled_by
        if first is not None or found.misled_by is not None:
            first = put(self.first_misled, found.first_misled)
        margin = None
        if self.margin is not None and found.margin is not None:
            margin = put(self.margin, found.margin)
        changed = None
        if found.changed_share is not None:
            unknown = np.full(len(self.label), np.nan, dtype=np.float32)
            before = unknown if self.changed_share is None else self.changed_share
            changed = put(before, found.changed_share)
        path = self.path
        if found.path is not None:
            path = path or PathEvidence.unknown(len(self.label))
            path = path.with_more(rows, found.path)
        return replace(
            self,
            verdict=put(self.verdict, found.verdict),
            distance=put(self.distance, found.distance),
            any_misclassified=put(self.any_misclassified, found.any_misclassified),
            saturated=None,
            zero_gradient=zero,
            scores={
                digest: TargetOutcome(
                    put(before.predicted, answers.predicted),
                    put(before.confidence, answers.confidence),
                    None
                    if before.wrong_share is None or answers.wrong_share is None
                    else put(before.wrong_share, answers.wrong_share),
                )
                for digest, answers in found.scores.items()
                for before in [self.scores[digest]]
            },
            meta=found.meta,
            nearest=None,
            misled_by=first,
            margin=margin,
            changed_share=changed,
            path=path,
            target_class=None,
        )

    @property
    def survivors(self) -> NDArray[np.int64]:
        """Positions of the examples that nothing misclassified so far."""
        return np.flatnonzero(~self.any_misclassified)

    def updated(
        self, found: Outcome | None, *, member: int | None, nothing: OutcomeMeta
    ) -> Outcome:
        """Returns the outcome with its survivors replaced by a job's results for them.

        Args:
            found: the outcome of the survivors; None if there were none.
            member: the position of the job's attack in its list, if it is a member of one.  The
                outcome then says which member misclassified an example first, and counts the passes
                of the members before.
            nothing: the metadata if there were no survivors.
        """
        if found is None:
            outcome = replace(self, saturated=None, meta=nothing)
        else:
            if member is not None:
                by = np.where(found.any_misclassified, member, -1).astype(np.int16)
                found = replace(found, misled_by=by)
            outcome = self.at(self.survivors, found, only_misled=bool(member))
        return replace(outcome, meta=outcome.meta.after(self.meta)) if member else outcome

    def with_targets(self, scores: Mapping[str, TargetOutcome], meta: OutcomeMeta) -> Outcome:
        """Returns the outcome with the answers of more targets to its candidates.

        ``meta`` holds the targets' names, and what those raised that failed.
        """
        update = {
            "targets": {**self.meta.targets, **meta.targets},
            "target_errors": meta.target_errors,
        }
        scores = {**self.scores, **scores}
        return replace(self, scores=scores, meta=self.meta.model_copy(update=update))

    def has_candidates_of(self, again: Outcome) -> bool:
        """Returns whether candidates that were made again lie where these do.

        Rounding may move a few; another random number moves nearly all.
        """
        near = np.isclose(again.distance, self.distance, rtol=1e-3, atol=1e-6, equal_nan=True)
        return bool(np.mean(near & (again.verdict == self.verdict)) >= SAME_SHARE)

    def without(self, names: Collection[str], *, but: str) -> Outcome:
        """Returns the outcome without the answers of models of these names, but for one digest."""
        named = self.meta.targets.items()
        return self.only(digest for digest, name in named if digest == but or name not in names)

    def only(self, targets: Iterable[str]) -> Outcome:
        """Returns the outcome with the answers of these targets alone."""
        kept = {digest: self.scores[digest] for digest in targets}
        names = {digest: self.meta.targets[digest] for digest in kept}
        return replace(self, scores=kept, meta=self.meta.model_copy(update={"targets": names}))


def load_outcome(
    outcomes: Path, digest: str, *, examples: NDArray[np.int64] | None = None
) -> Outcome:
    """Returns the outcome of a cell in a folder of outcomes; ``examples`` are its ids if known.

    Raises `RecordError`, whose message is a reason such as "is missing", if it can't be used.
    """
    path = outcomes / f"{digest}.parquet"
    with unusable_as_reason():
        stored = read_table(path)
        meta = OutcomeMeta.model_validate_json(stored.table.schema.metadata[META_KEY])
        stored.check_format(meta.format, now=OUTCOME_FORMAT, unchecked=UNCHECKED_FORMAT)
        if meta.digest != digest:
            raise RecordError("is the file of another cell")
        outcome = outcome_of_table(stored.table, meta)
        if examples is not None and not np.array_equal(outcome.example_id, examples):
            raise RecordError(OTHER_EXAMPLES)
        return outcome


def read_outcome(
    outcomes: Path, digest: str, *, examples: NDArray[np.int64] | None = None
) -> Outcome | None:
    """Returns the outcome of a cell in a folder of outcomes, or None if it can't be used."""
    try:
        return load_outcome(outcomes, digest, examples=examples)
    except RecordError:
        return None


def outcome_table(outcome: Outcome) -> pa.Table:
    """Returns an outcome as a table, one row an example and target; no rows without targets."""
    digests = list(outcome.scores)
    names = [outcome.meta.targets[digest] for digest in digests]
    count = len(outcome.example_id)

    def repeated(values: NDArray[np.generic] | None, kind: pa.DataType) -> pa.Array:
        if values is None:
            return pa.nulls(count * len(digests), kind)
        return pa.array(np.tile(values, len(digests)), type=kind)

    codes = pa.array(np.repeat(np.arange(len(digests), dtype=np.int32), count))
    scores = outcome.scores.values()
    shares = _shares_column(outcome)
    shared = {
        _COLUMNS.get(name, name): repeated(getattr(outcome, name), kind)
        for name, kind in _ARRAYS.items()
        if name not in _OPTIONAL or getattr(outcome, name) is not None
    }
    if outcome.path is not None:
        for name, kind in PATH_ARRAYS.items():
            values = getattr(outcome.path, name)
            shared[_PATH + name] = repeated(values, pa.from_numpy_dtype(kind))
    columns = {
        "example_id": shared.pop("example_id"),
        "target": pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string())),
        "target_digest": pa.DictionaryArray.from_arrays(codes, pa.array(digests, pa.string())),
        "label": shared.pop("label"),
        "predicted": pa.array(np.concatenate([each.predicted for each in scores])),
        "confidence": pa.array(np.concatenate([each.confidence for each in scores])),
        "misclassified": pa.array(
            np.concatenate([outcome.misclassified(each) for each in digests])
        ),
        **shared,
        **({SHARES: shares} if shares is not None else {}),
    }
    return pa.table(columns).replace_schema_metadata({META_KEY: outcome.meta.model_dump_json()})


def _shares_column(outcome: Outcome) -> pa.Array | None:
    """Returns the column of shares, null for targets that answer alike; None if all do."""
    shares = [each.wrong_share for each in outcome.scores.values()]
    if all(each is None for each in shares):
        return None
    missing = np.full(len(outcome.example_id), np.nan, dtype=np.float32)
    values = np.concatenate([missing if each is None else each for each in shares])
    return pa.array(values, type=pa.float32(), from_pandas=True)


def outcome_of_table(table: pa.Table, meta: OutcomeMeta) -> Outcome:
    """Returns the outcome that a table made by `outcome_table` holds.

    A table that is damaged may raise any error; one that is not may still be refused, if its rows
    do not belong together.
    """
    coded = table.column("target_digest").unify_dictionaries().combine_chunks()
    digests: list[str] = coded.dictionary.to_pylist()
    target = coded.indices.to_numpy()
    present = np.unique(target).tolist()  # a table of several cells shares its dictionary
    first = target == present[0]
    arrays: dict[str, Any] = {}
    for name, kind in _ARRAYS.items():
        column = _COLUMNS.get(name, name)
        if column in table.column_names and not table.column(column).null_count:
            arrays[name] = _numbers(table, column, kind)[first]
        elif name in _NULLABLE:
            arrays[name] = None
        else:
            raise RecordError(f"an outcome file lacks values of {name}")
    _check_examples(_numbers(table, "example_id", _ARRAYS["example_id"]), target, present)
    if not {digests[code] for code in present} <= meta.targets.keys():
        raise RecordError("is damaged: it holds the answers of a model that it does not name")
    predicted = _numbers(table, "predicted", pa.int32())
    confidence = _numbers(table, "confidence", pa.float32())
    share = None
    if SHARES in table.column_names:  # null for targets whose answers are not random
        share = table.column(SHARES).cast(pa.float32()).to_numpy()
    scores = {
        digests[code]: TargetOutcome(
            predicted[own],
            confidence[own],
            None if share is None or np.isnan(share[own]).any() else share[own],
        )
        for code in present
        for own in [target == code]
    }
    return Outcome(scores=scores, meta=meta, path=_path_of(table, first), **arrays)


def _numbers(table: pa.Table, name: str, kind: pa.DataType) -> NDArray[Any]:
    """Returns a column as an array.  Raises an error of pyarrow if it holds anything else."""
    column = table.column(name)
    if column.null_count:
        raise RecordError(f"is damaged: it lacks values of {name}")
    values: NDArray[Any] = column.cast(kind).to_numpy()
    return values


def _check_examples(ids: NDArray[np.int64], target: NDArray[Any], present: Iterable[int]) -> None:
    """Raises `RecordError` unless all targets have the same examples, each once."""
    rows = [ids[target == code] for code in present]
    if any(not np.array_equal(each, rows[0]) for each in rows) or len(set(rows[0].tolist())) < len(
        rows[0]
    ):
        raise RecordError("is damaged: its targets have other examples, or one comes twice")


def _path_of(table: pa.Table, rows: NDArray[np.bool_]) -> PathEvidence | None:
    """Returns the evidence of the path in some rows of a table, or None if it has none."""
    columns = {name: _PATH + name for name in PATH_ARRAYS}
    if not all(column in table.column_names for column in columns.values()):
        return None
    if any(table.column(column).null_count for column in columns.values()):
        return None
    return PathEvidence(
        **{
            name: _numbers(table, columns[name], pa.from_numpy_dtype(kind))[rows]
            for name, kind in PATH_ARRAYS.items()
        }
    )


def write_table(table: pa.Table, path: Path) -> None:
    """Writes a table to a parquet file, completely or not at all.  Raises `RunFolderError`."""
    try:
        own_folder(path.parent)  # only now: with no run.json it would look foreign
    except OSError as error:
        raise unwritable(path, error) from error
    write_atomically(path, parquet_bytes(table))


class StoredTable(NamedTuple):
    """The table of a file, and whether the file has a checksum, which then matches."""

    table: pa.Table
    checked: bool

    def check_format(self, found: int, *, now: int, unchecked: int) -> None:
        """Raises `RecordError` for another format, and for a file that lacks its checksum.

        Args:
            found: the format that the metadata state.
            now: the format that is written, whose files have a checksum.
            unchecked: the earlier format, whose files have none.
        """
        if found not in (now, unchecked):
            raise RecordError(f"has format {found}, expected {now}")
        if (found == now) != self.checked:
            raise RecordError("is damaged: it has lost its checksum")


def read_table(path: Path) -> StoredTable:
    """Returns the table of a parquet file.  A damaged file may raise any error."""
    content = read_plain_file(path)
    checked = has_checksum(content)
    table = pq.read_table(
        pa.BufferReader(content),
        page_checksum_verification=True,
        use_threads=len(content) > MANY_BYTES,
    )
    return StoredTable(table, checked)


@contextmanager
def unusable_as_reason() -> Iterator[None]:
    """Turns errors of a missing, damaged or foreign file into a `RecordError` with the reason."""
    try:
        yield
    except RecordError as error:
        raise RecordError(f"is {error}" if str(error) == MISMATCH else str(error)) from error
    except FileNotFoundError as error:
        raise RecordError("is missing") from error
    except OSError as error:
        raise RecordError(f"can't be read: {error.strerror or error}") from error
    except Exception as error:
        raise RecordError(f"is damaged: {type(error).__name__}") from error


def metas_of(table: pa.Table) -> dict[str, OutcomeMeta]:
    """Returns the metadata of each cell in the table of an unfinished job, by digest."""
    return {
        key.decode().removeprefix("cell:"): OutcomeMeta.model_validate_json(value)
        for key, value in (table.schema.metadata or {}).items()
        if key.startswith(b"cell:")
    }

"""The folder of a run: one lock, one record, one parquet file of outcomes a cell.

Outcomes are written under a temporary name and renamed: a file that is there is whole.  While a
job is under way what it has found so far is saved from time to time, so that an interrupted run
goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import Field

from benchmark.errors import RecordError, RunFolderError
from benchmark.galleries import Gallery, gallery_bytes, gallery_file
from benchmark.records import RUN_FILE, Record, RunRecord, Verdict, write_atomically

Scalar = TypeVar("Scalar", bound=np.generic)

LOCK_FILE = ".gibbon.lock"
OUTCOMES = "outcomes"
CANDIDATES = ".candidates"
META_KEY = b"gibbon"
OUTCOME_FORMAT = 2
# What a run writes; a folder that holds one of these but no record of a run is somebody else's.
OUR_FILES = ("evaluations.csv", "transfer.csv", "tables.md", "tensorboard", OUTCOMES)


class OutcomeMeta(Record):
    """What stands in the metadata of an outcome file.

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
        """Returns this with what was spent before added."""
        return self.model_copy(
            update={
                "forward_passes": before.forward_passes + self.forward_passes,
                "backward_passes": before.backward_passes + self.backward_passes,
                "seconds": before.seconds + self.seconds,
            }
        )


@dataclass(frozen=True)
class TargetOutcome:
    """What one model said of a cell's candidates: predicted int32 and confidence float32, (N,)."""

    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]

    def then(self, more: TargetOutcome) -> TargetOutcome:
        """Returns this and more examples after it."""
        return TargetOutcome(
            np.concatenate([self.predicted, more.predicted]),
            np.concatenate([self.confidence, more.confidence]),
        )


@dataclass(frozen=True)
class Outcome:
    """What came of one cell, example by example; every array has shape (N,).

    ``zero_gradient`` is None for attacks that took no gradient.  ``scores`` go by the digest of the
    model that answered: what a suite calls it does not matter.  ``nearest`` is the smallest
    adversarial distance, NaN where nothing was found, and None for attacks that stay within an
    epsilon.  ``misled_by`` is the position of the first try that misled, -1 where none did, and
    None where there was one try.
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

    @property
    def first_misled(self) -> NDArray[np.int16]:
        """``misled_by``, also where there was one try: then it is that one or none."""
        if self.misled_by is not None:
            return self.misled_by
        return np.where(self.any_misclassified, 0, -1).astype(np.int16)

    def misclassified(self, target: str) -> NDArray[np.bool_]:
        """Returns which candidates are valid and misclassified by the target of that digest."""
        wrong: NDArray[np.bool_] = self.scores[target].predicted != self.label
        valid: NDArray[np.bool_] = self.verdict == Verdict.VALID
        return np.logical_and(wrong, valid)

    def then(self, more: Outcome) -> Outcome:
        """Returns this and more examples of the same cell after it."""
        scores = {
            digest: answers.then(more.scores[digest])
            for digest, answers in self.scores.items()
            if digest in more.scores
        }
        return Outcome(
            np.concatenate([self.example_id, more.example_id]),
            np.concatenate([self.label, more.label]),
            np.concatenate([self.verdict, more.verdict]),
            np.concatenate([self.distance, more.distance]),
            np.concatenate([self.any_misclassified, more.any_misclassified]),
            _join(self.saturated, more.saturated),
            _join(self.zero_gradient, more.zero_gradient),
            scores,
            nearest=_join(self.nearest, more.nearest),
            misled_by=None
            if self.misled_by is None and more.misled_by is None
            else np.concatenate([self.first_misled, more.first_misled]),
            meta=self.meta.after(more.meta).model_copy(
                update={
                    "targets": {digest: self.meta.targets[digest] for digest in scores},
                    "target_errors": {**self.meta.target_errors, **more.meta.target_errors},
                }
            ),
        )

    def at(self, rows: NDArray[np.int64], found: Outcome, *, only_misled: bool = False) -> Outcome:
        """Returns this with what was found of the examples at these positions in its place.

        The digest, the passes and the seconds are those of ``found``.  With ``only_misled`` what
        was invalid here stays, to be seen, where what was found misleads nobody.
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
        return Outcome(
            self.example_id,
            self.label,
            put(self.verdict, found.verdict),
            put(self.distance, found.distance),
            put(self.any_misclassified, found.any_misclassified),
            None,
            zero,
            {
                digest: TargetOutcome(
                    put(self.scores[digest].predicted, answers.predicted),
                    put(self.scores[digest].confidence, answers.confidence),
                )
                for digest, answers in found.scores.items()
            },
            found.meta,
            misled_by=first,
        )

    def with_targets(self, more: Outcome) -> Outcome:
        """Returns this with the answers of more targets, given for the same examples."""
        meta = self.meta.model_copy(
            update={
                "targets": {**self.meta.targets, **more.meta.targets},
                "target_errors": more.meta.target_errors,
            }
        )
        return replace(self, scores={**self.scores, **more.scores}, meta=meta)

    def only(self, targets: Iterable[str]) -> Outcome:
        """Returns this with the answers of these targets alone."""
        kept = {digest: self.scores[digest] for digest in targets}
        names = {digest: self.meta.targets[digest] for digest in kept}
        return replace(self, scores=kept, meta=self.meta.model_copy(update={"targets": names}))


class CandidateFile:
    """Takes candidates of a cell, batch after batch."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def append(self, candidates: NDArray[np.float32]) -> None:
        """Writes the candidates of the next examples."""
        self._file.write(np.ascontiguousarray(candidates, dtype="<f4").data)


class RunFolder:
    """A run's folder, locked for as long as it is open."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, suite: str) -> Iterator[RunFolder]:
        """Opens a folder for a run of a suite, making it if need be.

        Raises `RunFolderError` where it can't be written, belongs to another suite or to something
        else, or is in use by another run.
        """
        folder = cls(path)
        try:
            if path.exists():
                folder._check_owner(suite)  # before anything of ours is put there
            path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / LOCK_FILE)
            lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderError(f"{path}: another run is using this folder") from None
        except (OSError, NotImplementedError) as error:
            raise _unwritable(path, error) from error
        try:
            folder._check_owner(suite)
            folder._clear()
            yield folder
        finally:
            folder.drop_candidates()
            lock.release()

    @property
    def outcomes(self) -> Path:
        """The folder of outcome files."""
        return self.path / OUTCOMES

    def forget(self, cells: Iterable[str]) -> None:
        """Removes the outcomes of these cells, and what unfinished jobs had saved."""
        partial = self.outcomes.glob("*.partial.parquet")
        for file in [*map(self._file, cells), *partial]:
            file.unlink(missing_ok=True)

    def read(self, digest: str) -> Outcome | None:
        """Returns the outcome of a cell, or None where there is none that can be used."""
        return read_outcome(self.outcomes, digest)

    def write(self, digest: str, outcome: Outcome) -> None:
        """Writes the outcome of a cell, all of it or nothing.  Raises `RunFolderError`."""
        meta = outcome.meta.model_copy(update={"digest": digest})
        _write_table(_to_table(replace(outcome, meta=meta)), self._file(digest))

    def read_partial(self, job: str, cells: Iterable[str]) -> dict[str, Outcome]:
        """Returns what an interrupted job had found, by cell; empty where there is nothing."""
        with _unusable_is_none():
            table = _read_table(self._file(f"{job}.partial"))
            metas = _metas(table)
            current = all(meta.format == OUTCOME_FORMAT for meta in metas.values())
            if current and set(metas) == set(cells):
                return {
                    digest: _from_table(
                        table.filter(pc.equal(table.column("cell"), digest)).drop_columns(["cell"]),
                        metas[digest],
                    )
                    for digest in metas
                }
        return {}

    def write_partial(self, job: str, outcomes: Mapping[str, Outcome]) -> None:
        """Saves what a job has found so far, by cell, in one file.  Raises `RunFolderError`."""
        tables = []
        for digest, outcome in outcomes.items():
            table = _to_table(outcome)
            tables.append(table.append_column("cell", pa.array([digest] * table.num_rows)))
        metas = {digest: outcome.meta.model_dump_json() for digest, outcome in outcomes.items()}
        joined = pa.concat_tables(
            [table.replace_schema_metadata() for table in tables],
            promote_options="default",  # a column that a cell does not have is null there
        )
        _write_table(
            joined.replace_schema_metadata({f"cell:{key}": value for key, value in metas.items()}),
            self._file(f"{job}.partial"),
        )

    def drop_prefixes(self, cell: str) -> None:
        """Removes what was filed of the first attacks of a list, the cell being finished."""
        if cell:
            for file in self.outcomes.glob(f"{cell}-*.partial.parquet"):
                file.unlink(missing_ok=True)

    def write_gallery(self, gallery: Gallery) -> None:
        """Writes the gallery of a cell.  Raises `RunFolderError` where it can't be written."""
        path = gallery_file(self.path, gallery.digest)
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error
        write_atomically(path, gallery_bytes(gallery))

    def drop_partial(self, job: str) -> None:
        """Removes what an unfinished job had saved."""
        self._file(f"{job}.partial").unlink(missing_ok=True)

    @contextmanager
    def writing_candidates(self, digest: str, *, shape: tuple[int, ...]) -> Iterator[CandidateFile]:
        """Opens a file for a cell's candidates, float32 of this shape, which is there for a time.

        Raises `RunFolderError` where it can't be written.
        """
        path = self._candidates(digest)
        try:
            path.parent.mkdir(exist_ok=True)
            with path.open("wb") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(file, header)
                yield CandidateFile(file)
        except OSError as error:
            raise _unwritable(path, error) from error

    def read_candidates(self, digest: str) -> NDArray[np.float32]:
        """Returns the candidates that were kept of a cell, mapped from disk."""
        candidates: NDArray[np.float32] = np.load(self._candidates(digest), mmap_mode="r")
        return candidates

    def drop_candidates(self, *digests: str) -> None:
        """Removes the candidates of these cells, or of all."""
        if digests:
            for digest in digests:
                self._candidates(digest).unlink(missing_ok=True)
        else:
            shutil.rmtree(self.path / CANDIDATES, ignore_errors=True)

    def room_for_candidates(self) -> int:
        """Returns how many bytes there are for candidates on the disk."""
        return shutil.disk_usage(self.path).free

    def _candidates(self, digest: str) -> Path:
        return self.path / CANDIDATES / f"{digest}.npy"

    def _file(self, name: str) -> Path:
        return self.outcomes / f"{name}.parquet"

    def _clear(self) -> None:
        """Removes what a killed run left half written, or meant to remove."""
        self.drop_candidates()
        try:
            for file in self.outcomes.glob(".*.parquet.tmp"):
                file.unlink()
        except OSError as error:
            raise _unwritable(self.outcomes, error) from error

    def _check_owner(self, suite: str) -> None:
        if not self.path.is_dir():
            raise RunFolderError(f"{self.path}: is a file, expected a folder")
        if not (self.path / RUN_FILE).exists():
            foreign = [name for name in OUR_FILES if (self.path / name).exists()]
            if foreign:
                raise RunFolderError(
                    f"{self.path}: holds {foreign[0]} but no {RUN_FILE}: not the folder of a run; "
                    "choose another with --output"
                )
            return
        try:
            owner = RunRecord.read(self.path).suite.name
        except RecordError as error:
            raise RunFolderError(f"{error}; choose another folder with --output") from error
        if owner != suite:
            raise RunFolderError(
                f"{self.path}: belongs to suite {owner!r}, not to {suite!r}; "
                "choose another folder with --output"
            )


def read_outcome(outcomes: Path, digest: str) -> Outcome | None:
    """Returns the outcome of a cell in a folder of outcomes, or None where none can be used."""
    with _unusable_is_none():
        table = _read_table(outcomes / f"{digest}.parquet")
        meta = OutcomeMeta.model_validate_json(table.schema.metadata[META_KEY])
        if meta.format == OUTCOME_FORMAT and meta.digest == digest:
            return _from_table(table, meta)
    return None


def _join(one: NDArray[Scalar] | None, other: NDArray[Scalar] | None) -> NDArray[Scalar] | None:
    return None if one is None or other is None else np.concatenate([one, other])


def _to_table(outcome: Outcome) -> pa.Table:
    """One row an example and target; a cell scored on nothing keeps no rows."""
    digests = list(outcome.scores)
    names = [outcome.meta.targets[digest] for digest in digests]
    count = len(outcome.example_id)

    def repeated(values: NDArray[np.generic] | None, kind: pa.DataType) -> pa.Array:
        if values is None:
            return pa.nulls(count * len(digests), kind)
        return pa.array(np.tile(values, len(digests)), type=kind)

    codes = pa.array(np.repeat(np.arange(len(digests), dtype=np.int32), count))
    scores = outcome.scores.values()
    columns = {
        "example_id": repeated(outcome.example_id, pa.int64()),
        "target": pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string())),
        "target_digest": pa.DictionaryArray.from_arrays(codes, pa.array(digests, pa.string())),
        "label": repeated(outcome.label, pa.int32()),
        "predicted": pa.array(np.concatenate([each.predicted for each in scores])),
        "confidence": pa.array(np.concatenate([each.confidence for each in scores])),
        "misclassified": pa.array(
            np.concatenate([outcome.misclassified(each) for each in digests])
        ),
        "verdict": repeated(outcome.verdict, pa.int8()),
        "distance": repeated(outcome.distance, pa.float32()),
        "any_misclassified": repeated(outcome.any_misclassified, pa.bool_()),
        "saturated": repeated(outcome.saturated, pa.bool_()),
        "zero_gradient": repeated(outcome.zero_gradient, pa.bool_()),
    }
    if outcome.nearest is not None:
        columns["nearest_distance"] = repeated(outcome.nearest, pa.float32())
    if outcome.misled_by is not None:
        columns["misled_by"] = repeated(outcome.misled_by, pa.int16())
    return pa.table(columns).replace_schema_metadata({META_KEY: outcome.meta.model_dump_json()})


def _from_table(table: pa.Table, meta: OutcomeMeta) -> Outcome:
    coded = table.column("target_digest").unify_dictionaries().combine_chunks()
    digests: list[str] = coded.dictionary.to_pylist()
    target = coded.indices.to_numpy()
    present = np.unique(target).tolist()  # a table of several cells shares its dictionary
    first = target == present[0]

    def maybe(name: str, kind: type[Scalar]) -> NDArray[Scalar] | None:
        if name not in table.column_names:
            return None
        column = table.column(name)
        return None if column.null_count else column.to_numpy()[first].astype(kind)

    def shared(name: str, kind: type[Scalar]) -> NDArray[Scalar]:
        values = maybe(name, kind)
        if values is None:
            raise RecordError(f"an outcome file lacks values of {name}")
        return values

    predicted = table.column("predicted").to_numpy()
    confidence = table.column("confidence").to_numpy()
    return Outcome(
        example_id=shared("example_id", np.int64),
        label=shared("label", np.int32),
        verdict=shared("verdict", np.int8),
        distance=shared("distance", np.float32),
        any_misclassified=shared("any_misclassified", np.bool_),
        saturated=maybe("saturated", np.bool_),
        zero_gradient=maybe("zero_gradient", np.bool_),
        scores={
            digests[code]: TargetOutcome(predicted[target == code], confidence[target == code])
            for code in present
        },
        meta=meta,
        nearest=maybe("nearest_distance", np.float32),
        misled_by=maybe("misled_by", np.int16),
    )


def _write_table(table: pa.Table, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)  # only now: with no run.json it would look foreign
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _read_table(path: Path) -> pa.Table:
    # Without partitioning=None a folder above called "a=b" would become a column.
    return pq.read_table(path, partitioning=None, page_checksum_verification=True)


@contextmanager
def _unusable_is_none() -> Iterator[None]:
    """A file that is not there, damaged, foreign or of another format is computed again."""
    with suppress(pa.ArrowException, OSError, LookupError, TypeError, ValueError, RecordError):
        yield


def _unwritable(path: Path, error: Exception) -> RunFolderError:
    reason = getattr(error, "strerror", None) or error
    return RunFolderError(f"{path}: can't be written: {reason}")


def _metas(table: pa.Table) -> dict[str, OutcomeMeta]:
    return {
        key.decode().removeprefix("cell:"): OutcomeMeta.model_validate_json(value)
        for key, value in (table.schema.metadata or {}).items()
        if key.startswith(b"cell:")
    }

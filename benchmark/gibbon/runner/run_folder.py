"""Reads and writes the folder of a run: a lock, a record, and a file of outcomes for each cell.

Outcomes are written under a temporary name and renamed, so that every file is complete.  The
results of an unfinished job are saved from time to time, so that an interrupted run can be resumed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gibbon.core.errors import RecordError, RunFolderError
from gibbon.core.files import (
    open_new,
    own_folder,
    read_plain_file,
    remove_file,
    remove_folder,
    unwritable,
    write_atomically,
)
from gibbon.core.lock_file import take_lock
from gibbon.core.shard import Shard
from gibbon.records.examination import EXAMINATIONS
from gibbon.records.gallery import FOLDER as PICTURES
from gibbon.records.gallery import Gallery, gallery_bytes, gallery_file
from gibbon.records.kept_examples import EXAMPLES
from gibbon.records.no_class_answers import NO_CLASS
from gibbon.records.outcomes import (
    OUTCOME_FORMAT,
    OUTCOMES,
    UNCHECKED_FORMAT,
    Outcome,
    metas_of,
    outcome_of_table,
    outcome_table,
    read_outcome,
    read_table,
    unusable_as_reason,
    write_table,
)
from gibbon.records.proofs import PROOFS
from gibbon.records.run import RUN_FILE, RunRecord

LOCK_FILE = ".gibbon.lock"

CANDIDATES = ".candidates"

DAMAGED_FILE = f"{RUN_FILE}.damaged"  # a record that could not be read, after a repair
REPAIR = f"make {RUN_FILE} again from the outcomes with --repair"

# Files of a run; a folder that holds one of these but no record is not the folder of a run.
OUR_FILES = (
    "evaluations.csv",
    "transfer.csv",
    "tables.md",
    "tensorboard",
    OUTCOMES,
    PROOFS,
    NO_CLASS,
)

# Folders of stored results, and the temporary files in them.
STORES = {
    OUTCOMES: ".*.parquet.tmp",
    PROOFS: ".*.parquet.tmp",
    NO_CLASS: ".*.parquet.tmp",
    EXAMINATIONS: ".*.json.tmp",
    PICTURES: ".*.npz.tmp",
    EXAMPLES: "*/.*.npz.tmp",
}


class RunFolder:
    """A run's folder, locked while it is open.

    ``counted`` holds the digests of the cells that the record of an earlier run counts,
    ``examples`` the ids of the examples that a cell has, by digest: what is stored of others can't
    be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counted: frozenset[str] = frozenset()
        self.examples: Mapping[str, NDArray[np.int64]] = {}

    @classmethod
    @contextmanager
    def open(
        cls, path: Path, *, suite: str, repair: bool = False, shard: Shard | None = None
    ) -> Iterator[RunFolder]:
        """Opens the folder of a suite's run, or of a shard of it, and makes it if there is none.

        With ``repair`` a record that is missing or can't be read is no hindrance: what is there is
        renamed to `DAMAGED_FILE`, and the outcomes are used.

        Raises `RunFolderError` if it can't be written, belongs to another suite, is not the folder
        of a run, or is in use by another run.
        """
        folder = cls(path)
        try:
            if path.exists():
                folder.check_owner(suite, shard, repair=repair)  # before anything is written there
            lock = take_lock(path / LOCK_FILE, in_use=f"{path}: another run is using this folder")
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            if not folder.check_owner(suite, shard, repair=repair):
                folder._set_record_aside()
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
        """Removes all that is stored of these cells, all examinations and unfinished jobs."""
        cells = tuple(cells)
        partial = self.outcomes.glob("*.partial.parquet")
        for file in [*map(self._file, cells), *partial]:
            remove_file(file)
        remove_folder(self.path / EXAMINATIONS)
        for cell in cells:
            remove_folder(self.path / EXAMPLES / cell)

    def contents(self, cells: Iterable[str]) -> dict[str, bytes | None]:
        """Returns what is stored of cells, by digest: None for one without an outcome."""
        found: dict[str, bytes | None] = {}
        for digest in cells:
            found[digest] = None
            with suppress(OSError):
                found[digest] = read_plain_file(self._file(digest))
        return found

    def put_back(self, contents: Mapping[str, bytes | None]) -> None:
        """Restores `contents`: what a process has written that is not to be trusted is removed."""
        for digest, content in contents.items():
            if content is None:
                remove_file(self._file(digest))
            elif self.contents([digest])[digest] != content:
                write_atomically(self._file(digest), content)

    def read(self, digest: str) -> Outcome | None:
        """Returns the outcome of a cell, or None if no usable one is stored."""
        return read_outcome(self.outcomes, digest, examples=self.examples.get(digest))

    def was_made(self, digest: str) -> bool:
        """Returns whether a cell was computed before, even if its outcome has been lost."""
        return digest in self.counted or self._file(digest).exists()

    def write(self, digest: str, outcome: Outcome) -> None:
        """Writes the outcome of a cell atomically.  Raises `RunFolderError`."""
        # The format too: an outcome may have been read from a file of an earlier one.
        meta = outcome.meta.model_copy(update={"digest": digest, "format": OUTCOME_FORMAT})
        write_table(outcome_table(replace(outcome, meta=meta)), self._file(digest))

    def drop(self, digest: str) -> None:
        """Removes the outcome of a cell."""
        remove_file(self._file(digest))

    def read_partial(self, job: str, cells: Iterable[str]) -> dict[str, Outcome]:
        """Returns the saved results of an interrupted job by cell; empty if there are none."""
        with suppress(RecordError), unusable_as_reason():
            stored = read_table(self._file(f"{job}.partial"))
            table, metas = stored.table, metas_of(stored.table)
            for meta in metas.values():
                stored.check_format(meta.format, now=OUTCOME_FORMAT, unchecked=UNCHECKED_FORMAT)
            if set(metas) == set(cells):
                return {
                    digest: outcome_of_table(
                        table.filter(pc.equal(table.column("cell"), digest)).drop_columns(["cell"]),
                        metas[digest],
                    )
                    for digest in metas
                }
        return {}

    def write_partial(self, job: str, outcomes: Mapping[str, Outcome]) -> None:
        """Saves the results of an unfinished job by cell, in one file.  Raises `RunFolderError`."""
        tables = []
        for digest, outcome in outcomes.items():
            table = outcome_table(outcome)
            tables.append(table.append_column("cell", pa.array([digest] * table.num_rows)))
        metas = {
            digest: outcome.meta.model_copy(update={"format": OUTCOME_FORMAT}).model_dump_json()
            for digest, outcome in outcomes.items()
        }
        joined = pa.concat_tables(
            [table.replace_schema_metadata() for table in tables],
            promote_options="default",  # a column that a cell lacks is null
        )
        write_table(
            joined.replace_schema_metadata({f"cell:{key}": value for key, value in metas.items()}),
            self._file(f"{job}.partial"),
        )

    def write_gallery(self, gallery: Gallery) -> None:
        """Writes the gallery of a cell.  Raises `RunFolderError` if it can't be written."""
        path = gallery_file(self.path, gallery.digest)
        try:
            own_folder(path.parent)
        except OSError as error:
            raise unwritable(path, error) from error
        write_atomically(path, gallery_bytes(gallery))

    def drop_partial(self, job: str) -> None:
        """Removes the saved results of a job."""
        remove_file(self._file(f"{job}.partial"))

    @contextmanager
    def writing_candidates(self, digest: str, *, shape: tuple[int, ...]) -> Iterator[BinaryIO]:
        """Opens a temporary file for a cell's candidates, little-endian float32 of this shape.

        Raises `RunFolderError` if it can't be written.
        """
        path = self._candidates(digest)
        try:
            own_folder(path.parent)
            with open_new(path) as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(file, header)
                file.flush()  # before a process inherits it
                yield file
        except OSError as error:
            raise unwritable(path, error) from error

    def read_candidates(self, digest: str) -> NDArray[np.float32]:
        """Returns the candidates of a cell, mapped from disk."""
        candidates: NDArray[np.float32] = np.load(self._candidates(digest), mmap_mode="r")
        return candidates

    def drop_candidates(self, *digests: str) -> None:
        """Removes the candidates of these cells, or of all cells if none is given."""
        if digests:
            for digest in digests:
                self._candidates(digest).unlink(missing_ok=True)
        else:
            shutil.rmtree(self.path / CANDIDATES, ignore_errors=True)

    def room_for_candidates(self) -> int:
        """Returns the number of free bytes on the disk."""
        return shutil.disk_usage(self.path).free

    def _candidates(self, digest: str) -> Path:
        return self.path / CANDIDATES / f"{digest}.npy"

    def _file(self, name: str) -> Path:
        return self.outcomes / f"{name}.parquet"

    def _clear(self) -> None:
        """Removes incomplete and temporary files of a run that was killed."""
        if (self.path / CANDIDATES).is_symlink():
            (self.path / CANDIDATES).unlink()
        self.drop_candidates()
        try:
            for name, pattern in STORES.items():
                for file in (self.path / name).glob(pattern):
                    file.unlink()
        except OSError as error:
            raise unwritable(self.outcomes, error) from error

    def _set_record_aside(self) -> None:
        """Renames the record that can't be read, if there is one."""
        record = self.path / RUN_FILE
        try:
            if record.is_symlink() or record.exists():
                record.replace(self.path / DAMAGED_FILE)
        except OSError as error:
            raise unwritable(self.path / DAMAGED_FILE, error) from error

    def check_owner(self, suite: str, shard: Shard | None, *, repair: bool) -> bool:
        """Returns whether the folder is new, or has a record; otherwise it is to be repaired.

        Raises `RunFolderError` if it is the folder of another suite or shard, or of no run.
        """
        if not self.path.is_dir():
            raise RunFolderError(f"{self.path}: is a file, expected a folder")
        if not (self.path / RUN_FILE).exists():
            foreign = [name for name in OUR_FILES if (self.path / name).exists()]
            if foreign and not repair:
                raise RunFolderError(
                    f"{self.path}: holds {foreign[0]} but no {RUN_FILE}: not the folder of a run; "
                    f"choose another with --output, or {REPAIR}"
                )
            return not foreign
        try:
            record = RunRecord.read_any(self.path)
        except RecordError as error:
            if repair:
                return False
            raise RunFolderError(
                f"{error}; {REPAIR}, or choose another folder with --output"
            ) from error
        owner, found = record.suite.name, record.shard and record.shard.shard
        if owner != suite:
            raise RunFolderError(
                f"{self.path}: belongs to suite {owner!r}, not to {suite!r}; "
                "choose another folder with --output"
            )
        if found != shard:
            holds, not_of = (f"shard {one}" if one else "a whole run" for one in (found, shard))
            raise RunFolderError(
                f"{self.path}: holds {holds}, not {not_of}, of suite {suite!r}; "
                "choose another folder with --output"
            )
        return True

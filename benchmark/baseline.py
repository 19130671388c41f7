"""Baselines: what a run got wrong, example by example, small enough to be committed.

A baseline holds one bit an example and measure, packed and compressed, with what is needed to tell
whether another run can be compared with it: names, dataset digests and example ids.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from benchmark.errors import RecordError
from benchmark.records import Evaluation, Record, RunRecord, write_atomically
from benchmark.runner.store import OUTCOMES, read_outcome
from benchmark.specs import EpsilonField

KIND = "gibbon-baseline"
VERSION: Literal[1] = 1

Measure = Literal["clean_error", "adversarial_error"]
Key = tuple[str, str, str, str, Measure]


@dataclass(frozen=True)
class Wrong:
    """Which examples one model got wrong under one attack at one epsilon.

    Args:
        made_with: the attack's algorithm, norm, clipping and parameters.
        invalid: candidates that were out of budget or not finite, and counted for nothing.
        example_id: int64, shape (N,), ascending.
        wrong: bool, shape (N,).
    """

    dataset: str
    model: str
    attack: str
    epsilon: EpsilonField
    measure: Measure
    made_with: str
    invalid: int
    example_id: NDArray[np.int64]
    wrong: NDArray[np.bool_]

    @property
    def key(self) -> Key:
        """What two runs are paired by; epsilon by its value, however it was written."""
        return (self.dataset, self.model, self.attack, str(self.epsilon.value), self.measure)


@dataclass(frozen=True)
class Side:
    """One of two runs to compare: where it came from, its datasets by digest, and its cells.

    ``failed`` names the cells that were recorded as failed.
    """

    name: str
    suite: str
    datasets: dict[str, str]
    cells: tuple[Wrong, ...]
    failed: frozenset[Key]


class BaselineDataset(Record):
    """A dataset of a baseline: its digest, its size, and the ids that were evaluated, packed."""

    name: str
    digest: str
    of: int
    ids: str


class BaselineCell(Record):
    """One measure of a baseline: the bits of the examples that were wrong, packed."""

    dataset: str
    model: str
    attack: str
    epsilon: EpsilonField
    measure: Measure
    made_with: str
    invalid: int
    wrong: str


class Baseline(Record):
    """The content of a baseline file."""

    kind: Literal["gibbon-baseline"] = "gibbon-baseline"
    version: Literal[1] = VERSION
    suite: str
    gibbon: str
    datasets: tuple[BaselineDataset, ...]
    cells: tuple[BaselineCell, ...]


def read_side(path: Path) -> Side:
    """Returns a run's folder or a baseline file, ready to be compared.

    Raises `RecordError` where it is neither, is damaged, or has another schema version.
    """
    return _from_run(path, RunRecord.read(path)) if path.is_dir() else _from_baseline(path)


def save_baseline(run: Path, file: Path) -> Baseline:
    """Writes a run's folder as a baseline file.

    Raises `RecordError` where the folder holds no finished run, or one with failed cells: a
    baseline must not hide them.
    """
    record = RunRecord.read(run)
    side = _from_run(run, record)
    if side.failed:
        raise RecordError(f"{run}: {len(side.failed)} cells failed: no baseline is made of them")
    ids = {cell.dataset: cell.example_id for cell in side.cells}
    baseline = Baseline(
        suite=side.suite,
        gibbon=record.provenance.gibbon,
        datasets=tuple(
            BaselineDataset(
                name=card.name,
                digest=card.digest,
                of=card.of,
                ids=_pack(np.isin(np.arange(card.of), ids[card.name])),
            )
            for card in record.datasets
            if card.name in ids
        ),
        cells=tuple(
            BaselineCell(
                dataset=cell.dataset,
                model=cell.model,
                attack=cell.attack,
                epsilon=cell.epsilon,
                measure=cell.measure,
                made_with=cell.made_with,
                invalid=cell.invalid,
                wrong=_pack(cell.wrong),
            )
            for cell in side.cells
        ),
    )
    write_atomically(file, baseline.model_dump_json(indent=1) + "\n")
    return baseline


def _from_run(folder: Path, record: RunRecord) -> Side:
    if record.status not in ("done", "failed"):
        raise RecordError(
            f"{folder}: the run is not finished ({record.status}): run it again first"
        )
    # A model has a digest for each dataset that it is evaluated on.
    digests: dict[str, set[str]] = {}
    for card in record.models:
        digests.setdefault(card.name, set()).add(card.digest)
    cells: list[Wrong] = []
    failed: list[Key] = []
    for row in record.evaluations:
        if row.status == "failed":
            failed.append(
                (row.dataset, row.model, row.attack, str(row.epsilon.value), measure(row))
            )
            continue
        cells.append(_cell(folder, row, digests[row.model]))
    datasets = {card.name: card.digest for card in record.datasets}
    return Side(str(folder), record.suite.name, datasets, tuple(cells), frozenset(failed))


def _cell(folder: Path, row: Evaluation, digests: set[str]) -> Wrong:
    outcome = read_outcome(folder / OUTCOMES, row.digest)
    own = digests & outcome.scores.keys() if outcome is not None else set()
    if outcome is None or not own:
        raise RecordError(
            f"{folder / OUTCOMES / row.digest}.parquet: missing or damaged; run the suite again"
        )
    return Wrong(
        row.dataset,
        row.model,
        row.attack,
        row.epsilon,
        measure(row),
        made_with(row),
        row.invalid_candidates or 0,
        outcome.example_id,
        outcome.misclassified(own.pop()),
    )


def made_with(row: Evaluation) -> str:
    """Returns what two rows must share for their numbers to be comparable, as one line."""
    if row.unattacked:
        return "unattacked"
    clipped = "clipped" if row.clip else "not clipped"
    return f"{row.algorithm} {row.parameters} in {row.norm}, {clipped}"


def measure(row: Evaluation) -> Measure:
    """Returns what a row of the evaluations measures."""
    return "clean_error" if row.unattacked else "adversarial_error"


def _from_baseline(path: Path) -> Side:
    baseline = _parse(path)
    ids = {
        each.name: np.flatnonzero(_unpack(each.ids, each.of, path)) for each in baseline.datasets
    }
    return Side(
        str(path),
        baseline.suite,
        {each.name: each.digest for each in baseline.datasets},
        tuple(_cells(baseline, ids, path)),
        frozenset(),
    )


def _cells(baseline: Baseline, ids: dict[str, NDArray[np.int64]], path: Path) -> Iterator[Wrong]:
    for cell in baseline.cells:
        if cell.dataset not in ids:
            raise RecordError(f"{path}: damaged: no dataset {cell.dataset!r}")
        known = ids[cell.dataset]
        yield Wrong(
            cell.dataset,
            cell.model,
            cell.attack,
            cell.epsilon,
            cell.measure,
            cell.made_with,
            cell.invalid,
            known,
            _unpack(cell.wrong, len(known), path),
        )


def _parse(path: Path) -> Baseline:
    try:
        written: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(f"{path}: can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise RecordError(f"{path}: neither a run's folder nor a baseline: {error}") from error
    if not isinstance(written, dict) or written.get("kind") != KIND:
        raise RecordError(f"{path}: neither a run's folder nor a baseline")
    if written.get("version") != VERSION:
        raise RecordError(
            f"{path}: a baseline of version {written.get('version')!r}, this Gibbon reads "
            f"{VERSION}; save it again with `baseline save`"
        )
    try:
        return Baseline.model_validate(written)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RecordError(f"{path}: damaged: {place}: {first['msg']}") from error


def _pack(bits: NDArray[np.bool_]) -> str:
    return base64.b64encode(zlib.compress(np.packbits(bits).tobytes(), 9)).decode()


def _unpack(text: str, count: int, path: Path) -> NDArray[np.bool_]:
    try:
        # No text of `count` bits unpacks to more than this: a damaged one must not fill memory.
        packed = zlib.decompressobj().decompress(
            base64.b64decode(text, validate=True), count // 8 + 1
        )
    except (binascii.Error, zlib.error, ValueError) as error:
        raise RecordError(f"{path}: damaged: {error}") from error
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8))
    if not count <= len(bits) < count + 8:
        raise RecordError(f"{path}: damaged: {len(bits)} bits for {count} examples")
    return bits[:count].astype(bool)

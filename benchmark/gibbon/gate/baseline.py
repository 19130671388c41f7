"""Baselines: what a run got wrong, example by example, small enough to be committed.

A baseline holds one bit an example and measure, packed, with what is needed to tell whether another
run can be compared with it: names, dataset digests and example ids.  Measures that are shares of
examples are held: clean error, adversarial error, worst-case error and transfer error.  A
confidence is not a bit, and is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from gibbon.core.errors import RecordError
from gibbon.core.files import write_atomically
from gibbon.core.threat import ZERO, Epsilon
from gibbon.gate.bit_rows import Bits, pack, unpack
from gibbon.records.outcomes import OUTCOMES, Outcome, read_outcome
from gibbon.records.run import Evaluation, Record, RunRecord, Transfer, WorstCase
from gibbon.specs.base import UNATTACKED, EpsilonField
from gibbon.specs.decoding import key_path

KIND = "gibbon-baseline"
VERSION: Literal[1] = 1

# Characters that the bits of transfers may take in a baseline.  Every second, fourth, ... example
# is kept where all of them take more; never fewer examples than the second number.
TRANSFER_ROOM, FEWEST_EXAMPLES = 24_000, 1_000

SAVE_AGAIN = "; save it again with `baseline save`"
LARGEST = 10**9  # examples; a damaged file must not fill memory

Measure = Literal["clean_error", "adversarial_error", "worst_case_error", "transfer_error"]
Ids = NDArray[np.int64]
_Row = tuple[str, str, str, Epsilon]


@dataclass(frozen=True)
class Key:
    """What two runs are paired by, besides example ids; epsilon by its value, however written.

    ``target`` is the model that the examples are scored on where it is not their source.
    """

    dataset: str
    model: str
    attack: str
    epsilon: Epsilon
    measure: Measure
    target: str = ""


@dataclass(frozen=True)
class Wrong:
    """Which examples one model got wrong under one attack at one epsilon.

    Args:
        key: what was measured.
        made_with: the attack's algorithm, norm, clipping and parameters; for a worst case, the
            attacks.
        invalid: candidates that were out of budget or not finite, and counted for nothing.
        example_id: int64, shape (N,), ascending.
        wrong: bool, shape (N,).
        parts: of a worst case, what each attack misled, and the unattacked examples under
            ``"none"``; empty where it is not known.
    """

    key: Key
    made_with: str
    invalid: int
    example_id: Ids
    wrong: Bits
    parts: Mapping[str, Bits] = field(default_factory=dict)

    def over(self, made_with: str) -> Wrong:
        """Returns a worst case over fewer attacks; itself where that is not known."""
        attacks = [UNATTACKED, *made_with.split(", ")]
        if made_with == self.made_with or not self.parts.keys() >= set(attacks):
            return self
        wrong = np.logical_or.reduce([self.parts[attack] for attack in attacks])
        return replace(self, made_with=made_with, wrong=wrong)


@dataclass(frozen=True)
class Content:
    """What is known of a dataset: the digest of its content, and how many examples it holds."""

    digest: str
    of: int


@dataclass(frozen=True)
class Side:
    """One of two runs to compare: where it came from, its datasets, and its cells.

    ``failed`` names the measures that were recorded as failed.
    """

    name: str
    suite: str
    datasets: Mapping[str, Content]
    cells: tuple[Wrong, ...]
    failed: frozenset[Key] = frozenset()


class BaselineDataset(Record):
    """A dataset of a baseline: its digest, its size, and the ids that were evaluated, packed.

    Of transfers every ``transfer_every``-th of these ids is held.
    """

    name: str
    digest: str
    of: int = Field(ge=0, le=LARGEST)
    ids: str
    transfer_every: int = Field(default=1, ge=1)


class BaselineCell(Record):
    """One measure of a baseline: the bits of the examples that were wrong, packed.

    ``transfer`` holds those of the other models that the same examples were scored on.
    """

    dataset: str
    model: str
    attack: str
    epsilon: EpsilonField
    measure: Literal["clean_error", "adversarial_error", "worst_case_error"]
    made_with: str
    invalid: int = Field(default=0, ge=0)
    wrong: str
    transfer: dict[str, str] = Field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What the bits are about."""
        return Key(self.dataset, self.model, self.attack, self.epsilon, self.measure)


class Baseline(Record):
    """The content of a baseline file."""

    kind: Literal["gibbon-baseline"] = "gibbon-baseline"
    version: Literal[1] = VERSION
    suite: str
    gibbon: str
    datasets: tuple[BaselineDataset, ...]
    cells: tuple[BaselineCell, ...]

    @property
    def measures(self) -> int:
        """How many measures are held, those of transfers among them."""
        return sum(1 + len(cell.transfer) for cell in self.cells)


def read_side(path: Path) -> Side:
    """Returns a run's folder or a baseline file, ready to be compared.

    Raises `RecordError` where it is neither, is damaged, or has another schema version.
    """
    return _from_run(path, RunRecord.read(path)) if path.is_dir() else _from_baseline(path)


def save_baseline(run: Path, file: Path) -> Baseline:
    """Writes a run's folder as a baseline file.

    Raises `RecordError` where the folder holds no finished run, an empty one, or one with failed
    cells: a baseline must not hide them.
    """
    record = RunRecord.read(run)
    side = _from_run(run, record)
    if side.failed:
        raise RecordError(f"{run}: {len(side.failed)} cells failed: no baseline is made of them")
    if not side.cells:
        raise RecordError(f"{run}: the run is empty: no baseline is made of it")
    return write_baseline(side, file, gibbon=record.provenance.gibbon)


def write_baseline(side: Side, file: Path, *, gibbon: str) -> Baseline:
    """Writes one side of a comparison as a baseline file, made by that version of Gibbon.

    All cells of a dataset must be about the same examples, but for transfers, which may be about
    fewer.  Raises `RunFolderError` where it can't be written.
    """
    known = {cell.key.dataset: cell.example_id for cell in side.cells if not cell.key.target}
    packed = {name: _packed(side, name, ids) for name, ids in known.items()}
    baseline = Baseline(
        suite=side.suite,
        gibbon=gibbon,
        datasets=tuple(dataset for dataset, _ in packed.values()),
        cells=tuple(cell for _, cells in packed.values() for cell in cells),
    )
    write_atomically(file, _text(baseline))
    return baseline


def side_of(record: RunRecord, outcome: Callable[[str], Outcome | None], *, name: str) -> Side:
    """Returns a run, ready to be compared.

    ``outcome`` returns the outcome of a cell by its digest; ``name`` says where the run is.

    Raises `RecordError` where an outcome is not there.
    """
    answers = _Answers(record, outcome, name)
    rows = {(row.dataset, row.model, row.attack, row.epsilon): row for row in record.evaluations}
    cells = [
        *(_evaluated(row, answers) for row in record.evaluations if row.status != "failed"),
        *(
            _transferred(row, rows[row.dataset, row.source, row.attack, row.epsilon], answers)
            for row in record.transfers
            if row.source != row.target and row.status != "failed"
        ),
        # Over one attack it is that attack's error, but for what is wrong unattacked alone.
        *(_worst(row, rows, answers) for row in record.worst_cases if len(row.attacks) > 1),
    ]
    failed = [_key(row) for row in record.evaluations if row.status == "failed"]
    failed += [_hop(row) for row in record.transfers if row.status == "failed"]
    datasets = {card.name: Content(card.digest, card.of) for card in record.datasets}
    return Side(name, record.suite.name, datasets, tuple(cells), frozenset(failed))


class _Answers:
    """The outcomes of a run, each read once, and who got what wrong in them."""

    def __init__(
        self, record: RunRecord, outcome: Callable[[str], Outcome | None], name: str
    ) -> None:
        self._read, self._name = outcome, name
        self._outcomes: dict[str, Outcome] = {}
        # A model has a digest for each dataset that it is evaluated on.
        self._digests: dict[str, set[str]] = {}
        for card in record.models:
            self._digests.setdefault(card.name, set()).add(card.digest)

    def outcome(self, digest: str) -> Outcome:
        if digest not in self._outcomes:
            read = self._read(digest)
            if read is None:
                raise self._lost(digest)
            self._outcomes[digest] = read
        return self._outcomes[digest]

    def wrong(self, digest: str, model: str) -> Bits:
        outcome = self.outcome(digest)
        own = self._digests.get(model, set()) & outcome.scores.keys()
        if not own:
            raise self._lost(digest)
        return outcome.misclassified(own.pop())

    def _lost(self, digest: str) -> RecordError:
        return RecordError(
            f"{self._name}: the outcomes of cell {digest} are missing or damaged; "
            "run the suite again"
        )


def _evaluated(row: Evaluation, answers: _Answers) -> Wrong:
    ids = answers.outcome(row.digest).example_id
    wrong = answers.wrong(row.digest, row.model)
    return Wrong(_key(row), made_with(row), row.invalid_candidates or 0, ids, wrong)


def _transferred(row: Transfer, source: Evaluation, answers: _Answers) -> Wrong:
    ids = answers.outcome(row.digest).example_id
    wrong = answers.wrong(row.digest, row.target)
    return Wrong(_hop(row), made_with(source), source.invalid_candidates or 0, ids, wrong)


def _worst(row: WorstCase, rows: Mapping[_Row, Evaluation], answers: _Answers) -> Wrong:
    clean = rows[row.dataset, row.model, UNATTACKED, ZERO]
    parts = {UNATTACKED: answers.wrong(clean.digest, row.model)}
    for attack in row.attacks:
        own = rows[row.dataset, row.model, attack, row.epsilon]
        parts[attack] = answers.outcome(own.digest).any_misclassified
    return Wrong(
        Key(row.dataset, row.model, all_attacks(row), row.epsilon, "worst_case_error"),
        ", ".join(row.attacks),
        0,
        answers.outcome(clean.digest).example_id,
        np.logical_or.reduce(list(parts.values())),
        parts,
    )


def made_with(row: Evaluation) -> str:
    """Returns what two rows must share for their numbers to be comparable, as one line."""
    if row.unattacked:
        return "unattacked"
    clipped = "clipped" if row.clip else "not clipped"
    return f"{row.algorithm} {row.parameters} in {row.norm}, {clipped}"


def all_attacks(row: WorstCase) -> str:
    """Returns what all attacks of one norm and clipping rule together are called."""
    return f"all-{row.norm}" if row.clip else f"all-{row.norm}-unclipped"


def _key(row: Evaluation) -> Key:
    if row.unattacked:
        return Key(row.dataset, row.model, row.attack, ZERO, "clean_error")
    return Key(row.dataset, row.model, row.attack, row.epsilon, "adversarial_error")


def _hop(row: Transfer) -> Key:
    return Key(row.dataset, row.source, row.attack, row.epsilon, "transfer_error", row.target)


def _from_run(folder: Path, record: RunRecord) -> Side:
    if record.status not in ("done", "failed"):
        raise RecordError(
            f"{folder}: the run is not finished ({record.status}): run it again first"
        )
    return side_of(record, lambda digest: read_outcome(folder / OUTCOMES, digest), name=str(folder))


def _from_baseline(path: Path) -> Side:
    baseline = _parse(path)
    try:
        cells = [
            cell
            for dataset in baseline.datasets
            for cell in _unpacked(
                dataset, [cell for cell in baseline.cells if cell.dataset == dataset.name]
            )
        ]
    except RecordError as error:
        raise RecordError(f"{path}: {error}{SAVE_AGAIN}") from error
    return Side(
        str(path),
        baseline.suite,
        {each.name: Content(each.digest, each.of) for each in baseline.datasets},
        tuple(cells),
    )


def _packed(side: Side, dataset: str, ids: Ids) -> tuple[BaselineDataset, list[BaselineCell]]:
    own = [cell for cell in side.cells if cell.key.dataset == dataset]
    sources = [cell for cell in own if not cell.key.target]
    hops = [cell for cell in own if cell.key.target]
    rows = [cell.wrong for cell in sources]
    every = 1
    while any(len(ids[::every]) > len(hop.example_id) for hop in hops):
        every *= 2  # a baseline that is written again has lost some already
    while True:
        kept = ids[::every]
        thinned = [hop.wrong[np.searchsorted(hop.example_id, kept)] for hop in hops]
        texts = pack(thinned, before=[row[::every] for row in rows])
        fits = sum(map(len, texts)) <= TRANSFER_ROOM
        if fits or len(ids[:: 2 * every]) < FEWEST_EXAMPLES:
            break
        every *= 2
    transfers: dict[Key, dict[str, str]] = {}
    for hop, text in zip(hops, texts, strict=True):
        source = replace(hop.key, measure="adversarial_error", target="")
        transfers.setdefault(source, {})[hop.key.target] = text
    content = side.datasets[dataset]
    known = np.isin(np.arange(content.of), ids)
    return (
        BaselineDataset(
            name=dataset,
            digest=content.digest,
            of=content.of,
            ids=pack([known])[0],
            transfer_every=every,
        ),
        [
            BaselineCell(
                dataset=cell.key.dataset,
                model=cell.key.model,
                attack=cell.key.attack,
                epsilon=cell.key.epsilon,
                measure=cell.key.measure,
                made_with=cell.made_with,
                invalid=cell.invalid,
                wrong=text,
                transfer=transfers.get(cell.key, {}),
            )
            for cell, text in zip(sources, pack(rows), strict=True)
        ],
    )


def _unpacked(dataset: BaselineDataset, cells: Sequence[BaselineCell]) -> Iterator[Wrong]:
    (known,) = unpack([dataset.ids], dataset.of)
    ids = np.flatnonzero(known)
    rows = unpack([cell.wrong for cell in cells], len(ids))
    for cell, row in zip(cells, rows, strict=True):
        yield Wrong(cell.key, cell.made_with, cell.invalid, ids, row)
    kept = ids[:: dataset.transfer_every]
    thinned = [row[:: dataset.transfer_every] for row in rows]
    hops = [(cell, target, text) for cell in cells for target, text in cell.transfer.items()]
    texts = [text for _, _, text in hops]
    for (cell, target, _), row in zip(hops, unpack(texts, len(kept), before=thinned), strict=True):
        key = replace(cell.key, measure="transfer_error", target=target)
        yield Wrong(key, cell.made_with, cell.invalid, kept, row)


def _text(baseline: Baseline) -> str:
    """Returns the baseline as JSON, a line a dataset and cell: what changed is a line in a diff."""

    def lines(records: Iterable[Record]) -> str:
        written = [each.model_dump(mode="json", exclude_defaults=True) for each in records]
        return ",\n".join(f"  {json.dumps(each, ensure_ascii=False)}" for each in written)

    head = {"kind": KIND, "version": VERSION, "suite": baseline.suite, "gibbon": baseline.gibbon}
    return (
        json.dumps(head, indent=1)[:-2]
        + f',\n "datasets": [\n{lines(baseline.datasets)}\n ],'
        + f'\n "cells": [\n{lines(baseline.cells)}\n ]\n}}\n'
    )


def _parse(path: Path) -> Baseline:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: can't be read: {error.strerror or error}") from error
    try:
        written: Any = json.loads(content)
    except ValueError as error:
        ours = f'"{KIND}"'.encode() in content
        what = "damaged, or cut short" if ours else "neither a run's folder nor a baseline"
        raise RecordError(f"{path}: {what}: {error}{SAVE_AGAIN if ours else ''}") from error
    if not isinstance(written, dict) or written.get("kind") != KIND:
        raise RecordError(
            f"{path}: neither a run's folder nor a baseline, such as `baseline save` writes"
        )
    if written.get("version") != VERSION:
        raise RecordError(
            f"{path}: a baseline of schema version {written.get('version')!r}, this Gibbon reads "
            f"{VERSION}{SAVE_AGAIN}"
        )
    try:
        baseline = Baseline.model_validate(written)
    except ValidationError as error:
        first = error.errors()[0]
        place = key_path(list(first["loc"]))
        raise RecordError(f"{path}: damaged: {place}: {first['msg']}{SAVE_AGAIN}") from error
    names = {dataset.name for dataset in baseline.datasets}
    for cell in baseline.cells:
        if cell.dataset not in names:
            raise RecordError(f"{path}: damaged: no dataset {cell.dataset!r}")
    return baseline

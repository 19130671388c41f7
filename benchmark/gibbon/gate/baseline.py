"""Baselines: the errors of a run, example by example, in a file that is small enough to commit.

A baseline stores one bit for each example and measure, packed, and what decides whether another
run can be compared with it: names, dataset digests and example ids.  It stores the measures that
are shares of examples: clean error, adversarial error, worst-case error and transfer error, and of
inputs without a class the false-positive rate, unless the model's answers are random; and of each
measure the kinds of its serious flags.  Each row has a checksum, and so has the whole file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from gibbon.core.errors import FlagError, RecordError
from gibbon.core.files import write_atomically
from gibbon.core.reading import RECORD_BYTES, parse_json, read_bytes
from gibbon.core.threat import ZERO, Epsilon, Norm
from gibbon.gate.accepted_flags import AcceptedFlags
from gibbon.gate.bit_rows import Bits, pack, unpack, unpack_by_position
from gibbon.gate.flag_text import serious_flags_text
from gibbon.gate.limits import Limits
from gibbon.gate.measures import GateMeasure, Key
from gibbon.records.acceptance import Acceptance
from gibbon.records.checksums import (
    CHECKSUM,
    check_merged,
    content_checksum,
    row_checksum,
    with_checksum,
)
from gibbon.records.consistency import of_one_record
from gibbon.records.flag_kinds import KINDS
from gibbon.records.flag_share import FlagShare, share_of_earlier_version
from gibbon.records.flags import EARLIER, Flag, kinds_of, sorted_flags
from gibbon.records.no_class import NoClassEvaluation
from gibbon.records.no_class_answers import NoClassAnswers, read_answers
from gibbon.records.outcomes import OUTCOMES, Outcome, read_outcome
from gibbon.records.record import Record
from gibbon.records.run import Evaluation, RunRecord, Transfer, WorstCase, flags_of
from gibbon.specs.base import UNATTACKED, EpsilonField
from gibbon.specs.problems import key_path

KIND: Literal["gibbon-baseline"] = "gibbon-baseline"
VERSION: Literal[5] = 5
# Earlier versions that are still read.  The first two have rows that refer to others by position,
# and no checksums; the first has no flags.  The third holds shares of flags as text.
WITHOUT_FLAGS, WITHOUT_CHECKSUMS, WITHOUT_SHARES = 2, 3, 4

# The bits of transfers take at most this many characters of a baseline: if all examples take more,
# every second, fourth, ... example is stored, but never fewer than the second number.
TRANSFER_ROOM, FEWEST_EXAMPLES = 30_000, 1_000

SAVE_AGAIN = "; save it again with `baseline save`"
LARGEST = 10**9  # examples; a damaged file must not fill memory
MOST_BITS = 1 << 30  # of all rows of a dataset: each bit takes a byte of memory

Ids = NDArray[np.int64]
FlagsByAttack = Mapping[str, tuple[Flag, ...]]
_Row = tuple[str, str, str, Epsilon]
_Figures = dict[str, str | FlagShare]  # by kind of flag


class AttackSetup(Record):
    """The attack settings of an error: errors are compared only if these are equal.

    One attack has an algorithm, parameters, a norm and a clipping rule; a worst case has the labels
    of its ``attacks``; the unattacked model has none of these.
    """

    algorithm: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    norm: Norm | None = None
    clip: bool | None = None
    attacks: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.attacks:
            return ", ".join(self.attacks)
        if not self.algorithm:
            return "unattacked"
        clipped = "clipped" if self.clip else "not clipped"
        return f"{self.algorithm} {json.dumps(self.parameters)} in {self.norm}, {clipped}"


@dataclass(frozen=True)
class MeasuredErrors:
    """Which examples one model got wrong under one attack at one epsilon.

    Args:
        key: what was measured.
        made_with: the setup of the attack or the attacks.
        invalid: number of candidates that were out of budget or not finite, and so not counted.
        example_id: int64, shape (N,), ascending.
        wrong: bool, shape (N,).
        parts: for a worst case, the examples misclassified under each attack, and those
            misclassified unattacked under ``"none"``; empty if unknown.
        flags: the flags that affect the measure, by the label of the attack that they affect it
            through; a worst case has several.  None if they were not recorded.
    """

    key: Key
    made_with: AttackSetup
    invalid: int
    example_id: Ids
    wrong: Bits
    parts: Mapping[str, Bits] = field(default_factory=dict)
    flags: FlagsByAttack | None = field(default_factory=dict)

    def over(self, made_with: AttackSetup) -> MeasuredErrors:
        """Returns a worst case over fewer attacks, or this one if their errors are unknown."""
        attacks = [UNATTACKED, *made_with.attacks]
        if made_with == self.made_with or not self.parts.keys() >= set(attacks):
            return self
        wrong = np.logical_or.reduce([self.parts[attack] for attack in attacks])
        known = self.flags
        flags = None if known is None else {each: known.get(each, ()) for each in attacks}
        return replace(self, made_with=made_with, wrong=wrong, flags=flags)

    def serious(self) -> Iterator[tuple[str, Flag]]:
        """Yields the serious flags with the label of the attack that they come through."""
        for attack, flags in (self.flags or {}).items():
            for flag in flags:
                if flag.severity == "serious":
                    yield attack, flag


@dataclass(frozen=True)
class Content:
    """A dataset's digest and number of examples."""

    digest: str
    of: int


@dataclass(frozen=True)
class Side:
    """A run that takes part in a comparison: its name, suite, datasets and measures.

    Args:
        failed: the keys of the measures that failed.
        flags: all flags of the run; of a baseline those that it holds.
        accepted: the kinds that the run's suite accepts.
    """

    name: str
    suite: str
    datasets: Mapping[str, Content]
    cells: tuple[MeasuredErrors, ...]
    failed: frozenset[Key] = frozenset()
    flags: tuple[Flag, ...] = ()
    accepted: tuple[Acceptance, ...] = ()

    @property
    def without_flags(self) -> bool:
        """Whether the flags of the run were not recorded, or without their kinds."""
        old = any(each.kind == EARLIER for each in self.flags)
        return old or any(cell.flags is None for cell in self.cells)


class BaselineDataset(Record):
    """A dataset of a baseline: its digest, its size, and the packed ids of evaluated examples.

    Transfers are stored for every ``transfer_every``-th of these ids.
    """

    name: str
    digest: str
    of: int = Field(ge=0, le=LARGEST)
    ids: str
    transfer_every: int = Field(default=1, ge=1)
    checksum: str = ""


class BaselineCell(Record):
    """A measure of a baseline: the packed bits of the misclassified examples.

    ``transfer`` holds the bits of the other models that the same examples were scored on.
    ``flags`` holds the kinds of the serious flags of the measure, by the label of the attack, and
    the figure of each: a share if it counts examples, else text.  ``transfer_flags`` holds those of
    the transfers, by target.  ``flags`` is None if they were not recorded.  ``checksum`` is that of
    the fields and of the bits as they are unpacked, so that it notices changes of the rows that
    this one is stored as a difference from.
    """

    dataset: str
    model: str
    attack: str
    epsilon: EpsilonField
    measure: Literal["clean_error", "adversarial_error", "worst_case_error", "false_positive_rate"]
    made_with: AttackSetup = Field(default_factory=AttackSetup)
    invalid: int = Field(default=0, ge=0)
    wrong: str
    transfer: dict[str, str] = Field(default_factory=dict)
    flags: dict[str, _Figures] | None = Field(default_factory=dict)
    transfer_flags: dict[str, _Figures] = Field(default_factory=dict)
    checksum: str = ""

    @property
    def key(self) -> Key:
        """The key of the measure."""
        return Key(self.dataset, self.model, self.attack, self.epsilon, self.measure)


class Baseline(Record):
    """The content of a baseline file."""

    kind: Literal["gibbon-baseline"] = KIND
    version: Literal[2, 3, 4, 5] = VERSION
    suite: str
    gibbon: str
    datasets: tuple[BaselineDataset, ...]
    cells: tuple[BaselineCell, ...]

    @property
    def measures(self) -> int:
        """The number of measures, including transfers."""
        return sum(1 + len(cell.transfer) for cell in self.cells)


@of_one_record
def read_side(path: Path) -> Side:
    """Reads one side of a comparison from a run's folder or a baseline file.

    Raises `RecordError` if the path is neither, is damaged, or has another schema version.
    """
    return _from_run(path, RunRecord.read(path)) if path.is_dir() else _from_baseline(path)


@of_one_record
def save_baseline(
    run: Path,
    file: Path,
    *,
    limits: Limits | None = None,
    where: str = "",
    accept: Iterable[str | Acceptance] = (),
) -> Baseline:
    """Writes the errors of a run's folder into a baseline file.

    Args:
        run: the folder of the run.
        file: the file to write.
        limits: limits of the comparisons with this baseline, of which ``accept`` is used.
        where: source of the limits, such as their file.
        accept: kinds of flags that are accepted, besides those of the run's suite.

    Raises `RecordError` if the run is not finished, is empty or has failed cells, which a baseline
    must not hide; `FlagError` if it has a serious flag that nobody accepted, because later runs
    with the same flag would pass; and `SpecError` if ``accept`` names no kind of flag.
    """
    record = RunRecord.read(run)
    side = _from_run(run, record)
    if side.failed:
        raise RecordError(f"{run}: {len(side.failed)} cells failed: no baseline is made of them")
    if not side.cells:
        raise RecordError(f"{run}: the run is empty: no baseline is made of it")
    accepted = AcceptedFlags.of_call(
        accept, suite=side.accepted, limits=limits or Limits(), where=where
    )
    if refused := unaccepted_flags(side, accepted):
        raise FlagError(
            f"{run}: no baseline is made of a run with serious flags, because later runs would "
            f"pass with the same flags:\n{serious_flags_text(refused)}\nMend what they show, or "
            f"take responsibility: {' '.join(f'--accept {kind}' for kind in kinds_of(refused))}",
            flags=refused,
        )
    return write_baseline(side, file, gibbon=record.provenance.gibbon)


def write_baseline(side: Side, file: Path, *, gibbon: str) -> Baseline:
    """Writes one side of a comparison into a baseline file, with the version of Gibbon.

    All measures of a dataset must cover the same examples; transfers may cover fewer.  Raises
    `RunFolderError` if the file can't be written.
    """
    known = {cell.key.dataset: cell.example_id for cell in side.cells if not cell.key.target}
    packed = {name: _packed(side, name, ids) for name, ids in known.items()}
    baseline = Baseline(
        suite=side.suite,
        gibbon=gibbon,
        datasets=tuple(dataset for dataset, _ in packed.values()),
        cells=tuple(cell for _, cells in packed.values() for cell in cells),
    )
    for dataset in baseline.datasets:
        _check_size(dataset, baseline.cells)  # it could not be read again
    write_atomically(file, _text(baseline))
    return baseline


def side_of(
    record: RunRecord,
    outcome: Callable[[str], Outcome | None],
    *,
    name: str,
    answers: Callable[[str], NoClassAnswers | None] = lambda digest: None,
) -> Side:
    """Returns the errors of a run as one side of a comparison.

    Args:
        record: the run's record.
        outcome: returns the outcome of a cell, given its digest.
        name: of the run, in tables and messages.
        answers: returns a model's answers to inputs without a class, given their digest.

    Raises `RecordError` if an outcome is missing.
    """
    outcomes = _Outcomes(record, outcome, name)
    rows = {(row.dataset, row.model, row.attack, row.epsilon): row for row in record.evaluations}
    cells = [
        *(
            outcomes.errors(
                evaluation_key(row), row.digest, row.model, row, flags_of(row, record.flags)
            )
            for row in record.evaluations
            if row.status != "failed"
        ),
        *(
            outcomes.errors(
                _transfer_key(row),
                row.digest,
                row.target,
                rows[row.dataset, row.source, row.attack, row.epsilon],
                flags_of(row, record.flags),
            )
            for row in record.transfers
            if row.source != row.target and row.status != "failed"
        ),
        # The worst case over one attack differs from its error only by unattacked mistakes.
        *(
            _worst(row, rows, outcomes, record.flags)
            for row in record.worst_cases
            if len(row.attacks) > 1
        ),
        *(
            _false_positives(row, answers(row.digest), name)
            for row in record.no_class
            if row.status != "failed" and row.draws == 1
        ),
    ]
    failed = [evaluation_key(row) for row in record.evaluations if row.status == "failed"]
    failed += [_transfer_key(row) for row in record.transfers if row.status == "failed"]
    failed += [_no_class_key(row) for row in record.no_class if row.status == "failed"]
    cards = record.dataset_cards  # by the names in the suite, as the rows have them
    datasets = {called: Content(card.digest, card.of) for called, card in cards.items()}
    suite = record.suite
    return Side(
        name,
        suite.name,
        datasets,
        tuple(cells),
        frozenset(failed),
        record.flags,
        tuple(Acceptance(kind, f"suite {suite.name}") for kind in dict.fromkeys(suite.accept)),
    )


def unaccepted_flags(side: Side, accepted: AcceptedFlags) -> tuple[Flag, ...]:
    """Returns the serious flags of a run that are not accepted on every measure they affect."""
    found = [
        (flag, accepted.of(flag, cell.key, attack=attack))
        for cell in side.cells
        for attack, flag in cell.serious()
    ]
    affecting = {flag for flag, _ in found}
    found += [
        (flag, accepted.of(flag))
        for flag in side.flags
        if flag.severity == "serious" and flag not in affecting
    ]
    return sorted_flags(flag for flag, acceptance in found if acceptance is None)


def _false_positives(
    row: NoClassEvaluation, answers: NoClassAnswers | None, name: str
) -> MeasuredErrors:
    """Returns which inputs without a class a model takes for one.  Raises `RecordError`."""
    if answers is None:
        raise RecordError(
            f"{name}: the answers {row.digest} to inputs without a class are missing or damaged; "
            "run the suite again"
        )
    order = np.argsort(answers.example_id)
    return MeasuredErrors(
        _no_class_key(row),
        AttackSetup(parameters={"threshold": row.threshold}),
        0,
        answers.example_id[order],
        answers.confidence[order] > row.threshold,
        flags={UNATTACKED: ()},
    )


def _no_class_key(row: NoClassEvaluation) -> Key:
    return Key(row.dataset, row.model, UNATTACKED, ZERO, "false_positive_rate")


class _Outcomes:
    """The outcomes of a run, each read once, and the errors of each model in them."""

    def __init__(
        self, record: RunRecord, outcome: Callable[[str], Outcome | None], name: str
    ) -> None:
        self._read, self._name = cache(outcome), name
        # A model has one digest for each dataset that it is evaluated on.
        self._models = {(card.name, card.digest) for card in record.models}

    def outcome(self, digest: str) -> Outcome:
        read = self._read(digest)
        if read is None:
            raise self._lost(digest)
        return read

    def wrong(self, digest: str, model: str) -> Bits:
        outcome = self.outcome(digest)
        for each in outcome.scores:
            if (model, each) in self._models:
                return outcome.misclassified(each)
        raise self._lost(digest)

    def errors(
        self, key: Key, digest: str, model: str, source: Evaluation, flags: Iterable[Flag]
    ) -> MeasuredErrors:
        """Returns the errors of one model on the candidates of a cell with this source row."""
        invalid = source.invalid_candidates or 0
        ids = self.outcome(digest).example_id
        wrong, by_attack = self.wrong(digest, model), {source.attack: tuple(flags)}
        return MeasuredErrors(key, made_with(source), invalid, ids, wrong, flags=by_attack)

    def _lost(self, digest: str) -> RecordError:
        return RecordError(
            f"{self._name}: the outcomes of cell {digest} are missing or damaged; "
            "run the suite again"
        )


def _worst(
    row: WorstCase, rows: Mapping[_Row, Evaluation], outcomes: _Outcomes, flags: Iterable[Flag]
) -> MeasuredErrors:
    clean = rows[row.dataset, row.model, UNATTACKED, ZERO]
    parts = {UNATTACKED: outcomes.wrong(clean.digest, row.model)}
    raised = {UNATTACKED: tuple(flags_of(clean, flags))}
    for attack in row.attacks:
        own = rows[row.dataset, row.model, attack, row.epsilon]
        parts[attack] = outcomes.outcome(own.digest).any_misclassified
        raised[attack] = tuple(flags_of(own, flags))
    return MeasuredErrors(
        Key(row.dataset, row.model, all_attacks(row), row.epsilon, "worst_case_error"),
        AttackSetup(attacks=row.attacks),
        0,
        outcomes.outcome(clean.digest).example_id,
        np.logical_or.reduce(list(parts.values())),
        parts,
        raised,
    )


def made_with(row: Evaluation) -> AttackSetup:
    """Returns the settings that two rows must share for their numbers to be comparable."""
    if row.unattacked:
        return AttackSetup()
    return AttackSetup(
        algorithm=row.algorithm, parameters=row.parameter_values, norm=row.norm, clip=row.clip
    )


def all_attacks(row: WorstCase) -> str:
    """Returns the name that all attacks of one norm and clipping rule have together."""
    return f"all-{row.norm}" if row.clip else f"all-{row.norm}-unclipped"


def evaluation_key(row: Evaluation) -> Key:
    """Returns the key of a row's clean or adversarial error."""
    measure: GateMeasure = "clean_error" if row.unattacked else "adversarial_error"
    return Key(row.dataset, row.model, row.attack, row.epsilon, measure)


def _transfer_key(row: Transfer) -> Key:
    return Key(row.dataset, row.source, row.attack, row.epsilon, "transfer_error", row.target)


def _from_run(folder: Path, record: RunRecord) -> Side:
    if record.status not in ("done", "failed"):
        raise RecordError(
            f"{folder}: the run is not finished ({record.status}): run it again first"
        )
    return side_of(
        record,
        lambda digest: read_outcome(folder / OUTCOMES, digest),
        name=str(folder),
        answers=lambda digest: read_answers(folder, digest),
    )


def _from_baseline(path: Path) -> Side:
    written = _parse(path)
    try:
        baseline = _validated(written)
        cells = [cell for each in baseline.datasets for cell in _unpacked(each, baseline)]
        if baseline.version > WITHOUT_CHECKSUMS:  # after the rows, whose errors say more
            _check_file(written)
    except RecordError as error:
        raise RecordError(f"{path}: {error}{SAVE_AGAIN}") from error
    return Side(
        str(path),
        baseline.suite,
        {each.name: Content(each.digest, each.of) for each in baseline.datasets},
        tuple(cells),
        flags=sorted_flags(flag for cell in cells for _, flag in cell.serious()),
    )


def _check_file(written: dict[str, Any]) -> None:
    content = {key: value for key, value in written.items() if key != CHECKSUM}
    if written.get(CHECKSUM) != content_checksum(content):
        raise RecordError(
            "damaged, or merged: each row is intact, but they are not the rows that were saved "
            "together: some were removed, added or exchanged"
        )


def _packed(side: Side, dataset: str, ids: Ids) -> tuple[BaselineDataset, list[BaselineCell]]:
    own = [cell for cell in side.cells if cell.key.dataset == dataset]
    sources = [cell for cell in own if not cell.key.target]
    transfers = [cell for cell in own if cell.key.target]
    rows = {row_id(cell.key): cell.wrong for cell in sources}
    every = 1
    while any(len(ids[::every]) > len(cell.example_id) for cell in transfers):
        every *= 2  # transfers that were read from a baseline may already cover fewer
    while True:
        kept = ids[::every]
        thinned = {
            row_id(cell.key): cell.wrong[np.searchsorted(cell.example_id, kept)]
            for cell in transfers
        }
        texts = pack(thinned, before={key: row[::every] for key, row in rows.items()})
        if (
            sum(map(len, texts.values())) <= TRANSFER_ROOM
            or len(ids[:: 2 * every]) < FEWEST_EXAMPLES
        ):
            break
        every *= 2
    by_source: dict[Key, dict[str, str]] = {}
    flags_by_source: dict[Key, dict[str, _Figures]] = {}
    bits: dict[Key, dict[str, Bits]] = {cell.key: {"": cell.wrong} for cell in sources}
    for cell in transfers:
        source, own_id = replace(cell.key, measure="adversarial_error", target=""), row_id(cell.key)
        by_source.setdefault(source, {})[cell.key.target] = texts[own_id]
        bits.setdefault(source, {})[cell.key.target] = thinned[own_id]
        if kinds := (_kinds(cell) or {}).get(cell.key.attack):
            flags_by_source.setdefault(source, {})[cell.key.target] = kinds
    content = side.datasets[dataset]
    known = np.isin(np.arange(content.of), ids)
    stored = BaselineDataset(
        name=dataset,
        digest=content.digest,
        of=content.of,
        ids=pack({"": known})[""],
        transfer_every=every,
    )
    own_texts = pack(rows)
    cells = [
        BaselineCell(
            **{name: value for name, value in vars(cell.key).items() if name != "target"},
            made_with=cell.made_with,
            invalid=cell.invalid,
            wrong=own_texts[row_id(cell.key)],
            transfer=by_source.get(cell.key, {}),
            flags=_kinds(cell),
            transfer_flags=flags_by_source.get(cell.key, {}),
        )
        for cell in sources
    ]
    return (
        stored.model_copy(update={"checksum": _checksum_of(stored, {"": known})}),
        [
            cell.model_copy(update={"checksum": _checksum_of(cell, bits[cell.key])})
            for cell in cells
        ],
    )


def _unpacked(dataset: BaselineDataset, baseline: Baseline) -> Iterator[MeasuredErrors]:
    """Yields the measures of a dataset.  Raises `RecordError` for a row that was damaged."""
    cells = [cell for cell in baseline.cells if cell.dataset == dataset.name]
    (known,) = unpack_by_position([dataset.ids], dataset.of)
    ids = np.flatnonzero(known)
    kept = ids[:: dataset.transfer_every]
    rows, transfers = _bits_of(cells, len(ids), dataset.transfer_every, baseline.version)
    if baseline.version > WITHOUT_CHECKSUMS:
        _check_row(dataset, f"the dataset {dataset.name}", {"": known})
        for cell in cells:
            bits = {target: transfers[cell.key, target] for target in cell.transfer}
            _check_row(cell, f"the row of {_words(cell.key)}", {"": rows[cell.key], **bits})
    for cell in cells:
        flags = _stored_flags(cell, version=baseline.version)
        yield MeasuredErrors(
            cell.key, cell.made_with, cell.invalid, ids, rows[cell.key], flags=flags
        )
    for cell in cells:
        for target in cell.transfer:
            key = replace(cell.key, measure="transfer_error", target=target)
            row = transfers[cell.key, target]
            flags = _stored_flags(cell, target, version=baseline.version)
            yield MeasuredErrors(key, cell.made_with, cell.invalid, kept, row, flags=flags)


def _bits_of(
    cells: Sequence[BaselineCell], count: int, every: int, version: int
) -> tuple[dict[Key, Bits], dict[tuple[Key, str], Bits]]:
    """Returns the bits of measures by key, and those of transfers by key and target.

    Args:
        cells: the measures of one dataset.
        count: number of examples.
        every: transfers are stored for every example of this many.
        version: schema version of the baseline.
    """
    transfers = [(cell.key, target) for cell in cells for target in cell.transfer]
    own = [cell.wrong for cell in cells]
    texts = [text for cell in cells for text in cell.transfer.values()]
    fewer = len(range(0, count, every))
    if version <= WITHOUT_CHECKSUMS:
        read = unpack_by_position(own, count)
        thinned = unpack_by_position(texts, fewer, before=[row[::every] for row in read])
    else:
        ids = [row_id(cell.key) for cell in cells]
        by_id = unpack(_by_id(ids, own), count)
        read = [by_id[each] for each in ids]
        before = {key: row[::every] for key, row in by_id.items()}
        ids = [
            row_id(replace(key, measure="transfer_error", target=target))
            for key, target in transfers
        ]
        by_id = unpack(_by_id(ids, texts), fewer, before=before)
        thinned = [by_id[each] for each in ids]
    keys = [cell.key for cell in cells]
    return dict(zip(keys, read, strict=True)), dict(zip(transfers, thinned, strict=True))


def _by_id(ids: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    found = dict(zip(ids, texts, strict=True))
    if len(found) < len(ids):
        raise RecordError("damaged, or merged: two rows of the same measure")
    return found


def row_id(key: Key) -> str:
    """Returns the word that other rows of a baseline refer to a row by, made from its names.

    It depends on nothing else, so that rows may be added, removed and exchanged by a merge.

    >>> row_id(Key("mnist", "rbf", "fgsm", Epsilon.parse("0.25"), "adversarial_error"))
    '51d044b9e1d2'
    """
    names = [key.dataset, key.model, key.attack, str(key.epsilon), key.measure, key.target]
    return content_checksum(names)[:12]


def _checksum_of(row: BaselineDataset | BaselineCell, bits: Mapping[str, Bits]) -> str:
    """Returns the checksum of a row: of its fields, and of bits by target."""
    packed = {"ids", "wrong", "transfer", "checksum"}
    fields = row.model_dump(mode="json", exclude_defaults=True, exclude=packed)
    targets = sorted(bits)
    return row_checksum(
        {"fields": fields, "bits": targets},
        *(np.packbits(bits[target]).tobytes() for target in targets),
    )


def _check_row(row: BaselineDataset | BaselineCell, name: str, bits: Mapping[str, Bits]) -> None:
    if row.checksum != _checksum_of(row, bits):
        raise RecordError(
            f"damaged, or merged: {name} does not match its checksum: it was changed, or one that "
            "it is stored as a difference from"
        )


def _words(key: Key) -> str:
    return f"{key.dataset}, {key.model}, {key.attack} at epsilon {key.epsilon}, {key.measure}"


def _kinds(cell: MeasuredErrors) -> dict[str, _Figures] | None:
    """Returns the kinds of a measure's serious flags with their figures, by attack."""
    if cell.flags is None:
        return None
    found: dict[str, _Figures] = {}
    for attack, flag in sorted(cell.serious(), key=lambda each: (each[0], each[1].kind)):
        found.setdefault(attack, {}).setdefault(flag.kind, flag.share or flag.figure)
    return found


def _stored_flags(cell: BaselineCell, target: str = "", *, version: int) -> FlagsByAttack | None:
    """Returns the flags of a measure as far as a baseline holds them; a later version's are lost.

    ``target`` is given for a transfer; ``version`` is the schema version of the baseline.
    """
    if cell.flags is None:
        return None
    stored = {cell.attack: cell.transfer_flags.get(target, {})} if target else cell.flags
    return {
        attack: tuple(
            Flag(
                kind=kind,
                severity="serious",
                dataset=cell.dataset,
                model=cell.model,
                attack=attack,
                epsilon=cell.epsilon,
                **_figure(stored_figure, version=version),
                sentence=KINDS[kind].title,
            )
            for kind, stored_figure in kinds.items()
            if kind in KINDS
        )
        for attack, kinds in stored.items()
    }


def _figure(stored: str | FlagShare, *, version: int) -> dict[str, Any]:
    """Returns the figure of a stored flag, as fields of `Flag`."""
    if isinstance(stored, FlagShare):
        return {"share": stored}
    earlier = version <= WITHOUT_SHARES
    return {"figure": stored, "share": share_of_earlier_version(stored) if earlier else None}


def _text(baseline: Baseline) -> str:
    """Returns the baseline as JSON, one line for each dataset and cell, for readable diffs."""

    def lines(records: Iterable[Record]) -> str:
        written = [each.model_dump(mode="json", exclude_defaults=True) for each in records]
        return ",\n".join(f"  {json.dumps(each, ensure_ascii=False)}" for each in written)

    head = {"kind": KIND, "version": VERSION, "suite": baseline.suite, "gibbon": baseline.gibbon}
    return with_checksum(
        json.dumps(head, indent=1)[:-2]
        + f',\n "datasets": [\n{lines(baseline.datasets)}\n ],'
        + f'\n "cells": [\n{lines(baseline.cells)}\n ]\n}}\n'
    )


def _parse(path: Path) -> dict[str, Any]:
    content = read_bytes(path, RecordError, limit=RECORD_BYTES)
    try:
        written: Any = parse_json(content)
    except ValueError as error:
        ours = f'"{KIND}"'.encode() in content
        if ours:
            try:
                check_merged(content)
            except RecordError as conflict:
                raise RecordError(
                    f"{path}: {conflict}: take the file of one side as it is, or save it again "
                    "with `baseline save`"
                ) from error
        what = "damaged, or cut short" if ours else "neither a run's folder nor a baseline"
        raise RecordError(f"{path}: {what}: {error}{SAVE_AGAIN if ours else ''}") from error
    if not isinstance(written, dict) or written.get("kind") != KIND:
        raise RecordError(
            f"{path}: neither a run's folder nor a baseline, such as `baseline save` writes"
        )
    return written


def _check_size(dataset: BaselineDataset, cells: Iterable[BaselineCell]) -> None:
    """Raises `RecordError` if the bits of a dataset's rows would fill the memory."""
    rows = 1 + sum(1 + len(cell.transfer) for cell in cells if cell.dataset == dataset.name)
    if rows * dataset.of > MOST_BITS:
        raise RecordError(
            f"{rows:,} rows of {dataset.of:,} examples, for the dataset {dataset.name!r}: at most "
            f"{MOST_BITS:,} bits are read"
        )


def _validated(written: dict[str, Any]) -> Baseline:
    version = written.get("version")
    if version not in (WITHOUT_FLAGS, WITHOUT_CHECKSUMS, WITHOUT_SHARES, VERSION):
        raise RecordError(
            f"a baseline of schema version {version!r}, this Gibbon reads {WITHOUT_FLAGS} to "
            f"{VERSION}"
        )
    content = {key: value for key, value in written.items() if key != CHECKSUM}
    try:
        baseline = Baseline.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecordError(f"damaged: {key_path(first['loc'])}: {first['msg']}") from error
    names = [dataset.name for dataset in baseline.datasets]
    if len(set(names)) < len(names):
        raise RecordError("damaged, or merged: two datasets of one name")
    for cell in baseline.cells:
        if cell.dataset not in names:
            raise RecordError(f"damaged: no dataset {cell.dataset!r}")
    for dataset in baseline.datasets:
        _check_size(dataset, baseline.cells)
    if version > WITHOUT_CHECKSUMS:
        return baseline
    checksums = [each.checksum for each in baseline.datasets]
    checksums += [each.checksum for each in baseline.cells]
    if CHECKSUM in written or any(checksums):
        raise RecordError(f"damaged: it has checksums, which version {version} has not")
    if version == WITHOUT_FLAGS:
        unknown = tuple(cell.model_copy(update={"flags": None}) for cell in baseline.cells)
        return baseline.model_copy(update={"cells": unknown})
    return baseline

"""Reads the folders of shards, and checks that they are parts of one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gibbon.core.errors import RecordError, RunFolderError, SpecError
from gibbon.records.run import RUN_FILE, RunRecord
from gibbon.records.shard_card import ShardCard, differences

SHOWN = 5  # missing shards that are named; of the others the number is given
OF_ONE_SHARD = frozenset({"index", "count", "stored", "code", "data", "models"})
ALIKE = (
    "all shards must be made with the same options, data and versions; run those that differ "
    "again, with the command of the others"
)
AGAIN = "run this shard again, with the same command: what is still valid is not computed again"


@dataclass(frozen=True)
class ReadShard:
    """A shard's folder, its record and its card."""

    path: Path
    record: RunRecord
    card: ShardCard

    @property
    def finished(self) -> bool:
        """Whether everything was computed, if only to fail."""
        return self.record.status != "running"

    @property
    def index(self) -> int:
        """The number of the shard, from 1."""
        return self.card.index

    def __str__(self) -> str:
        return f"shard {self.card.shard} in {self.path}"


@dataclass(frozen=True)
class ShardSet:
    """Shards of one run, by their index, and what is missing, a sentence for each."""

    shards: tuple[ReadShard, ...]
    missing: tuple[str, ...]

    @property
    def first(self) -> ReadShard:
        """The shard that the others were compared with."""
        return self.shards[0]


def read_shards(folders: Sequence[Path]) -> ShardSet:
    """Returns the shards in some folders, which are parts of one run, each there once.

    Raises `RunFolderError` if a folder is not that of a shard, if two hold one shard, or if they
    are shards of different runs: another suite, number of shards, dataset, model, version of Gibbon
    or setting; and `RecordError` for a damaged record.
    """
    if not folders:
        raise RunFolderError("there is no folder of a shard to merge")
    shards = [_read(each) for each in folders]
    first = shards[0]
    for other in shards[1:]:
        _check_alike(first, other)
    by_index: dict[int, ReadShard] = {}
    for each in shards:
        before = by_index.setdefault(each.index, each)
        if before is not each:
            same = before.path.resolve() == each.path.resolve()
            raise RunFolderError(
                f"{each.path}: is given twice"
                if same
                else f"shard {each.card.shard} is in two folders, {before.path} and {each.path}: "
                "give one of them"
            )
    ordered = tuple(by_index[index] for index in sorted(by_index))
    return ShardSet(ordered, tuple(_missing(by_index, first.card)))


def _read(folder: Path) -> ReadShard:
    if not (folder / RUN_FILE).exists():
        raise RunFolderError(f"{folder}: holds no {RUN_FILE}: expected the folder of a shard")
    record = RunRecord.read_any(folder)
    if record.shard is None:
        raise RunFolderError(
            f"{folder}: holds a whole run of suite {record.suite.name!r}, expected a shard: "
            "it was run without --shard"
        )
    try:
        _ = record.shard.shard
    except SpecError as error:
        raise RecordError(f"{folder / RUN_FILE}: damaged: {error}") from error
    return ReadShard(folder, record, record.shard)


def _check_alike(first: ReadShard, other: ReadShard) -> None:
    """Raises `RunFolderError` that says in what two shards differ, if they are of two runs."""
    mine, theirs = first.record.suite, other.record.suite
    if mine.name != theirs.name:
        raise RunFolderError(
            f"{other.path}: is a shard of suite {theirs.name!r}; that in {first.path} is of "
            f"{mine.name!r}"
        )
    if mine != theirs:
        place = next(differences(mine, theirs, but=frozenset()), "its text")
        raise RunFolderError(
            f"{other.path}: its suite {theirs.name!r} differs from that of {first.path} in {place}"
        )
    if first.card.count != other.card.count:
        raise RunFolderError(
            f"{other.path}: is shard {other.card.shard}, that in {first.path} is "
            f"{first.card.shard}: the number of shards must be one"
        )
    for sentence in differing(other.card, first.card):
        raise RunFolderError(f"{other.path}: {sentence} in {first.path}: {ALIKE}")


def differing(card: ShardCard, expected: ShardCard) -> Iterator[str]:
    """Yields the differences between a shard and a card, each a phrase that a place completes."""
    if card.code != expected.code:
        yield (
            f"was computed by another version of Gibbon (code {card.code[:12]}) than "
            f"{expected.code[:12]}"
        )
    for mine, theirs in zip(card.data, expected.data, strict=False):
        if mine.dataset != theirs.dataset:
            yield (
                f"dataset {mine.name!r} has other content (digest {mine.dataset[:12]}) than "
                f"{theirs.dataset[:12]}"
            )
        elif mine != theirs:
            yield (
                f"the run evaluates other examples of dataset {mine.name!r} "
                f"({mine.examples}) than the {theirs.examples}"
            )
    for one, two in zip(card.models, expected.models, strict=False):
        if one != two:
            yield (
                f"model {one.name!r} on {one.dataset!r} is another (digest {one.digest[:12]}) than "
                f"{two.digest[:12]}"
            )
    for place in differences(card, expected, but=OF_ONE_SHARD):
        yield f"has another value of {place} than"
    if (len(card.data), len(card.models)) != (len(expected.data), len(expected.models)):
        yield "has another number of datasets or models than"


def _missing(found: dict[int, ReadShard], card: ShardCard) -> Iterator[str]:
    lost = [index for index in range(1, card.count + 1) if index not in found]
    for index in lost[:SHOWN]:
        one = card.model_copy(update={"index": index})
        yield f"shard {one.shard} is missing ({one.examples()})"
    if len(lost) > SHOWN:
        numbers = ",".join(_ranges(lost[SHOWN:]))
        yield f"{len(lost) - SHOWN} more shards of {card.count} are missing: {numbers}"
    for each in found.values():
        if not each.finished:
            yield (
                f"{each} is not finished ({each.card.examples()}): run its command again to "
                "continue it"
            )


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    """Yields ascending numbers as ranges, such as ``3-7``."""
    start = last = numbers[0]
    for number in [*numbers[1:], None]:
        if number is not None and number == last + 1:
            last = number
            continue
        yield str(start) if start == last else f"{start}-{last}"
        if number is not None:
            start = last = number

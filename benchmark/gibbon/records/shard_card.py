"""The card of a shard: which part of which run a folder holds, and what it was computed from.

The folder of a shard holds outcomes of some of the examples and no tables.  Shards can be merged if
their cards agree in everything but their index, and what was stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from gibbon.core.shard import Shard
from gibbon.records.record import Record


class ShardData(Record):
    """A dataset of a shard's run.

    Args:
        name: its name in the suite.
        dataset: digest of its content.
        digest: digest of its content and of the examples of the whole run.
        examples: number of examples of the whole run.
    """

    name: str
    dataset: str
    digest: str
    examples: int


class ShardModel(Record):
    """A model of a shard's run on one dataset, by their names in the suite, and its digest."""

    dataset: str
    name: str
    digest: str


class ShardSettings(Record):
    """The settings of a run that affect its results, which are those of all its shards.

    ``keep_examples`` is None if the suite says which adversarial examples are kept.
    """

    limit: int | None
    precision: str
    certify: str | None
    examination: bool
    skip_unreadable: bool
    keep_examples: str | int | None = None


class ShardCard(Record):
    """A shard of a run.

    Args:
        index, count: the shard ``index``, from 1, of ``count``.
        code: digest of the code of Gibbon.
        settings: those of the run.
        data: the datasets of the whole run.
        models: its models.
        stored: files of results in the folder, once the shard is finished.
    """

    index: int
    count: int
    code: str
    settings: ShardSettings
    data: tuple[ShardData, ...]
    models: tuple[ShardModel, ...]
    stored: tuple[str, ...] = ()

    @property
    def shard(self) -> Shard:
        """The part of the run."""
        return Shard(self.index, self.count)

    def examples(self) -> str:
        """Returns the examples of the shard in words, by dataset."""
        return "; ".join(
            f"{each.name}: {_range(self.shard.part(each.examples))} of {each.examples}"
            for each in self.data
        )


def differences(one: BaseModel, other: BaseModel, *, but: frozenset[str]) -> Iterator[str]:
    """Yields the paths of the fields in which two records differ, such as ``settings.limit``."""
    mine, theirs = one.model_dump(mode="json"), other.model_dump(mode="json")
    for name in sorted(mine.keys() - but):
        yield from _differing(mine[name], theirs[name], name)


def _differing(one: Any, other: Any, where: str) -> Iterator[str]:
    if one == other:
        return
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for name in one:
            yield from _differing(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            yield from _differing(mine, theirs, f"{where}[{place}]")
    else:
        yield where


def _range(part: slice) -> str:
    if part.start == part.stop:
        return "no examples"
    if part.stop - part.start == 1:
        return f"example {part.stop}"
    return f"examples {part.start + 1} to {part.stop}"

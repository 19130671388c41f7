"""Records that hold one row an example, and can be restricted to some of the examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from gibbon.attacks.toolkit.projections import Region
from gibbon.core.rng import ExampleStreams


@dataclass(frozen=True)
class ExampleRows:
    """Base of records whose tensors have one row an example.

    Fields may also hold other such records, regions and random streams, which follow along; all
    other fields are shared by the examples.
    """

    def take(self, index: Tensor) -> Self:
        """Returns the record of some of the examples: ``index`` is a mask or positions."""
        return replace(self, **{name: _taken(value, index) for name, value in _values(self)})

    @classmethod
    def concatenated(cls, records: Sequence[Self]) -> Self:
        """Returns one record with the rows of several, in order."""
        columns = zip(*(_values(each) for each in records), strict=True)
        joined = {column[0][0]: _joined([value for _, value in column]) for column in columns}
        return replace(records[0], **joined)


def _values(record: ExampleRows) -> list[tuple[str, Any]]:
    return [(field.name, getattr(record, field.name)) for field in fields(record)]


def _taken(value: Any, index: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[index]
    return value.take(index) if isinstance(value, ExampleRows | Region | ExampleStreams) else value


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(tuple(values))
    if isinstance(first, ExampleStreams):
        return ExampleStreams(torch.cat([each.keys for each in values]))
    return first.concatenated(values) if isinstance(first, ExampleRows) else first

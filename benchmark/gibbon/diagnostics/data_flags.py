"""Flags of the evaluated examples: copies, near copies, labels that contradict, constant inputs.

An error is a share of examples that are taken to be drawn independently.  Copies count an example
several times, and make intervals too narrow; an input with two labels is an error for one of them,
whatever the model answers; an input of one value shows nothing to classify.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gibbon.datasets.base import Batch
from gibbon.diagnostics.near_copies import Projections, near_copies
from gibbon.records.flag_kinds import Severity
from gibbon.records.flag_share import FlagShare
from gibbon.records.flags import Flag

# Published test sets hold fewer: CIFAR-10, CIFAR-100, MNIST and Fashion-MNIST less than 0.5 %.
WARNING_SHARE, WARNING_LEAST = 0.02, 3
SERIOUS_SHARE, SERIOUS_LEAST = 0.2, 5
PICTURE_AXES = 3  # channels, height, width
FEWEST_COORDINATES = 8  # an input of fewer may be of one value, or occur twice, by chance
FEW_EXAMPLES = 5  # that may be of one class by chance
NAMED = 4  # examples that a sentence names
DIGEST_BYTES = 16


@dataclass
class ExamplesSeen:
    """The examples that were looked at, by a digest of their inputs.

    Attributes:
        ids: the ids of the examples with each input, in order.
        constant: the ids of the examples of one value, for pictures one for each channel.
        count: number of examples.
        shape: the shape of one input.
        projections: pictures of different inputs, for the search of near copies.
    """

    ids: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(list))
    constant: list[int] = field(default_factory=list)
    count: int = 0
    shape: tuple[int, ...] = ()
    projections: Projections = field(default_factory=Projections)

    def add(self, batch: Batch) -> None:
        """Looks at a batch."""
        inputs, ids = batch.inputs.cpu(), batch.ids.tolist()
        constant = _constant(inputs).tolist()
        self.count += len(ids)
        self.shape = tuple(inputs.shape[1:])
        rows, first = inputs.contiguous().numpy(), []
        for place, row in enumerate(rows):
            if constant[place]:
                self.constant.append(ids[place])
                continue
            digest = hashlib.blake2b(row.tobytes(), digest_size=DIGEST_BYTES).digest()
            if digest not in self.ids:
                first.append(place)
            self.ids[digest].append(ids[place])
        if first and inputs.ndim == PICTURE_AXES + 1:
            self.projections.add(rows[first])

    @property
    def repeated(self) -> list[list[int]]:
        """The ids of the examples with equal inputs, the largest group first."""
        return sorted((each for each in self.ids.values() if len(each) > 1), key=len, reverse=True)


def _constant(inputs: Tensor) -> Tensor:
    """Returns which inputs are of one value, in each channel of a picture, bool, shape (N,)."""
    axes = 2 if inputs.ndim == PICTURE_AXES + 1 else 1
    flat = inputs.flatten(axes)
    if flat.shape[-1] < FEWEST_COORDINATES:
        return inputs.new_zeros(len(inputs)).bool()
    same = flat.amax(-1) == flat.amin(-1)
    return same if axes == 1 else same.all(1)


def data_flags(
    dataset: str, labels: NDArray[np.int64], batches: Iterable[Batch], *, classes: Sequence[str]
) -> Iterator[Flag]:
    """Yields the flags of the evaluated examples of a dataset.

    Args:
        dataset: its name.
        labels: int64, shape (N,): the labels of the evaluated examples.
        batches: the examples, or as many of them as are looked at.
        classes: the names of the classes, by label.
    """
    if len(labels) >= FEW_EXAMPLES and len(np.unique(labels)) == 1:
        yield _one_class(dataset, classes[int(labels[0])], len(labels))
    seen, label_of = ExamplesSeen(), dict[int, int]()
    for batch in batches:
        seen.add(batch)
        label_of.update(zip(batch.ids.tolist(), batch.labels.tolist(), strict=True))
    if int(np.prod(seen.shape)) < FEWEST_COORDINATES:
        return
    yield from _of_one_value(dataset, seen)
    yield from _copies(dataset, seen)
    yield from _near_copies(dataset, seen)
    yield from _contradictions(dataset, seen, label_of)


def _one_class(dataset: str, name: str, count: int) -> Flag:
    return Flag(
        kind="few-classes",
        dataset=dataset,
        share=FlagShare(count=count, of=count),
        sentence=f"all {count} examples are of the class {name!r}: the errors are those "
        "of this class, not of the model",
    )


def _of_one_value(dataset: str, seen: ExamplesSeen) -> Iterator[Flag]:
    count = len(seen.constant)
    if count:
        yield Flag(
            kind="constant-inputs",
            severity=_severity(count, seen),
            dataset=dataset,
            share=FlagShare(count=count, of=seen.count),
            sentence=f"{_of(count, seen)} one value in all coordinates, such as black pictures: "
            f"{_named(seen.constant)}",
        )


def _copies(dataset: str, seen: ExamplesSeen) -> Iterator[Flag]:
    groups = seen.repeated
    count = sum(len(each) - 1 for each in groups)
    if count:
        most = groups[0]
        yield Flag(
            kind="duplicated-examples",
            severity=_severity(count, seen),
            dataset=dataset,
            share=FlagShare(count=count, of=seen.count),
            sentence=f"{_of(count, seen)} the same input as an earlier one; one input occurs "
            f"{len(most)} times: {_named(most)}",
        )


def _near_copies(dataset: str, seen: ExamplesSeen) -> Iterator[Flag]:
    found = near_copies(seen.projections)
    count, firsts = len(found.places), [each[0] for each in seen.ids.values()]
    severity = _severity(count, seen, of=found.compared)
    if count and severity != "note":  # two pictures of one scene are nothing to report
        place, earlier = found.places[0]
        yield Flag(
            kind="duplicated-examples",
            severity=severity,
            dataset=dataset,
            figure=f"{count} of {found.compared} nearly",
            sentence=f"{count} of {found.compared} examples ({count / found.compared:.1%}) are "
            f"nearly equal to an earlier one, such as example {firsts[place]} to "
            f"{firsts[earlier]}: pictures that were stored again, or changed a little",
        )


def _contradictions(dataset: str, seen: ExamplesSeen, label_of: dict[int, int]) -> Iterator[Flag]:
    wrong, first = 0, list[int]()
    for group in seen.repeated:
        counts = Counter(label_of[each] for each in group)
        if len(counts) > 1:
            wrong += len(group) - max(counts.values())
            first = first or [next(e for e in group if label_of[e] == each) for each in counts]
    if wrong:
        yield Flag(
            kind="conflicting-labels",
            severity=_severity(wrong, seen),
            dataset=dataset,
            share=FlagShare(count=wrong, of=seen.count),
            sentence=f"equal inputs have different labels, so that {wrong} of {seen.count} "
            f"examples are errors whatever a model answers: for one input, {_named(first)}",
        )


def _severity(count: int, seen: ExamplesSeen, *, of: int | None = None) -> Severity:
    """Returns the severity of so many examples, of all that were seen or of some.

    Rows of a table may be equal by nature, so that only pictures are more than a warning.
    """
    share, pictures = count / max(1, of or seen.count), len(seen.shape) == PICTURE_AXES
    if pictures and share >= SERIOUS_SHARE and count >= SERIOUS_LEAST:
        return "serious"
    return "warning" if share >= WARNING_SHARE and count >= WARNING_LEAST else "note"


def _of(count: int, seen: ExamplesSeen) -> str:
    have = "has" if count == 1 else "have"
    return f"{count} of {seen.count} examples ({count / seen.count:.1%}) {have}"


def _named(ids: Sequence[int]) -> str:
    names = ", ".join(map(str, ids[:NAMED]))
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"example{'' if len(ids) == 1 else 's'} {names}{more}"

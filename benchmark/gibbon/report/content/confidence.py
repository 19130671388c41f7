"""How sure a model is when it is right and when it is wrong: histograms of confidence.

They are counted from the outcomes of a run and kept in ``confidence.csv``, so that a record whose
outcomes are not there any more, such as a committed one, still has them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RecordError
from gibbon.core.threat import Epsilon
from gibbon.records.outcomes import OUTCOMES, Outcome, read_outcome
from gibbon.records.run import Evaluation, RunRecord

CONFIDENCE_FILE: Final = "confidence.csv"
BINS: Final = 20

Answer = Literal["right", "wrong"]
Key = tuple[str, str, str, str]  # dataset, model, attack, epsilon as it was written
_HEAD: Final = ("dataset", "model", "attack", "epsilon", "answers", "digest", "examples")
_MEAN: Final = "mean"
_EDGES: Final = tuple(f"{place / BINS:.2f}" for place in range(BINS))


@dataclass(frozen=True)
class Confidence:
    """The confidences of the right or the wrong answers of one cell.

    ``counts`` are those in each of `BINS` equal parts of [0, 1], its upper end in the last;
    ``mean`` is over the ``examples`` counted, None where there are none.
    """

    counts: tuple[int, ...]
    mean: float | None

    @property
    def examples(self) -> int:
        """How many answers these are."""
        return sum(self.counts)

    @property
    def at_least_ninety(self) -> float | None:
        """The share of these answers that were given with a confidence of 0.9 or more."""
        above = sum(self.counts[-BINS // 10 :])
        return above / self.examples if self.examples else None


@dataclass(frozen=True)
class Confidences:
    """What one cell says of both: the answers that are right and those that are wrong."""

    digest: str
    right: Confidence
    wrong: Confidence


def confidences(record: RunRecord, folder: Path) -> Mapping[Key, Confidences]:
    """Returns the histograms of a run whose folder this is, by what they are about.

    From the outcomes where they are there, otherwise from `CONFIDENCE_FILE`, whose rows must be of
    the very cells that the record holds.  Attacks that asked for errors alone have none: they stop
    at the first success, whatever its confidence.  Raises `RecordError` where that file can't be
    read.
    """
    kept = _read(folder / CONFIDENCE_FILE)
    digests = {
        name: {card.digest for card in record.models if card.name == name}
        for name in {card.name for card in record.models}
    }
    found: dict[Key, Confidences] = {}
    for each in record.evaluations:
        if each.status != "done" or not each.digest or each.mean_confidence is None:
            continue  # failed, or asked for its error alone
        outcome = read_outcome(folder / OUTCOMES, each.digest)
        if outcome is not None:
            counted = _counted(each, outcome, digests.get(each.model, set()))
        else:
            counted = kept.get(_key(each))
        if counted is not None and counted.digest == each.digest:
            found[_key(each)] = counted
    return found


def confidence_csv(found: Mapping[Key, Confidences]) -> str:
    """Returns histograms as CSV: a row a cell and kind of answer, a column a bin's lower edge."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_HEAD, _MEAN, *_EDGES])
    for key, each in found.items():
        for answers, of in (("right", each.right), ("wrong", each.wrong)):
            mean = "" if of.mean is None else repr(of.mean)
            writer.writerow([*key, answers, each.digest, of.examples, mean, *of.counts])
    return stream.getvalue()


def key(dataset: str, model: str, attack: str, epsilon: Epsilon) -> Key:
    """Returns what a cell's histograms are found by."""
    return dataset, model, attack, str(epsilon)


def _key(each: Evaluation) -> Key:
    return key(each.dataset, each.model, each.attack, each.epsilon)


def _counted(each: Evaluation, outcome: Outcome, digests: set[str]) -> Confidences | None:
    """Counts the answers of the model that the candidates were made on."""
    known = [digest for digest in outcome.scores if digest in digests]
    if not known:
        return None
    answers = outcome.scores[known[0]]
    wrong = outcome.misclassified(known[0])
    right = answers.predicted == outcome.label
    return Confidences(
        each.digest, _histogram(answers.confidence[right]), _histogram(answers.confidence[wrong])
    )


def _histogram(confidence: NDArray[np.float32]) -> Confidence:
    finite = confidence[np.isfinite(confidence)].astype(np.float64)
    counts, _ = np.histogram(finite, bins=BINS, range=(0.0, 1.0))
    return Confidence(tuple(counts.tolist()), float(finite.mean()) if len(finite) else None)


def _read(path: Path) -> dict[Key, Confidences]:
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return dict(_cells(rows))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        reason = f"it has no column {error}" if isinstance(error, KeyError) else str(error)
        raise RecordError(
            f"{path}: can't be read: {reason}; remove it, or run the suite again"
        ) from error


def _cells(rows: list[dict[str, str]]) -> Iterator[tuple[Key, Confidences]]:
    for right, wrong in zip(rows[::2], rows[1::2], strict=True):
        yield (
            (right["dataset"], right["model"], right["attack"], right["epsilon"]),
            Confidences(right["digest"], _row(right, "right"), _row(wrong, "wrong")),
        )


def _row(row: dict[str, str], answers: Answer) -> Confidence:
    if row["answers"] != answers:
        raise ValueError(f"expected a row of the answers that are {answers}, got {row['answers']}")
    mean = row[_MEAN]
    return Confidence(tuple(int(row[edge]) for edge in _EDGES), float(mean) if mean else None)

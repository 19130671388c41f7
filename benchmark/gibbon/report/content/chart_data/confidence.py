"""Histograms of a model's confidence in its right and in its wrong answers.

They are counted from the outcomes of a run and stored in ``confidence.csv``, so that a record
without its outcomes, such as a committed one, still has them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RecordError
from gibbon.core.plain_text import csv_cell
from gibbon.core.reading import RECORD_BYTES, check_regular
from gibbon.records.checksums import MISMATCH
from gibbon.records.outcomes import OUTCOMES, Outcome, read_outcome
from gibbon.records.run import Evaluation, RunRecord
from gibbon.report.file_names import CONFIDENCE_FILE
from gibbon.report.written_files import is_damaged

BINS: Final = 20

CellKey = tuple[str, str, str, str]  # dataset, model, attack, epsilon as it was written
_HEAD: Final = ("dataset", "model", "attack", "epsilon", "answers", "digest", "examples")
_MEAN: Final = "mean"
_FLAGS: Final = "flags"
_EDGES: Final = tuple(f"{place / BINS:.2f}" for place in range(BINS))


@dataclass(frozen=True)
class Confidence:
    """The confidences of the right or the wrong answers of one cell.

    ``counts`` are the numbers of answers in `BINS` equal bins of [0, 1]; ``mean`` is the mean
    confidence, None without answers.
    """

    counts: tuple[int, ...]
    mean: float | None

    @property
    def examples(self) -> int:
        """The number of answers."""
        return sum(self.counts)

    @property
    def at_least_ninety(self) -> float | None:
        """The share of the answers with a confidence of at least 0.9."""
        above = sum(self.counts[-BINS // 10 :])
        return above / self.examples if self.examples else None


@dataclass(frozen=True)
class Confidences:
    """The confidences of one cell's right and wrong answers; ``digest`` is the cell's."""

    digest: str
    right: Confidence
    wrong: Confidence


def confidences(record: RunRecord, folder: Path) -> Mapping[CellKey, Confidences]:
    """Returns the histograms of a run, by cell.

    They are counted from the outcomes in the run's folder; without outcomes they are read from
    `CONFIDENCE_FILE`, whose digests must be those of the record.  Cells that were run for errors
    only have none, since their attacks stop at the first success, whatever its confidence.

    Raises `RecordError` if that file can't be read.
    """
    kept: dict[CellKey, Confidences] | None = None  # read if an outcome is missing
    found: dict[CellKey, Confidences] = {}
    for each in record.evaluations:
        if each.status != "done" or not each.digest or each.mean_confidence is None:
            continue  # failed, or run for errors only
        outcome = read_outcome(folder / OUTCOMES, each.digest)
        if outcome is not None:
            digests = {card.digest for card in record.models if card.name == each.model}
            counted = _counted(each, outcome, digests)
        else:
            kept = _read(folder / CONFIDENCE_FILE) if kept is None else kept
            counted = kept.get(cell_key(each))
        if counted is not None and counted.digest == each.digest:
            found[cell_key(each)] = counted
    return found


def confidence_csv(found: Mapping[CellKey, Confidences], record: RunRecord) -> str:
    """Returns histograms as CSV: one row for each cell and kind of answer, one column a bin.

    The last column holds the kinds of the flags that affect the cell's row of the record.
    """
    flags = {cell_key(each): each.flags for each in record.evaluations}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_HEAD, _MEAN, *_EDGES, _FLAGS])
    for cell, each in found.items():
        for answers, of in (("right", each.right), ("wrong", each.wrong)):
            mean = "" if of.mean is None else repr(of.mean)
            kinds = flags.get(cell, "")
            names = map(csv_cell, (*cell, answers, each.digest))
            writer.writerow([*names, of.examples, mean, *of.counts, csv_cell(kinds)])
    return stream.getvalue()


def cell_key(row: Evaluation) -> CellKey:
    """Returns the key of a row's histograms."""
    return row.dataset, row.model, row.attack, str(row.epsilon)


def _counted(each: Evaluation, outcome: Outcome, digests: set[str]) -> Confidences | None:
    """Counts the answers of the cell's source model."""
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


def _read(path: Path) -> dict[CellKey, Confidences]:
    if not path.exists():
        return {}
    check_regular(path, RecordError, limit=RECORD_BYTES)
    if is_damaged(path):
        raise RecordError(f"{path}: {MISMATCH}; remove it, or run the suite again")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return dict(_cells(rows))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        reason = f"it has no column {error}" if isinstance(error, KeyError) else str(error)
        raise RecordError(
            f"{path}: can't be read: {reason}; remove it, or run the suite again"
        ) from error


def _cells(rows: list[dict[str, str]]) -> Iterator[tuple[CellKey, Confidences]]:
    for right, wrong in zip(rows[::2], rows[1::2], strict=True):
        yield (
            (right["dataset"], right["model"], right["attack"], right["epsilon"]),
            Confidences(right["digest"], _row(right, "right"), _row(wrong, "wrong")),
        )


def _row(row: dict[str, str], answers: str) -> Confidence:
    if row["answers"] != answers:
        raise ValueError(f"expected a row of the answers that are {answers}, got {row['answers']}")
    mean = row[_MEAN]
    return Confidence(tuple(int(row[edge]) for edge in _EDGES), float(mean) if mean else None)

"""The log of a training: a CSV file with one row an epoch, written during the training."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from gibbon_zoo.atomic import write_in_folder


@dataclass(frozen=True)
class EpochRecord:
    """Figures of one epoch; errors and confidences are fractions of 1, None if not measured.

    Args:
        epoch: its number, from 1.
        loss: mean objective over its batches, dropout and regularisation included.
        learning_rate, momentum: of its last step.
        seconds: duration of the training up to its end, over all resumptions.
        clean_error: error on the held-out examples.
        adversarial_error: error on them under FGSM; under PGD for a user's own model.
        adversarial_confidence: mean confidence on those that the attack made misclassified.
        objective: mean objective on examples that it is to be compared on.
        loss_held_out: mean loss on the held-out examples, unattacked.
        fgsm_error: error on them under FGSM, if ``adversarial_error`` is another attack's.
        fgsm_confidence: mean confidence on those that FGSM made misclassified, likewise.
        note: a sentence about the epoch; empty if there is nothing to note.
    """

    epoch: int
    loss: float
    learning_rate: float
    momentum: float
    seconds: float
    clean_error: float | None = None
    adversarial_error: float | None = None
    adversarial_confidence: float | None = None
    objective: float | None = None
    loss_held_out: float | None = None
    fgsm_error: float | None = None
    fgsm_confidence: float | None = None
    note: str = ""


COLUMNS = ["part", *(field.name for field in fields(EpochRecord))]


def write_log(path: Path, parts: Sequence[tuple[str, Sequence[EpochRecord]]]) -> None:
    """Writes the log of a training, atomically.

    Args:
        path: CSV file.
        parts: name and epochs of each part: the only training, or the search and the second one.

    Raises `RunFolderError` if it can't be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for part, records in parts:
        writer.writerows({"part": part, **_printed(record)} for record in records)
    write_in_folder(path, text.getvalue().encode())


def _printed(record: EpochRecord) -> dict[str, str]:
    values = {
        key: value if isinstance(value, str) else "" if value is None else f"{value:.7g}"
        for key, value in asdict(record).items()
    }
    return {**values, "epoch": str(record.epoch), "seconds": f"{record.seconds:.1f}"}

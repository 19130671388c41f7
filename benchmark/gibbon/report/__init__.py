"""Tables, CSV files, figures and TensorBoard folders, made from a stored run alone.

This needs no torch, no model and no GPU.  Slow imports are made where they are used, so that a
command that only prints starts at once.
"""

from __future__ import annotations

from pathlib import Path

from gibbon.core.files import remove_file, write_atomically
from gibbon.records.run import RunRecord
from gibbon.report.file_names import (
    CELLS_FOLDER,
    CONFIDENCE_FILE,
    EVENTS_FILE,
    OPTIONAL_FILES,
    TABLES_FILE,
    TENSORBOARD_FOLDER,
    TEXT_FILES,
)
from gibbon.report.text.terminal import print_tables

__all__ = ["TABLES_FILE", "print_tables", "table_files", "write_report"]


def table_files(record: RunRecord) -> dict[str, str]:
    """Returns the content of each file of tables that a record is enough for, by name."""
    from gibbon.report.text.csv import csv_files
    from gibbon.report.text.markdown import tables_markdown

    return {**csv_files(record), TABLES_FILE: tables_markdown(record)}


def write_report(record: RunRecord, folder: Path) -> bool:
    """Writes the tables, CSV files and TensorBoard folder of a record, each file atomically.

    ``evaluations.csv``, ``transfer.csv``, ``worst_case.csv``, ``agreement.csv``, ``members.csv``
    if an attack is a list of others, ``bounds.csv`` if there are bounds, ``no_class.csv`` if a
    dataset has inputs without a class, ``confidence.csv``, ``tables.md`` and ``tensorboard/``.
    Histograms of confidence and error curves are made from the outcomes in the folder.

    Returns whether they were written: nothing is, if they are there and were made from the same
    results (see `gibbon.report.written_files`).
    """
    from gibbon.report.written_files import is_up_to_date, remember, source_digest

    made_from = source_digest(record, folder)
    if is_up_to_date(folder, made_from, now=_files_of(folder)):
        return False
    _write_all(record, folder)
    remember(folder, made_from, files=_files_of(folder))
    return True


def _files_of(folder: Path) -> list[Path]:
    """Returns the files in a run's folder that a report writes."""
    texts = (folder / name for name in TEXT_FILES)
    events = ((folder / name).rglob(EVENTS_FILE) for name in (TENSORBOARD_FOLDER, CELLS_FOLDER))
    return [*(path for path in texts if path.exists()), *(path for of in events for path in of)]


def _write_all(record: RunRecord, folder: Path) -> None:
    from gibbon.report.content.chart_data.confidence import confidence_csv, confidences
    from gibbon.report.content.chart_data.distance_curves import whole_curves
    from gibbon.report.tensorboard.writer import write_tensorboard

    files = table_files(record)
    histograms = confidences(record, folder)
    if histograms:
        files[CONFIDENCE_FILE] = confidence_csv(histograms, record)
    for name, content in files.items():
        write_atomically(folder / name, content)
    # Files of an earlier version of the suite.
    for stale in set(OPTIONAL_FILES) - files.keys():
        remove_file(folder / stale)
    write_tensorboard(
        record,
        folder / TENSORBOARD_FOLDER,
        whole=whole_curves(record, folder),
        confidence=histograms,
        pictures=folder,
    )

"""Everything that is made from a stored run alone: tables, CSV files, figures, TensorBoard.

No torch, no model, no GPU.  What is heavy to import is imported where it is used, so that a
command that only prints starts at once.
"""

from __future__ import annotations

from pathlib import Path

from gibbon.core.files import write_atomically
from gibbon.records.run import RunRecord
from gibbon.report.text.terminal import print_tables

__all__ = ["TABLES_FILE", "print_tables", "table_files", "write_report"]

TABLES_FILE = "tables.md"


def table_files(record: RunRecord) -> dict[str, str]:
    """Returns the content of each file of tables that is made from a record alone, by its name."""
    from gibbon.report.text.csv import csv_files
    from gibbon.report.text.markdown import tables_markdown

    return {**csv_files(record), TABLES_FILE: tables_markdown(record)}


def write_report(record: RunRecord, folder: Path) -> None:
    """Writes all that is made from a record into a run's folder, each file whole or not at all.

    ``evaluations.csv``, ``transfer.csv``, ``worst_case.csv``, ``agreement.csv``, ``members.csv``
    where an attack tries others in turn, ``confidence.csv``, ``tables.md`` and the folder
    ``tensorboard``.  The outcomes in the folder give the histograms of confidence, and the curves
    of attacks that look for the nearest example.
    """
    from gibbon.report.content.confidence import CONFIDENCE_FILE, confidence_csv, confidences
    from gibbon.report.content.distance_curves import whole_curves
    from gibbon.report.tensorboard.writer import FOLDER, write_tensorboard
    from gibbon.report.text.csv import MEMBERS_FILE

    files = table_files(record)
    sure = confidences(record, folder)
    if sure:
        files[CONFIDENCE_FILE] = confidence_csv(sure)
    for name, content in files.items():
        write_atomically(folder / name, content)
    for stale in {MEMBERS_FILE, CONFIDENCE_FILE} - files.keys():  # of the suite as it was before
        (folder / stale).unlink(missing_ok=True)
    write_tensorboard(
        record,
        folder / FOLDER,
        whole=whole_curves(record, folder),
        sure=sure,
        pictures=folder,
    )

"""Tables, CSV files, figures and TensorBoard folders, made from a stored run alone.

This needs no torch, no model and no GPU.  Slow imports are made where they are used, so that a
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
    """Returns the content of each file of tables that a record is enough for, by name."""
    from gibbon.report.text.csv import csv_files
    from gibbon.report.text.markdown import tables_markdown

    return {**csv_files(record), TABLES_FILE: tables_markdown(record)}


def write_report(record: RunRecord, folder: Path) -> None:
    """Writes the tables, CSV files and TensorBoard folder of a record, each file atomically.

    ``evaluations.csv``, ``transfer.csv``, ``worst_case.csv``, ``agreement.csv``, ``members.csv``
    if an attack is a list of others, ``bounds.csv`` if there are bounds, ``confidence.csv``,
    ``tables.md`` and ``tensorboard/``.
    Histograms of confidence and error curves are made from the outcomes in the folder.
    """
    from gibbon.report.content.confidence import CONFIDENCE_FILE, confidence_csv, confidences
    from gibbon.report.content.distance_curves import whole_curves
    from gibbon.report.tensorboard.writer import FOLDER, write_tensorboard
    from gibbon.report.text.csv import BOUNDS_FILE, COMPARISONS_FILE, MEMBERS_FILE, SEEDS_FILE

    files = table_files(record)
    histograms = confidences(record, folder)
    if histograms:
        files[CONFIDENCE_FILE] = confidence_csv(histograms, record)
    for name, content in files.items():
        write_atomically(folder / name, content)
    # Files of an earlier version of the suite.
    optional = {BOUNDS_FILE, MEMBERS_FILE, COMPARISONS_FILE, SEEDS_FILE, CONFIDENCE_FILE}
    for stale in optional - files.keys():
        (folder / stale).unlink(missing_ok=True)
    write_tensorboard(
        record,
        folder / FOLDER,
        whole=whole_curves(record, folder),
        confidence=histograms,
        pictures=folder,
    )

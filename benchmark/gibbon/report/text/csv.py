"""The CSV files of a run: one row a record, with the record's fields as columns, in their order.

Rates are fractions of 1 in full precision; an unknown value is an empty cell; an epsilon is printed
as it was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from gibbon.core.plain_text import csv_cell
from gibbon.records.no_class import FoolingRate, NoClassEvaluation, NoClassShare
from gibbon.records.record import Record
from gibbon.records.run import (
    Agreement,
    CertifiedBound,
    Evaluation,
    MemberEvaluation,
    ModelComparison,
    RunRecord,
    SeedStatistics,
    Transfer,
    WorstCase,
)
from gibbon.records.tested_claims import ClaimTest
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.published_numbers.claims import tested_claims
from gibbon.report.content.published_numbers.published_results import (
    PublishedResult,
    published_results,
)
from gibbon.report.file_names import (
    AGREEMENT_FILE,
    BOUNDS_FILE,
    CLAIMS_FILE,
    COMPARISONS_FILE,
    EVALUATIONS_FILE,
    FOOLING_FILE,
    MEMBERS_FILE,
    NO_CLASS_CLASSES_FILE,
    NO_CLASS_FILE,
    PUBLISHED_FILE,
    SEEDS_FILE,
    TRANSFER_FILE,
    WORST_CASE_FILE,
)


def csv_files(record: RunRecord) -> dict[str, str]:
    """Returns the CSV files of a run: name to content.

    `MEMBERS_FILE` is among them if an attack of the run is a list of others, `BOUNDS_FILE`,
    `COMPARISONS_FILE`, `SEEDS_FILE`, `NO_CLASS_FILE`, `FOOLING_FILE`, `PUBLISHED_FILE` and
    `CLAIMS_FILE` if there are such rows.
    """
    files = {
        EVALUATIONS_FILE: csv_text(Evaluation, record.evaluations),
        TRANSFER_FILE: csv_text(Transfer, record.transfers),
        WORST_CASE_FILE: csv_text(WorstCase, record.worst_cases),
        AGREEMENT_FILE: csv_text(Agreement, record.agreements),
    }
    if record.members:
        files[MEMBERS_FILE] = csv_text(MemberEvaluation, record.members)
    if record.bounds:
        files[BOUNDS_FILE] = csv_text(CertifiedBound, record.bounds)
    if record.comparisons:
        files[COMPARISONS_FILE] = csv_text(ModelComparison, record.comparisons)
    if record.seeds:
        files[SEEDS_FILE] = csv_text(SeedStatistics, record.seeds)
    if record.no_class:
        files[NO_CLASS_FILE] = csv_text(NoClassEvaluation, record.no_class)
        files[NO_CLASS_CLASSES_FILE] = csv_text(NoClassShare, record.no_class_shares)
    if record.fooling:
        files[FOOLING_FILE] = csv_text(FoolingRate, record.fooling)
    results = RunLookup(record)
    if record.suite.published:
        files[PUBLISHED_FILE] = csv_text(PublishedResult, tuple(published_results(results)))
    if record.claims:
        files[CLAIMS_FILE] = csv_text(ClaimTest, tuple(tested_claims(results)))
    return files


def csv_text(kind: type[Record], records: Sequence[Record]) -> str:
    """Returns records as CSV, with a header even without records."""
    # Counts stay whole numbers in a column with empty cells.
    return _objects(kind, records).to_csv(index=False, lineterminator="\n")


def frame(kind: type[Record], records: Sequence[Record]) -> pd.DataFrame:
    """Returns records as a data frame with the columns of the CSV file.

    Unknown values are NaN; an epsilon is text, as it was written.
    """
    return _objects(kind, records).infer_objects()


def _objects(kind: type[Record], records: Sequence[Record]) -> pd.DataFrame:
    rows = [[_plain(value) for value in each.model_dump().values()] for each in records]
    return pd.DataFrame(rows, columns=list(kind.model_fields), dtype=object)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return csv_cell(" ".join(map(str, value)))
    return csv_cell(value) if isinstance(value, str) else value

"""Golden files, byte for byte.  To write them again: python tests/made_up.py"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from made_up import GOLDEN, golden_files

from gibbon.records.run import Evaluation, Provenance, RunRecord, Transfer
from gibbon.report.text.csv import csv_files
from gibbon.report.text.markdown import escape, tables_markdown


@pytest.mark.parametrize("name", sorted(golden_files()))
def test_files_are_the_golden_ones(name: str) -> None:
    assert golden_files()[name].encode() == (GOLDEN / name).read_bytes()


def test_the_record_survives_storage_and_gives_the_same_files(
    record: RunRecord, tmp_path: Path
) -> None:
    record.write(tmp_path)
    read_back = RunRecord.read(tmp_path)
    assert csv_files(read_back) == csv_files(record)
    assert tables_markdown(read_back) == tables_markdown(record)


def test_tables_do_not_tell_an_interrupted_and_resumed_run_apart(record: RunRecord) -> None:
    again = record.provenance.model_copy(
        update={
            "started": "2031-01-01T00:00:00+00:00",
            "finished": "2031-01-02T00:00:00+00:00",
            "seconds": 86400.0,
            "computed_cells": 0,
            "reused_cells": 10,
            "platform": "another machine",
            "batch_size": 7,
            "threads": 64,
        }
    )
    slower = tuple(
        each.model_copy(update={"seconds": 99.0, "forward_passes": 1, "backward_passes": 0})
        for each in record.evaluations
    )
    resumed = record.model_copy(update={"provenance": again, "evaluations": slower})
    assert tables_markdown(resumed) == tables_markdown(record)


def test_tables_hold_no_time_path_or_traceback(record: RunRecord) -> None:
    text = tables_markdown(record)
    hidden = Provenance.model_fields.keys() & {"platform", "started", "finished"}
    for name in hidden:
        assert getattr(record.provenance, name) not in text
    assert "not printed" not in text
    assert str(GOLDEN.parents[2]) not in text


def test_csv_columns_are_the_record_fields_in_their_order(record: RunRecord) -> None:
    files = csv_files(record)
    assert files["evaluations.csv"].splitlines()[0] == ",".join(Evaluation.model_fields)
    assert files["transfer.csv"].splitlines()[0] == ",".join(Transfer.model_fields)


def test_csv_numbers_are_exact_and_gaps_are_empty(record: RunRecord) -> None:
    frame = pd.read_csv(GOLDEN / "evaluations.csv", dtype=str, keep_default_na=False)
    for row, each in zip(frame.to_dict("records"), record.evaluations, strict=True):
        if each.adversarial_error_low is None:
            assert row["adversarial_error_low"] == ""
        else:
            assert float(row["adversarial_error_low"]) == each.adversarial_error_low
        assert row["epsilon"] == each.epsilon.text
        assert "." not in row["misclassified"]


def test_csv_of_an_empty_run_still_has_headers(record: RunRecord) -> None:
    empty = record.model_copy(update={"evaluations": (), "transfers": (), "agreements": ()})
    assert csv_files(empty)["evaluations.csv"].splitlines() == [",".join(Evaluation.model_fields)]


def test_every_row_of_every_markdown_table_has_the_columns_of_its_header(
    record: RunRecord,
) -> None:
    widths: list[int] = []
    for line in tables_markdown(record).splitlines():
        if not line.startswith("|"):
            widths.clear()
            continue
        widths.append(len(re.split(r"(?<!\\)\|", line)))
        assert widths[-1] == widths[0], line


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("two\nlines", "two lines"),
        ("<script>", r"\<script>"),
        (r"a\|b", r"a\\\|b"),
        ("maxout_adv 8/255", "maxout_adv 8/255"),
    ],
)
def test_escaping(raw: str, escaped: str) -> None:
    assert escape(raw) == escaped

"""Inputs without a class in every form of a report, from a made-up record."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from made_up import NOWHERE
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gibbon.core.threat import Epsilon
from gibbon.records.no_class import FoolingRate, NoClassEvaluation, NoClassShare
from gibbon.records.run import DatasetCard, RunRecord
from gibbon.report import table_files, write_report
from gibbon.report.content.chapters import chapters
from gibbon.report.content.tables.no_class import MOST_CLASSES, NO_CLASS
from gibbon.report.documents import Document, document
from gibbon.report.file_names import FOOLING_FILE, NO_CLASS_CLASSES_FILE, NO_CLASS_FILE
from gibbon.report.text.terminal import print_tables
from gibbon.specs.suite import Suite

SUITE = Suite.model_validate(
    {
        "name": "noise",
        "experiments": [
            {
                "dataset": {"name": "noise", "source": "rubbish:gaussian", "count": 200},
                "models": ["sure", "modest", "broken", "missing"],
                "fooling": "0.25",
                "against": "data",
            },
            {"dataset": "data", "models": ["sure"]},
        ],
    }
)
SURE: dict[str, Any] = {
    "model": "sure", "false_positive_rate": 0.985, "false_positive_rate_low": 0.957,
    "false_positive_rate_high": 0.995, "false_positives": 197,
    "confidence_on_false_positives": 0.928, "confidence_on_false_positives_low": 0.91,
    "confidence_on_false_positives_high": 0.94, "mean_confidence": 0.92, "top_class": "five",
    "top_class_share": 0.4569, "against": "data", "clean_examples": 50, "auroc": 0.75,
    "auroc_low": 0.7, "auroc_high": 0.8, "false_positive_rate_at_95_tpr": 0.625,
    "false_positive_rate_at_95_tpr_low": 0.55, "false_positive_rate_at_95_tpr_high": 0.69,
    "fooling_rate": 0.5, "fooling_rate_low": 0.45, "fooling_rate_high": 0.55,
}  # fmt: skip
MODEST: dict[str, Any] = {"model": "modest", "false_positive_rate": 0.0, "false_positives": 0}
BROKEN: dict[str, Any] = {"model": "broken", "status": "failed"}


def share(index: int, name: str, count: int) -> NoClassShare:
    part = count / 197
    return NoClassShare(
        dataset="noise", model="sure", index=index, of_class=name, false_positives=197,
        count=count, share=part, share_low=part / 2, share_high=(1 + part) / 2,
    )  # fmt: skip


def rate(index: int, name: str, fooled: int) -> FoolingRate:
    return FoolingRate(
        dataset="noise", model="sure", index=index, of_class=name, step=Epsilon.parse("0.25"),
        direction="sign", examples=200, threshold=0.5, fooling_rate=fooled / 200,
        fooling_rate_low=0.0, fooling_rate_high=1.0, fooled=fooled,
    )  # fmt: skip


@pytest.fixture
def noise() -> RunRecord:
    common = {"dataset": "noise", "examples": 200, "threshold": 0.5}
    shape = (1, 2, 2)
    return RunRecord(
        suite=SUITE,
        status="failed",
        provenance=NOWHERE,
        datasets=(
            DatasetCard(
                name="noise", digest="1", examples=200, of=200, classes=(), input_shape=shape,
                notes=("200 draws of N(0, I), seed 0, not clipped.",), no_class=True,
            ),
            DatasetCard(
                name="data", digest="2", examples=50, of=50, classes=("five", "six"),
                input_shape=shape,
            ),
        ),
        no_class=tuple(
            NoClassEvaluation.model_validate({**common, **each}) for each in (SURE, MODEST, BROKEN)
        ),
        no_class_shares=(share(0, "five", 90), share(1, "six", 107)),
        fooling=(rate(0, "five", 150), rate(1, "six", 50)),
    )  # fmt: skip


def test_the_chapter_has_a_row_a_model_and_says_what_its_numbers_mean(noise: RunRecord) -> None:
    (chapter,) = [each for each in chapters(noise) if each.title == NO_CLASS.title]
    models, classes, fooling = chapter.tables
    rows = {str(row[0]): [str(cell) for cell in row[1:]] for row in models.rows}
    assert rows["sure"][:6] == [
        "98.5 %", "[95.7–99.5]", "197 / 200", "92.8 % [91.0–94.0]", "92.0 %", "five 45.7 %",
    ]  # fmt: skip
    assert rows["sure"][6:9] == [
        "75.0 % [70.0–80.0]", "62.5 % [55.0–69.0]", "50.0 % [45.0–55.0]",
    ]  # fmt: skip
    assert rows["modest"][0] == "0.0 %"
    assert rows["modest"][3] == rows["modest"][5] == rows["modest"][6] == "–"
    assert rows["broken"][0] == "failed"
    assert rows["missing"][0] == "not run"
    notes = " ".join(models.notes)
    assert "not clipped" in notes
    assert "against the inputs of data" in notes
    assert "0.25 times the sign" in notes
    assert [str(row[1]).split()[0] for row in classes.rows] == ["45.7", "54.3"]
    assert [str(row[1]).split()[0] for row in fooling.rows] == ["75.0", "25.0"]
    assert not any("noise" in each.title for each in chapters(noise)[0].tables)


def test_of_many_classes_the_largest_are_shown(noise: RunRecord) -> None:
    shares = tuple(share(each, f"c{each:03}", 3 if each % 40 == 7 else 0) for each in range(1000))
    many = noise.model_copy(update={"no_class_shares": shares})
    (chapter,) = [each for each in chapters(many) if each.title == NO_CLASS.title]
    classes = chapter.tables[1]
    shown = [str(row[0]) for row in classes.rows]
    assert len(shown) == MOST_CLASSES
    assert shown == sorted(shown)
    assert "of 1,000 classes" in classes.notes[0]
    assert all(int(each[1:]) % 40 == 7 for each in shown)


def test_every_row_is_in_the_csv_files(noise: RunRecord) -> None:
    files = table_files(noise)
    rows = {
        name: list(csv.DictReader(io.StringIO(files[name])))
        for name in (NO_CLASS_FILE, NO_CLASS_CLASSES_FILE, FOOLING_FILE)
    }
    assert list(rows[NO_CLASS_FILE][0]) == list(NoClassEvaluation.model_fields)
    assert [each["model"] for each in rows[NO_CLASS_FILE]] == ["sure", "modest", "broken"]
    assert rows[NO_CLASS_FILE][0]["false_positive_rate"] == "0.985"
    assert rows[NO_CLASS_FILE][1]["confidence_on_false_positives"] == ""
    assert [each["count"] for each in rows[NO_CLASS_CLASSES_FILE]] == ["90", "107"]
    assert [each["step"] for each in rows[FOOLING_FILE]] == ["0.25", "0.25"]
    empty = noise.model_copy(update={"no_class": (), "no_class_shares": (), "fooling": ()})
    assert not {NO_CLASS_FILE, NO_CLASS_CLASSES_FILE, FOOLING_FILE} & table_files(empty).keys()


def test_files_of_an_earlier_suite_go(noise: RunRecord, tmp_path: Path) -> None:
    write_report(noise, tmp_path)
    assert (tmp_path / FOOLING_FILE).exists()
    write_report(noise.model_copy(update={"fooling": ()}), tmp_path)
    assert not (tmp_path / FOOLING_FILE).exists()
    assert (tmp_path / NO_CLASS_FILE).exists()


def test_the_documents_and_the_terminal_show_them(noise: RunRecord, tmp_path: Path) -> None:
    page = document(noise, tmp_path, Document.HTML)
    section = re.search(r'<section[^>]*id="no-class".*?</section>', page, re.DOTALL)
    assert section
    for word in ("Inputs without a class", "98.5", "five", "fooling images"):
        assert word in section[0]
    assert "Inputs without a class" in document(noise, tmp_path, Document.MARKDOWN)
    assert r"98.5~\%" in document(noise, tmp_path, Document.LATEX)
    text = io.StringIO()
    print_tables(noise, Console(file=text, width=160))
    assert "98.5 %" in text.getvalue()
    assert "Wanted class" not in text.getvalue()  # tables of classes are in tables.md


def test_tensorboard_has_a_scalar_for_each_measure(noise: RunRecord, tmp_path: Path) -> None:
    write_report(noise, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "noise" / "sure"))
    events.Reload()
    tags = {tag: events.Tensors(tag) for tag in events.Tags()["tensors"]}
    values = {
        tag: [each.tensor_proto.float_val[0] for each in found] for tag, found in tags.items()
    }
    assert values["no_class/false_positive_rate"] == pytest.approx([0.985])
    assert values["no_class/auroc"] == [0.75]
    assert values["no_class/share_of_class"] == pytest.approx([90 / 197, 107 / 197])
    assert values["no_class/fooling_rate_of_class"] == [0.75, 0.25]
    modest = EventAccumulator(str(tmp_path / "tensorboard" / "noise" / "modest"))
    modest.Reload()
    assert modest.Tags()["tensors"] == ["no_class/false_positive_rate"]


def test_a_record_survives_a_round_trip(noise: RunRecord, tmp_path: Path) -> None:
    noise.write(tmp_path)
    assert RunRecord.read(tmp_path) == noise

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from gibbon.core.errors import RecordError
from gibbon.records.run import RunRecord
from gibbon.report import write_report
from gibbon.report.content.chart_data.curves import panels
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.tables.transfer import matrices
from gibbon.report.figures.figure_files import figure_files
from gibbon.report.figures.plots import (
    curve_digest,
    error_curves,
    transfer_heat_map,
)
from tools.docs.pictures import save_error_curves

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", ["curves.svg", "curves.png"])
def test_the_same_record_gives_the_same_bytes_whatever_the_user_set(
    record: RunRecord, tmp_path: Path, name: str
) -> None:
    save_error_curves(record, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    with mpl.rc_context({"svg.hashsalt": "another", "font.size": 22, "axes.facecolor": "red"}):
        save_error_curves(record, tmp_path / name)
        assert mpl.rcParams["font.size"] == 22
    assert (tmp_path / name).read_bytes() == first
    assert curve_digest(record).encode() in first
    assert b"2026" not in first[:2000]


def test_curves_begin_at_the_clean_error_and_leave_out_what_failed(record: RunRecord) -> None:
    (panel,) = panels(record)
    assert (panel.dataset, panel.attack) == ("mnist", "fgsm")
    assert panel.curves.keys() == {"softmax", "maxout"}
    points = panel.curves["maxout"]
    assert [point.epsilon for point in points] == [0.0, 8 / 255, 0.25]
    assert [point.measured.rate for point in points] == [0.011, 0.2, 0.894]


def title_of(svg: bytes) -> str:
    return ElementTree.fromstring(svg).findtext(f"{SVG}title") or ""  # noqa: S314  ours


def test_pictures_say_in_words_what_they_show(record: RunRecord, tmp_path: Path) -> None:
    save_error_curves(record, tmp_path / "curves.svg")
    words = title_of((tmp_path / "curves.svg").read_bytes())
    assert words.startswith("Error against ε. fgsm on mnist: softmax 9.6 % at 0 and ")
    assert "maxout 1.1 % at 0 and 89.4 % at 0.25" in words
    for name, content in figure_files(record, tmp_path):
        if name.endswith(".svg"):
            assert title_of(content), name
        if name.startswith("transfer") and name.endswith("-error.svg"):
            assert "softmax to maxout " in title_of(content)


def test_the_legend_names_each_model_once(record: RunRecord) -> None:
    figure = error_curves(panels(record))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["softmax", "maxout"]


def test_the_digest_changes_with_a_number_that_is_drawn(record: RunRecord) -> None:
    changed = tuple(
        each.model_copy(update={"adversarial_error": 0.5}) if each.adversarial_error else each
        for each in record.evaluations
    )
    assert curve_digest(record.model_copy(update={"evaluations": changed})) != curve_digest(record)


def test_a_heat_map_says_each_number_and_each_failure(record: RunRecord) -> None:
    results = RunLookup(record)
    experiment = results.experiments[0]
    *_, condition = results.transfer_conditions(experiment)
    figure = transfer_heat_map(matrices(results, experiment, condition)[0])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:3] == ["99.9 %", "89.4 %", "not run"]
    assert texts[-3:] == ["failed", "failed", "failed"]
    assert "softmax to softmax 99.9 %, softmax to maxout 89.4 %" in figure.get_label()


def test_no_curve_and_no_such_picture_are_told(record: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no curve to draw"):
        save_error_curves(record.model_copy(update={"evaluations": ()}), tmp_path / "curves.svg")
    with pytest.raises(RecordError, match=r"\.svg or \.png"):
        save_error_curves(record, tmp_path / "curves.gif")
    assert list(tmp_path.iterdir()) == []


def test_write_report_writes_every_file(record: RunRecord, tmp_path: Path) -> None:
    write_report(record, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "agreement.csv",
        "claims.csv",
        "evaluations.csv",
        "model_comparisons.csv",
        "published.csv",
        "tables.md",
        "tensorboard",
        "training_seeds.csv",
        "transfer.csv",
        "worst_case.csv",
    ]

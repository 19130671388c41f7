"""Published numbers drawn beside measured ones: every row that was measured, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up import made_up_record
from test_report_page import Tree, section

from gibbon.records.run import RunRecord
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.html.page import report_html
from gibbon.report.html.published_charts import PublishedChart, published_charts, tally


@pytest.fixture(scope="module")
def charts(record: RunRecord) -> tuple[PublishedChart, ...]:
    return tuple(published_charts(RunLookup(record)))


def test_rows_that_were_measured_are_drawn(charts: tuple[PublishedChart, ...]) -> None:
    (chart,) = charts
    labels = [row.label for row in chart.rows]
    assert labels[0] == "softmax: adversarial error"
    assert "maxout → softmax: transfer error" in labels
    assert not any("broken" in label or "rbf" in label for label in labels)


def test_values_stand_where_the_axis_says(charts: tuple[PublishedChart, ...]) -> None:
    (chart,) = charts
    width = chart.frame.right - chart.frame.left
    row = next(row for row in chart.rows if row.label == "maxout: confidence on misclassified")
    assert row.x == pytest.approx(chart.frame.left + 0.976 * width, abs=0.1)
    main, other = row.found
    assert (main.main, other.main) == (True, False)
    assert main.x == pytest.approx(chart.frame.left + 0.793 * width, abs=0.1)
    assert main.low < main.x < main.high
    assert other.x == pytest.approx(chart.frame.left + 0.9 * width, abs=0.1)
    assert "published 97.6 %, measured 79.3 % [78.1–80.4] under fgsm, 90.0 %" in row.words
    assert "under fgsm-naive" in row.words
    error = chart.rows[0].found[0]
    assert error.low < error.x < error.high


def test_many_rows_make_several_charts(record: RunRecord) -> None:
    rows = record.suite.published * 5
    suite = record.suite.model_copy(update={"published": rows})
    found = tuple(published_charts(RunLookup(record.model_copy(update={"suite": suite}))))
    assert len(found) > 3
    assert max(len(chart.rows) for chart in found) == 12


def test_verdicts_are_counted_and_shown(tmp_path: Path) -> None:
    record = made_up_record()
    rows = tuple(
        each.model_copy(update={"tolerance": 0.01}) if place < 2 else each
        for place, each in enumerate(record.suite.published)
    )
    assert tally(RunLookup(record)) == ()
    judged = record.model_copy(
        update={"suite": record.suite.model_copy(update={"published": rows})}
    )
    assert tally(RunLookup(judged)) == ((1, "reproduced"), (1, "differs"))
    shown = section(Tree(report_html(judged, tmp_path)).root, "published")
    assert "maxout: confidence on misclassified (differs)" in shown.words
    marked = {each.attributes.get("class", "") for each in shown.every("td")}
    assert any("reproduced" in each for each in marked)


def test_a_suite_without_published_rows_has_no_charts(record: RunRecord) -> None:
    suite = record.suite.model_copy(update={"published": ()})
    assert list(published_charts(RunLookup(record.model_copy(update={"suite": suite})))) == []

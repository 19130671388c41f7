"""TensorBoard beyond curves: cells as hyperparameters, histograms, and a layout of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up import EXAMPLES, HIGH, attacked, made_up_record
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from test_report_tensorboard import Events, read_back

from gibbon.records.run import RunRecord
from gibbon.report.content.chart_data.confidence import BINS, Confidence, Confidences
from gibbon.report.tensorboard.writer import CELLS_FOLDER, write_tensorboard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, record: RunRecord) -> Path:
    folder = tmp_path_factory.mktemp("run") / "tensorboard"
    none = Confidence((0,) * BINS, None)
    wrong = Confidence((*[0] * (BINS - 1), EXAMPLES), 0.99)
    confidence = {("mnist", "softmax", "fgsm", str(HIGH)): Confidences("digest", none, wrong)}
    write_tensorboard(record, folder, confidence=confidence)
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> Events:
    return read_back(folder)


def test_each_attacked_cell_is_a_session_with_what_was_asked(runs: Events) -> None:
    cell = runs["_cells/mnist/softmax/pgd/0.25"]
    start = metadata.parse_session_start_info_plugin_data(
        cell[metadata.SESSION_START_INFO_TAG][0].plugin_data.content
    )
    asked = {name: value.WhichOneof("kind") for name, value in start.hparams.items()}
    assert asked["epsilon"] == asked["steps"] == "number_value"
    assert asked["random start"] == asked["clipped"] == "bool_value"
    assert start.hparams["model"].string_value == "softmax"
    assert cell["cell/adversarial error"][1].tensor_proto.float_val[0] == 1.0
    assert "_cells/mnist/softmax/fgsm/8_255" in runs
    assert "_cells/mnist/softmax/none/0" not in runs


def test_every_column_is_declared(runs: Events) -> None:
    declared = metadata.parse_experiment_plugin_data(
        runs["_cells"][metadata.EXPERIMENT_TAG][0].plugin_data.content
    )
    names = {info.name for info in declared.hparam_infos}
    for name, tags in runs.items():
        if metadata.SESSION_START_INFO_TAG in tags:
            start = metadata.parse_session_start_info_plugin_data(
                tags[metadata.SESSION_START_INFO_TAG][0].plugin_data.content
            )
            assert start.hparams.keys() <= names, name
    differing = {info.name for info in declared.hparam_infos if info.differs}
    assert {"model", "attack", "epsilon"} <= differing
    assert "steps" not in differing
    measured = {info.name.tag for info in declared.metric_infos}
    assert {tag for tags in runs.values() for tag in tags if tag.startswith("cell/")} <= measured


def test_a_failed_cell_is_a_failed_session_without_numbers(runs: Events) -> None:
    ends = {}
    for name in ("broken/fgsm/0.25", "softmax/fgsm/0.25"):
        tags = runs[f"_cells/mnist/{name}"]
        content = tags[metadata.SESSION_END_INFO_TAG][0].plugin_data.content
        ends[name] = metadata.parse_session_end_info_plugin_data(content).status
    assert ends == {"broken/fgsm/0.25": STATUS_FAILURE, "softmax/fgsm/0.25": STATUS_SUCCESS}
    assert not any(tag.startswith("cell/") for tag in runs["_cells/mnist/broken/fgsm/0.25"])


def test_the_layout_names_scalars_that_are_there(runs: Events) -> None:
    layout = Layout.FromString(
        runs["_tables"]["custom_scalars__config__"][1].tensor_proto.string_val[0]
    )
    tags = set(runs["mnist/softmax"])
    bands = [
        series for each in layout.category for chart in each.chart for series in chart.margin.series
    ]
    assert {series.value for series in bands} == {
        f"adversarial_error/{attack}" for attack in ("fgsm", "fgsm-naive", "pgd")
    }
    for series in bands:
        assert {series.value, series.lower, series.upper} <= tags


def test_intervals_hold_their_rates(runs: Events) -> None:
    tags = runs["mnist/maxout"]

    def values(tag: str) -> list[float]:
        return [event.tensor_proto.float_val[0] for event in tags[tag][1:]]

    ends = zip(
        values("interval_low/fgsm"),
        values("adversarial_error/fgsm"),
        values("interval_high/fgsm"),
        strict=True,
    )
    assert all(low < rate < high for low, rate, high in ends)


def test_histograms_hold_the_counts_of_each_answer(runs: Events) -> None:
    (summary, event) = runs["mnist/softmax"]["confidence_wrong/fgsm"]
    assert summary.plugin_data.plugin_name == "histograms"
    assert event.step == 250
    values = event.tensor_proto.double_val
    assert len(values) == 3 * BINS
    assert list(values[-3:]) == [0.95, 1.0, EXAMPLES]
    assert "confidence_right/fgsm" not in runs["mnist/softmax"]  # there are none


def test_too_many_cells_to_be_seen_beside_the_rest_have_a_folder(tmp_path: Path) -> None:
    before = made_up_record()
    row = attacked("mnist", "softmax", "fgsm", HIGH, 300)
    many = tuple(row.model_copy(update={"attack": f"attack-{place}"}) for place in range(50))
    record = before.model_copy(update={"evaluations": (*before.evaluations, *many)})
    folder = tmp_path / "tensorboard"
    write_tensorboard(record, folder)
    assert len(read_back(tmp_path / CELLS_FOLDER)) > 50
    assert not any(name.startswith("_cells") for name in read_back(folder))
    write_tensorboard(before, folder)  # fewer again
    assert any(name.startswith("_cells") for name in read_back(folder))
    assert not (tmp_path / CELLS_FOLDER).exists()

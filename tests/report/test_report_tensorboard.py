from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up import HIGH
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator

from gibbon.core.threat import Epsilon
from gibbon.records.run import RunRecord
from gibbon.report.tensorboard.writer import EVENTS_FILE, step_unit, write_tensorboard

Events = dict[str, dict[str, list[Any]]]


def read_back(folder: Path) -> Events:
    """Returns run -> tag -> events, as TensorBoard itself reads them."""
    runs: Events = {}
    for file in folder.rglob(EVENTS_FILE):
        accumulator = EventAccumulator(str(file.parent), size_guidance={TENSORS: 0})
        accumulator.Reload()
        name = file.parent.relative_to(folder).as_posix()
        runs[name] = {tag: accumulator.Tensors(tag) for tag in accumulator.Tags()["tensors"]}
        for tag in runs[name]:
            metadata = accumulator.SummaryMetadata(tag)
            runs[name][tag] = [metadata, *runs[name][tag]]
    return runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, record: RunRecord) -> Events:
    folder = tmp_path_factory.mktemp("run") / "tensorboard"
    write_tensorboard(record, folder)
    return read_back(folder)


def curve(runs: Events, run: str, tag: str) -> list[tuple[int, Any]]:
    metadata, *events = runs[run][tag]
    assert metadata.plugin_data.plugin_name == "scalars"
    return [
        (event.step, pytest.approx(event.tensor_proto.float_val[0], abs=1e-6)) for event in events
    ]


def test_each_model_is_a_run_with_epsilon_as_the_step(runs: Events) -> None:
    assert curve(runs, "mnist/softmax", "adversarial_error/fgsm") == [
        (0, 0.096),
        (31, 0.3),
        (250, 0.999),
    ]
    assert curve(runs, "mnist/maxout", "adversarial_error/fgsm") == [
        (0, 0.011),
        (31, 0.2),
        (250, 0.894),
    ]
    assert curve(runs, "mnist/maxout", "confidence_on_misclassified/fgsm-naive")[-1] == (250, 0.9)


def test_models_share_tags_so_that_their_curves_overlay(runs: Events) -> None:
    assert runs["mnist/softmax"].keys() == runs["mnist/maxout"].keys()
    assert {tag.split("/")[0] for tag in runs["mnist/softmax"]} == {
        "adversarial_error",
        "worst_case_error",
        "attack_success_rate",
        "confidence_on_misclassified",
        "mean_confidence",
        "interval_low",
        "interval_high",
    }


def test_a_failed_cell_is_no_point_and_a_dash_is_none_either(runs: Events) -> None:
    assert "mnist/broken" not in runs
    assert curve(runs, "mnist-3v7/logistic", "confidence_on_misclassified/fgsm") == [(0, 0.5)]


def test_the_unit_of_the_step_is_said(runs: Events) -> None:
    metadata = runs["mnist/softmax"]["adversarial_error/fgsm"][0]
    assert "thousandths" in metadata.summary_description


def test_heat_maps_are_pngs_of_the_size_they_say(runs: Events) -> None:
    metadata, *events = runs["mnist/_figures"]["transfer_fgsm/error"]
    assert metadata.plugin_data.plugin_name == "images"
    assert [event.step for event in events] == [31, 250]
    width, height, png = events[0].tensor_proto.string_val
    assert png.startswith(b"\x89PNG")
    assert int(width) == int.from_bytes(png[16:20], "big") > 100
    assert int(height) == int.from_bytes(png[20:24], "big") > 100
    assert len(runs["mnist/_figures"]) == 4
    assert runs["_figures"].keys() == {"error against epsilon"}


def test_the_text_tab_holds_the_tables(runs: Events) -> None:
    texts = {}
    for tag, (metadata, event) in runs["_tables"].items():
        if metadata.plugin_data.plugin_name == "text":
            texts[tag] = event.tensor_proto.string_val[0].decode()
    assert " failed |" in texts["2. Published and measured"]
    assert any(tag.endswith("Transfer") for tag in texts)


def test_writing_again_replaces_ours_and_nothing_else(tmp_path: Path, record: RunRecord) -> None:
    folder = tmp_path / "tensorboard"
    foreign = folder / "mnist" / "training" / "events.out.tfevents.1.host"
    notes = folder / "notes.txt"
    stale = folder / "mnist" / "removed" / EVENTS_FILE
    for path in (foreign, notes, stale):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("here before")
    write_tensorboard(record, folder)
    first = {path: path.read_bytes() for path in folder.rglob(EVENTS_FILE)}
    write_tensorboard(record, folder)
    assert {path: path.read_bytes() for path in folder.rglob(EVENTS_FILE)} == first
    assert foreign.read_text() == notes.read_text() == "here before"
    assert not stale.parent.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tensorboard"]


def test_steps_become_finer_where_epsilons_would_collide() -> None:
    near = [Epsilon.parse("1/255"), Epsilon.parse("0.004"), HIGH]
    unit = step_unit(near)
    assert unit.words == "millionths"
    assert [unit.step(each) for each in near] == [3922, 4000, 250000]
    assert step_unit([Epsilon.parse("0.0001")]).words == "millionths"  # or it would be step 0


def test_nothing_of_the_report_imports_torch() -> None:
    script = (
        "import sys, pkgutil, importlib, gibbon.report as report\n"
        "for module in pkgutil.iter_modules(report.__path__):\n"
        "    importlib.import_module(f'gibbon.report.{module.name}')\n"
        "print(sorted({'torch', 'torchvision', 'tensorflow'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"

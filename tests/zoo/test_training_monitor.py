"""TensorBoard during a training: what is written, what it does not change, and resumption."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_trainings import Stop, blobs, ignore, stop_at
from tensorboard.backend.event_processing.plugin_event_accumulator import TENSORS, EventAccumulator
from tensorboard.plugins.hparams import metadata
from test_own_training import NET, OBJECTIVES, VARIED, assert_equal, fit_often, request
from torch import nn

from gibbon.core.errors import RunFolderError
from gibbon.core.threat import PIXEL_BOUNDS
from gibbon.datasets.base import Batch
from gibbon.models.outputs import LOGITS
from gibbon.models.registry import TrainingRequest
from gibbon.report.figures.picture_grid import grid_png
from gibbon_zoo.learner import HeldExamples
from gibbon_zoo.maxout import Maxout
from gibbon_zoo.own import train_own
from gibbon_zoo.trained_network import TrainedNetwork
from gibbon_zoo.training_monitor import first_filters, graph_of, last_hidden
from gibbon_zoo.zoo import train

EVENTS = Path("tensorboard")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")
    inputs, labels = blobs(200)
    for name, rows in (("train", slice(0, 150)), ("val", slice(150, 200))):
        np.savez(f"{name}.npz", inputs=inputs[rows].numpy(), labels=labels[rows].numpy())
    return tmp_path


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={TENSORS: 0})
    found.Reload()
    return found


def curve(found: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(each.step, each.tensor_proto.float_val[0]) for each in found.Tensors(tag)]


def steps(found: EventAccumulator, tag: str) -> list[int]:
    return [each.step for each in found.Tensors(tag)]


@pytest.mark.usefixtures("files")
def test_everything_is_written_and_the_weights_are_those_without_it() -> None:
    asked = request("seen", OBJECTIVES["fgsm"], **VARIED)
    seen = train_own(replace(asked, epochs=6, tensorboard=EVENTS))
    assert_equal(seen, train_own(replace(asked, output=Path("unseen"), epochs=6)))
    assert not Path("unseen/tensorboard").exists()

    trained, unseen, recipe = (
        read(Path("seen/tensorboard", run)) for run in ("train", "validation", "recipe")
    )
    epochs = list(range(1, 7))
    for tag in ("loss", "error", "saturation"):
        assert steps(trained, tag) == steps(unseen, tag) == epochs
    for tag in (
        "learning_rate",
        "momentum",
        "weight_norm",
        "gradient_norm",
        "weight_norm/0.weight",
    ):
        assert steps(trained, tag) == epochs
    for tag in ("error/fgsm", "error/pgd"):
        assert steps(unseen, tag) == epochs
    rows = [line.split(",") for line in Path("seen/net.log.csv").read_text().splitlines()]
    for tag, column in (("error/pgd", "adversarial_error"), ("error/fgsm", "fgsm_error")):
        logged = [float(row[rows[0].index(column)]) for row in rows[1:]]
        assert [value for _, value in curve(unseen, tag)] == pytest.approx(logged)
    total = math.sqrt(
        sum(
            curve(trained, tag)[-1][1] ** 2
            for tag in trained.Tags()["tensors"]
            if tag.startswith("weight_norm/")
        )
    )
    assert curve(trained, "weight_norm")[-1][1] == pytest.approx(total)
    for tag in ("weights/0.weight", "logits", "first_layer"):
        assert steps(trained, tag) == [1, 5]
    assert steps(unseen, "adversarial") == [1, 5]
    assert unseen.Tensors("adversarial")[0].tensor_proto.string_val[2].startswith(b"\x89PNG")
    assert len(trained.Graph().node) > 8
    names = {node.name for node in trained.Graph().node}
    assert any("BatchNorm2d" in name for name in names)

    folder = Path("seen/tensorboard/train")
    points = [line.split("\t") for line in (folder / "embedding.tsv").read_text().splitlines()]
    assert (len(points), len(points[0])) == (50, 16)
    assert len((folder / "embedding_labels.tsv").read_text().splitlines()) == 50
    config = (folder / "projector_config.pbtxt").read_text()
    assert "single_image_dim: 4\n    single_image_dim: 3" in config
    assert (folder / "embedding.png").exists()

    assert recipe.Tags()["tensors"].count("final/adversarial error, PGD") == 1
    data = recipe.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    given = metadata.parse_session_start_info_plugin_data(data).hparams
    assert given["objective.name"].string_value == "fgsm"
    assert given["batch_size"].number_value == 32
    assert "dataset_digest" not in given
    assert metadata.SESSION_END_INFO_TAG in recipe.Tags()["tensors"]


@pytest.mark.usefixtures("files")
def test_a_resumed_training_writes_no_epoch_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gibbon_zoo.training.REPORT_STEPS", 1)
    asked = replace(request("parts", OBJECTIVES["pgd"]), tensorboard=EVENTS)
    # Stops in epoch 3 without a checkpoint, then begins anew and stops with one.
    with pytest.raises(Stop):
        train_own(replace(asked, report=stop_at(13)))
    monkeypatch.setattr("gibbon_zoo.procedure.fit_learner", fit_often)
    with pytest.raises(Stop):
        train_own(replace(asked, report=stop_at(12)))
    train_own(asked)
    for run in ("train", "validation"):
        found = read(Path("parts/tensorboard", run))
        assert steps(found, "loss") == [1, 2, 3, 4]
    assert len(list(Path("parts/tensorboard/train").glob("events*"))) == 2


def test_events_of_repeated_epochs_are_void(tmp_path: Path) -> None:
    from gibbon.report.tensorboard.event_file import EventRun
    from gibbon.report.tensorboard.training_events import TRAIN, TrainingEvents

    for first, last in ((1, 5), (3, 6), (6, 8)):
        events = TrainingEvents(tmp_path, first_step=first)
        for epoch in range(first, last + 1):
            run = EventRun(0.0)
            run.scalar("loss", 10.0 * first + epoch, step=epoch)
            events.add(TRAIN, run)
    sessions = {1: 1, 2: 1, 3: 3, 4: 3, 5: 3, 6: 6, 7: 6, 8: 6}
    expected = [(epoch, 10.0 * first + epoch) for epoch, first in sessions.items()]
    assert curve(read(tmp_path / "train"), "loss") == expected
    TrainingEvents(tmp_path, first_step=1).add(TRAIN, EventRun(0.0))
    assert [path.name[-4:] for path in (tmp_path / "train").iterdir()] == ["0001"]


@pytest.mark.usefixtures("files")
def test_a_folder_that_can_not_be_written_is_refused_and_a_later_fault_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = replace(request("out", OBJECTIVES["standard"]), tensorboard=EVENTS)
    Path("out").mkdir()
    Path("out/tensorboard").write_text("a file", encoding="utf-8")
    with pytest.raises(RunFolderError, match="tensorboard: can't be written"):
        train_own(asked)
    Path("out/tensorboard").unlink()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gibbon.report.tensorboard.event_file.EventLog.add", full)
    monkeypatch.setattr("gibbon_zoo.monitor_settings.MonitorSettings.begin", lambda self: None)
    result = train_own(asked)
    assert any("no more events are written" in note for note in result.notes)
    assert result.weights.exists()


@pytest.mark.usefixtures("files")
def test_the_events_of_another_training_are_kept(tmp_path: Path) -> None:
    """Of another name in this folder, or of another folder with the same place for its events."""
    asked = replace(request("out", OBJECTIVES["standard"]), tensorboard=EVENTS)
    train_own(asked)
    before = {each: each.read_bytes() for each in Path("out").rglob("events*")}
    assert before
    assert asked.own is not None
    renamed = replace(asked.own, model=asked.own.model.model_copy(update={"name": "other"}))
    shared = Path("out/tensorboard").absolute()
    for other in (
        replace(asked, own=renamed),
        replace(asked, output=Path("elsewhere"), tensorboard=shared, fresh=True),
    ):
        with pytest.raises(RunFolderError, match=r"TensorBoard files of the training .*out/net: c"):
            train_own(other)
    assert not Path("elsewhere").exists()
    assert {each: each.read_bytes() for each in Path("out").rglob("events*")} == before
    train_own(replace(asked, own=renamed, tensorboard=Path("other-events")))
    Path("out").rename("moved")
    train_own(replace(asked, output=Path("moved"), fresh=True, epochs=2))
    assert steps(read(Path("moved/tensorboard/train")), "loss") == [1, 2]


def test_trainings_of_the_zoo_write_events_and_the_same_weights(tmp_path: Path) -> None:
    plain = train("logistic", TrainingRequest(tmp_path / "plain", ignore, epochs=2))
    seen = TrainingRequest(tmp_path / "seen", ignore, epochs=2, tensorboard=EVENTS)
    assert train("logistic", seen).weights.read_bytes() == plain.weights.read_bytes()
    found = read(tmp_path / "seen/tensorboard/train")
    assert steps(found, "error/fgsm") == steps(found, "loss") == [1, 2]
    assert steps(found, "first_layer") == [1]
    recipe = read(tmp_path / "seen/tensorboard/recipe")
    assert curve(recipe, "final/adversarial error, FGSM")[0][1] > 0.9


def held(count: int = 9) -> HeldExamples:
    inputs, labels = blobs(count)
    return HeldExamples(Batch(torch.arange(count), inputs, labels))


def test_the_last_hidden_layer_is_what_the_outputs_are_made_of() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 4))
    hidden, inputs, labels = last_hidden(TrainedNetwork(net, net, LOGITS, PIXEL_BOUNDS), held())
    assert np.allclose(hidden, net[:3](torch.from_numpy(inputs)).detach().numpy())
    assert labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    # The zoo's last matrix is no submodule: the layer below it is the last that returns.
    maxout = Maxout(inputs=12, classes=4, units=6, pieces=2)
    shown, _, _ = last_hidden(TrainedNetwork(maxout, maxout, LOGITS, PIXEL_BOUNDS), held())
    assert shown.shape == (9, 6)


def test_filters_are_those_of_pictures_alone() -> None:
    conv = nn.Sequential(nn.Conv2d(1, 5, 2), nn.Flatten(), nn.Linear(30, 4))
    filters = first_filters(conv, held())
    assert filters is not None
    assert filters.shape == (2, 3, 1, 2, 2)
    assert filters.min() == 0
    assert filters.max() == 1
    assert grid_png(filters).startswith(b"\x89PNG")
    assert first_filters(nn.Linear(5, 4), held()) is None


def test_a_model_that_can_not_be_traced_has_no_graph() -> None:
    class Odd(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no")

    assert graph_of(Odd(), torch.zeros(1, 2)) is None
    assert graph_of(nn.Linear(2, 3), torch.zeros(1, 2))

"""A user's own model: objectives against written-out forms, resumption, stopping, and faults."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_trainings import Stop, blobs, ignore, stop_at
from torch import Tensor, nn
from torch.nn import functional

from gibbon.core.errors import DatasetError, ModelError, RequestError, RunFolderError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import PIXEL_BOUNDS
from gibbon.datasets.base import Batch
from gibbon.models.outputs import LOGITS
from gibbon.models.registry import OwnTraining, TrainingProgress, TrainingRequest, TrainingResult
from gibbon.specs.suite import DatasetSpec, ModelSpec
from gibbon_zoo.learner import HeldExamples
from gibbon_zoo.own import train_own
from gibbon_zoo.own_card import read_own_card
from gibbon_zoo.own_learner import OwnLearner
from gibbon_zoo.own_measurement import (
    OwnFigures,
    guessing_note,
    measure_network,
    overfitting_note,
)
from gibbon_zoo.own_objectives import adversarial_loss, augment, objective_threat, replay
from gibbon_zoo.own_probe import is_same_probe, probe_network
from gibbon_zoo.own_recipe import Augmentation, OwnObjective, own_recipe
from gibbon_zoo.trained_network import TrainedNetwork
from gibbon_zoo.training import Origin, _Course, fit_learner

NET = """
from torch import nn

def build(dropout=0.2):
    return nn.Sequential(
        nn.Conv2d(1, 6, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
        nn.Linear(36, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 4),
    )
"""
EPSILON = 0.1
OBJECTIVES: dict[str, dict[str, Any]] = {
    "standard": {"name": "standard"},
    "fgsm": {"name": "fgsm", "epsilon": "0.1"},
    "pgd": {"name": "pgd", "epsilon": "0.1", "steps": 3},
    "pgd in L2": {"name": "pgd", "epsilon": "0.3", "steps": 3, "norm": "l2"},
    "trades": {"name": "trades", "epsilon": "0.1", "steps": 3},
    "free": {"name": "free", "epsilon": "0.1", "replays": 3},
}


def network(seed: int = 0) -> TrainedNetwork:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4))
    return TrainedNetwork(net, net, LOGITS, PIXEL_BOUNDS)


def gradient(net: TrainedNetwork, points: Tensor, labels: Tensor) -> Tensor:
    leaf = points.clone().requires_grad_()
    loss = functional.cross_entropy(net.module(leaf), labels, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


def start_of(inputs: Tensor, key: int) -> Tensor:
    """A uniform point of the ball, clipped to [0, 1]."""
    noise = ExampleStreams.derive(key, torch.arange(len(inputs))).uniform(inputs.shape[1:])
    return (inputs + EPSILON * (2 * noise - 1)).clamp(0, 1)


# The objectives, written out


@pytest.mark.parametrize(("name", "step", "steps"), [("fgsm", 1.25, 1), ("pgd", 0.25, 10)])
def test_fgsm_and_pgd_train_on_projected_ascent_from_a_random_start(
    name: str, step: float, steps: int
) -> None:
    net, (x, y) = network(), blobs(24)
    objective = OwnObjective.model_validate({"name": name, "epsilon": "0.1"})
    points = start_of(x, 7)
    for _ in range(steps):
        points = points + step * EPSILON * gradient(net, points, y).sign()
        points = points.clamp(x - EPSILON, x + EPSILON).clamp(0, 1)
    expected = functional.cross_entropy(net.module(points), y)
    got = adversarial_loss(net, objective, x, y, key=7)
    assert torch.allclose(got, expected, rtol=1e-5)
    assert got > functional.cross_entropy(net.module(x), y)


def test_the_objective_of_goodfellow_et_al_is_fgsm_without_a_random_start() -> None:
    net, (x, y) = network(), blobs(24)
    fields = {"name": "fgsm", "epsilon": "0.1", "step_size": "0.1", "alpha": 0.5}
    objective = OwnObjective.model_validate({**fields, "random_start": False})
    points = (x + EPSILON * gradient(net, x, y).sign()).clamp(0, 1)
    losses = [functional.cross_entropy(net.module(at), y) for at in (x, points)]
    got = adversarial_loss(net, objective, x, y, key=0)
    assert torch.allclose(got, 0.5 * losses[0] + 0.5 * losses[1], rtol=1e-5)
    with pytest.raises(ValueError, match="alpha is a parameter of fgsm and pgd, not of trades"):
        OwnObjective.model_validate({"name": "trades", "epsilon": "0.1", "alpha": 0.5})


def test_trades_adds_the_divergence_at_the_point_that_ascends_it() -> None:
    net, (x, y) = network(), blobs(24)
    objective = OwnObjective(name="trades", epsilon="0.1", steps=4, beta=3.0)  # type: ignore[arg-type]
    clean = net.module(x).softmax(1).detach()
    noise = ExampleStreams.derive(5, torch.arange(24)).normal(x.shape[1:])
    points = (x + 0.001 * noise).clamp(0, 1)

    def divergence(at: Tensor) -> Tensor:
        return (clean * (clean.log() - net.module(at).log_softmax(1))).sum(1)

    for _ in range(4):
        leaf = points.clone().requires_grad_()
        (slope,) = torch.autograd.grad(divergence(leaf).sum(), leaf)
        points = points + 2.5 / 4 * EPSILON * slope.sign()
        points = points.clamp(x - EPSILON, x + EPSILON).clamp(0, 1)
    expected = functional.cross_entropy(net.module(x), y) + 3.0 * divergence(points).mean()
    got = adversarial_loss(net, objective, x, y, key=5)
    assert torch.allclose(got, expected, rtol=1e-4)
    # Unlike the usual form, the clean probabilities take part in the gradient.
    got.backward()  # type: ignore[no-untyped-call]
    assert all(each.grad is not None for each in net.module.parameters())


def test_free_updates_the_perturbation_with_the_gradient_of_the_step() -> None:
    net, (x, y) = network(), blobs(10)
    objective = OwnObjective.model_validate(OBJECTIVES["free"])
    before = 0.05 * torch.randn(12, *x.shape[1:], generator=torch.Generator().manual_seed(1))
    loss, after = replay(net, objective, x, y, perturbation=before)
    points = (x + before[:10]).clamp(x - EPSILON, x + EPSILON).clamp(0, 1)
    assert torch.allclose(loss, functional.cross_entropy(net.module(points), y))
    slope = gradient(net, points, y).sign()
    assert torch.allclose(after[:10], (before[:10] + EPSILON * slope).clamp(-EPSILON, EPSILON))
    assert torch.equal(after[10:], before[10:])
    assert all(each.grad is not None for each in net.module.parameters())


@pytest.mark.parametrize(("mode", "batches"), [("eval", 1), ("train", 4)])
def test_the_adversary_touches_running_statistics_in_training_mode_alone(
    mode: str, batches: int
) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    own = TrainedNetwork(net, net, LOGITS, PIXEL_BOUNDS)
    objective = OwnObjective.model_validate({**OBJECTIVES["pgd"], "adversary_mode": mode})
    x, y = blobs(16)
    net.train()
    adversarial_loss(own, objective, x, y, key=0)
    assert int(net[2].num_batches_tracked) == batches  # type: ignore[arg-type]
    assert all(part.training for part in net.modules())


def test_a_linear_model_is_measured_at_its_closed_form() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    x = 0.3 + 0.4 * torch.rand(200, 1, 3, 4)
    y = (torch.rand(200) < 0.5).long()
    own = TrainedNetwork(net, net, LOGITS, PIXEL_BOUNDS)
    weight = net[1].weight[1] - net[1].weight[0]
    score = (net(x)[:, 1] - net(x)[:, 0]) * (2 * y - 1)
    expected = float((score - EPSILON * weight.abs().sum() < 0).double().mean())  # type: ignore[operator]
    threat = objective_threat(own, OwnObjective.model_validate(OBJECTIVES["fgsm"]))
    held = HeldExamples(Batch(torch.arange(200), x, y))
    found = measure_network(own, held, threat, steps=10, batch_size=64)
    assert found.fgsm_error == found.pgd_error == pytest.approx(expected)
    assert found.clean_error == pytest.approx(float((score < 0).double().mean()))
    assert 0 < found.clean_error < expected < 1


def test_the_figures_of_a_network_do_not_hang_on_the_scale_of_its_outputs() -> None:
    torch.manual_seed(0)
    last = nn.Linear(8, 2)  # of two classes, so that the scale does not change the direction
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), last)
    own, (x, _) = TrainedNetwork(net, net, LOGITS, PIXEL_BOUNDS), blobs(200)
    y = net(x).argmax(1)
    threat = objective_threat(own, OwnObjective.model_validate(OBJECTIVES["pgd"]))
    held = HeldExamples(Batch(torch.arange(200), x, y))
    found = []
    for factor in (1.0, 2.0**13):
        with torch.no_grad():
            last.weight.mul_(factor)
            last.bias.mul_(factor)
        figures = measure_network(own, held, threat, steps=10, batch_size=64)
        found.append((figures.clean_error, figures.fgsm_error, figures.pgd_error))
    leads = net(x).detach().diff(dim=1).abs()
    assert float(leads.median()) > 300  # the loss of most rounds to 0, and its gradient with it
    assert found[0] == pytest.approx(found[1], abs=0.006)
    assert found[0][0] == 0
    assert 0.1 < found[0][1] < 0.9


def test_with_an_adversary_noise_stays_in_the_bounds() -> None:
    own, (x, y) = network(), blobs(32)
    for name, inside in (("pgd", True), ("standard", False)):
        fields = {
            "model": "net.py:build",
            "dataset": "x.npz",
            "objective": OBJECTIVES[name],
            "noise": {"kind": "uniform", "epsilon": "0.5"},
        }
        held = HeldExamples(Batch(torch.arange(32), x, y))
        learner = OwnLearner(own, own_recipe(fields), held, start=own.module.state_dict())
        varied = learner._varied(x, 3)
        assert not torch.equal(varied, x)
        assert (float(varied.min()) >= 0 and float(varied.max()) <= 1) is inside


def test_replays_share_a_batch_and_its_changes_in_a_second_part_too() -> None:
    own, (x, y) = network(), blobs(33)
    fields = {
        "model": "net.py:build",
        "dataset": "x.npz",
        "objective": OBJECTIVES["free"],
        "batch_size": 8,
        "epochs": 3,
        "optimiser": {"name": "sgd", "learning_rate": 0.05},
    }
    held = HeldExamples(Batch(torch.arange(33), x, y))
    learner = OwnLearner(own, own_recipe(fields), held, start=own.module.state_dict())
    course = _Course(learner, origin=Origin({}, updates=5, epoch=1))
    chunks = [chunk for step in (0, 5, 10) for chunk in course.chunks(step)]
    assert [course.position(step).updates for step in (0, 7)] == [5, 12]
    drawn = [course.key(step) // 3 for step in range(15)]
    assert drawn == [2 + step // 3 for step in range(15)]  # the first part drew 0 and 1
    for step in range(15):
        assert torch.equal(chunks[step], chunks[step // 3 * 3])


def test_pictures_are_flipped_and_shifted_by_whole_pixels() -> None:
    x = torch.rand(64, 2, 5, 6) + 0.1
    flipped = augment(x, Augmentation(flip=True), key=3, low=0.0)
    same = (flipped == x).flatten(1).all(1)
    assert torch.equal(flipped[~same], x[~same].flip(3))
    assert 15 < int(same.sum()) < 49
    moved = augment(x, Augmentation(shift=2), key=3, low=-1.0)
    found = set()
    for before, after in zip(x, moved, strict=True):
        padded = functional.pad(before, (2, 2, 2, 2), value=-1.0)
        places = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if torch.equal(padded[:, row : row + 5, column : column + 6], after)
        ]
        assert len(places) == 1
        found.update(places)
    assert len(found) > 15


# The training


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network's file and arrays of 150 training and 50 validation examples, in this folder."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")
    inputs, labels = blobs(200)
    for name, rows in (("train", slice(0, 150)), ("val", slice(150, 200))):
        np.savez(f"{name}.npz", inputs=inputs[rows].numpy(), labels=labels[rows].numpy())
    return tmp_path


def data(name: str) -> DatasetSpec:
    return DatasetSpec(name=name, source=f"{name}.npz", layout="NCHW")


def request(
    output: str,
    objective: Mapping[str, Any],
    report: Callable[[TrainingProgress], None] = ignore,
    *,
    validation: bool = True,
    **settings: Any,
) -> TrainingRequest:
    own = OwnTraining(
        ModelSpec(name="net", model="net.py:build"),
        data("train"),
        data("val") if validation else None,
        {"objective": objective, "batch_size": 32, "watched.steps": 3, **settings},
    )
    return TrainingRequest(Path(output), report, epochs=4, own=own)


def weights(result: TrainingResult) -> dict[str, Tensor]:
    return load_file(result.weights)


def assert_equal(one: TrainingResult, other: TrainingResult) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def logged(folder: str) -> list[dict[str, str]]:
    with Path(folder, "net.log.csv").open(encoding="utf-8") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


VARIED = {
    "augmentation": {"flip": True, "shift": 1},
    "noise": {"kind": "uniform", "epsilon": "0.05"},
    "max_norm": 2.0,
    "l1_decay": {"0.weight": 0.001},
}


@pytest.mark.parametrize("kind", OBJECTIVES)
@pytest.mark.usefixtures("files")
def test_interrupted_and_resumed_is_the_same_bit_for_bit(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gibbon_zoo.training.REPORT_STEPS", 1)
    monkeypatch.setattr("gibbon_zoo.procedure.fit_learner", fit_often)
    objective = OBJECTIVES[kind]
    whole = train_own(request("whole", objective, **VARIED))
    for step in (3, 7, 12):
        with pytest.raises(Stop):
            train_own(request("parts", objective, stop_at(step), **VARIED))
    before = torch.random.get_rng_state()
    resumed = train_own(request("parts", objective, **VARIED))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_equal(resumed, whole)
    assert logged("parts") == logged("whole")
    assert not list(Path("parts").glob("*checkpoint*"))
    other = train_own(replace(request("other", objective, **VARIED), seed=1))
    assert not torch.equal(weights(other)["0.weight"], weights(whole)["0.weight"])


def fit_often(*given: Any, **named: Any) -> Any:
    return fit_learner(*given, checkpoint_seconds=0.0, **named)


@pytest.mark.parametrize("second", ["again", "continue"])
@pytest.mark.usefixtures("files")
def test_a_second_training_uses_the_held_out_examples_and_resumes(
    second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gibbon_zoo.training.REPORT_STEPS", 1)
    monkeypatch.setattr("gibbon_zoo.procedure.fit_learner", fit_often)
    settings = {
        "stopping": {"second": second, "held_out": 40},
        "optimiser": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.5},
    }
    whole = train_own(request("whole", OBJECTIVES["pgd"], validation=False, **settings))
    for step in (5, 18):
        with pytest.raises(Stop):
            train_own(
                request("parts", OBJECTIVES["pgd"], stop_at(step), validation=False, **settings)
            )
    assert_equal(
        train_own(request("parts", OBJECTIVES["pgd"], validation=False, **settings)), whole
    )
    assert {row["part"] for row in logged("whole")} == {"search", "second"}
    assert "40 held-out training examples, trained on too" in whole.summary


@pytest.mark.usefixtures("files")
def test_a_module_trained_halfway_starts_its_second_training_where_it_once_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gibbon_zoo.training.REPORT_STEPS", 1)
    monkeypatch.setattr("gibbon_zoo.procedure.fit_learner", fit_often)
    settings = {"stopping": {"second": "again", "held_out": 40}}

    def train(module: nn.Module, output: str, report: Any = ignore) -> TrainingResult:
        asked = request(output, OBJECTIVES["fgsm"], report, validation=False, **settings)
        assert asked.own is not None
        return train_own(replace(asked, own=replace(asked.own, module=module)))

    whole = train(network(3).module, "whole")
    module = network(3).module
    left: list[int] = []

    def stop(progress: TrainingProgress) -> None:
        left.pop()
        if not left:
            raise Stop

    for reports in (5, 13):  # of the first part, and of both: it has 16 steps
        left = [*range(reports)]
        with pytest.raises(Stop):
            train(module, "parts", stop)
    assert {row["part"] for row in logged("parts")} == {"search"}
    assert_equal(train(module, "parts"), whole)
    names = sorted(path.name for path in Path("parts").iterdir())
    assert names == sorted(path.name for path in Path("whole").iterdir())
    assert "net.start.safetensors" not in names


@pytest.mark.usefixtures("files")
def test_the_best_epoch_is_kept_and_measured_as_stored() -> None:
    result = train_own(request("out", OBJECTIVES["pgd"], **{"stopping.patience": 2}))
    card = read_own_card(result.card)
    errors = card.watched
    logged_errors = [float(row["adversarial_error"]) for row in logged("out")]
    assert errors == pytest.approx(logged_errors)
    assert card.epochs == 1 + errors.index(min(errors))
    assert len(errors) <= card.epochs + 2
    torch.manual_seed(0)
    scope: dict[str, Any] = {}
    exec(NET, scope)  # noqa: S102
    net = scope["build"]()
    net.load_state_dict(weights(result))
    inputs, labels = blobs(200)
    wrong = net.eval()(inputs[150:]).argmax(1) != labels[150:]
    assert card.figures.clean_error == pytest.approx(float(wrong.double().mean()))
    assert "on 50 validation examples" in result.summary


@pytest.mark.usefixtures("files")
def test_adversarial_training_lowers_the_adversarial_error() -> None:
    linear = "return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))"
    Path("net.py").write_text(CLASSES + linear, encoding="utf-8")

    def pgd_error(name: str) -> float:
        asked = request(
            name, {"epsilon": "0.15", "name": name}, **{"optimiser.learning_rate": 0.02}
        )
        found = read_own_card(train_own(replace(asked, epochs=40)).card).figures.pgd_error
        assert found is not None
        return found

    plain = pgd_error("standard")
    hardened = {name: pgd_error(name) for name in ("pgd", "trades", "fgsm", "free")}
    assert max(hardened.values()) < plain - 0.1, (plain, hardened)


@pytest.mark.usefixtures("files")
def test_a_finished_training_is_not_repeated_and_another_recipe_refused() -> None:
    first = train_own(request("out", OBJECTIVES["fgsm"]))
    again = train_own(request("out", OBJECTIVES["fgsm"]))
    assert again.summary == f"{first.summary}; it was there already"
    with pytest.raises(RunFolderError, match=r"another recipe: objective .*--fresh"):
        train_own(request("out", OBJECTIVES["pgd"]))
    inputs, labels = blobs(200)
    np.savez("train.npz", inputs=inputs[:150].numpy() * 0.5, labels=labels[:150].numpy())
    with pytest.raises(RunFolderError, match="the training examples had other content"):
        train_own(request("out", OBJECTIVES["fgsm"]))
    train_own(replace(request("out", OBJECTIVES["pgd"]), fresh=True))


@pytest.mark.usefixtures("files")
def test_validation_examples_with_the_content_of_the_training_examples_are_refused() -> None:
    Path("val.npz").write_bytes(Path("train.npz").read_bytes())
    with pytest.raises(RequestError, match="the validation examples are the training examples"):
        train_own(request("out", OBJECTIVES["standard"]))
    assert not Path("out").exists()


@pytest.mark.usefixtures("files")
def test_two_trainings_of_one_name_are_not_made_in_one_folder_at_once() -> None:
    said: list[str] = []

    def start_another(progress: TrainingProgress) -> None:
        for rate in () if said else (0.1, 0.001):
            other = request("out", OBJECTIVES["standard"], **{"optimiser.learning_rate": rate})
            with pytest.raises(RunFolderError) as refused:
                train_own(other)
            said.append(str(refused.value))

    alone = train_own(request("alone", OBJECTIVES["standard"]))
    result = train_own(request("out", OBJECTIVES["standard"], start_another))
    assert said == ["out: another training of 'net' is using this folder"] * 2
    assert_equal(result, alone)


FAULTY = """
import sys
from torch import nn

class Faulty(nn.Sequential):
    def forward(self, inputs):
        if self.training and len(inputs) > 2:
            FAULT
        return super().forward(inputs)

def build():
    return Faulty(nn.Flatten(), nn.Linear(12, 4))
"""


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raise KeyError('no table')", "KeyError: 'no table'"),
        ("raise ValueError('odd')", "ValueError: odd"),
        ("sys.exit(0)", "it ended the program, with exit code 0"),
    ],
)
@pytest.mark.usefixtures("files")
def test_an_exception_of_the_models_code_names_the_model(fault: str, said: str) -> None:
    Path("net.py").write_text(FAULTY.replace("FAULT", fault), encoding="utf-8")
    with pytest.raises(ModelError) as raised:
        train_own(request("out", OBJECTIVES["fgsm"]))
    assert str(raised.value).startswith(f"model 'net': its code failed: {said} (")
    assert "net.py, line 8" in str(raised.value)


@pytest.mark.usefixtures("files")
def test_the_seed_of_a_request_replaces_that_of_its_settings() -> None:
    asked = request("out", OBJECTIVES["standard"], seed=7, epochs=9)
    card = read_own_card(train_own(replace(asked, seed=3, epochs=2)).card)
    assert (card.recipe.seed, card.recipe.epochs) == (3, 2)


@pytest.mark.usefixtures("files")
def test_a_training_of_one_epoch_proves_no_overfitting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gibbon_zoo.own_measurement.OVERFITTED_GAP", -1.0)
    monkeypatch.setattr("gibbon_zoo.own_measurement.OVERFITTED_EXAMPLES", -1000)
    for epochs, noted in ((1, False), (2, True)):
        asked = request(f"out-{epochs}", OBJECTIVES["fgsm"], validation=epochs > 1)
        notes = train_own(replace(asked, epochs=epochs)).notes
        assert any(note.startswith(("epoch", "catastrophic")) for note in notes) is noted


@pytest.mark.usefixtures("files")
def test_weights_start_from_the_seed() -> None:
    def start(seed: int) -> Tensor:
        asked = request("x", OBJECTIVES["standard"], **{"optimiser.learning_rate": 1e-12})
        result = train_own(replace(asked, seed=seed, output=Path(f"seed-{seed}"), epochs=1))
        return weights(result)["0.weight"]

    assert not torch.allclose(start(0), start(1), atol=1e-3)


def test_catastrophic_overfitting_is_noted() -> None:
    def figures(fgsm: float, pgd: float, examples: int = 100) -> OwnFigures:
        return OwnFigures(
            examples=examples,
            loss=1.0,
            clean_error=0.1,
            clean_confidence=0.9,
            fgsm_error=fgsm,
            pgd_error=pgd,
        )

    note = overfitting_note(figures(0.12, 0.93))
    assert note.startswith("catastrophic overfitting")
    assert "93.0 % under PGD" in note
    assert "12.0 % under FGSM" in note
    assert not overfitting_note(figures(0.4, 0.5))
    assert not overfitting_note(figures(0.0, 0.3, examples=10))


@pytest.mark.usefixtures("files")
def test_overfitting_is_said_in_the_report_the_log_and_the_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gibbon_zoo.own_measurement.OVERFITTED_GAP", -1.0)
    monkeypatch.setattr("gibbon_zoo.own_measurement.OVERFITTED_EXAMPLES", -1000)
    notes: list[str] = []
    result = train_own(
        request("out", OBJECTIVES["fgsm"], lambda progress: notes.append(progress.note))
    )
    said = [note for note in notes if note]
    rows = [row["note"] for row in logged("out")]
    assert len(rows) == 4
    assert not rows[0]  # hardly trained
    assert all(row.startswith("catastrophic overfitting") for row in rows[1:])
    assert said == rows[1:2]  # of epochs in succession the first alone is reported
    assert any(note.startswith("epoch 2: catastrophic overfitting") for note in result.notes)
    assert read_own_card(result.card).notes == result.notes
    notes.clear()
    train_own(
        request("plain", {"name": "standard", "epsilon": "0.1"}, lambda p: notes.append(p.note))
    )
    assert not any(notes)


def test_a_last_batch_of_one_example_is_filled_up() -> None:
    own, (x, y) = network(), blobs(33)
    recipe = own_recipe(
        {
            "model": "net.py:build",
            "dataset": "x.npz",
            "objective.name": "standard",
            "batch_size": 16,
        }
    )
    held = HeldExamples(Batch(torch.arange(33), x, y))
    learner = OwnLearner(own, recipe, held, start=own.module.state_dict())
    chunks = _Course(learner, origin=None).chunks(0)
    assert [len(chunk) for chunk in chunks] == [16, 16, 2]
    assert len(set(torch.cat(chunks).tolist())) == 33


# Faults


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"objective.name": "pgd"}, "needs a budget: epsilon"),
        ({"objective.name": "pdg"}, "unknown objective 'pdg'; did you mean 'pgd'"),
        ({"objective.name": "fgsm", "objective.epsilon": 0}, "must be above 0"),
        (
            {"objective.name": "fgsm", "objective.epsilon": 0.1, "objective.steps": 3},
            "steps is a parameter of pgd and trades, not of fgsm",
        ),
        ({"objective.name": "standard", "epoch": 3}, "did you mean 'epochs'"),
        (
            {"objective.name": "standard", "stopping.second": "again", "validation": "val.npz"},
            "leave out validation",
        ),
        (
            {"objective.name": "standard", "optimiser.rates": {"0.wieght": 0.1}},
            "did you mean '0.weight'",
        ),
        ({"objective.name": "standard", "augmentation.flip": 3}, "augmentation.flip"),
        (
            {"objective.name": "standard", "augmentation.shift": 3},
            r"augmentation.shift: a shift by 3 pixels .* shape \(1, 3, 4\)",
        ),
        ({"objective.name": "standard", "model_probe": [1]}, "it is filled in by the training"),
        (
            {"objective.name": "standard", "stopping": False, "stopping.patience": 3},
            "stopping.patience: it has no use without early stopping",
        ),
    ],
)
@pytest.mark.usefixtures("files")
def test_a_wrong_recipe_is_refused(settings: dict[str, Any], said: str) -> None:
    own = OwnTraining(ModelSpec(name="net", model="net.py:build"), data("train"), None, settings)
    with pytest.raises(RequestError, match=said):
        train_own(TrainingRequest(Path("out"), ignore, own=own))
    assert not Path("out").exists()


BAD = {
    "no parameter": "return nn.Flatten()",
    "frozen": "return nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).requires_grad_(False)",
    "detached": "return Detached()",
    "tuple": "return Pair()",
    "few outputs": "return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))",
    "half": "return nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).half()",
}
CLASSES = """
from torch import nn
class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(12, 4)
    def forward(self, x):
        return self.inner(x.flatten(1)).detach()
class Pair(Detached):
    def forward(self, x):
        out = self.inner(x.flatten(1))
        return (out, out) if self.training else out
def build():
    """
SAID = {
    "no parameter": "no parameter that can be trained",
    "frozen": "no parameter that can be trained",
    "detached": "don't depend on a parameter",
    "tuple": "in training mode it must return a tensor of shape .* got tuple",
    "few outputs": "it has 3 outputs, dataset 'train' has labels up to 3",
    "half": "training needs float32",
}


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.usefixtures("files")
def test_a_model_that_can_not_be_trained_is_refused(fault: str) -> None:
    Path("net.py").write_text(CLASSES + BAD[fault], encoding="utf-8")
    with pytest.raises(ModelError, match=f"model 'net': .*{SAID[fault]}"):
        train_own(request("out", OBJECTIVES["standard"]))
    assert not Path("out").exists()


@pytest.mark.usefixtures("files")
def test_validation_of_another_kind_is_refused() -> None:
    np.savez("val.npz", inputs=np.zeros((4, 1, 5, 5), np.float32), labels=np.arange(4))
    with pytest.raises(DatasetError, match=r"has inputs of shape \(1, 3, 4\), the validation"):
        train_own(request("out", OBJECTIVES["standard"]))


@pytest.mark.parametrize(
    ("before", "after", "ended"),
    [
        ("nn.ReLU(), nn.Flatten", "nn.Tanh(), nn.Flatten", True),
        ("nn.Linear(36, 16)", "nn.Linear(36, 16, bias=False)", True),
        ("dropout=0.2", "dropout=0.6", False),
    ],
)
@pytest.mark.usefixtures("files")
def test_a_training_of_other_code_is_not_taken_for_this_one(
    before: str, after: str, ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gibbon_zoo.training.REPORT_STEPS", 1)
    monkeypatch.setattr("gibbon_zoo.procedure.fit_learner", fit_often)
    if ended:
        train_own(request("out", OBJECTIVES["fgsm"]))
    else:
        with pytest.raises(Stop):
            train_own(request("out", OBJECTIVES["fgsm"], stop_at(6)))
    files = {file: file.read_bytes() for file in Path("out").iterdir() if file.is_file()}
    assert NET.count(before) == 1
    Path("net.py").write_text(NET.replace(before, after), encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"the model's code or structure was another.*--fresh"):
        train_own(request("out", OBJECTIVES["fgsm"]))
    assert {file: file.read_bytes() for file in files} == files
    Path("net.py").write_text("# the same\n" + NET, encoding="utf-8")
    train_own(request("out", OBJECTIVES["fgsm"]))


@pytest.mark.usefixtures("files")
def test_a_training_from_another_weights_file_is_not_taken_for_this_one() -> None:
    first = train_own(request("first", OBJECTIVES["fgsm"]))
    Path("start.safetensors").write_bytes(first.weights.read_bytes())

    def asked() -> TrainingRequest:
        made = request("out", OBJECTIVES["fgsm"])
        assert made.own is not None
        model = ModelSpec(name="net", model="net.py:build", weights="start.safetensors")
        return replace(made, own=replace(made.own, model=model))

    made = train_own(asked())
    assert train_own(asked()).summary == f"{made.summary}; it was there already"
    Path("start.safetensors").write_bytes(made.weights.read_bytes())
    with pytest.raises(RunFolderError, match="the weights file that it starts from had other"):
        train_own(asked())


def test_a_probe_is_of_the_code_and_leaves_the_network_as_it_was() -> None:
    def made(seed: int, dropout: float = 0.2) -> TrainedNetwork:
        torch.manual_seed(seed)
        scope: dict[str, Any] = {}
        exec(NET, scope)  # noqa: S102
        net = scope["build"](dropout)
        return TrainedNetwork(net, net, LOGITS, PIXEL_BOUNDS)

    one = made(0)
    one.module(torch.rand(5, 1, 3, 4))  # moves running statistics
    one.module[3].eval()
    state = {key: value.clone() for key, value in one.module.state_dict().items()}
    drawn = torch.random.get_rng_state()
    found = probe_network(one, (1, 3, 4))
    assert len(found) == 2 * (2 + len(list(one.module.parameters())))
    assert all(torch.equal(value, state[key]) for key, value in one.module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert one.module.training
    assert not one.module[3].training
    assert all(each.grad is None for each in one.module.parameters())
    assert is_same_probe(found, probe_network(made(1), (1, 3, 4)))
    assert not is_same_probe(found, probe_network(made(0, 0.3), (1, 3, 4)))
    assert probe_network(one, (2, 3, 4)) == ()  # it fails on such inputs


@pytest.mark.usefixtures("files")
def test_data_without_classes_are_refused() -> None:
    made = request("out", OBJECTIVES["fgsm"], validation=False)
    assert made.own is not None
    bare = DatasetSpec(name="bare", source="train.npz", layout="NCHW", classes="none")
    with pytest.raises(DatasetError, match="'bare' has inputs of no class: training needs labels"):
        train_own(replace(made, own=replace(made.own, dataset=bare)))


@pytest.mark.usefixtures("files")
def test_what_a_number_can_not_be_trusted_for_is_noted() -> None:
    wide = {"name": "fgsm", "epsilon": "8"}
    notes = train_own(request("wide", wide)).notes
    assert any("epsilon 8 is as wide as the box [0, 1]: did you mean 8/255?" in n for n in notes)
    assert any("the network only guesses" in note for note in notes)
    assert not any("only guesses" in n for n in train_own(request("x", OBJECTIVES["fgsm"])).notes)


def test_a_network_that_is_no_better_than_one_answer_guesses() -> None:
    figures = OwnFigures(
        examples=40, loss=2.0, clean_error=0.75, clean_confidence=0.3, guess_error=0.75
    )
    assert "75.0 %, is no lower than that of one answer" in guessing_note(figures, on="validation")
    better = figures.model_copy(update={"clean_error": 0.725})
    assert guessing_note(better, on="validation") == ""
    assert guessing_note(figures.model_copy(update={"guess_error": None}), on="x") == ""


@pytest.mark.usefixtures("files")
def test_overfitting_is_noted_where_no_examples_are_held_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measured(*given: Any, **named: Any) -> OwnFigures:
        found = measure_network(*given, **named)
        return found.model_copy(update={"fgsm_error": 0.1, "pgd_error": 0.9})

    monkeypatch.setattr("gibbon_zoo.own.measure_network", measured)
    whole = request("out", OBJECTIVES["fgsm"], validation=False, stopping=False)
    (note,) = (each for each in train_own(whole).notes if "catastrophic" in each)
    assert "the error on training examples (none were held out) is 90.0 % under PGD" in note


@pytest.mark.usefixtures("files")
def test_the_last_examples_are_not_held_out_if_they_are_of_one_class() -> None:
    inputs, labels = blobs(200)
    order = labels.argsort()
    np.savez("train.npz", inputs=inputs[order].numpy(), labels=labels[order].numpy())
    with pytest.raises(RequestError, match="the last 20 examples are all of class 3: hold out"):
        train_own(
            request("out", OBJECTIVES["fgsm"], validation=False, **{"stopping.split": "last"})
        )


def test_names_of_parameters_may_be_given_with_their_dots() -> None:
    fields = {
        "model": "net.py:build",
        "dataset": "train.npz",
        "objective.name": "standard",
        "l1_decay.fc.weight": 0.01,
        'optimiser.rates."fc.weight"': 0.5,
    }
    found = own_recipe(fields)
    assert dict(found.l1_decay) == {"fc.weight": 0.01}
    assert dict(found.optimiser.rates) == {"fc.weight": 0.5}


@pytest.mark.parametrize(
    ("file", "settings", "optimiser"),
    [
        ("", {}, ("adam", 0.001, "linear")),
        ("", {"stopping.second": "continue"}, ("adam", 0.001, "constant")),
        ("", {"stopping": {"second": "again"}}, ("adam", 0.001, "constant")),
        ("", {"stopping": {"patience": 5}}, ("adam", 0.001, "linear")),
        ("[stopping]\npatience = 5", {}, ("adam", 0.001, "linear")),
        ('[stopping]\nsecond = "again"', {}, ("adam", 0.001, "constant")),
        ('[stopping]\nsecond = "again"', {"stopping.patience": 5}, ("adam", 0.001, "constant")),
        ('[stopping]\nsecond = "again"', {"stopping": False}, ("adam", 0.001, "linear")),
        ('[stopping]\nsecond = "again"', {"stopping.second": "none"}, ("adam", 0.001, "linear")),
        ("", {"optimiser.name": "sgd"}, ("sgd", 0.05, "linear")),
        ("", {"optimiser": {"name": "sgd"}}, ("sgd", 0.05, "linear")),
        ('[optimiser]\nname = "sgd"', {}, ("sgd", 0.05, "linear")),
        ('[optimiser]\nname = "sgd"', {"optimiser.learning_rate": 0.1}, ("sgd", 0.1, "linear")),
        ('[optimiser]\nname = "sgd"', {"optimiser.name": "adam"}, ("adam", 0.001, "linear")),
        ('[optimiser]\nname = "sgd"\nlearning_rate = 0.1', {}, ("sgd", 0.1, "constant")),
    ],
)
def test_fields_that_are_not_given_have_the_usual_values(
    file: str, settings: dict[str, Any], optimiser: tuple[str, float, str], tmp_path: Path
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(file, encoding="utf-8")
    needed = {"model": "net.py:build", "dataset": "train.npz", "objective.name": "standard"}
    found = own_recipe({**needed, **settings}, file=path).optimiser
    assert (found.name, found.learning_rate, found.schedule) == optimiser


def test_recipes_are_compared_by_the_parameters_that_an_objective_has() -> None:
    taken = OwnObjective.model_validate({"name": "trades", "epsilon": "0.1"}).taken()
    assert taken == {
        "name": "trades",
        "epsilon": "0.1",
        "norm": "linf",
        "adversary_mode": "eval",
        "steps": 10,
        "step_size": pytest.approx(0.025),
        "beta": 6.0,
    }
    assert OwnObjective(name="standard").taken() == {"name": "standard"}

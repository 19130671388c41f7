"""Early stopping and the three ways to go on from the best epoch."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from small_trainings import ORIGINAL, Stop, build, examples, flat, ignore, recipe
from torch import Tensor

from gibbon.datasets.base import Batch
from gibbon.models.registry import TrainingProgress
from gibbon_zoo.architecture import Architecture
from gibbon_zoo.early_stopping import EarlyStopping, best_epoch, held_out_positions
from gibbon_zoo.learner import HeldExamples, mean_over
from gibbon_zoo.measurement import held_out_figures
from gibbon_zoo.procedure import Trained, train_network
from gibbon_zoo.recipe import Recipe
from gibbon_zoo.training import Origin, ZooLearner, fit, fit_learner

STOPPING = {"measure": "clean_error", "held_out": 56, "split": "last", "patience": 3}
ALL = 200
SHOWN = ALL - 56


def plan(second: str = "continue", **changes: object) -> Recipe:
    stopping = {**STOPPING, "second": second}
    return recipe(**{**ORIGINAL, "epochs": 30, "stopping": stopping, **changes})


def train(
    plan: Recipe, folder: Path, report: Callable[[TrainingProgress], None] = ignore
) -> Trained:
    return train_network(
        plan, partial(build, plan), examples(ALL), stem=str(folder / "net"), report=report
    )


def mean_objective(
    module: Architecture, recipe: Recipe, *, inputs: Tensor, labels: Tensor
) -> float:
    held = HeldExamples(Batch(torch.arange(len(labels)), inputs, labels))
    return mean_over(ZooLearner(module, recipe, held))


def logged(folder: Path) -> list[dict[str, str]]:
    with (folder / "net.log.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


ADVERSARIAL = {
    "adversarial": {"alpha": 0.5, "epsilon": "0.1"},
    "stopping": {**STOPPING, "measure": "adversarial_error", "second": "continue"},
}


@pytest.mark.parametrize("changes", [{}, ADVERSARIAL], ids=["clean", "adversarial"])
def test_the_second_training_is_the_first_one_continued_on_all_examples(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    """Written out from the parts: search, target, and steps until the objective is down to it."""
    recipe = plan(**changes)
    assert recipe.stopping is not None
    result = train(recipe, tmp_path / "whole")
    data = examples(ALL)
    kept, unseen = held_out_positions(recipe.stopping, ALL, seed=0)
    epsilon = recipe.stopping.fgsm_epsilon(recipe)
    assert epsilon == (0.1 if changes else 0.0)
    figures = partial(
        held_out_figures, inputs=data.inputs[unseen], labels=data.labels[unseen], epsilon=epsilon
    )
    rule = EarlyStopping(figures, recipe.stopping.measure, 3)
    search = fit(
        build(recipe),
        recipe,
        inputs=data.inputs[kept],
        labels=data.labels[kept],
        checkpoint=tmp_path / "search.pt",
        report=ignore,
        rule=rule,
    )
    errors = rule.errors(search.history)
    assert result.watched == tuple(errors)
    assert result.epochs == best_epoch(errors)
    assert len(errors) == result.epochs + 3
    assert search.best is not None
    best = build(recipe)
    best.load_state_dict(dict(search.best))
    objective = partial(mean_objective, recipe=recipe)
    target = objective(best, inputs=data.inputs[kept], labels=data.labels[kept])
    assert result.target == pytest.approx(target)

    # The learning rate goes on from the best epoch, and the momentum is the one that it had.
    rows = [row for row in logged(tmp_path / "whole") if row["part"] == "second"]
    assert result.second_epochs == len(rows)
    assert 1 <= len(rows) < 30
    updates = result.epochs * 9  # batches of 16 from 144
    momentum = min(0.5 + 0.2 * (result.epochs - 1) / 2, 0.7)
    for number, row in enumerate(rows, 1):
        assert int(row["epoch"]) == result.epochs + number
        rate = max(0.2 / 1.01 ** (updates + 13 * number - 1), 0.12)
        assert float(row["learning_rate"]) == pytest.approx(rate)
        assert float(row["momentum"]) == pytest.approx(momentum)
    objectives = [float(row["objective"]) for row in rows]
    assert all(value > target for value in objectives[:-1])
    assert objectives[-1] <= target
    assert result.objective == pytest.approx(objectives[-1], rel=1e-6)

    second = fit(
        build(recipe),
        recipe.override(epochs=len(rows)),
        inputs=data.inputs,
        labels=data.labels,
        checkpoint=tmp_path / "second.pt",
        report=ignore,
        origin=Origin(search.best, updates, result.epochs),
    )
    assert torch.equal(flat(second.module), flat(result.module))


def test_a_target_that_is_not_reached_ends_the_second_training_with_the_epochs(
    tmp_path: Path,
) -> None:
    # A large rate and little time: the held-out examples are learnt no better than the others.
    hasty = plan(epochs=1, optimiser={"name": "sgd", "learning_rate": 1e-6})
    result = train(hasty, tmp_path)
    assert result.second_epochs == 1
    assert result.target is not None
    assert result.objective is not None
    reports: list[TrainingProgress] = []
    train(hasty, tmp_path / "again", reports.append)
    assert reports[-1].step == reports[-1].steps


@pytest.mark.parametrize("second", ["continue", "again", "none"])
def test_interrupted_in_any_part_it_ends_with_the_same_weights_and_log(
    tmp_path: Path, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gibbon_zoo.training.REPORT_STEPS", 3)
    monkeypatch.setattr(
        "gibbon_zoo.procedure.fit_learner", partial(fit_learner, checkpoint_seconds=0.0)
    )
    whole = train(plan(second), tmp_path / "whole")
    seen: list[int] = []

    def stop_now_and_then(progress: TrainingProgress) -> None:
        seen.append(progress.step)
        if len(seen) % 4 == 0:
            raise Stop

    interruptions = 0
    while True:
        try:
            parts = train(plan(second), tmp_path / "parts", stop_now_and_then)
            break
        except Stop:
            interruptions += 1
    assert interruptions >= 3
    assert torch.equal(flat(parts.module), flat(whole.module))
    assert (parts.watched, parts.epochs, parts.target) == (
        whole.watched,
        whole.epochs,
        whole.target,
    )
    rows = [
        [{key: value for key, value in row.items() if key != "seconds"} for row in logged(folder)]
        for folder in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert rows[0] == rows[1]


def test_again_trains_a_new_network_on_all_for_the_best_number_of_epochs(tmp_path: Path) -> None:
    again = train(plan("again"), tmp_path / "again")
    assert again.second_epochs is again.target is None
    alone = train(plan(stopping=None, epochs=again.epochs), tmp_path / "alone")
    assert torch.equal(flat(again.module), flat(alone.module))
    assert alone.epochs is None
    parts = [row["part"] for row in logged(tmp_path / "again")]
    assert parts == ["search"] * len(again.watched) + ["second"] * (again.epochs or 0)
    assert {row["part"] for row in logged(tmp_path / "alone")} == {"training"}


def test_without_a_second_training_the_best_parameters_are_the_result(tmp_path: Path) -> None:
    result = train(plan("none"), tmp_path)
    data = examples(ALL)
    figures = held_out_figures(
        result.module, inputs=data.inputs[SHOWN:], labels=data.labels[SHOWN:], epsilon=0.0
    )
    assert figures.clean_error == min(result.watched)
    assert len(logged(tmp_path)) == len(result.watched)


def test_the_objective_is_measured_without_a_trace(tmp_path: Path) -> None:
    for changes in ({}, ADVERSARIAL, {"noise": {"kind": "sign", "epsilon": "0.1"}}):
        recipe = plan(**changes)
        net = build(recipe)
        data = examples(ALL)
        random = torch.Generator().manual_seed(0)
        net.start(data.inputs, data.labels, spread=0.1, generator=random)
        before = flat(net).clone()
        measure = partial(mean_objective, net, recipe, inputs=data.inputs, labels=data.labels)
        assert measure() == measure()
        assert torch.equal(flat(net), before)
        assert all(p.grad is None and p.requires_grad for p in net.parameters())
    # Without dropout it is the mean loss, whatever the batches; and the adversary adds to it.
    still = plan(dropout={})
    loss = torch.nn.functional.cross_entropy(net(data.inputs), data.labels)
    got = mean_objective(net, still, inputs=data.inputs, labels=data.labels)
    assert got == pytest.approx(loss.item(), rel=1e-5)
    harder = plan(dropout={}, **ADVERSARIAL)
    assert mean_objective(net, harder, inputs=data.inputs, labels=data.labels) > got

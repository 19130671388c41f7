"""Early stopping: the right epoch, its parameters, and the same after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_trainings import (
    ORIGINAL,
    SGD,
    Stop,
    blobs,
    build,
    fitted,
    flat,
    ignore,
    recipe,
    stop_at,
)
from torch import Tensor

from gibbon.core.errors import SpecError
from gibbon.models.registry import TrainingProgress
from gibbon_zoo.architecture import Architecture
from gibbon_zoo.early_stopping import (
    EarlyStopping,
    HeldOutFigures,
    ObjectiveMatch,
    best_epoch,
    held_out_positions,
    validation_split,
)
from gibbon_zoo.measurement import held_out_figures
from gibbon_zoo.recipe import Stopping
from gibbon_zoo.training import Fitted
from gibbon_zoo.training_checkpoint import read_training_checkpoint
from gibbon_zoo.training_log import EpochRecord

STEPS = 13  # an epoch of 200 examples in batches of 16


def history(errors: list[float]) -> list[EpochRecord]:
    return [
        EpochRecord(epoch, 1.0, 0.1, 0.0, 1.0, clean_error=error)
        for epoch, error in enumerate(errors, 1)
    ]


def watching(errors: list[float], patience: int, seen: list[Tensor]) -> EarlyStopping:
    """A rule that reads the errors one after the other, and notes the parameters."""
    coming = iter(errors)

    def figures(module: Architecture) -> HeldOutFigures:
        seen.append(flat(module).clone())
        return HeldOutFigures(clean_error=next(coming))

    return EarlyStopping(figures, "clean_error", patience)


PLAN = recipe(**{**ORIGINAL, "epochs": 9})
READ = [0.5, 0.3, 0.4, 0.3, 0.2]  # the fifth is never read: two epochs brought nothing lower


def search(
    folder: Path,
    seen: list[Tensor],
    report: Callable[[TrainingProgress], None] = ignore,
    *,
    every: float = 0.0,
) -> Fitted:
    done = read_training_checkpoint(folder / "checkpoint.pt", PLAN)
    coming = READ[len(done.history) if done else 0 :]
    return fitted(PLAN, folder, report, every=every, rule=watching(coming, 2, seen))


def test_training_ends_when_its_error_does_not_fall_and_the_best_is_kept(tmp_path: Path) -> None:
    seen: list[Tensor] = []
    whole = search(tmp_path, seen)
    assert [record.clean_error for record in whole.history] == READ[:4]
    assert best_epoch(READ[:4]) == 2
    assert whole.best is not None
    kept = build(PLAN)
    kept.load_state_dict(dict(whole.best))
    assert torch.equal(flat(kept), seen[1])
    assert torch.equal(flat(whole.module), seen[3])
    assert not torch.equal(seen[1], seen[3])


@pytest.mark.parametrize("step", [20, 40])
def test_an_interrupted_search_ends_with_the_same_epoch_parameters_and_log(
    tmp_path: Path, step: int
) -> None:
    """Interrupted before the best epoch ends, and after it."""
    whole = search(tmp_path / "whole", [])
    with pytest.raises(Stop):
        search(tmp_path / "parts", [], stop_at(step))
    parts = search(tmp_path / "parts", [])
    again = search(tmp_path / "parts", [])  # which is finished
    for other in (parts, again):
        assert torch.equal(flat(other.module), flat(whole.module))
        assert whole.best is not None
        assert other.best is not None
        for name, value in whole.best.items():
            assert torch.equal(other.best[name], value)
        assert len(other.history) == len(whole.history) == 4
        for before, after in zip(whole.history, other.history, strict=True):
            assert (after.epoch, after.loss) == (before.epoch, before.loss)
            assert (after.learning_rate, after.momentum) == (before.learning_rate, before.momentum)
            assert after.clean_error == before.clean_error
        assert all(first.seconds <= second.seconds for first, second in pairwise(other.history))
    end = read_training_checkpoint(tmp_path / "parts" / "checkpoint.pt", PLAN)
    assert end is not None
    assert end.step == 4 * STEPS


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=12), st.integers(1, 4))
def test_patience_counts_epochs_without_a_lower_error(errors: list[float], patience: int) -> None:
    rule = EarlyStopping(lambda module: HeldOutFigures(), "clean_error", patience)
    best, waited = float("inf"), 0
    for end, error in enumerate(errors, 1):
        best, waited = (error, 0) if error < best else (best, waited + 1)
        assert rule.ended(history(errors[:end])) == (waited >= patience)
        assert rule.keeps(history(errors[:end])) == (waited == 0)


def test_the_error_under_fgsm_may_decide_and_must_be_measured() -> None:
    rule = EarlyStopping(lambda module: HeldOutFigures(), "adversarial_error", 1)
    records = [
        EpochRecord(1, 1.0, 0.1, 0.0, 1.0, clean_error=0.3, adversarial_error=0.5),
        EpochRecord(2, 1.0, 0.1, 0.0, 1.0, clean_error=0.4, adversarial_error=0.4),
        EpochRecord(3, 1.0, 0.1, 0.0, 1.0, clean_error=0.2, adversarial_error=0.4),
    ]
    assert rule.errors(records) == [0.5, 0.4, 0.4]
    assert rule.keeps(records[:2])
    assert rule.ended(records)
    with pytest.raises(SpecError, match="adversarial_error was not measured"):
        rule.errors(history([0.1]))


def test_a_second_training_ends_as_soon_as_its_objective_is_down_to_the_target(
    tmp_path: Path,
) -> None:
    coming = iter([0.5, 0.31, 0.3, 0.1])
    rule = ObjectiveMatch(lambda module: next(coming), target=0.3)
    plan = recipe(architecture="maxout", optimiser=SGD, epochs=9)
    result = fitted(plan, tmp_path, rule=rule)
    assert [record.objective for record in result.history] == [0.5, 0.31, 0.3]
    assert result.best is None


def test_figures_on_held_out_examples_are_those_of_their_formulas(tmp_path: Path) -> None:
    plan = recipe(architecture="maxout", optimiser=SGD)
    net = fitted(plan, tmp_path).module
    x, y = blobs(100)
    leaf = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(net(leaf), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    outputs = net(x + 0.2 * gradient.sign())
    wrong = outputs.argmax(1) != y
    found = held_out_figures(net, inputs=x, labels=y, epsilon=0.2)
    assert found.clean_error == pytest.approx(float((net(x).argmax(1) != y).float().mean()))
    assert found.adversarial_error == pytest.approx(float(wrong.float().mean()))
    assert 0 < found.adversarial_error < 1
    sure = outputs.detach().softmax(1).amax(1)[wrong]
    assert found.adversarial_confidence == pytest.approx(float(sure.mean()), rel=1e-5)
    plain = held_out_figures(net, inputs=x, labels=y, epsilon=0.0)
    assert plain == HeldOutFigures(clean_error=found.clean_error)
    assert all(p.grad is None or not p.grad.isnan().any() for p in net.parameters())


def test_held_out_examples_are_the_last_of_one_shuffle_or_of_the_split() -> None:
    kept, looked_at = validation_split(100, held_out=20, seed=3)
    assert (len(kept), len(looked_at)) == (80, 20)
    assert sorted(torch.cat((kept, looked_at)).tolist()) == list(range(100))
    fewer, more = validation_split(100, held_out=30, seed=3)
    assert torch.equal(more[10:], looked_at)
    assert torch.equal(fewer, kept[:70])
    stopping = Stopping(measure="clean_error", held_out=20, patience=1)
    assert torch.equal(held_out_positions(stopping, 100, seed=3)[1], looked_at)
    last = stopping.model_copy(update={"split": "last"})
    for seed in (3, 4):
        kept, looked_at = held_out_positions(last, 100, seed=seed)
        assert kept.tolist() == list(range(80))
        assert looked_at.tolist() == list(range(80, 100))
    for each in (stopping, last):
        with pytest.raises(SpecError, match="20 examples can't be held out of 20"):
            held_out_positions(each, 20, seed=3)

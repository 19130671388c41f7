"""Labels of other examples, and single steps alone, are flagged; honest neighbours are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gibbon
from gibbon.records.flags import Flag

CLASSES, SIDE, COUNT = 8, 6, 96


class Prototypes(nn.Module):
    """Scores a class by the likeness to its picture, bent by a hidden layer."""

    def __init__(self, pictures: Tensor) -> None:
        super().__init__()
        self.pictures = nn.Parameter(pictures.flatten(1))

    def forward(self, inputs: Tensor) -> Tensor:
        distance = torch.cdist(inputs.flatten(1), self.pictures)
        return -6 * torch.tanh(distance - 1.5) - distance


def _data(noise: float = 0.15) -> tuple[Prototypes, Tensor, Tensor]:
    random = torch.Generator().manual_seed(5)
    pictures = torch.rand((CLASSES, 1, SIDE, SIDE), generator=random)
    labels = torch.randint(CLASSES, (COUNT,), generator=random)
    inputs = pictures[labels] + noise * torch.randn((COUNT, 1, SIDE, SIDE), generator=random)
    return Prototypes(pictures).eval(), inputs.clamp(0, 1), labels


def _flags(model: nn.Module, inputs: Tensor, labels: Tensor, **options: Any) -> dict[str, Flag]:
    results = gibbon.evaluate(
        {"net": model}, (inputs, labels), device="cpu", examination=False, **options
    )
    assert not results.failures
    return {each.kind: each for each in results.flags}


def _half_shifted(labels: Tensor) -> Tensor:
    moved = labels.clone()
    moved[::2] = (moved[::2] + 1) % CLASSES
    return moved


def _from_some_on(labels: Tensor) -> Tensor:
    return torch.cat([labels[:30], labels.roll(1)[30:]])


@pytest.mark.parametrize(
    ("move", "words"),
    [
        (_half_shifted, "one less than the label"),
        (lambda labels: labels.roll(1), "the label of the next example"),
        (lambda labels: labels.roll(-1), "the label of the previous example"),
        (lambda labels: labels.roll(2), "the label of the next but one example"),
        (_from_some_on, "the label of the next example"),
        (lambda labels: labels.flip(0), "the label at the same place from the end"),
    ],
)
def test_labels_of_other_examples_are_named(move: Callable[[Tensor], Tensor], words: str) -> None:
    model, inputs, labels = _data()
    assert "displaced-labels" not in _flags(model, inputs, labels, attack="pgd", epsilon=0.01)
    found = _flags(model, inputs, move(labels), attack="pgd", epsilon=0.01)["displaced-labels"]
    assert words in found.sentence
    assert found.severity == ("warning" if "less" in words else "serious")


def test_displaced_labels_are_named_in_a_sample() -> None:
    model, inputs, labels = _data()
    found = _flags(model, inputs, labels.roll(1), attack="pgd", epsilon=0.01, limit=40)
    assert "the next example" in found["displaced-labels"].sentence


class _OneTooLow(nn.Module):
    """Grades: some examples get the grade below, of which the model is less sure."""

    def forward(self, inputs: Tensor) -> Tensor:
        grade = CLASSES * inputs.flatten(1).mean(1, keepdim=True) - 0.9
        return -2 * (grade - torch.arange(CLASSES)).square()


def test_weak_models_and_ordered_classes_raise_nothing() -> None:
    model, inputs, labels = _data(noise=0.9)
    found = _flags(model, inputs, labels, attack="pgd", epsilon=0.01)
    assert "displaced-labels" not in found
    random = torch.Generator().manual_seed(0)
    level = torch.rand((COUNT,), generator=random)
    grades = (CLASSES * level).long().clamp(max=CLASSES - 1)
    pictures = level.view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE).clone()
    pictures[:, :, 0] = (
        pictures[:, :, 0] + 0.1 * torch.rand((COUNT, 1, SIDE), generator=random)
    ) / 1.1
    results = gibbon.evaluate(
        _OneTooLow().eval(), (pictures, grades), attack="pgd", epsilon=0.01, device="cpu"
    )
    assert 0.1 < results.clean_error < 0.9
    assert "displaced-labels" not in {each.kind for each in results.flags}


@pytest.mark.parametrize(
    "attack",
    [
        "fgsm",
        ["fgsm", "noise-sign"],
        {"name": "pgd", "steps": 1, "restarts": 3},
        {"name": "worst-of", "attacks": [{"name": "fgsm"}, {"name": "fgsm-naive"}]},
    ],
)
def test_single_steps_alone_are_a_warning(attack: Any) -> None:
    model, inputs, labels = _data()
    found = _flags(model, inputs, labels, attack=attack, epsilon=[0.02, 0.04])
    flag = found["single-step-only"]
    assert flag.severity == "warning"
    assert flag.model == "net"
    assert flag.epsilon is None
    assert 'name = "pgd"' in flag.suite


@pytest.mark.parametrize(
    "stronger",
    [{"name": "pgd", "steps": 5}, {"name": "square", "queries": 30}, {"name": "fmn", "steps": 10}],
)
def test_a_stronger_attack_at_the_epsilon_is_enough(stronger: Any) -> None:
    model, inputs, labels = _data()
    found = _flags(model, inputs, labels, attack=["fgsm", stronger], epsilon=0.02)
    assert "single-step-only" not in found


def test_each_epsilon_and_norm_needs_its_own_stronger_attack() -> None:
    model, inputs, labels = _data()
    attacks = ["fgsm", {"name": "pgd", "steps": 5, "epsilon": 0.02}]
    flag = _flags(model, inputs, labels, attack=attacks, epsilon=[0.02, 0.04])["single-step-only"]
    assert str(flag.epsilon) == "0.04"
    assert flag.attack == "fgsm"
    attacks = ["fgsm", {"name": "pgd", "steps": 5, "norm": "l2"}]
    assert "single-step-only" in _flags(model, inputs, labels, attack=attacks, epsilon=0.02)


def test_one_step_on_a_linear_model_is_nearly_the_worst_case() -> None:
    _, inputs, labels = _data()
    random = torch.Generator().manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 2))
    net[1].weight = nn.Parameter(torch.randn((2, SIDE * SIDE), generator=random))
    found = _flags(net.eval(), inputs, labels % 2, attack="fgsm", epsilon=0.02)
    assert "single-step-only" not in found


def test_nothing_is_left_where_one_step_misclassifies_all() -> None:
    model, inputs, labels = _data()
    assert "single-step-only" not in _flags(model, inputs, labels, attack="fgsm", epsilon=0.9)

"""Whose code raised an exception is said: the attack's, the model's, the dataset's or ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gibbon import Attack, evaluate
from gibbon.attacks.pgd import PGD
from gibbon.core.errors import CellError, DatasetError, ModelError
from gibbon.core.frames import REPORT
from gibbon.runner.failures.raised_by import raised_by

QUICK: dict[str, Any] = {"examination": False, "certify": "none", "epsilon": 0.1}
DATA = (torch.rand(12, 1, 4, 4), torch.arange(12) % 3)


@dataclass(frozen=True)
class Broken(Attack):
    """Raises by itself."""

    def propose(self, classifier, inputs, *, labels, threat, streams):  # type: ignore[no-untyped-def]
        self.helper()
        yield inputs

    def helper(self) -> None:
        raise ValueError("my own fault")


@dataclass(frozen=True)
class AsksWrongly(Attack):
    """Calls the model with inputs of another shape."""

    def propose(self, classifier, inputs, *, labels, threat, streams):  # type: ignore[no-untyped-def]
        classifier(inputs[:, :, :2])
        yield inputs


class Layer(nn.Module):
    """Raises once it has answered a few times."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.is_grad_enabled() and inputs.requires_grad and (inputs != 0).any():
            self.calls -= 1
        if self.calls < 0:
            raise KeyError("a table is missing")
        return inputs


def network(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 3))


def failure(model: nn.Module, attack: Any) -> Any:
    results = evaluate(model, DATA, attack=attack, **QUICK)
    (found,) = [each for each in results.failures if each.attack != "none"]
    with pytest.raises(CellError, match=r"raised by"):
        _ = results.adversarial_error
    return found


@pytest.mark.parametrize(("attack", "name"), [(Broken(), "Broken"), (AsksWrongly(), "AsksWrongly")])
def test_an_attack_that_raises_is_named_with_its_line(attack: Any, name: str) -> None:
    found = failure(network(), attack)
    assert found.raised_by.startswith(f"the attack {name}, test_raised_by.py:")


def test_a_model_that_raises_under_an_attack_is_named_not_the_attack() -> None:
    found = failure(network(Layer(calls=20)), PGD(steps=40))
    assert found.raised_by.startswith("the model's part Layer, test_raised_by.py:")
    assert found.text == f"{found.error} (raised by {found.raised_by})"


def test_an_exception_without_a_party_is_ours() -> None:
    assert raised_by(RuntimeError("somewhere in between")) == REPORT


def test_errors_that_name_the_party_themselves_get_no_other() -> None:
    assert raised_by(ModelError("model 'x' ...")) == ""


def test_data_without_a_channel_axis_are_the_datas_fault() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    inputs, labels = DATA
    for data, said in (
        (inputs[:, 0], r"add a channel axis: inputs\[:, None\]"),
        (inputs.permute(0, 2, 3, 1), r"channels last.*inputs\.permute\(0, 3, 1, 2\)"),
    ):
        with pytest.raises(DatasetError, match=said):
            evaluate(net, (data, labels), attack="fgsm", **QUICK)


def test_a_model_of_two_inputs_gets_advice() -> None:
    class Two(nn.Module):
        def forward(self, picture: Tensor, side: Tensor) -> Tensor:
            return picture.flatten(1) + side

    with pytest.raises(ModelError, match=r"more than one input \('side'\): wrap it in a module"):
        evaluate(Two(), DATA, attack="fgsm", **QUICK)

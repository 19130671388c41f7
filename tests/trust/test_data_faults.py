"""Faults of the evaluated examples are flagged, and what real datasets hold is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.records.flags import Flag

COUNT = 60
ABOUT_DATA = {"duplicated-examples", "conflicting-labels", "constant-inputs", "few-classes"}

Data = tuple[Tensor, Tensor]
Raised = Callable[..., dict[str, Flag]]


class Net(nn.Module):
    def __init__(self, *, coordinates: int = 64, constant: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear, self.constant = nn.Linear(coordinates, 4), constant

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.linear(inputs.flatten(1))
        if self.constant:
            return 0.01 * outputs + torch.tensor([0.0, 9.0, 0.0, 0.0])
        return outputs


@pytest.fixture
def data() -> Data:
    torch.manual_seed(0)
    inputs = torch.rand(COUNT, 1, 8, 8)
    return inputs, torch.arange(COUNT) % 4


@pytest.fixture
def raised() -> Raised:
    """Returns the flags of an evaluation by kind."""

    def found(data: Data, net: nn.Module | None = None, **more: object) -> dict[str, Flag]:
        given = {"attack": "fgsm", "epsilon": 0.1, "examination": False, **more}
        record = evaluate(net or Net(), data, **given).record  # type: ignore[arg-type]
        return {flag.kind: flag for flag in record.flags}

    return found


def copied(data: Data, count: int) -> Data:
    """The last examples are copies of the first ones."""
    inputs, labels = (each.clone() for each in data)
    inputs[-count:], labels[-count:] = inputs[:count], labels[:count]
    return inputs, labels


@pytest.mark.parametrize(("count", "severity"), [(1, "note"), (3, "warning"), (12, "serious")])
def test_copies_are_flagged_by_their_share(
    raised: Raised, data: Data, count: int, severity: str
) -> None:
    flag = raised(copied(data, count))["duplicated-examples"]
    assert (flag.severity, flag.figure) == (severity, f"{count} of {COUNT}")
    assert (flag.dataset != "", flag.model, flag.attack) == (True, "", "")
    assert f"examples 0, {COUNT - count}" in flag.sentence


def test_one_picture_many_times_is_serious(raised: Raised, data: Data) -> None:
    inputs, labels = data
    found = raised((inputs[:1].expand(COUNT, -1, -1, -1).clone(), labels[:1].expand(COUNT).clone()))
    assert found["duplicated-examples"].figure == f"{COUNT - 1} of {COUNT}"
    assert found["few-classes"].severity == "note"
    assert "conflicting-labels" not in found


@pytest.mark.parametrize(("count", "severity"), [(1, "note"), (3, "warning"), (12, "serious")])
def test_contradicting_labels_are_flagged(
    raised: Raised, data: Data, count: int, severity: str
) -> None:
    inputs, labels = copied(data, count)
    labels[-count:] = (labels[:count] + 1) % 4
    flag = raised((inputs, labels))["conflicting-labels"]
    assert (flag.severity, flag.figure) == (severity, f"{count} of {COUNT}")


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
@pytest.mark.parametrize(("count", "severity"), [(1, "note"), (3, "warning"), (12, "serious")])
def test_inputs_of_one_value_are_flagged(
    raised: Raised, data: Data, value: float, count: int, severity: str
) -> None:
    inputs, labels = data
    inputs[:count] = value
    found = raised((inputs, labels))
    assert found["constant-inputs"].severity == severity
    assert not found.keys() & {"duplicated-examples", "conflicting-labels"}  # one cause, one flag


def test_a_picture_of_one_colour_is_of_one_value(raised: Raised, data: Data) -> None:
    inputs, labels = torch.rand(COUNT, 3, 8, 8), data[1]
    inputs[:20] = torch.rand(20, 3, 1, 1)
    flag = raised((inputs, labels), Net(coordinates=192))["constant-inputs"]
    assert flag.figure == f"20 of {COUNT}"


def test_copies_with_another_pixel_are_nearly_equal(raised: Raised, data: Data) -> None:
    inputs, labels = copied(data, 12)
    inputs[-12:, :, 3, 3] += 1 / 255
    found = raised((inputs, labels))
    assert found.keys() & ABOUT_DATA == {"duplicated-examples"}
    assert "nearly equal" in found["duplicated-examples"].sentence


def test_dark_pictures_with_one_dot_are_no_copies(raised: Raised, data: Data) -> None:
    inputs, labels = data
    inputs[:20] = 0
    inputs[:20, :, 0, 0] = torch.linspace(0.1, 1, 20)[:, None]
    assert not raised((inputs, labels)).keys() & ABOUT_DATA


def test_rows_of_few_discrete_values_are_no_pictures(raised: Raised) -> None:
    torch.manual_seed(0)
    labels = torch.arange(COUNT) % 4
    few = torch.randint(0, 2, (COUNT, 4)).float()
    assert not raised((few, labels), Net(coordinates=4)).keys() & ABOUT_DATA
    found = raised((torch.randint(0, 2, (COUNT, 8)).float(), labels), Net(coordinates=8))
    assert not {each.kind for each in found.values() if each.severity == "serious"} & ABOUT_DATA


def test_real_examples_are_not_flagged(raised: Raised, mnist: Data) -> None:
    assert not raised(mnist, nn.Sequential(nn.Flatten(), nn.Linear(784, 10))).keys() & ABOUT_DATA


def test_a_model_that_answers_the_frequent_class_is_no_better_than_guessing(
    raised: Raised, data: Data
) -> None:
    """Eight of ten examples are of the class that it always answers."""
    inputs, labels = data
    labels = torch.where(torch.arange(COUNT) % 5 > 0, 1, labels)
    found = raised((inputs, labels), Net(constant=True), examination=True, attack="pgd")
    assert "always answering it" in found["error-at-chance"].sentence
    rare = torch.where(torch.arange(COUNT) % 30 > 0, 1, labels)  # nearly all are of the class
    found = raised((inputs, rare), Net(constant=True), examination=True, attack="pgd")
    assert "error-at-chance" not in found

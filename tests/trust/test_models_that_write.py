"""Models that write into their input spoil neither their own numbers nor those of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import nets
import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.attacks.base import STRICT, Attack

COUNT = 60
EPSILON = 0.05
KNOWN = {"examination": False, "bounds": "none"}


def counted(inputs: Tensor) -> None:
    inputs.mul_(0.5).add_(0.25)


def through_data(inputs: Tensor) -> None:
    inputs.data.mul_(0.5).add_(0.25)


def through_a_view(inputs: Tensor) -> None:
    inputs.flatten(1)[:, ::2] *= 0.5


def without_gradients(inputs: Tensor) -> None:
    with torch.no_grad():
        inputs.mul_(0.5)


class Writes(nn.Module):
    """Changes its input, or a copy of it, before it answers."""

    def __init__(self, change: Callable[[Tensor], None], *, copies: bool = False) -> None:
        super().__init__()
        self.net, self.change, self.copies = nets.linear(seed=4).module, change, copies

    def forward(self, inputs: Tensor) -> Tensor:
        if self.copies:
            inputs = inputs.clone()
        self.change(inputs)
        return self.net(inputs)


WRITERS = [counted, through_data, through_a_view, without_gradients]


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    batch = nets.random_batch(count=COUNT)
    return batch.inputs, nets.linear().module(batch.inputs).argmax(1)


def errors(models: dict[str, nn.Module], data: tuple[Tensor, Tensor], **known: object) -> dict:
    found = evaluate(models, data, epsilon=EPSILON, **{**KNOWN, **known})
    assert not found.failures
    record = found.record
    own = {(row.model, row.attack): row.adversarial_error for row in record.evaluations}
    return {**own, **{(row.source, row.target, row.attack): row.error for row in record.transfers}}


@pytest.mark.parametrize("change", WRITERS)
def test_a_model_that_writes_has_the_numbers_of_one_that_copies(change, data):
    attacks = [{"name": "fgsm"}, {"name": "apgd-ce", "steps": 5}]
    writes = errors({"m": Writes(change), "b": nets.linear().module}, data, attack=attacks)
    copies = errors(
        {"m": Writes(change, copies=True), "b": nets.linear().module}, data, attack=attacks
    )
    assert writes == copies
    assert writes["m", "apgd-ce"] > writes["m", "none"]


@pytest.mark.parametrize("change", [counted, through_data])
def test_a_model_that_writes_changes_no_other_model(change, data):
    one, two = nets.linear().module, nets.linear(seed=5).module
    alone = errors({"one": one, "two": two}, data, attack="fgsm")
    among = errors({"one": one, "writes": Writes(change), "two": two}, data, attack="fgsm")
    assert {key: among[key] for key in alone} == alone


def test_the_card_says_that_it_gets_a_copy(data):
    found = evaluate(Writes(counted), data, attack="fgsm", epsilon=EPSILON, **KNOWN)
    (card,) = found.record.models
    assert "it writes into its input: it gets a copy of it" in card.notes


def test_a_member_of_an_ensemble_changes_no_other_member(data):
    def both(copies: bool) -> dict:
        models = {
            "w": Writes(counted, copies=copies),
            "b": nets.linear().module,
            "e": "ensemble:w,b",
        }
        return errors(models, data, attack="fgsm", transfer=False)

    assert both(copies=False) == both(copies=True)


class WritesLater(nn.Module):
    """Begins to write into its input once it is attacked."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.active = nets.linear(seed=4).module, False

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.net(inputs)
        if self.active:
            with torch.no_grad():
                inputs.round_()
        return outputs


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Starts(Attack):
    """Makes the model write, and yields what FGSM would."""

    needs_gradient: ClassVar[bool] = True
    late: ClassVar[WritesLater]

    def propose(self, classifier, inputs, *, labels, threat, streams) -> Iterator[Tensor]:
        """Yields one candidate."""
        direction = classifier.loss_gradient(inputs.clone(), labels).sign()
        type(self).late.active = True
        yield (inputs + threat.radius * direction).clamp(0, 1)
        type(self).late.active = False


def test_a_model_that_writes_once_it_is_attacked_spoils_nothing(data):
    def found(late: nn.Module) -> dict:
        models = {"one": nets.linear().module, "late": late, "two": nets.linear(seed=5).module}
        return errors(models, data, attack=Starts())

    Starts.late = WritesLater()
    writes = found(Starts.late)
    assert writes == found(Writes(lambda inputs: None))


class Counts(nn.Module):
    """Counts its calls in a buffer, and keeps a scratch buffer of the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.linear().module
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scratch", torch.zeros(0))

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        if len(self.scratch) != len(inputs):
            self.scratch = torch.zeros(len(inputs), nets.CLASSES)
            self.register_buffer("latest", torch.zeros(len(inputs)))
        self.scratch.copy_(self.net(inputs).detach())
        return self.net(inputs)


def test_a_model_that_keeps_books_is_no_fault_of_an_attack(data):
    attacks = ["fgsm", {"name": "pgd", "steps": 3}, {"name": "square", "queries": 5}]
    plain = errors({"m": nets.linear().module}, data, attack=attacks)
    assert errors({"m": Counts()}, data, attack=attacks) == plain


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ChangesWeights(Attack):
    """Adds to the weights of a model that keeps books."""

    needs_gradient: ClassVar[bool] = False

    def propose(self, classifier, inputs, *, labels, threat, streams) -> Iterator[Tensor]:
        """Yields the inputs."""
        classifier.predict(inputs)
        classifier.module.net[1].weight.add_(0.5)
        yield inputs.clone()


def test_an_attack_that_changes_such_a_model_is_still_found(data):
    found = evaluate(Counts(), data, attack=ChangesWeights(), epsilon=EPSILON, **KNOWN)
    (failure,) = found.failures
    assert "the attack changed the model's parameters or buffers" in failure.error

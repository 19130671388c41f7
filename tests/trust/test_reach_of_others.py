"""Attacks and models that reach what is not theirs: counts of passes, other files, other models."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import nets
import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.attacks.base import STRICT, Attack
from gibbon.models.classifier import Classifier
from gibbon.models.pass_count import PassCount
from gibbon.models.reached_values import ReachedValues

COUNT = 40
EPSILON = 0.05
KNOWN = {"examination": False, "bounds": "none", "epsilon": EPSILON}

# Variables that the models below read.
SCALE = 1.0
SIGNS = [1.0]
TABLE = {"shift": torch.zeros(1), "power": 1}
STEPS: list[Callable[[Tensor], Tensor]] = []
ARRAY = np.zeros(1, dtype=np.float32)
SHARED = nn.Linear(1, 1)
with torch.no_grad():
    SHARED.weight.fill_(1.0)
    SHARED.bias.fill_(0.0)


def helper(inputs: Tensor) -> Tensor:
    return inputs * SCALE


def closed_over(factor: list[float]) -> Callable[[Tensor], Tensor]:
    return lambda inputs: inputs * factor[0]


class Reads(nn.Module):
    """Reads variables of this file, attributes of its class, and those of a closure."""

    offset = 0.0
    inside = closed_over([1.0])

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.linear(seed=4).module

    def forward(self, inputs: Tensor) -> Tensor:
        found = helper(inputs) * SIGNS[0] + TABLE["shift"] + float(ARRAY[0])
        for step in STEPS:
            found = step(found)
        found = found ** TABLE["power"] * SHARED.weight[0, 0].detach() + type(self).offset
        return self.net(type(self).inside(found))


def data() -> tuple[Tensor, Tensor]:
    batch = nets.random_batch(count=COUNT)
    return batch.inputs, nets.linear().module(batch.inputs).argmax(1)


def set_global() -> None:
    sys.modules[__name__].SCALE = 0.0


def set_attribute() -> None:
    Reads.offset = 9.0


def set_function() -> None:
    helper.__code__ = (lambda inputs: inputs * 0).__code__


def set_cell() -> None:
    Reads.inside.__closure__[0].cell_contents[0] = -1.0


CHANGES: dict[str, Callable[[], object]] = {
    "SCALE": set_global,
    "SIGNS": lambda: SIGNS.__setitem__(0, -1.0),
    "TABLE": lambda: TABLE["shift"].add_(3.0),
    "TABLE ": lambda: TABLE.update(power=3),
    "STEPS": lambda: STEPS.append(torch.neg),
    "ARRAY": lambda: ARRAY.fill(5.0),
    "SHARED": lambda: SHARED.weight.data.zero_(),
    "Reads.offset": set_attribute,
    "helper.__code__": set_function,
    "factor": set_cell,
}
ACTS: dict[str, Callable[..., object]] = {}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Reaches(Attack):
    """Does something to what is not its own, and yields what FGSM does."""

    needs_gradient: ClassVar[bool] = True
    late: bool = False

    def propose(self, classifier, inputs, *, labels, threat, streams) -> Iterator[Tensor]:
        """Yields one candidate."""
        if not self.late:
            act(classifier)
        direction = classifier.loss_gradient(inputs.clone(), labels).sign()
        yield (inputs + threat.radius * direction).clamp(0, 1)
        if self.late:
            act(classifier)


def act(classifier: Classifier) -> None:
    """Looks the act up where no code can follow it."""
    globals()["ACTS"]["now"](classifier)


def rows(found: Any) -> dict[tuple[str, ...], float | None]:
    record = found.record
    own = {(row.model, row.attack): row.adversarial_error for row in record.evaluations}
    both = {(row.source, row.target, row.attack): row.error for row in record.transfers}
    return {**own, **both}


def run(attacks: list[Any], **more: Any) -> Any:
    models = {"reads": Reads(), "plain": nets.linear().module}
    return evaluate(models, data(), attack=attacks, **{**KNOWN, **more})


@pytest.fixture(scope="module")
def untouched() -> dict[tuple[str, ...], float | None]:
    return rows(run([{"name": "fgsm"}]))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_an_attack_changes_nothing_that_a_model_reads(name, late, untouched):
    ACTS["now"] = lambda _: CHANGES[name]()
    found = run([Reaches(late=late), {"name": "fgsm"}])
    now = rows(found)
    assert {key: now[key] for key in untouched} == untouched
    assert {each.attack for each in found.failures} == {"reaches"}
    for failure in found.failures:
        assert "AttackError: the attack changed what the code of others reads" in failure.error
        assert name.strip() in failure.error


def set_weights(classifier: Classifier) -> None:
    with torch.no_grad():
        OTHER[0].net[1].weight.mul_(-1.0)


OTHER: list[Any] = []


def test_an_attack_that_changes_another_model_changes_none_of_its_numbers(untouched):
    OTHER[:] = [Reads()]
    ACTS["now"] = set_weights
    models = {"plain": nets.linear().module, "reads": OTHER[0]}
    found = evaluate(models, data(), attack=[Reaches(), {"name": "fgsm"}], **KNOWN)
    now = rows(found)
    assert {key: now[key] for key in untouched} == untouched
    assert now["plain", "reads", "reaches"] == untouched["plain", "reads", "fgsm"]
    assert {(each.model, each.attack) for each in found.failures} <= {("reads", "reaches")}


class Meddles(nn.Module):
    """Sets variables of another model in each call, which its own code does not name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net, self.name = nets.linear(seed=5).module, name

    def forward(self, inputs: Tensor) -> Tensor:
        globals()["CHANGES"][self.name]()
        return self.net(inputs)


@pytest.mark.parametrize("name", ["SCALE", "TABLE", "STEPS", "Reads.offset"])
def test_a_model_changes_nothing_that_another_reads(name, untouched):
    values = ReachedValues([Reads()])
    models = {"reads": Reads(), "plain": nets.linear().module, "meddles": Meddles(name)}
    found = evaluate(models, data(), attack="fgsm", **KNOWN)
    values.restore()
    now = rows(found)
    assert {key: now[key] for key in untouched} == untouched
    assert found.failures
    assert all(
        "meddles" in (each.model, *each.error.split()) or "meddles:" in each.error
        for each in found.failures
    )
    assert all(
        "the model changed what the code of others reads" in each.error for each in found.failures
    )


CALLS = 0


class Counts(nn.Module):
    """Counts its calls in a variable of its file and an attribute of its class."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.linear(seed=4).module

    def forward(self, inputs: Tensor) -> Tensor:
        global CALLS
        CALLS += 1
        Counts.calls += 1
        return self.net(inputs)


def test_a_model_that_counts_in_its_file_is_no_fault_of_an_attack(untouched):
    ACTS["now"] = lambda _: None
    models = {"reads": Counts(), "plain": nets.linear().module}
    found = evaluate(models, data(), attack=[Reaches(), {"name": "fgsm"}], **KNOWN)
    assert not found.failures
    now = rows(found)
    assert {key: now[key] for key in untouched} == untouched


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Victim(Attack):
    """Steps by a factor of its class."""

    factor: ClassVar[float] = 1.0
    runs: ClassVar[int] = 0

    def propose(self, classifier, inputs, *, labels, threat, streams) -> Iterator[Tensor]:
        """Yields one candidate."""
        Victim.runs += 1
        direction = classifier.loss_gradient(inputs, labels).sign()
        yield (inputs + threat.radius * self.factor * direction).clamp(0, 1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Openly(Attack):
    """Sets an attribute of another attack's class, which its code names."""

    def propose(self, classifier, inputs, *, labels, threat, streams) -> Iterator[Tensor]:
        """Yields the inputs."""
        Victim.factor = 0.0
        yield inputs.clone()


@pytest.mark.parametrize("attack", [Reaches(), Openly()])
def test_an_attack_changes_nothing_that_another_attack_reads(attack):
    ACTS["now"] = lambda _: setattr(globals()["Victim"], "factor", 0.0)
    plain = rows(run([Victim()]))
    Victim.runs = 0
    found = run([attack, Victim()])
    now = rows(found)
    assert {key: now[key] for key in plain} == plain
    assert Victim.runs > 1  # its own counter is left alone
    assert {each.attack for each in found.failures} == {found.record.evaluations[1].attack}
    assert all("Victim.factor" in each.error for each in found.failures)


WRITES: dict[str, Callable[[Classifier], object]] = {
    "forward": lambda classifier: setattr(classifier.passes, "forward", -5),
    "backward": lambda classifier: setattr(classifier.passes, "backward", 10**30),
    "draws": lambda classifier: setattr(classifier, "draws", None),
    "outputs": lambda classifier: setattr(classifier, "outputs", None),
    "other": lambda classifier: setattr(classifier, "passes", "none"),
    "count": lambda classifier: setattr(classifier, "passes", PassCount(-7, -7)),
    "slots": lambda classifier: object.__setattr__(classifier.passes, "forward", 2.5),
}


@pytest.mark.parametrize("write", WRITES)
def test_an_attack_can_not_write_the_counts_of_passes(write):
    attacks = [Reaches(late=True), {"name": "fgsm"}]
    ACTS["now"] = lambda _: None
    expected = {row.model: row for row in run(attacks).record.evaluations if row.attack == "fgsm"}
    ACTS["now"] = WRITES[write]
    found = run(attacks)
    for row in found.record.evaluations:
        if row.attack == "fgsm":
            assert row.forward_passes == expected[row.model].forward_passes
            assert row.backward_passes == expected[row.model].backward_passes
    assert {each.attack for each in found.failures} == {"reaches"}
    for failure in found.failures:
        assert "the attack" in failure.error + failure.raised_by


def _hides(classifier: Classifier) -> None:
    with classifier.uncounted():
        classifier(torch.zeros(1, *classifier.input_shape))


def _watched(classifier: Classifier) -> Any:
    return vars(classifier)["_watch"]


HIDDEN: dict[str, Callable[[Classifier], object]] = {
    "clean outputs": lambda found: setattr(_watched(found), "outputs", torch.zeros(1)),
    "the watch": lambda found: setattr(found, "_watch", None),
    "another watch": lambda found: setattr(found, "_watch", copy.copy(_watched(found))),
    "passes": _hides,
}


@pytest.mark.parametrize("write", HIDDEN)
def test_an_attack_can_not_hide_what_is_recorded_of_it(write):
    ACTS["now"] = HIDDEN[write]
    found = run([Reaches(late=True), {"name": "fgsm"}])
    assert {each.attack for each in found.failures} == {"reaches"}
    for failure in found.failures:
        assert "the attack" in failure.error + failure.raised_by


def test_an_attack_gets_a_copy_of_the_clean_outputs():
    def spoils(classifier: Classifier) -> None:
        classifier(_watched(classifier).inputs)
        _watched(classifier).outputs.zero_()

    attacks = [Reaches(late=True), {"name": "fgsm"}]
    ACTS["now"] = lambda _: None
    expected = run(attacks).record.evaluations
    ACTS["now"] = spoils
    found = run(attacks)
    assert not found.failures
    clean = {(row.model, row.attack): row.clean_error for row in expected}
    assert {(row.model, row.attack): row.clean_error for row in found.record.evaluations} == clean


class FindsCount(nn.Module):
    """Finds the classifier by its hook, and writes into its count."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.linear().module

    def forward(self, inputs: Tensor) -> Tensor:
        for hook in self._forward_hooks.values() if globals()["ACTS"]["on"]() else ():
            hook._saw.__self__.passes.forward = 0
        return self.net(inputs)


def test_a_model_that_writes_the_counts_of_passes_is_named():
    ACTS["on"] = lambda: False
    ACTS["now"] = lambda _: ACTS.update(on=lambda: True)
    found = evaluate(
        {"finds": FindsCount(), "plain": nets.linear().module},
        data(),
        attack=[Reaches(), "fgsm"],
        **KNOWN,
    )
    assert found.failures
    for failure in found.failures:
        assert failure.model == "finds" or "scored on finds" in failure.error
        assert "the model" in failure.raised_by + failure.error


class Rounds(nn.Module):
    """Rounds its input in place from some time on."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.linear(seed=4).module

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.net(inputs)
        if globals()["ACTS"]["on"]():
            inputs.data.round_()
        return outputs


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CallsModule(Attack):
    """Calls the module, not the classifier, on what it was given."""

    how: str = "call"

    def propose(self, classifier, inputs, *, labels, threat, streams) -> Iterator[Tensor]:
        """Yields one candidate, made from the inputs after a call."""
        direction = classifier.loss_gradient(inputs.clone(), labels).sign()
        module = classifier.module
        globals()["ACTS"]["on"] = lambda: True
        if self.how == "call":
            module(inputs)
        elif self.how == "name":
            module(**{"inputs" if isinstance(module, Rounds) else "input": inputs})
        else:
            module.forward(inputs)
        yield (inputs + threat.radius * direction).clamp(0, 1)


@pytest.mark.parametrize("how", ["call", "name", "forward"])
def test_a_model_that_writes_into_what_the_module_is_called_on(how):
    models = {"rounds": Rounds(), "plain": nets.linear().module}
    ACTS["on"] = lambda: False
    plain = evaluate(models, data(), attack=["fgsm"], **KNOWN)
    found = evaluate(models, data(), attack=[CallsModule(how=how), {"name": "fgsm"}], **KNOWN)
    now, expected = rows(found), rows(plain)
    assert {key: now[key] for key in expected} == expected
    if how == "forward":
        (failure,) = found.failures
        assert "OutputError: the model changed its input in place" in failure.error
    else:
        assert not found.failures
        assert now["rounds", "calls-module"] == expected["rounds", "fgsm"]
        made = {row.model: row for row in found.record.evaluations if row.attack == "calls-module"}
        assert made["rounds"].forward_passes == 2 * COUNT  # beside that on the clean inputs

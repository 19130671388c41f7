"""Models and attacks that misbehave in some calls only: late, for some inputs, or out of sight."""

from __future__ import annotations

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
from gibbon.core.errors import ModelError
from gibbon.core.threat import Norm
from gibbon.models.known_code import is_known
from gibbon.models.shielding import wrappers_for

COUNT, EPSILON = 60, 0.05
KNOWN: dict[str, Any] = {"examination": False, "bounds": "none", "batch_size": 23}
ATTACKS = [{"name": "fgsm"}, {"name": "apgd-ce", "steps": 4}, {"name": "square", "queries": 5}]


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    batch = nets.random_batch(count=COUNT)
    return batch.inputs, nets.linear().module(batch.inputs).argmax(1)


def errors(models: dict[str, nn.Module], data: Any, **known: Any) -> dict[Any, float | None]:
    found = evaluate(models, data, **{"epsilon": EPSILON, **KNOWN, **known})
    assert not found.failures
    rows = {(row.model, row.attack): row.adversarial_error for row in found.record.evaluations}
    return {**rows, **{(t.source, t.target, t.attack): t.error for t in found.record.transfers}}


# Models that write into their input in ways that no probe sees.


class Halves(torch.autograd.Function):
    """Halves an input in the backward pass."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, inputs: Tensor) -> Tensor:
        ctx.inputs = inputs
        return outputs.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        ctx.inputs.numpy()[...] *= 0.5
        return gradient, None


class Writes(nn.Module):
    """Writes into its input by ``how``, or into a copy of it."""

    def __init__(self, how: str, *, copies: bool) -> None:
        super().__init__()
        self.net, self.how, self.copies = nets.linear(seed=4).module, how, copies
        self.calls, self.last = 0, None

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.clone() if self.copies else inputs
        hidden = inputs.detach()
        self.calls += 1
        if self.how == "late" and self.calls > 20:
            hidden.numpy()[...] *= 0.5
        elif self.how == "some":
            hidden.numpy()[hidden.numpy() > 0.999] = 0.0
        elif self.how == "earlier":
            if self.last is not None:
                self.last.numpy()[...] = 0.5
            self.last = hidden
        elif self.how == "backward":
            return Halves.apply(self.net(inputs), hidden)
        return self.net(inputs)


@pytest.mark.parametrize("how", ["late", "some", "earlier", "backward"])
def test_a_model_that_writes_unseen_spoils_no_number(how: str, data: Any) -> None:
    def among(model: nn.Module) -> dict[Any, float | None]:
        models = {"b": nets.linear().module, "m": model, "c": nets.linear(seed=9).module}
        return errors(models, data, attack=ATTACKS)

    writes, copies = (among(Writes(how, copies=each)) for each in (False, True))
    assert writes == copies
    alone = errors(
        {"b": nets.linear().module, "c": nets.linear(seed=9).module}, data, attack=ATTACKS
    )
    assert {key: writes[key] for key in alone} == alone


class Reuses(nn.Module):
    """Returns one piece of memory for every large batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.memory = nets.linear().module, torch.zeros(COUNT * 4, nets.CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.net(inputs)
        if outputs.requires_grad or len(inputs) <= 20:
            return outputs
        self.memory[: len(inputs)] = outputs
        return self.memory[: len(inputs)]


def test_a_model_that_overwrites_the_outputs_of_large_batches(data: Any) -> None:
    plain = errors({"m": nets.linear().module}, data, attack=ATTACKS)
    assert errors({"m": Reuses()}, data, attack=ATTACKS) == plain


def test_a_model_of_known_code_gets_no_copies() -> None:
    known = nets.linear()
    assert is_known(known.module)
    assert not wrappers_for(known, torch.rand(8, 1, 6, 6)).foreign
    hooked = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    hooked[1].register_forward_pre_hook(lambda module, inputs: None)
    assert not is_known(hooked)


# Models that leave global state changed after they were loaded.


class Leaks(nn.Module):
    """Replaces a method of tensors from some call on, or for the time of each call."""

    def __init__(self, after: int, *, tidy: bool = False) -> None:
        super().__init__()
        self.net, self.after, self.tidy, self.calls = nets.linear(seed=4).module, after, tidy, 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        outputs = self.net(inputs)
        if self.calls >= self.after:
            before = Tensor.argmax
            Tensor.argmax = lambda each, *_, **__: torch.zeros(len(each), dtype=torch.int64)  # type: ignore[method-assign, assignment]
            if self.tidy:
                Tensor.argmax = before  # type: ignore[method-assign]
        return outputs


@pytest.mark.parametrize("after", [12, 25])
def test_a_model_that_leaks_late_reaches_no_other(after: int, data: Any) -> None:
    own = {"b": nets.linear().module, "c": nets.linear(seed=9).module}
    attack = {"name": "pgd", "steps": 8}
    plain = errors(own, data, attack=attack)
    models = {"b": own["b"], "m": Leaks(after), "c": own["c"]}
    found = evaluate(models, data, attack=attack, epsilon=EPSILON, **KNOWN)
    record = found.record
    rows = {(row.model, row.attack): row.adversarial_error for row in record.evaluations}
    rows |= {(row.source, row.target, row.attack): row.error for row in record.transfers}
    assert {key: rows[key] for key in plain} == plain
    notes = [each for card in record.models for each in card.notes]
    named = [*notes, *(failure.error for failure in found.failures)]
    assert any("torch.Tensor.argmax" in each for each in named)
    assert not any("AttackError" in each for each in named)


def test_a_model_that_puts_back_what_it_changes_is_left_alone(data: Any) -> None:
    tidy = errors({"m": Leaks(1, tidy=True)}, data, attack="fgsm")
    assert tidy == errors({"m": nets.linear(seed=4).module}, data, attack="fgsm")


# Attacks that change what they are given.


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Acts(Attack):
    """Yields what a function returns."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
    needs_gradient: ClassVar[bool] = False
    act: ClassVar[Callable[..., Any]]

    def propose(self, classifier, inputs, *, labels, threat, streams) -> Iterator[Tensor]:
        """Yields one candidate."""
        yield type(self).act(classifier, inputs, labels, threat)


def measured(act: Callable[..., Any], data: Any, model: nn.Module | None = None) -> Any:
    Acts.act = staticmethod(act)
    models = {"m": model or Holds(), "other": nets.linear(seed=9).module}
    attacks = [Acts(), {"name": "fgsm"}]
    return evaluate(models, data, attack=attacks, epsilon=0.03, **KNOWN)


def far(classifier: Any, inputs: Tensor, labels: Tensor) -> Tensor:
    direction = classifier.loss_gradient(inputs.clone(), labels).sign()
    return (inputs + direction).clamp(0, 1)


def wide(classifier: Any, inputs: Tensor, labels: Tensor, threat: Any) -> Tensor:
    object.__setattr__(threat.epsilon, "value", 1.0)
    object.__setattr__(threat, "bounds", None)
    return far(classifier, inputs, labels)


def test_an_attack_can_not_widen_its_budget(data: Any) -> None:
    found = measured(wide, data)
    row = found.select(model="m", attack="acts")
    assert row.adversarial_error == row.clean_error
    plain = measured(lambda _, inputs, *__: inputs.clone(), data)
    fgsm = [each.select(model="m", attack="fgsm").adversarial_error for each in (found, plain)]
    assert fgsm[0] == fgsm[1]


def bounds(classifier: Any, inputs: Tensor, labels: Tensor, threat: Any) -> Tensor:
    object.__setattr__(classifier.bounds, "high", 5.0)
    return inputs + threat.radius


def rule(classifier: Any, inputs: Tensor, labels: Tensor, threat: Any) -> Tensor:
    classifier.outputs.__dict__["confidence"] = lambda outputs: torch.ones(len(outputs))
    return inputs.clone()


def own_code(classifier: Any, inputs: Tensor, labels: Tensor, threat: Any) -> Tensor:
    type(classifier.outputs).confidence = lambda self, outputs: torch.ones(len(outputs))
    return inputs.clone()


def number(classifier: Any, inputs: Tensor, labels: Tensor, threat: Any) -> Tensor:
    classifier.module.scale = -1.0
    return inputs.clone()


def tensor(classifier: Any, inputs: Tensor, labels: Tensor, threat: Any) -> Tensor:
    classifier.module.shift.data.add_(0.5)
    return inputs.clone()


def array(classifier: Any, inputs: Tensor, labels: Tensor, threat: Any) -> Tensor:
    classifier.module.array[...] = 0.5
    return inputs.clone()


def entry(classifier: Any, inputs: Tensor, labels: Tensor, threat: Any) -> Tensor:
    classifier.module.entries[0] = 0.5
    return inputs.clone()


class Holds(nn.Module):
    """Holds numbers that torch does not know of, and keeps books."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale, self.shift = nets.linear().module, 1.0, torch.zeros(1, 6, 6)
        self.array, self.entries = np.zeros((1, 6, 6), dtype=np.float32), [0.0]
        self.calls, self.history, self.cache = 0, [0], {0: 0}

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        self.history.append(len(inputs))
        self.cache[len(inputs)] = self.calls
        moved = inputs + self.shift + torch.from_numpy(self.array) + self.entries[0]
        return self.net(moved) * self.scale


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (bounds, "changed the classifier"),
        (rule, "changed the classifier"),
        (own_code, "gibbon.models.outputs.Logits.confidence"),
        (number, "changed the model's attributes"),
        (tensor, "changed the model's attributes"),
        (array, "changed the model's attributes"),
        (entry, "changed the model's attributes"),
    ],
)
def test_what_an_attack_changes_of_a_model_is_named_and_put_back(
    act: Any, named: str, data: Any
) -> None:
    plain = measured(lambda _, inputs, *__: inputs.clone(), data)
    assert not plain.failures  # a model that keeps books is no fault of an attack
    found = measured(act, data)
    assert any(named in failure.error for failure in found.failures)
    for model in ("m", "other"):
        one, other = (each.select(model=model, attack="fgsm") for each in (found, plain))
        assert one.adversarial_error == other.adversarial_error
        assert one.clean_error == other.clean_error


def leaked(transform: Callable[..., Any]) -> Callable[..., Tensor]:
    def act(classifier: Any, inputs: Tensor, labels: Tensor, threat: Any) -> Tensor:
        kept: list[Tensor] = []
        transform(lambda each: (kept.append(each), each.sum())[1])(inputs)
        return kept[0]

    return act


@pytest.mark.parametrize(
    "act",
    [
        leaked(torch.func.grad),
        leaked(torch.func.vmap),
        lambda _, inputs, *__: torch._to_functional_tensor(inputs.clone()),
    ],
)
def test_stand_ins_of_torch_are_no_candidates(act: Any, data: Any) -> None:
    found = measured(act, data)
    assert found.failures
    assert all("a candidate must be a plain tensor" in each.error for each in found.failures)


def by_functions(classifier: Any, inputs: Tensor, labels: Tensor, threat: Any) -> Tensor:
    def loss(points: Tensor) -> Tensor:
        return nn.functional.cross_entropy(classifier(points), labels)

    return (inputs + threat.radius * torch.func.grad(loss)(inputs).sign()).clamp(0, 1)


def test_an_attack_may_differentiate_by_functions(data: Any) -> None:
    found = measured(by_functions, data)
    assert not found.failures
    own, fgsm = (found.select(model="m", attack=each) for each in ("acts", "fgsm"))
    assert own.adversarial_error == fgsm.adversarial_error > 0


class RingError(Exception):
    """Is its own cause, with a message of many megabytes."""


def ring(*_: Any) -> Tensor:
    error = RingError("x" * 10**7)
    error.__cause__ = error
    raise error


def test_a_message_of_megabytes_is_stored_shortened(data: Any) -> None:
    failures = measured(ring, data).failures
    assert failures
    for failure in failures:
        assert failure.error.startswith("RingError: xxx")
        assert len(failure.error) + len(failure.traceback) < 100_000


class UnspeakableError(RuntimeError):
    def __str__(self) -> str:
        raise ValueError("no message")


class Raises(nn.Module):
    """Raises in some call."""

    def __init__(self, at: int, error: BaseException) -> None:
        super().__init__()
        self.net, self.at, self.error, self.calls = nets.linear().module, at, error, [0]

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls.append(len(inputs))
        if len(self.calls) > self.at:
            raise self.error
        return self.net(inputs)


@pytest.mark.parametrize("at", [1, 2, 6])
@pytest.mark.parametrize(
    "error", [SystemExit(0), GeneratorExit(), StopIteration(), UnspeakableError()]
)
def test_a_model_that_exits_while_it_is_loaded_is_an_error(
    at: int, error: BaseException, data: Any
) -> None:
    with pytest.raises(ModelError, match=r"(it|the model) (can't be run|raised)"):
        evaluate(Raises(at, error), data, attack="fgsm", epsilon=EPSILON, **KNOWN)


@pytest.mark.parametrize("at", [18, 22, 26])
@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit()])
def test_a_model_that_exits_later_ends_no_other(at: int, error: BaseException, data: Any) -> None:
    models = {"odd": Raises(at, error), "other": nets.linear(seed=9).module}
    known = {**KNOWN, "examination": True, "attack": {"name": "pgd", "steps": 8}}
    try:
        found = evaluate(models, data, epsilon=EPSILON, **known)
    except ModelError:  # it was still being loaded
        return
    assert all(each.model == "odd" or "scored on odd" in each.error for each in found.failures)
    assert found.select(model="other").adversarial_error is not None


def test_a_message_that_is_no_unicode_is_stored(data: Any, tmp_path: Any) -> None:
    odd = Raises(26, ValueError("\udcff and \0"))
    models = {"odd": odd, "other": nets.linear(seed=9).module}
    known = {**KNOWN, "examination": True, "output": tmp_path / "run"}
    found = evaluate(models, data, attack={"name": "pgd", "steps": 8}, epsilon=EPSILON, **known)
    assert any("\\udcff" in failure.error for failure in found.failures)
    assert found.select(model="other").adversarial_error is not None

"""Models that answer otherwise after a few calls, or in other circumstances."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.records.flags import Flag

Flags = Callable[..., tuple[Flag, ...]]
Honest = Callable[[str], nn.Module]


def other(outputs: Tensor) -> Tensor:
    """Outputs that are almost as right, and not the same."""
    return outputs + 0.4 * outputs.roll(1, 1)


class Switching(nn.Module):
    """A network that gives other outputs if a condition on itself and its inputs holds."""

    def __init__(self, net: nn.Module, switched: Callable[[Any, Tensor], bool]) -> None:
        super().__init__()
        self.net, self.switched, self.calls, self.started = net, switched, 0, time.monotonic()
        self.register_buffer("counted", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.net(inputs)
        return other(outputs) if self.switched(self, inputs) else outputs


def by_attribute(limit: int, *, examples: bool) -> Callable[[Any, Tensor], bool]:
    def switched(model: Any, inputs: Tensor) -> bool:
        model.calls += len(inputs) if examples else 1
        return bool(model.calls > limit)

    return switched


def by_buffer(limit: int, *, examples: bool) -> Callable[[Any, Tensor], bool]:
    def switched(model: Any, inputs: Tensor) -> bool:
        model.counted += len(inputs) if examples else 1
        return bool(model.counted > limit)

    return switched


def by_closure(limit: int, *, examples: bool) -> Callable[[Any, Tensor], bool]:
    count = 0

    def switched(_: Any, inputs: Tensor) -> bool:
        nonlocal count
        count += len(inputs) if examples else 1
        return count > limit

    return switched


def by_inputs_seen() -> Callable[[Any, Tensor], bool]:
    seen: set[str] = set()

    def switched(_: Any, inputs: Tensor) -> bool:
        keys = {hashlib.sha256(each.detach().numpy().tobytes()).hexdigest() for each in inputs}
        known = bool(keys & seen)
        seen.update(keys)
        return known

    return switched


COUNTS = [(False, 1), (False, 2), (False, 3), (False, 5), (True, 2), (True, 10), (True, 60)]


@pytest.mark.parametrize(("examples", "limit"), COUNTS)
@pytest.mark.parametrize("place", [by_attribute, by_buffer, by_closure])
def test_a_switch_within_the_first_calls_is_seen(
    honest: Honest,
    flags: Flags,
    place: Callable[..., Callable[[Any, Tensor], bool]],
    examples: bool,
    limit: int,
) -> None:
    model = Switching(honest("softmax"), place(limit, examples=examples))
    found = flags(model, steps=2)
    assert {each.kind for each in found if each.severity == "serious"} == {"stateful-answers"}


def started_long_ago(model: Any, _: Tensor) -> bool:
    return bool(time.monotonic() - model.started > 60)


def inside_a_graph(_: Any, inputs: Tensor) -> bool:
    return inputs.grad_fn is not None


def frozen(model: Any, _: Tensor) -> bool:
    return not any(each.requires_grad for each in model.net.parameters())


CIRCUMSTANCES = [
    (lambda: by_inputs_seen(), "stateful-answers"),
    (lambda: frozen, "stateful-answers"),
    (lambda: inside_a_graph, "detects-gradients"),
]


@pytest.mark.parametrize(("condition", "kind"), CIRCUMSTANCES, ids=["seen", "frozen", "graph"])
def test_other_signs_of_a_test_are_seen(
    honest: Honest, flags: Flags, condition: Callable[[], Callable[[Any, Tensor], bool]], kind: str
) -> None:
    found = flags(Switching(honest("softmax"), condition()), steps=2)
    assert kind in {each.kind for each in found if each.severity == "serious"}


@pytest.mark.parametrize("limit", [64, 256])
def test_a_model_that_answers_larger_batches_otherwise(
    honest: Honest, mnist: tuple[Tensor, Tensor], limit: int
) -> None:
    inputs, labels = (torch.cat([each] * 6) for each in mnist)
    inputs = inputs + torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0)) / 50
    model = Switching(honest("softmax"), lambda _, given: len(given) > limit)
    found = evaluate(
        model, (inputs.clamp(0, 1), labels), attack="fgsm", epsilon=0.1, batch_size=384
    )
    kinds = {each.kind for each in found.record.flags if each.severity == "serious"}
    assert kinds & {"stateful-answers", "batch-dependent"}


def test_a_model_that_changes_during_the_attacks(honest: Honest, flags: Flags) -> None:
    """No count of calls is the same for every machine: it changes at the first attacked batch."""
    graded = [0]  # where no snapshot of the model finds it

    class Late(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, inputs: Tensor) -> Tensor:
            graded[0] += inputs.requires_grad
            outputs: Tensor = self.net(inputs)
            return other(outputs) if graded[0] > 30 else outputs

    found = flags(Late(honest("softmax")), steps=40)
    assert "stateful-answers" in {each.kind for each in found}


def test_a_model_that_changes_during_each_attacked_batch(honest: Honest, flags: Flags) -> None:
    """Its attributes are put back after each batch, so that it answers as before in the others."""

    class Late(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net, self.graded = net, [0]

        def forward(self, inputs: Tensor) -> Tensor:
            self.graded[0] += inputs.requires_grad
            outputs: Tensor = self.net(inputs)
            return other(outputs) if self.graded[0] > 30 else outputs

    found = flags(Late(honest("softmax")), steps=40)
    assert "serious" in {each.severity for each in found}


NEAR_MISSES = [
    (lambda: started_long_ago, "a clock that does not matter"),
    (lambda: by_closure(10**9, examples=False), "a count that does not matter"),
]


@pytest.mark.parametrize(
    "condition", [each for each, _ in NEAR_MISSES], ids=[words for _, words in NEAR_MISSES]
)
def test_a_count_that_changes_no_answer_is_no_fault(
    honest: Honest, flags: Flags, condition: Callable[[], Callable[[Any, Tensor], bool]]
) -> None:
    found = flags(Switching(honest("softmax"), condition()), steps=2)
    assert not [each for each in found if each.severity == "serious"]


def test_what_a_model_keeps_at_its_first_call_is_no_fault(honest: Honest, flags: Flags) -> None:
    class Lazy(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net, self.scale = net, None

        def forward(self, inputs: Tensor) -> Tensor:
            if self.scale is None:
                self.scale = torch.ones(inputs.shape[1:])
            outputs: Tensor = self.net(inputs * self.scale)
            return outputs

    assert not [each for each in flags(Lazy(honest("softmax")), steps=2) if each.counts]

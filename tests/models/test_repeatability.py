"""State that changes from call to call is no randomness, wherever it is kept."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gibbon.models.classifier import Classifier
from gibbon.models.repeatability import Cause, cause_of_change

Change = Callable[[Any, Tensor, Tensor], Tensor]


class Changing(nn.Module):
    """A linear network whose outputs a function changes, given itself, inputs and outputs."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.net, self.change = nn.Linear(20, 5), change
        self.calls, self.seen = 0, set[float]()
        self.generator = torch.Generator()
        self.numbers = np.random.default_rng(1)
        self.counter = itertools.count()

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return self.change(self, inputs, self.net(inputs.flatten(1)))


def out_of_reach(change: Callable[[int, Tensor], Tensor]) -> Change:
    """Returns a change that a counter in no attribute of the model decides."""
    calls = itertools.count()
    return lambda net, inputs, outputs: change(next(calls), outputs)


def remembers(seen: Callable[[Any], set[float]]) -> Change:
    def change(net: Any, inputs: Tensor, outputs: Tensor) -> Tensor:
        key = round(float(inputs.sum()), 3)
        known = key in seen(net)
        seen(net).add(key)
        return outputs.flip(1) if known else outputs

    return change


def seeded_by_calls(net: Any, inputs: Tensor, outputs: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(net.calls)
    return outputs + torch.randn(outputs.shape, generator=generator)


def of_the_system(net: Any, inputs: Tensor, outputs: Tensor) -> Tensor:
    drawn = torch.tensor(list(os.urandom(outputs.numel()))) / 255
    return outputs + drawn.view_as(outputs)


EVERYWHERE = set[float]()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda net, x, y: y * (1 + 0.1 * net.calls), Cause.STATE),
        (lambda net, x, y: y * (1 + net.calls % 2), Cause.STATE),
        (lambda net, x, y: y * (1 + next(net.counter) % 3), Cause.STATE),
        (seeded_by_calls, Cause.STATE),
        (remembers(lambda net: net.seen), Cause.STATE),
        (remembers(lambda net: EVERYWHERE), Cause.STATE),
        (out_of_reach(lambda calls, y: y / (1 + 0.05 * calls)), Cause.STATE),
        (out_of_reach(lambda calls, y: y * (1 + calls % 5)), Cause.STATE),
        (lambda net, x, y: (y + torch.randn_like(y)) * net.calls, Cause.STATE),
        (lambda net, x, y: y + torch.randn_like(y), Cause.SEEDED),
        (lambda net, x, y: y * random.uniform(1, 2), Cause.SEEDED),  # noqa: S311
        (lambda net, x, y: y + float(np.random.normal()), Cause.SEEDED),  # noqa: NPY002
        (
            lambda net, x, y: y + torch.randn(y.shape, generator=net.generator),
            Cause.OWN_GENERATOR,
        ),
        (lambda net, x, y: y + float(net.numbers.normal()), Cause.OWN_GENERATOR),
        (of_the_system, Cause.UNKNOWN),
    ],
    ids=[
        *("a counter", "every second call", "an iterator", "seeded by the counter", "a cache"),
        *("a global cache", "a global schedule", "every fifth call", "noise and a counter"),
        *("noise", "a factor of Python", "noise of numpy"),
        *("a generator of its own", "one of numpy", "noise of the system"),
    ],
)
def test_the_cause_is_found(change: Change, cause: Cause) -> None:
    torch.manual_seed(0)
    net = Changing(change)
    classifier = Classifier(net, classes=5, input_shape=(1, 4, 5))

    def alike(one: Tensor, other: Tensor) -> bool:
        return bool(torch.allclose(one, other, atol=1e-5))

    with classifier.evaluating(), torch.no_grad():
        before = net.calls
        found = cause_of_change(
            classifier, torch.rand(8, 1, 4, 5), classifier=classifier, alike=alike
        )
        assert found is cause
        assert net.calls == before  # what the model keeps is put back


def test_too_few_calls_decide_nothing() -> None:
    classifier = Classifier(Changing(seeded_by_calls), classes=5, input_shape=(1, 4, 5))
    with classifier.evaluating(), torch.no_grad():
        found = cause_of_change(
            classifier, torch.rand(2, 1, 4, 5), classifier=classifier, alike=torch.equal, calls=4
        )
    assert found is Cause.UNKNOWN

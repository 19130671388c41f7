"""One pass for several epsilons, also if memory holds few of them."""

from __future__ import annotations

import nets
import pytest
import torch
from torch import Tensor, nn

from gibbon.core.threat import Epsilon, Norm, ThreatModel
from gibbon.metrics.validity import check
from gibbon.models.classifier import Classifier
from gibbon.models.votes import Votes
from gibbon.verify.proposal import TryResult
from gibbon.verify.shared_pass import SharedPass

COUNT = 4


class Small(nn.Module):
    """Has memory for a few examples at a time, and notes how many it is given."""

    def __init__(self, inner: nn.Module, most: int) -> None:
        super().__init__()
        self.inner, self.most = inner, most
        self.given: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.given.append(len(inputs))
        if len(inputs) > self.most:
            raise torch.OutOfMemoryError("planted shortage")
        outputs: Tensor = self.inner(inputs)
        return outputs


def model(most: int) -> tuple[Classifier, Small]:
    whole = nets.mlp()
    module = Small(whole.module, most)
    return Classifier(module, classes=whole.classes, input_shape=whole.input_shape), module


def predicted(source: Classifier, epsilons: int) -> list[Tensor | None]:
    batch = nets.random_batch(COUNT)
    threats = [
        ThreatModel(Norm.LINF, Epsilon.parse(f"0.0{number + 1}"), source.bounds)
        for number in range(epsilons)
    ]
    shared = SharedPass(batch.inputs, torch.ones_like(batch.inputs), threats)
    votes = [shared.votes(number, source, batch) for number in range(epsilons)]
    return [None if each is None else each.outputs[0] for each in votes]


@pytest.mark.parametrize(
    ("most", "first", "later"),
    [
        (1000, [20], [20]),
        (13, [20, 8, 8], [8, 8]),  # the fifth epsilon is left to a pass of its own
        (8, [20, 8, 8], [8, 8]),
        (7, [20, 8], []),
    ],
)
def test_the_number_that_memory_holds_is_remembered(
    most: int, first: list[int], later: list[int]
) -> None:
    source, module = model(most)
    plenty, _ = model(1000)
    with source.evaluating(), plenty.evaluating():
        expected = predicted(plenty, 5)
        for given in (first, later):
            module.given.clear()
            before = source.passes.forward
            found = predicted(source, 5)
            assert module.given == given
            made = [each for each in found if each is not None]
            assert source.passes.forward - before == COUNT * len(made)
            for each, other in zip(found, expected, strict=True):
                assert other is not None
                if each is not None:
                    torch.testing.assert_close(each, other)
    assert all(each is not None for each in expected)


def test_another_error_leaves_each_epsilon_to_its_own_pass() -> None:
    source, module = model(1000)
    module.register_forward_pre_hook(_fail)
    with source.evaluating():
        assert predicted(source, 3) == [None] * 3
        module._forward_pre_hooks.clear()
        assert None not in predicted(source, 3)


def _fail(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if len(inputs[0]) > COUNT:
        raise ValueError("planted trouble")


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("boxed", [True, False])
def test_what_is_computed_for_all_epsilons_is_what_each_has_alone(norm: Norm, boxed: bool) -> None:
    source, _ = model(1000)
    batch = nets.random_batch(COUNT)
    threats = [
        ThreatModel(norm, Epsilon.parse(each), source.bounds if boxed else None)
        for each in ("0.1", "0.5", "3")
    ]
    direction = torch.ones_like(batch.inputs)
    direction[0, ..., 0] = torch.inf  # at every epsilon one candidate is invalid
    shared = SharedPass(batch.inputs, direction, threats)
    with source.evaluating():
        for number, threat in enumerate(threats):
            points = shared.points(number)
            tried = TryResult(points, shared=shared, position=number)
            at_once = tried.check(batch.inputs, threat=threat, bounds=source.bounds)
            alone = check(points, batch.inputs, threat=threat, bounds=source.bounds)
            assert at_once.sound == alone.sound
            for name in ("candidates", "verdict"):  # copied, and compared with a tolerance
                one, other = getattr(at_once, name), getattr(alone, name)
                assert torch.equal(one.nan_to_num(9.0), other.nan_to_num(9.0))
            # Sums over more rows may be rounded in another order on another processor.
            torch.testing.assert_close(at_once.distance, alone.distance, equal_nan=True)


def test_answers_for_all_epsilons_are_cut_as_computed_for_each() -> None:
    source, _ = model(1000)
    batch = nets.random_batch(COUNT)
    threats = [ThreatModel(Norm.LINF, Epsilon.parse(each), source.bounds) for each in ("0.1", "1")]
    shared = SharedPass(batch.inputs, torch.ones_like(batch.inputs), threats)
    with source.evaluating():
        for number in range(len(threats)):
            cut = shared.votes(number, source, batch)
            assert cut is not None
            whole = Votes(cut.drawn, batch.labels, source.outputs)
            for name in ("outputs", "predicted", "confidence", "margin", "lead", "certain"):
                torch.testing.assert_close(getattr(cut, name), getattr(whole, name))

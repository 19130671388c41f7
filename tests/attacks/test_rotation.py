"""Rotation keeps the length, moves by epsilon, and turns towards the gradient."""

import math

import nets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gibbon.attacks.rotation import Rotation, rotate
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.models.pass_count import PassCount

coordinates = st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4)


def angle(one: Tensor, other: Tensor) -> float:
    cosine = float((one @ other) / (one.norm() * other.norm()))
    return math.acos(max(-1.0, min(1.0, cosine)))


@given(coordinates, coordinates, st.floats(0, 5))
def test_a_turned_point_has_its_length_and_is_a_chord_away(start, direction, chord):
    x, g = torch.tensor(start).double(), torch.tensor(direction).double()
    turned = rotate(x.view(1, 2, 2), g.view(1, 2, 2), chord=chord).flatten()
    moved = float((turned - x).norm())
    assert float(turned.norm()) == pytest.approx(float(x.norm()), abs=1e-9)
    assert moved <= chord + 1e-9
    if x.norm() < 1e-3 or g.norm() < 1e-3 or not 1e-3 < angle(x, g) < math.pi - 1e-3:
        return
    between = angle(x, g)
    turn = min(2 * math.asin(min(1.0, chord / (2 * float(x.norm())))), between)
    if chord >= 2 * float(x.norm()):
        turn = between
    assert moved == pytest.approx(2 * float(x.norm()) * math.sin(turn / 2), abs=1e-6)
    assert angle(turned, g) == pytest.approx(between - turn, abs=1e-5)


@pytest.mark.parametrize(
    ("start", "direction"),
    [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0, 2.0], [2.0, 4.0])],
    ids=["zero input", "zero gradient", "along the gradient"],
)
def test_what_can_not_be_turned_stays(start, direction):
    points = torch.tensor([start])
    assert torch.equal(rotate(points, torch.tensor([direction]), chord=0.5), points)


def proposed(classifier: Classifier, batch: Batch, epsilon: str, *, clip: bool) -> Tensor:
    threat = nets.threat(epsilon, norm=Norm.L2, bounds=Bounds(0.0, 1.0) if clip else None)
    streams = ExampleStreams.derive(0, batch.ids)
    with classifier.evaluating():
        (candidates,) = Rotation().propose(
            classifier, batch.inputs, labels=batch.labels, threat=threat, streams=streams
        )
    return candidates


def test_on_a_linear_model_no_other_turn_of_that_size_raises_the_margin_more():
    w = torch.rand(12, generator=nets.generator(3), dtype=torch.float64) * 4 - 2
    classifier = nets.logistic(w, bias=0.3)
    inputs = torch.rand(6, 12, generator=nets.generator(1), dtype=torch.float64)
    batch = Batch(torch.arange(6), inputs, torch.zeros(6, dtype=torch.int64))
    found = proposed(classifier, batch, "0.4", clip=False)
    torch.testing.assert_close(found.norm(dim=1), inputs.norm(dim=1))
    others = torch.randn(2000, 12, generator=nets.generator(2), dtype=torch.float64)
    for x, best in zip(inputs, found, strict=True):
        turned = rotate(x.expand(2000, 12), others, chord=0.4)
        assert float((turned @ w).max()) <= float(best @ w) + 1e-9


def test_it_misleads_with_one_pass_each_way():
    classifier = nets.mlp()
    batch = nets.labelled(classifier, nets.random_batch(100))
    classifier.passes = PassCount()
    found = proposed(classifier, batch, "0.5", clip=True)
    assert classifier.passes == PassCount(forward=100, backward=100)
    assert float((found - batch.inputs).flatten(1).norm(dim=1).max()) <= 0.5 + 1e-6
    with classifier.evaluating():
        assert int((classifier.predict(found).argmax(1) != batch.labels).sum()) > 50

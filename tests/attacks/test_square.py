"""The square attack: what it spends, what it changes, and what it can do."""

import nets
import pytest
import torch

from benchmark.attacks.square import (
    L2Sampler,
    LinfSampler,
    Square,
    _halves,  # its shape is equation 2
)
from benchmark.classifier import PassCount
from benchmark.datasets.base import Batch
from benchmark.outputs import margin
from benchmark.rng import ExampleStreams
from benchmark.threat import Bounds, Norm

BOX = Bounds(0.0, 1.0)


def proposed(attack, classifier, batch, threat):
    streams = ExampleStreams.derive(0, batch.ids)
    with classifier.evaluating(), torch.enable_grad():
        return list(
            attack.propose(
                classifier, batch.inputs, labels=batch.labels, threat=threat, streams=streams
            )
        )


def hard() -> tuple:
    """A model that no small change misleads, and inputs that it gets right."""
    classifier = nets.linear(spread=0.5)
    return classifier, nets.labelled(classifier, nets.random_batch(10))


@pytest.mark.parametrize("norm", Square.norms)
def test_every_query_is_a_forward_pass_and_nothing_more_is_spent(norm):
    classifier, batch = hard()
    classifier.passes = PassCount()
    proposed(Square(queries=25), classifier, batch, nets.threat("1/10000", norm=norm))
    assert classifier.passes == PassCount(forward=10 * (1 + 25), backward=0)


def test_misled_examples_leave_the_batch():
    classifier, batch = nets.linear(), nets.random_batch(40)
    classifier.passes = PassCount()
    (candidates,) = proposed(Square(queries=50), classifier, batch, nets.threat("0.3"))
    assert classifier.passes.forward < 40 * 51 / 2
    with classifier.evaluating():
        clean = classifier.predict(batch.inputs).argmax(1) != batch.labels
    assert bool(clean.any())
    assert torch.equal(candidates[clean], batch.inputs[clean])


@pytest.mark.parametrize("norm", Square.norms)
def test_more_queries_never_lower_the_margin(norm):
    classifier, batch = hard()
    threat = nets.threat("0.05" if norm is Norm.LINF else "0.2", norm=norm)
    margins = []
    for queries in (1, 5, 40):
        (candidates,) = proposed(Square(queries=queries), classifier, batch, threat)
        with classifier.evaluating():
            margins.append(margin(classifier.predict(candidates), batch.labels))
    # The schedule of window sizes depends on the number of queries: the first is the same.
    assert bool((margins[1] >= margins[0] - 1e-6).all())
    assert float(margins[2].mean()) > float(margins[1].mean()) > float(margins[0].mean())


def test_most_of_the_linf_optimum_is_found():
    """On a linear model the optimum is epsilon times the 1-norm of the rivals' difference."""
    classifier = nets.linear(classes=2)
    batch = nets.labelled(classifier, nets.random_batch(20))
    threat = nets.threat("0.01", bounds=None)
    weights = classifier.module[1].weight.detach()
    with classifier.evaluating():
        before = margin(classifier.predict(batch.inputs), batch.labels)
        keep = before < -2 * 0.01 * float((weights[0] - weights[1]).abs().sum())
    batch = Batch(batch.ids[keep], batch.inputs[keep], batch.labels[keep])
    (candidates,) = proposed(Square(queries=400), classifier, batch, threat)
    with classifier.evaluating():
        gained = margin(classifier.predict(candidates), batch.labels) - before[keep]
    assert len(gained) > 3
    best = 0.01 * float((weights[0] - weights[1]).abs().sum())
    assert float(gained.mean()) > 0.95 * best
    assert bool((gained < 1.001 * best).all())


@pytest.mark.parametrize("shape", [(7,), (1, 2, 3), (3, 12, 9), (2, 3, 8, 8)])
@pytest.mark.parametrize(
    "sampler", [LinfSampler(0.2, BOX), L2Sampler(0.7, BOX)], ids=["linf", "l2"]
)
def test_pictures_of_any_shape_are_changed_within_budget(sampler, shape):
    inputs = nets.random_batch(5, shape=shape).inputs
    picture = inputs.flatten(1).view(5, *((1, 1, 7) if len(shape) == 1 else (-1, *shape[-2:])))
    streams = ExampleStreams.derive(0, torch.arange(5))
    points = sampler.first(picture, streams=streams)
    for query in range(20):
        points = sampler.change(points, picture, side=5 - query / 5, streams=streams.child(query))
        change = (points - picture).flatten(1)
        size = change.abs().amax(1) if isinstance(sampler, LinfSampler) else change.norm(dim=1)
        assert float(size.max()) <= sampler.radius * (1 + 1e-5)
        assert float(points.min()) >= 0
        assert float(points.max()) <= 1
        assert bool(torch.isfinite(points).all())


def test_an_l2_window_has_two_halves_of_length_one():
    window = _halves(5, 5)
    assert float(window.norm()) == pytest.approx(1)
    assert bool((window[:2] > 0).all())
    assert bool((window[2:] < 0).all())
    assert float(window[1, 2]) == float(window[:2].max())  # the middle of its half


def test_restarts_spare_those_already_misled():
    classifier, batch = nets.linear(), nets.random_batch(30)
    one, two = proposed(Square(queries=10, restarts=2), classifier, batch, nets.threat("0.1"))
    with classifier.evaluating():
        misled = margin(classifier.predict(one), batch.labels) > 1e-3
    assert torch.equal(one[misled], two[misled])
    assert not torch.equal(one[~misled], two[~misled])

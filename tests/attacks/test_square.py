"""The square attack: what it spends, what it changes, and what it can do."""

import nets
import pytest
import torch
from same_outcomes import TOLERANCE
from torch import Tensor, nn

from gibbon.attacks.square import Square
from gibbon.attacks.toolkit.square_windows import SAMPLERS, _halves
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm
from gibbon.datasets.base import Batch
from gibbon.metrics.distances import distances
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin
from gibbon.models.pass_count import PassCount

BOX = Bounds(0.0, 1.0)


def proposed(attack, classifier, batch, threat):
    streams = ExampleStreams.derive(0, batch.ids)
    with classifier.evaluating(), torch.enable_grad():
        return list(
            attack.propose(
                classifier, batch.inputs, labels=batch.labels, threat=threat, streams=streams
            )
        )


def changed_at(turn, sampler, points, picture, windows):
    """What one query makes of all points."""
    examples = torch.arange(len(points))
    at = windows.at(torch.tensor(turn), examples)
    return sampler.change(points, picture, examples=examples, windows=at)


def hard() -> tuple:
    """A model that no small change misleads, and inputs that it gets right."""
    classifier = nets.linear(spread=0.5)
    return classifier, nets.labelled(classifier, nets.random_batch(10))


@pytest.mark.parametrize("norm", [Norm.L2, Norm.L1])
def test_every_query_is_a_forward_pass_and_nothing_more_is_spent(norm):
    classifier, batch = hard()
    classifier.passes = PassCount()
    proposed(Square(queries=25), classifier, batch, nets.threat("1/10000", norm=norm))
    assert classifier.passes == PassCount(forward=10 * (1 + 25), backward=0)


def test_a_change_that_changes_nothing_takes_no_pass():
    """In L∞ a window of one pixel of one channel is set to what it is every other time."""
    classifier, batch = hard()
    classifier.passes = PassCount()
    proposed(Square(queries=400, share=0.01), classifier, batch, nets.threat("1/10000"))
    spent = classifier.passes.forward
    assert 10 * 401 * 0.4 < spent < 10 * 401 * 0.6


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
    threat = nets.threat({Norm.LINF: "0.05", Norm.L2: "0.2", Norm.L1: "0.5"}[norm], norm=norm)
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
    ("norm", "epsilon"), [(Norm.LINF, "0.2"), (Norm.L2, "0.7"), (Norm.L1, "2")]
)
def test_pictures_of_any_shape_are_changed_within_budget(norm, epsilon, shape):
    threat = nets.threat(epsilon, norm=norm)
    sampler = SAMPLERS[norm](threat)
    inputs = nets.random_batch(5, shape=shape).inputs
    picture = inputs.flatten(1).view(5, *((1, 1, 7) if len(shape) == 1 else (-1, *shape[-2:])))
    streams = ExampleStreams.derive(0, torch.arange(5))
    points = sampler.first(picture, streams=streams)
    used = []
    for side in (5.0, 4.0, 3.0, 1.0):
        windows = sampler.windows(picture, side=side, count=6, skip=0, streams=streams)
        for turn in range(6):
            rows, changed = changed_at(turn, sampler, points, picture, windows)
            assert bool((changed != points[rows]).flatten(1).any(1).all()) or norm is not Norm.LINF
            points[rows] = changed
            sizes = distances(points, picture, norm=norm)
            assert float(sizes.max()) <= threat.radius * (1 + 1e-6)
            assert float(points.min()) >= 0
            assert float(points.max()) <= 1
            assert bool(torch.isfinite(points).all())
            used.append(float(sizes.mean()) / threat.radius)
    assert max(used) > 0.5


@pytest.mark.parametrize("norm", [Norm.L2, Norm.L1])
def test_without_a_box_the_whole_budget_is_spent_at_every_query(norm):
    threat = nets.threat("0.7", norm=norm, bounds=None)
    sampler = SAMPLERS[norm](threat)
    picture = nets.random_batch(4, shape=(3, 9, 9)).inputs
    streams = ExampleStreams.derive(0, torch.arange(4))
    points = sampler.first(picture, streams=streams)
    windows = sampler.windows(picture, side=3, count=200, skip=0, streams=streams)
    for turn in range(200):
        _, points = changed_at(turn, sampler, points, picture, windows)
        sizes = distances(points, picture, norm=norm)
        assert sizes.tolist() == pytest.approx([0.7] * 4, rel=1e-5)


def test_in_l1_the_ball_cut_with_the_box_is_left_sparse():
    """Three channels get three times the budget, and the projection takes from all alike."""
    threat = nets.threat("2", norm=Norm.L1)
    sampler = SAMPLERS[Norm.L1](threat)
    picture = nets.random_batch(4, shape=(3, 20, 20)).inputs
    streams = ExampleStreams.derive(0, torch.arange(4))
    points = sampler.first(picture, streams=streams)
    windows = sampler.windows(picture, side=3, count=50, skip=0, streams=streams)
    for turn in range(50):
        _, points = changed_at(turn, sampler, points, picture, windows)
    moved = (points != picture).flatten(1).sum(1)
    assert int(moved.max()) < 100  # of 1200


@pytest.mark.parametrize("norm", Square.norms)
def test_windows_follow_the_streams_of_their_examples_alone(norm):
    sampler = SAMPLERS[norm](nets.threat("0.5", norm=norm))
    picture = nets.random_batch(6, shape=(2, 9, 7)).inputs
    streams = ExampleStreams.derive(3, torch.arange(6))

    def drawn(rows, *, skip, count):
        return sampler.windows(
            picture[rows], side=3, count=count, skip=skip, streams=streams.take(rows)
        )

    every = drawn(torch.arange(6), skip=0, count=10)
    some = drawn(torch.tensor([4, 1]), skip=7, count=3)
    rows = torch.tensor([4, 1])
    for turn in torch.arange(3):
        whole, part = every.at(turn + 7, rows), some.at(turn, torch.arange(2))
        assert torch.equal(whole.places, part.places)
        assert torch.equal(whole.forms, part.forms)


def test_windows_shrink_as_the_paper_says_or_over_a_schedule_of_its_own():
    paper, ours = Square(queries=5000), Square(queries=5000, schedule=10_000)
    sides = [
        {round(28 * share**0.5): run.start for run, share in reversed(list(attack._runs()))}
        for attack in (paper, ours)
    ]
    assert sides[0] == {25: 0, 18: 5, 13: 25, 9: 100, 6: 250, 4: 500, 3: 1000, 2: 2000, 1: 4000}
    assert sides[1] == {25: 0, 18: 10, 13: 50, 9: 200, 6: 500, 4: 1000, 3: 2000, 2: 4000}
    for attack in (paper, ours):
        assert [change for run, _ in attack._runs() for change in run] == list(range(4999))


@pytest.mark.parametrize("order", [1, 2])
def test_a_window_has_two_halves_and_length_one(order):
    window = _halves(5, 5, order=order)
    assert float(torch.linalg.vector_norm(window.flatten(), order)) == pytest.approx(1)
    assert bool((window[:2] > 0).all())
    assert bool((window[2:] < 0).all())
    assert float(window[1, 2]) == float(window[:2].max())  # the middle of its half


def test_a_window_falls_off_as_equation_2_says():
    for order, power in ((2, 2), (1, 4)):
        lower = -_halves(5, 5, order=order)[2:]
        inner, outer = 1 + 2.0**-power + 3.0**-power, 2.0**-power + 3.0**-power
        assert float(lower[1, 2] / lower[1, 1]) == pytest.approx(inner / outer)


def test_restarts_spare_those_already_misled():
    classifier, batch = nets.linear(), nets.random_batch(30)
    one, two = proposed(Square(queries=10, restarts=2), classifier, batch, nets.threat("0.1"))
    with classifier.evaluating():
        misled = margin(classifier.predict(one), batch.labels) > 1e-3
    assert torch.equal(one[misled], two[misled])
    assert not torch.equal(one[~misled], two[~misled])


class Exact(nn.Module):
    """A network in float64: the size of a batch doesn't show in what a search compares."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()
        self.sizes: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.sizes.append(len(inputs))
        return self.net(inputs.double())


BUDGETS = {Norm.LINF: "0.03", Norm.L2: "0.15", Norm.L1: "0.4"}  # some survive, some do not


def searched(norm, *, ahead, room, examples=20, restarts=1) -> tuple[Tensor, Exact, int]:
    """What is found with so much room in a batch, the model, and the passes."""
    body = nets.mlp()
    classifier = Classifier(Exact(body.module), classes=body.classes, input_shape=body.input_shape)
    batch = nets.labelled(classifier, nets.random_batch(20))
    batch = Batch(batch.ids[:examples], batch.inputs[:examples], batch.labels[:examples])
    attack = Square(queries=300, ahead=ahead, restarts=restarts)
    classifier.passes, classifier.module.sizes = PassCount(), []
    with classifier.watching(batch.inputs, room=room):
        *_, found = proposed(attack, classifier, batch, nets.threat(BUDGETS[norm], norm=norm))
    return found, classifier.module, classifier.passes.forward


def assert_same_points(one: Tensor, other: Tensor) -> None:
    # A window takes the root of what is left of the squared budget, which may be all rounding.
    torch.testing.assert_close(one, other, rtol=0, atol=TOLERANCE**0.5)


@pytest.mark.parametrize("norm", Square.norms)
def test_looking_ahead_finds_what_one_query_after_the_other_finds(norm):
    one, model, queries = searched(norm, ahead=1, room=200)
    for ahead, room in ((2, 0), (3, 25), (64, 90), (64, 1000)):
        found, asked, passes = searched(norm, ahead=ahead, room=room)
        assert_same_points(found, one)
        assert max(asked.sizes) <= max(room, 20)
        assert queries <= passes < 2 * queries
    assert len(asked.sizes) < len(model.sizes) / 3


def test_looking_ahead_hangs_on_no_other_example():
    whole, _, _ = searched(Norm.LINF, ahead=64, room=64)
    part, _, _ = searched(Norm.LINF, ahead=64, room=64, examples=7)
    assert_same_points(whole[:7], part)


def test_looking_ahead_stops_where_an_example_is_misled():
    """The first query in order that misleads is the one that counts, also in a later restart."""
    one, model, _ = searched(Norm.L2, ahead=1, room=400, restarts=2)
    found, _, passes = searched(Norm.L2, ahead=64, room=400, restarts=2)
    assert_same_points(found, one)
    with torch.no_grad():
        before, after = model(nets.random_batch(20).inputs), model(found)
    misled = int((before.argmax(1) != after.argmax(1)).sum())
    assert 0 < misled < 20
    assert passes < (20 - misled / 2) * 2 * 300

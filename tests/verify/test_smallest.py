"""The smallest adversarial distance: whatever a search claims, the model is asked again, once."""

import math
from dataclasses import dataclass

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gibbon.attacks.deepfool import DeepFool
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.core.errors import AttackError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, Verdict
from gibbon.datasets.base import Batch
from gibbon.metrics.nearest import error_within
from gibbon.models.classifier import Classifier
from gibbon.models.pass_count import PassCount
from gibbon.verify.guard import guarding
from gibbon.verify.judge import Judged, judge, judge_clean
from gibbon.verify.proposal import MinimalNormSearch, SearchProposal, propose

EPSILONS = ("0", "0.05", "0.1", "0.25", "0.5", "2")


@dataclass(frozen=True)
class Found(MinimalNormAttack):
    """Claims to have found these points."""

    tries: tuple[Tensor, ...]
    looks: bool = False

    def nearest(self, classifier, inputs, *, labels, norm, bounds, streams):
        """Yields them."""
        if self.looks:
            classifier.predict(inputs)
        yield from self.tries


@dataclass(frozen=True)
class Returns(MinimalNormAttack):
    """Returns its one try where others yield it."""

    points: Tensor

    def nearest(self, classifier, inputs, *, labels, norm, bounds, streams):
        """Returns it."""
        return self.points


def line() -> Classifier:
    """Class 1 where a number is above a half, by their difference."""
    net = nn.Linear(1, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        net.bias.copy_(torch.tensor([0.5, -0.5]))
    return Classifier(net, classes=2, input_shape=(1,))


def at_each(
    attack: MinimalNormAttack, classifier: Classifier, batch: Batch, *, norm: Norm = Norm.LINF
) -> list[Judged]:
    streams = ExampleStreams.derive(0, batch.ids)
    threats = [nets.threat(epsilon, norm=norm) for epsilon in EPSILONS]
    with classifier.evaluating(), guarding(classifier, batch) as given_:
        tries = propose(attack, classifier, given_.batch, threats=threats, streams=streams)
        return [
            judge(classifier, batch, proposed=each, threat=threat, watch=given_.watch)
            for each, threat in zip(tries, threats, strict=True)
        ]


def test_a_return_in_the_place_of_a_yield_is_one_try():
    points = torch.tensor([[0.6], [0.4]])
    batch = Batch(torch.arange(2), torch.tensor([[0.4], [0.6]]), torch.tensor([0, 1]))
    for judged in at_each(Returns(points), line(), batch):
        assert judged.nearest.tolist() == pytest.approx([0.2, 0.2])


places = st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.45, 0.55, 0.6, 0.75, 1.0])
points = places | st.sampled_from([-0.3, 1.5, math.nan, math.inf])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_claimed_the_curve_is_the_error_at_every_epsilon(data):
    count = data.draw(st.integers(1, 8))
    column = st.lists(points, min_size=count, max_size=count)
    inputs = data.draw(st.lists(places, min_size=count, max_size=count))
    labels = data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    tries = data.draw(st.lists(column, min_size=1, max_size=3))
    batch = Batch(torch.arange(count), torch.tensor(inputs).unsqueeze(1), torch.tensor(labels))
    attack = Found(tuple(torch.tensor(each).unsqueeze(1) for each in tries))
    judged = at_each(attack, line(), batch)
    nearest = judged[0].nearest.numpy()
    for x, label, measured, *claims in zip(inputs, labels, nearest, *tries, strict=True):
        distances = [
            float(np.abs(np.float32(claim) - np.float32(x)))
            for claim in claims
            if 0 <= claim <= 1 and (claim > 0.5) != label
        ]
        expected = 0.0 if (x > 0.5) != label else min(distances, default=math.nan)
        np.testing.assert_allclose(measured, expected, rtol=1e-6)
    for epsilon, each in zip(EPSILONS, judged, strict=True):
        assert each.any_misled.tolist() == (nearest <= np.float32(epsilon)).tolist()
        # What the record counts is the candidate that stands, and its answer.
        standing = (each.answers.predicted != batch.labels) & (each.verdict == Verdict.VALID)
        assert standing.float().mean().item() == pytest.approx(
            error_within(nearest, float(epsilon))
        )
        with line().evaluating() as again:
            answers = again.predict(each.candidates).argmax(1)
        assert answers.tolist() == each.answers.predicted.tolist()
        if len(tries) > 1:
            assert ((each.misled_by >= 0) == each.any_misled).all()
        else:
            assert each.misled_by is None


def test_a_point_that_leaves_the_box_is_flagged_and_does_not_count():
    batch = Batch(torch.arange(2), torch.tensor([[0.9], [0.9]]), torch.tensor([1, 1]))
    judged = at_each(Found((torch.tensor([[-0.05], [0.45]]),)), line(), batch)
    assert judged[-1].verdict.tolist() == [Verdict.OUT_OF_BOUNDS, Verdict.VALID]
    assert judged[-1].nearest.isnan().tolist() == [True, False]
    assert judged[2].verdict.tolist() == [Verdict.VALID, Verdict.VALID]  # too far: not proposed


def test_without_a_box_every_finite_point_counts():
    batch = Batch(torch.arange(2), torch.tensor([[0.9], [0.9]]), torch.tensor([1, 1]))
    found = [torch.tensor([[-0.6], [math.inf]])]
    with line().evaluating() as classifier:
        search = MinimalNormSearch(found, norm=Norm.LINF, bounds=None)
        nearest = search.answers(classifier, batch, watch=None).nearest
    assert nearest[0].item() == pytest.approx(1.5)
    assert nearest[1].isnan()


def test_a_point_that_puts_a_mistake_right_does_not_hide_it():
    batch = Batch(torch.arange(1), torch.tensor([[0.45]]), torch.tensor([1]))
    for each in at_each(Found((torch.tensor([[0.6]]),)), line(), batch):
        assert each.any_misled.tolist() == [True]
        assert torch.equal(each.candidates, batch.inputs)
        assert each.nearest.tolist() == [0.0]


def test_the_first_try_that_misled_within_epsilon_is_named():
    batch = Batch(torch.arange(3), torch.full((3, 1), 0.6), torch.ones(3, dtype=torch.int64))
    far, near, none = 0.2, 0.45, 0.7
    one = torch.tensor([[far], [none], [none]])
    other = torch.tensor([[near], [near], [none]])
    judged = at_each(Found((one, other)), line(), batch)
    assert judged[3].misled_by.tolist() == [1, 1, -1]  # 0.25: the first is 0.4 away
    assert judged[4].misled_by.tolist() == [0, 1, -1]
    assert judged[4].nearest[:2].tolist() == pytest.approx([0.15, 0.15])


@pytest.mark.parametrize("looks", [False, True])
def test_any_number_of_epsilons_costs_one_pass(looks):
    """One for the points found, and one for the clean inputs if the attack did not ask of them."""
    classifier, batch = nets.mlp(), nets.random_batch(20)
    attack = Found((batch.inputs.flip(0).contiguous(),), looks=looks)
    classifier.passes = PassCount()
    judged = at_each(attack, classifier, batch)
    assert len(judged) == len(EPSILONS)
    assert classifier.passes.forward == 2 * len(batch.ids)
    assert classifier.passes.backward == 0


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_on_a_linear_model_the_distances_are_the_closed_form(norm):
    classifier, batch = nets.linear(classes=2), nets.random_batch(40)
    # Far from the ends of the box, which would lengthen the way.
    batch = Batch(batch.ids, 0.4 + 0.2 * batch.inputs, batch.labels % 2)
    judged = at_each(DeepFool(), classifier, batch, norm=norm)[0]
    weight = classifier.module[1].weight.detach().double()
    slope = weight[1] - weight[0]
    with torch.no_grad():
        gap = classifier.module.double()(batch.inputs.double())
    classifier.module.float()
    towards = torch.where(batch.labels == 1, 1.0, -1.0) * (gap[:, 1] - gap[:, 0])
    dual = slope.norm(p=1 if norm is Norm.LINF else 2)
    expected = (towards / dual).clamp(min=0.0)
    wrong = expected == 0
    assert 0 < int(wrong.sum()) < len(wrong)
    assert judged.nearest[wrong].tolist() == [0.0] * int(wrong.sum())
    measured = judged.nearest[~wrong].double()
    assert float((measured / expected[~wrong]).min()) > 0.999
    # DeepFool oversteps by 2 %, and by 1e-4 a step.
    assert float(((measured - 2e-4) / expected[~wrong]).max()) < 1.03


def test_the_points_of_a_search_are_not_carried_along_a_direction():
    batch = Batch(torch.arange(1), torch.tensor([[0.9]]), torch.tensor([1]))
    search = MinimalNormSearch([torch.tensor([[0.4]])], norm=Norm.LINF, bounds=None)
    threat = nets.threat("0.1")
    proposed = SearchProposal(search, batch.inputs, threat)
    with line().evaluating() as classifier:
        before = judge_clean(classifier, batch)
        with pytest.raises(AttackError, match="one direction only"):
            judge(classifier, batch, proposed=proposed, threat=threat, before=before)


def test_a_search_without_a_try_is_an_error():
    with pytest.raises(AttackError, match="proposed no candidate"):
        at_each(Found(()), nets.mlp(), nets.random_batch(3))

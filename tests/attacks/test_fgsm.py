"""FGSM against closed forms, float64 and the floor of its passes."""

import nets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gibbon.attacks.base import DirectionAttack, move
from gibbon.attacks.fgsm import FGSM
from gibbon.attacks.fgsm_naive import FGSMNaive
from gibbon.core.errors import AttackError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin
from gibbon.models.pass_count import PassCount
from gibbon.verify.answers import clean_answers
from gibbon.verify.guard import guarding
from gibbon.verify.judge import judge, judge_clean
from gibbon.verify.proposal import TriesProposal, propose

DIMENSIONS = 12
weights = st.lists(
    st.floats(-3, 3).filter(lambda w: abs(w) > 1e-3), min_size=DIMENSIONS, max_size=DIMENSIONS
)
BOX = Bounds(0.0, 1.0)


def regression(values: list[float]) -> tuple[Classifier, Batch, Tensor]:
    """Logistic regression in float64, a batch with both labels, and its weights."""
    w = torch.tensor(values, dtype=torch.float64)
    inputs = torch.rand(6, DIMENSIONS, generator=nets.generator(1), dtype=torch.float64)
    batch = Batch(torch.arange(6), inputs, torch.arange(6) % 2)
    return nets.logistic(w, bias=0.3), batch, w


def attacked(attack: DirectionAttack, classifier: Classifier, batch: Batch, **threat) -> Tensor:
    (tries,) = propose(
        attack,
        classifier,
        batch,
        threats=[nets.threat(**threat)],
        streams=ExampleStreams.derive(0, batch.ids),
    )
    with classifier.evaluating():
        (candidates,) = tries
        return candidates


@pytest.mark.parametrize("attack", [FGSM(), FGSMNaive()], ids=["exact", "naive"])
@given(values=weights, epsilon=st.sampled_from(["0.01", "8/255", "0.25", "2"]))
def test_the_margin_of_logistic_regression_falls_by_epsilon_times_the_l1_norm(
    attack, values, epsilon
):
    classifier, batch, w = regression(values)
    candidates = attacked(attack, classifier, batch, epsilon=epsilon, bounds=None)
    loss = margin(classifier.predict(candidates), batch.labels)
    clean = margin(classifier.predict(batch.inputs), batch.labels)
    reach = nets.threat(epsilon).radius * w.abs().sum()
    torch.testing.assert_close(loss, clean + reach, rtol=1e-12, atol=1e-12)


def random_points(batch: Batch, *, radius: float, bounds: Bounds | None) -> Tensor:
    """10,000 points of each example's box: half of them uniform, half of them corners."""
    draws = torch.rand(10_000, 1, DIMENSIONS, generator=nets.generator(2), dtype=torch.float64)
    shifts = 2 * draws - 1
    shifts[5_000:] = shifts[5_000:].sign()
    points = batch.inputs + radius * shifts
    return points if bounds is None else points.clamp(bounds.low, bounds.high)


@pytest.mark.parametrize("bounds", [None, BOX], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("epsilon", ["0.1", "0.7"])
def test_no_random_point_of_the_box_is_worse(bounds, epsilon):
    values = (torch.rand(DIMENSIONS, generator=nets.generator(3)) * 4 - 2).tolist()
    classifier, batch, _ = regression(values)
    candidates = attacked(FGSM(), classifier, batch, epsilon=epsilon, bounds=bounds)
    worst = margin(classifier.predict(candidates), batch.labels)
    points = random_points(batch, radius=nets.threat(epsilon).radius, bounds=bounds)
    outputs = classifier.predict(points.flatten(0, 1))
    others = margin(outputs, batch.labels.repeat(10_000)).view(10_000, -1)
    assert bool((others <= worst + 1e-12).all())
    assert bool((others.amax(0) > worst - 0.8 * (worst - others.mean(0))).all())  # they come near


@given(values=weights, epsilon=st.sampled_from(["0.05", "0.3", "1"]))
def test_the_clipped_attack_is_the_worst_point_of_the_clipped_box(values, epsilon):
    classifier, batch, w = regression(values)
    candidates = attacked(FGSM(), classifier, batch, epsilon=epsilon, bounds=BOX)
    radius = nets.threat(epsilon).radius
    up = torch.minimum(torch.tensor(radius, dtype=torch.float64), 1 - batch.inputs)
    down = torch.minimum(torch.tensor(radius, dtype=torch.float64), batch.inputs)
    towards_1 = torch.where(w > 0, up, down) @ w.abs()
    towards_0 = torch.where(w > 0, down, up) @ w.abs()
    gain = torch.where(batch.labels == 0, towards_1, towards_0)
    clean = margin(classifier.predict(batch.inputs), batch.labels)
    found = margin(classifier.predict(candidates), batch.labels)
    torch.testing.assert_close(found, clean + gain, rtol=1e-12, atol=1e-12)


def test_clipping_only_moves_points_to_the_faces_of_the_box(mlp, batch):
    free = attacked(FGSM(), mlp, batch, epsilon="0.3", bounds=None)
    clipped = attacked(FGSM(), mlp, batch, epsilon="0.3", bounds=BOX)
    assert torch.equal(clipped, free.clamp(0, 1))
    assert float(free.min()) < 0
    assert float(free.max()) > 1
    torch.testing.assert_close((free - batch.inputs).abs(), torch.full_like(free, 0.3))


def float64_gradient(classifier: Classifier, batch: Batch) -> Tensor:
    leaf = batch.inputs.double().requires_grad_()
    classifier.module.double()
    loss = classifier.outputs.loss(classifier.module(leaf), batch.labels).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


@pytest.mark.parametrize("attack", [FGSM(), FGSMNaive()], ids=["exact", "naive"])
def test_the_direction_is_the_sign_of_the_float64_gradient(attack, classifier, batch):
    with classifier.evaluating():
        streams = ExampleStreams.derive(0, batch.ids)
        direction = attack.direction(classifier, batch.inputs, labels=batch.labels, streams=streams)
        gradient = float64_gradient(classifier, batch)
    clear = gradient.abs() > 1e-5 * gradient.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    assert torch.equal(direction[clear].double(), gradient[clear].sign())
    assert float(clear.double().mean()) > 0.99


def test_where_the_softmax_saturates_only_the_exact_direction_is_left():
    classifier = nets.linear(spread=2_000.0)
    batch = nets.labelled(classifier, nets.random_batch())
    streams = ExampleStreams.derive(0, batch.ids)
    with classifier.evaluating():
        outputs = classifier.predict(batch.inputs)
        sure = margin(outputs, batch.labels) < -110  # exp(-110) is no float32
        assert int(sure.sum()) > 20
        with classifier.watching(batch.inputs) as watch:
            naive = FGSMNaive().direction(
                classifier, batch.inputs, labels=batch.labels, streams=streams
            )
        exact = FGSM().direction(classifier, batch.inputs, labels=batch.labels, streams=streams)
        rival = outputs.scatter(1, batch.labels.unsqueeze(1), -torch.inf).argmax(1)
    assert bool((naive[sure] == 0).all())
    assert watch.zero_gradient is not None
    assert torch.equal(watch.zero_gradient[sure], torch.ones(int(sure.sum()), dtype=torch.bool))
    assert bool((exact != 0).all())
    # So sure a model has one rival only, and the direction is that of its weights.
    weight = classifier.module[1].weight.detach()
    expected = (weight[rival] - weight[batch.labels]).sign().view_as(exact)
    clear = margin(outputs.scatter(1, batch.labels.unsqueeze(1), -torch.inf), rival) < -20
    assert torch.equal(exact[clear], expected[clear])


def test_the_exact_attack_finds_what_saturation_hides():
    classifier = nets.linear(spread=20_000.0)
    batch = nets.labelled(classifier, nets.random_batch(100))
    errors = {}
    for name, attack in (("exact", FGSM()), ("naive", FGSMNaive())):
        candidates = attacked(attack, classifier, batch, epsilon="0.5")
        errors[name] = int((classifier.predict(candidates).argmax(1) != batch.labels).sum())
    assert errors["naive"] < 10
    assert errors["exact"] > 90


def test_five_epsilons_cost_one_forward_and_backward_and_five_forwards(mlp, batch):
    threats = [nets.threat(epsilon) for epsilon in ("0.05", "0.1", "0.15", "0.2", "0.25")]
    count = len(batch.labels)
    with mlp.evaluating(), guarding(mlp, batch) as given:
        streams = ExampleStreams.derive(0, batch.ids)
        proposals = propose(FGSM(), mlp, given.batch, threats=threats, streams=streams)
        for threat, tries in zip(threats, proposals, strict=True):
            judge(mlp, batch, proposed=tries, threat=threat)
        clean = clean_answers(mlp, batch, watch=given.watch)  # comes with the first pass
        assert mlp.passes == PassCount(forward=6 * count, backward=count)
        assert torch.equal(clean.answers.predicted, mlp.predict(batch.inputs).argmax(1))


def test_what_misled_before_is_carried_and_the_model_asked_of_the_others_alone(mlp, batch):
    threats = [nets.threat(epsilon) for epsilon in ("0.002", "0.005", "0.01", "0.02")]
    batch, count = nets.labelled(mlp, batch), len(batch.labels)
    batch.labels[0] = (batch.labels[0] + 1) % nets.CLASSES
    mlp.passes = PassCount()
    with mlp.evaluating(), guarding(mlp, batch) as given:
        streams = ExampleStreams.derive(0, batch.ids)
        proposals = list(propose(FGSM(), mlp, given.batch, threats=threats, streams=streams))
        found = judge_clean(mlp, batch, watch=given.watch)
        assert mlp.passes == PassCount(forward=count, backward=count)
        for threat, tries in zip(threats, proposals, strict=True):
            misled, asked = found.any_misled, mlp.passes.forward
            found = judge(mlp, batch, proposed=tries, threat=threat, before=found)
            assert mlp.passes.forward - asked == int((~misled).sum())
            anew = judge(mlp, batch, proposed=tries, threat=threat)
            assert torch.equal(found.any_misled, misled | anew.any_misled)
            torch.testing.assert_close(found.candidates[~misled], anew.candidates[~misled])
            torch.testing.assert_close(found.distance[~misled], anew.distance[~misled])
        assert 0 < int(misled.sum()) < int(found.any_misled.sum())
        with pytest.raises(AttackError, match="one direction only"):
            judge(
                mlp, batch, proposed=TriesProposal([batch.inputs]), threat=threats[0], before=found
            )


def test_all_epsilons_move_along_one_direction(mlp, batch):
    threats = [nets.threat(epsilon, bounds=None) for epsilon in ("0.1", "0.2")]
    with mlp.evaluating():
        streams = ExampleStreams.derive(0, batch.ids)
        (near,), (far,) = propose(FGSM(), mlp, batch, threats=threats, streams=streams)
        direction = FGSM().direction(mlp, batch.inputs, labels=batch.labels, streams=streams)
    assert torch.equal(near, move(batch.inputs, direction, threat=threats[0]))
    assert torch.equal(far, move(batch.inputs, direction, threat=threats[1]))


def test_a_model_without_any_gradient_leaves_the_inputs_where_they_are(batch):
    net = nn.Sequential(nn.Flatten(), nn.Linear(nets.PIXEL_COUNT, nets.CLASSES))
    nn.init.zeros_(net[1].weight)
    classifier = Classifier(net, classes=nets.CLASSES, input_shape=nets.SHAPE)
    assert torch.equal(attacked(FGSM(), classifier, batch, epsilon="0.3"), batch.inputs)

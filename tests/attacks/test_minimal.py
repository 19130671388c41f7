"""Minimal-norm attacks against linear models, whose smallest adversarial distance is known."""

from dataclasses import replace

import nets
import pytest
import torch
from torch import Tensor, nn

from gibbon.attacks.cw import CW
from gibbon.attacks.ddn import DDN
from gibbon.attacks.deepfool import DeepFool
from gibbon.attacks.fab import FAB
from gibbon.attacks.fab_t import FABT
from gibbon.attacks.factory import build_attack
from gibbon.attacks.fmn import FMN
from gibbon.attacks.lbfgs import LBFGS
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.attacks.toolkit.minimal_search import Constants, Criterion, Nearest, within
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel, Verdict
from gibbon.datasets.base import Batch
from gibbon.metrics.distances import distances
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import PROBABILITIES
from gibbon.models.pass_count import PassCount
from gibbon.specs.suite import AttackSpec
from gibbon.verify.judge import judge
from gibbon.verify.proposal import propose

BOX = Bounds(0.0, 1.0)
ROUNDING = 2e-4  # DeepFool's steps are longer by 1e-4

# How far above the smallest distance each attack may stay.
FACTORS = [
    (DeepFool(), Norm.L2, 1.03),
    (DeepFool(), Norm.LINF, 1.03),
    (DDN(steps=150), Norm.L2, 1.03),
    (FMN(steps=150), Norm.LINF, 1.02),
    (FMN(steps=150), Norm.L2, 1.02),
    (FMN(steps=150), Norm.L1, 1.10),
    (CW(steps=150, searches=5, step_size=0.05, init_constant=1.0), Norm.L2, 1.05),
    (LBFGS(target="none", init_constant=0.1), Norm.L2, 1.05),
    (FAB(steps=20), Norm.LINF, 1.01),
    (FAB(steps=20), Norm.L2, 1.01),
    (FAB(steps=20), Norm.L1, 1.01),
    (FABT(steps=20), Norm.L2, 1.01),
]
TARGETED = [
    DDN(steps=60, target="second"),
    FMN(steps=60, target="second"),
    CW(steps=60, searches=3, step_size=0.05, init_constant=1.0, target="second"),
    LBFGS(target="second", init_constant=0.1),
]


def name_of(value: object) -> str:
    return type(value).__name__ if isinstance(value, MinimalNormAttack) else str(value)


each_attack = pytest.mark.parametrize(("attack", "norm", "factor"), FACTORS, ids=name_of)


def found(
    attack: MinimalNormAttack,
    classifier: Classifier,
    batch: Batch,
    norm: Norm,
    *,
    bounds: Bounds | None = BOX,
) -> Tensor:
    streams = ExampleStreams.derive(0, batch.ids)
    with classifier.evaluating():
        (points,) = attack.nearest(
            classifier, batch.inputs, labels=batch.labels, norm=norm, bounds=bounds, streams=streams
        )
    return points


def predicted(classifier: Classifier, points: Tensor) -> Tensor:
    with classifier.evaluating():
        return classifier.predict(points).argmax(1)


def two_classes(count: int, *, spread: float = 3.0) -> tuple[Classifier, Batch, Tensor, float]:
    """Two logits of opposite sign, right on every example; the gap is ``w x + b``."""
    draws = nets.generator(7)
    w = (torch.rand(nets.PIXEL_COUNT, generator=draws) - 0.5) * spread
    net = nn.Sequential(nn.Flatten(), nn.Linear(nets.PIXEL_COUNT, 2))
    bias = float(-0.5 * w.sum())
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([-w / 2, w / 2]))
        net[1].bias.copy_(torch.tensor([-bias / 2, bias / 2]))
    classifier = Classifier(net, classes=2, input_shape=nets.SHAPE)
    batch = nets.random_batch(count)
    batch = replace(batch, inputs=(2 * batch.inputs - 0.5).clamp(0, 1))  # half of it on the bounds
    batch = nets.labelled(classifier, batch)
    return classifier, batch, w, bias


def smallest(
    batch: Batch, w: Tensor, bias: float, norm: Norm, *, bounds: Bounds | None
) -> list[float]:
    """The smallest distance to ``w x + b = 0`` of each example, by closed form or bisection.

    In a box, a budget of r moves the gap by at most a known amount: in L1 it is spent on the
    steepest coordinates first, in the others each coordinate has its share.  That grows in r.
    """
    results = []
    for x in batch.inputs.flatten(1).double():
        gap = float(x @ w.double() + bias)
        slopes = w.double() * (-1 if gap > 0 else 1)
        if bounds is None:
            dual = {
                Norm.LINF: slopes.norm(p=1),
                Norm.L2: slopes.norm(),
                Norm.L1: slopes.abs().max(),
            }
            results.append(abs(gap) / float(dual[norm]))
            continue
        room = torch.where(slopes > 0, bounds.high - x, x - bounds.low)
        low, high = 0.0, float(room.sum())
        for _ in range(60):
            middle = (low + high) / 2
            gained = gain(slopes.abs(), room, middle, norm)
            low, high = (middle, high) if gained < abs(gap) else (low, middle)
        results.append(high)
    return results


def assert_near(measured: Tensor, optimum: Tensor, *, factor: float) -> None:
    assert float((measured / optimum).min()) > 0.999  # else the oracle would be wrong
    above = (measured - ROUNDING) / optimum
    assert float(above.median()) < factor
    assert float(measured.sum() / optimum.sum()) < 1.02 * factor


def gain(slopes: Tensor, room: Tensor, budget: float, norm: Norm) -> float:
    """By how much a linear function rises within a budget and the room of each coordinate."""
    if norm is Norm.LINF:
        return float((slopes * room.clamp(max=budget)).sum())
    if norm is Norm.L1:
        total, left = 0.0, budget
        for place in slopes.argsort(descending=True).tolist():
            step = min(left, float(room[place]))
            total, left = total + step * float(slopes[place]), left - step
        return total
    low, high = 0.0, float((room / slopes).max())
    for _ in range(60):  # the multiplier at which the clipped step is as long as the budget
        middle = (low + high) / 2
        longer = float(torch.minimum(middle * slopes, room).norm()) > budget
        low, high = (low, middle) if longer else (middle, high)
    return float((slopes * torch.minimum(low * slopes, room)).sum())


@each_attack
@pytest.mark.parametrize("bounds", [BOX, None], ids=["box", "free"])
def test_the_smallest_distance_of_a_linear_model_is_found(attack, norm, factor, bounds):
    classifier, batch, w, bias = two_classes(6 if isinstance(attack, LBFGS) else 20)
    optimum = torch.tensor(smallest(batch, w, bias, norm, bounds=bounds))
    points = found(attack, classifier, batch, norm, bounds=bounds)
    assert bool((predicted(classifier, points) != batch.labels).all())
    measured = distances(points, batch.inputs, norm=norm)
    assert_near(measured, optimum, factor=factor)


def test_the_box_is_active_in_that_test():
    _, batch, w, bias = two_classes(20)
    for norm in Norm:
        free = torch.tensor(smallest(batch, w, bias, norm, bounds=None))
        boxed = torch.tensor(smallest(batch, w, bias, norm, bounds=BOX))
        assert bool((boxed >= 0.9999 * free).all())
        assert int((boxed > 1.01 * free).sum()) >= 5


@each_attack
def test_several_classes_are_looked_at(attack, norm, factor):
    """The nearest of the hyperplanes of a linear model, without a box."""
    classifier = nets.linear()
    batch = nets.labelled(classifier, nets.random_batch(4 if isinstance(attack, LBFGS) else 20))
    layer = classifier.module[1]
    gaps = layer(batch.inputs.flatten(1)).detach()
    rows = torch.arange(len(batch.labels))
    normals = layer.weight.detach().unsqueeze(0) - layer.weight.detach()[batch.labels].unsqueeze(1)
    order = {Norm.LINF: 1, Norm.L2: 2, Norm.L1: torch.inf}[norm]
    away = (gaps[rows, batch.labels].unsqueeze(1) - gaps) / normals.norm(p=order, dim=2)
    optimum = away.masked_fill(away.isnan(), torch.inf).amin(1)
    points = found(attack, classifier, batch, norm, bounds=None)
    assert bool((predicted(classifier, points) != batch.labels).all())
    measured = distances(points, batch.inputs, norm=norm)
    assert_near(measured, optimum, factor=1.1 * factor)


@pytest.mark.parametrize("attack", TARGETED, ids=name_of)
def test_a_targeted_attack_ends_at_its_target(attack):
    classifier = nets.mlp()
    batch = nets.labelled(classifier, nets.random_batch(4 if isinstance(attack, LBFGS) else 20))
    with classifier.evaluating():
        second = classifier.predict(batch.inputs).topk(2).indices[:, 1]
    points = found(attack, classifier, batch, attack.norms[0])
    assert torch.equal(predicted(classifier, points), second)


class Hopeless(nn.Module):
    """Finite outputs, and gradients that are all zero or NaN."""

    def __init__(self, *, classes: int, nan: bool) -> None:
        super().__init__()
        self.classes = classes
        self.nan = nan

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        outputs = torch.arange(self.classes, 0, -1.0).expand(len(flat), -1)
        flat_sum = flat.sum(1, keepdim=True)
        if self.nan:  # the square root of 0 has an infinite slope, times 0
            return outputs + (0.0 * flat_sum).sqrt()
        return outputs + 0.0 * flat_sum


@each_attack
@pytest.mark.parametrize("nan", [False, True], ids=["zero", "nan"])
@pytest.mark.parametrize("classes", [2, 4])
def test_without_usable_gradients_the_input_comes_back_and_never_counts(
    attack, norm, factor, nan, classes
):
    classifier = Classifier(
        Hopeless(classes=classes, nan=nan), classes=classes, input_shape=nets.SHAPE
    )
    inputs = nets.random_batch(4).inputs
    batch = Batch(torch.arange(4), inputs, torch.tensor([0, 0, 0, 1]))  # the last is wrong already
    points = found(attack, classifier, batch, norm)
    assert torch.equal(points, inputs)
    threat = nets.threat("10", norm=norm)
    with classifier.evaluating():
        streams = ExampleStreams.derive(0, batch.ids)
        (tries,) = propose(attack, classifier, batch, threats=[threat], streams=streams)
        judged = judge(classifier, batch, proposed=tries, threat=threat)
    assert judged.any_misled.tolist() == [False, False, False, True]
    assert judged.verdict.tolist() == [Verdict.VALID] * 4


@each_attack
def test_two_classes_and_wrong_inputs_are_served(attack, norm, factor):
    classifier, batch, _, _ = two_classes(6)
    labels = torch.where(torch.arange(6) < 3, batch.labels, 1 - batch.labels)
    points = found(attack, classifier, Batch(batch.ids, batch.inputs, labels), norm)
    if getattr(attack, "target", "none") == "none":
        assert torch.equal(points[3:], batch.inputs[3:])
    assert bool((predicted(classifier, points)[:3] != labels[:3]).all())


def test_negative_logits_change_nothing():
    """Where the best other class was taken over the logits and zero, the hinge was wrong."""
    classifier = nets.mlp()
    batch = nets.labelled(classifier, nets.random_batch(10))
    attack = CW(steps=60, searches=4, step_size=0.05, init_constant=1.0)
    before = found(attack, classifier, batch, Norm.L2)
    with torch.no_grad():
        classifier.module[-1].bias.sub_(100.0)
    assert float(classifier.module(batch.inputs).detach().max()) < 0
    after = found(attack, classifier, batch, Norm.L2)
    assert bool((predicted(classifier, after) != batch.labels).all())
    one, other = (distances(each, batch.inputs, norm=Norm.L2) for each in (before, after))
    torch.testing.assert_close(one, other, rtol=0.05, atol=1e-3)


def test_confidence_asks_for_a_lead():
    classifier = nets.mlp()
    batch = nets.labelled(classifier, nets.random_batch(10))
    parts = {"steps": 60, "searches": 4, "step_size": 0.05, "init_constant": 1.0}
    for confidence in (0.0, 0.5):
        points = found(CW(confidence=confidence, **parts), classifier, batch, Norm.L2)
        with classifier.evaluating():
            lead = Criterion(batch.labels).margin(classifier.predict(points))
        assert float(lead.min()) > confidence


def test_a_curve_of_epsilons_is_monotone_and_agrees_with_the_distances():
    classifier, batch = nets.mlp(), nets.random_batch(40)
    attack = FAB(steps=5)
    points = found(attack, classifier, batch, Norm.LINF)
    smallest_found = distances(points, batch.inputs, norm=Norm.LINF)
    wrong = predicted(classifier, points) != batch.labels
    streams = ExampleStreams.derive(0, batch.ids)
    threats = [nets.threat(epsilon) for epsilon in ("0", "0.005", "0.01", "0.02", "1")]
    with classifier.evaluating():
        for threat, tries in zip(
            threats,
            propose(attack, classifier, batch, threats=threats, streams=streams),
            strict=True,
        ):
            judged = judge(classifier, batch, proposed=tries, threat=threat)
            expected = wrong & (smallest_found <= threat.radius)
            assert judged.any_misled.tolist() == expected.tolist()


@pytest.mark.parametrize("attack", [DDN(steps=4), FAB(steps=2)], ids=name_of)
def test_one_search_serves_every_epsilon(attack):
    classifier = nets.mlp()
    batch = nets.labelled(classifier, nets.random_batch(10))
    threats = [nets.threat(epsilon, norm=Norm.L2) for epsilon in ("0.1", "0.2", "0.5")]
    alone = ThreatModel(Norm.L2, threats[0].epsilon, None)
    streams = ExampleStreams.derive(0, batch.ids)
    spent = []
    with classifier.evaluating():
        for asked in ([threats[0]], threats, [*threats, alone]):
            classifier.passes = PassCount()
            proposals = propose(attack, classifier, batch, threats=asked, streams=streams)
            candidates = [list(tries) for tries in list(proposals)]
            spent.append(classifier.passes.backward)
            for (found,), threat in zip(candidates, asked, strict=True):
                length = distances(found, batch.inputs, norm=Norm.L2)
                assert float(length.max()) <= threat.radius
    # Another box is another search.
    assert spent[0] == spent[1]
    assert spent[2] > spent[1]


def test_what_lies_outside_the_budget_is_the_input_not_a_projection():
    inputs = torch.tensor([[0.0], [0.0], [0.0]])
    points = torch.tensor([[0.05], [0.2], [torch.nan]])
    kept = within(inputs, points, threat=nets.threat("0.1"))
    assert kept.tolist() == [[points[0].item()], [0.0], [0.0]]


def test_the_nearest_success_is_kept():
    inputs = torch.zeros(3, 2)
    nearest = Nearest(inputs, norm=Norm.L2)
    nearest.offer(torch.ones(3, 2), torch.tensor([True, True, False]))
    nearest.offer(torch.full((2, 2), 0.5), torch.tensor([True, True]), rows=torch.tensor([0, 2]))
    nearest.offer(torch.full((3, 2), 2.0), torch.tensor([True, True, True]))
    assert nearest.points[:, 0].tolist() == [0.5, 1.0, 0.5]
    nearest.offer(torch.full((3, 2), torch.nan), torch.tensor([True, True, True]))
    assert nearest.points[:, 0].tolist() == [0.5, 1.0, 0.5]
    assert nearest.missing.tolist() == []


def test_nan_outputs_never_meet_a_criterion():
    outputs = torch.tensor([[torch.nan, 1.0], [0.0, 1.0], [0.0, 1e-9], [torch.nan, torch.nan]])
    criterion = Criterion(torch.zeros(4, dtype=torch.int64))
    assert criterion.met(outputs).tolist() == [False, True, True, False]
    assert Criterion(torch.ones(4, dtype=torch.int64), targeted=True).met(outputs).tolist() == [
        False, True, True, False,
    ]  # fmt: skip


def test_the_constant_grows_and_is_then_bisected():
    constants = Constants(torch.tensor([1.0, 1.0]))
    constants.update(torch.tensor([True, False]))
    assert constants.values.tolist() == [0.5, 10.0]
    constants.update(torch.tensor([False, True]))
    assert constants.values.tolist() == [0.75, 5.5]


def test_deepfool_counts_its_gradients():
    """A linear model takes one step: a pass to look, K - 1 gradients, a pass to see."""
    classifier = nets.linear()
    batch = nets.labelled(classifier, nets.random_batch(10))
    classifier.passes = PassCount()
    found(DeepFool(), classifier, batch, Norm.L2, bounds=None)
    assert classifier.passes == PassCount(forward=30, backward=30)


def test_deepfool_looks_at_as_many_classes_as_it_is_told():
    classifier = nets.linear()
    batch = nets.labelled(classifier, nets.random_batch(10))
    classifier.passes = PassCount()
    found(DeepFool(classes=2), classifier, batch, Norm.L2, bounds=None)
    assert classifier.passes == PassCount(forward=30, backward=10)


def test_fab_t_costs_one_gradient_a_step():
    classifier = nets.linear()
    batch = nets.labelled(classifier, nets.random_batch(10))
    classifier.passes = PassCount()
    found(FABT(steps=3, target_classes=2), classifier, batch, Norm.L2)
    assert classifier.passes == PassCount(forward=10 * (1 + 2 * 2 * 3 + 5), backward=10 * 2 * 3)


def test_fab_t_stops_where_a_point_is_near_enough():
    classifier = nets.mlp()
    batch = nets.labelled(classifier, nets.random_batch(20))
    sizes, spent = [], []
    for enough in (0.0, 0.03):
        classifier.passes = PassCount()
        points = found(FABT(steps=5, enough=enough), classifier, batch, Norm.LINF)
        sizes.append(distances(points, batch.inputs, norm=Norm.LINF))
        spent.append(classifier.passes.backward)
    assert spent[1] < spent[0]
    assert bool((sizes[0] <= sizes[1] + 1e-6).all())
    # Asked at that distance, both say the same.
    assert torch.equal(sizes[0] <= 0.03, sizes[1] <= 0.03)


@pytest.mark.parametrize("enough", [0.0, 0.03])
def test_targets_abreast_end_as_one_after_the_other(enough):
    classifier, batch = nets.mlp(), nets.random_batch(20)
    classifier.module.double()
    inputs = batch.inputs.double()
    batch = nets.labelled(classifier, Batch(batch.ids, inputs, batch.labels))
    attack = FABT(steps=5, restarts=2, enough=enough)
    classifier.passes = PassCount()
    in_turn = found(attack, classifier, batch, Norm.LINF)
    spent, classifier.passes = classifier.passes, PassCount()
    asked = []
    handle = classifier.module.register_forward_pre_hook(lambda _, given: asked.append(given[0]))
    with classifier.watching(torch.empty(61, *nets.SHAPE)):  # three targets of twenty
        abreast = found(attack, classifier, batch, Norm.LINF)
    handle.remove()
    torch.testing.assert_close(abreast, in_turn, rtol=0, atol=1e-9)
    assert max(len(each) for each in asked) == 60
    assert min(len(each) for each in asked) > 0
    assert (classifier.passes == spent) is (enough == 0)


def test_restarts_never_make_a_point_worse():
    classifier = nets.mlp()
    batch = nets.labelled(classifier, nets.random_batch(20))
    for norm in FAB.norms:
        one, three = (
            distances(
                found(FAB(steps=4, restarts=restarts), classifier, batch, norm),
                batch.inputs,
                norm=norm,
            )
            for restarts in (1, 3)
        )
        assert bool((three <= one * 1.001 + 1e-6).all())


def test_deepfool_and_fab_serve_probabilities():
    classifier = nets.with_rule(PROBABILITIES)
    batch = nets.labelled(classifier, nets.random_batch(10))
    for attack in (DeepFool(), FAB(steps=5)):
        points = found(attack, classifier, batch, Norm.L2)
        assert bool((predicted(classifier, points) != batch.labels).all())


@pytest.mark.parametrize("name", ["deepfool", "ddn", "fmn", "cw", "lbfgs", "fab", "fab-t"])
def test_parameters_are_checked(name):
    with pytest.raises(Exception, match="step"):
        build_attack(AttackSpec(name=name, epsilon="0.1", steps_=3))

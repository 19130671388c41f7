"""APGD against its algorithm box, written out slowly, and against optima of linear models."""

import math
from dataclasses import replace
from fractions import Fraction

import nets
import pytest
import torch
from torch import Tensor, nn

from gibbon.attacks.apgd import APGDCE, APGDDLR, APGDT
from gibbon.attacks.autoattack import AutoAttack
from gibbon.attacks.base import Attack
from gibbon.attacks.toolkit.apgd_search import RADII, halving_checkpoints, sparsity_checkpoints
from gibbon.attacks.toolkit.objectives import DLR, CrossEntropy, Objective, TargetedDLR
from gibbon.attacks.toolkit.projections import region, sparse_unit
from gibbon.core.errors import OutputError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin
from gibbon.models.pass_count import PassCount

EVERY = (APGDCE, APGDDLR, APGDT)
BOX = Bounds(0.0, 1.0)


def proposed(
    attack: Attack, classifier: Classifier, batch: Batch, threat: ThreatModel, *, seed: int = 0
) -> Tensor:
    streams = ExampleStreams.derive(seed, batch.ids)
    with classifier.evaluating():
        (candidates,) = attack.propose(
            classifier, batch.inputs, labels=batch.labels, threat=threat, streams=streams
        )
    return candidates


def margins(classifier: Classifier, points: Tensor, batch: Batch) -> Tensor:
    with classifier.evaluating():
        return margin(classifier.predict(points), batch.labels)


def precise(count: int = 40, *, spread: float = 12.0) -> tuple[Classifier, Batch]:
    """A network in float64, whose rows don't feel how many stand beside them."""
    classifier, batch = nets.mlp(spread=spread), nets.random_batch(count)
    classifier.module.double()
    inputs = batch.inputs.double()
    with classifier.evaluating():
        labels = classifier.predict(inputs).argmax(1)
    classifier.passes = PassCount()
    return classifier, Batch(batch.ids, inputs, labels)


def test_checkpoints_are_those_of_the_paper():
    assert list(halving_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(halving_checkpoints(100).values()) == [22, 19, 16, 13, 10, 7, 6, 6]
    for steps in range(1, 200):
        shares = [Fraction(0), Fraction(22, 100)]
        while shares[-1] < 1:
            gap = max(shares[-1] - shares[-2] - Fraction(3, 100), Fraction(6, 100))
            shares.append(shares[-1] + gap)
        expected = {math.ceil(share * steps) for share in shares[1:] if share < 1}
        assert set(halving_checkpoints(steps)) == expected
        assert sum(halving_checkpoints(steps).values()) == max(expected)
        numbers = list(sparsity_checkpoints(steps))
        assert numbers == list(range(math.ceil(steps / 25), steps + 1, math.ceil(steps / 25)))


class Landscape:
    """An objective of one example at a time, and its gradient, by autograd."""

    def __init__(self, classifier: Classifier, goal: Objective, number: int) -> None:
        self.classifier, self.goal = classifier, goal.take(torch.tensor([number]))

    def __call__(self, point: Tensor) -> float:
        return self.goal.value(self.classifier.module(point)).item()

    def gradient(self, point: Tensor) -> Tensor:
        leaf = point.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.goal.value(self.classifier.module(leaf)).sum(), leaf)
        return gradient


def algorithm_1(
    f: Landscape, x0: Tensor, inputs: Tensor, *, threat: ThreatModel, steps: int, rho: float
) -> list[Tensor]:
    """All points of one example, in the words of the paper; the best of them is where it ends."""
    ball, eta, alpha = region(inputs, threat=threat), 2 * threat.radius, 0.75
    checkpoints = [0, *halving_checkpoints(steps)]
    x, values, path = [x0], [f(x0)], [x0]
    best, f_max = x0, values[0]
    etas, maxima = {0: eta}, {0: f_max}
    for k in range(steps):
        z = ball.project(x[k] + eta * ball.unit(f.gradient(x[k])))
        if k == 0:
            new = z
        else:
            new = ball.project(x[k] + alpha * (z - x[k]) + (1 - alpha) * (x[k] - x[k - 1]))
        x.append(new)
        path.append(new)
        values.append(f(new))
        if values[-1] > f_max:
            best, f_max = new, values[-1]
        w = k + 1
        if w in checkpoints:
            before = checkpoints[checkpoints.index(w) - 1]
            rises = sum(values[i + 1] > values[i] for i in range(before, w))
            condition_1 = rises < rho * (w - before)
            condition_2 = etas[before] == eta and maxima[before] == f_max
            # The step size at w_{j-1} is that before it was halved there.
            etas[w], maxima[w] = eta, f_max
            if condition_1 or condition_2:
                eta /= 2
                x[-1], values[-1] = best, f_max
    return path


def l1_apgd(f: Landscape, x0: Tensor, inputs: Tensor, *, threat: ThreatModel, steps: int):
    """All points of one example in the ball itself."""
    best, d, path = x0, x0.numel(), []
    counts = [3 * steps // 10, 3 * steps // 10]
    counts = [*counts, steps - sum(counts)]
    for number, (factor, count) in enumerate(zip((3, 2, 1), counts, strict=True)):
        wider = Epsilon.parse(str(factor * threat.epsilon.value))
        ball = region(inputs, threat=ThreatModel(Norm.L1, wider, threat.bounds))
        x = best = ball.project(best.clone())
        f_max = f(x)
        radius = eta = factor * threat.radius
        s = float((x != inputs).sum()) if number else float(d)
        k = s / 1.5 / d if number else 0.2
        path = [x]
        for step in range(1, count + 1):
            x = ball.project(x + eta * sparse_unit(f.gradient(x), share=k))
            path.append(x)
            if f(x) > f_max:
                best, f_max = x, f(x)
            if step % math.ceil(0.04 * count) == 0:
                now = float((best != inputs).sum())
                k = now / 1.5 / d
                if now < 0.95 * s:
                    eta, x = radius, best
                else:
                    eta = max(eta / 1.5, radius / 10)
                s = now
    return path


def expected_points(path: list[Tensor], f: Landscape, label: int) -> Tensor:
    """The misclassified point of the highest objective, else that of the highest objective."""
    wrong = [int(f.classifier.module(point).argmax(1)) != label for point in path]
    values = [f(point) for point in path]
    number = max(range(len(path)), key=lambda each: (wrong[each], values[each]))
    return path[number]


@pytest.mark.parametrize(
    ("attack", "norm", "epsilon"),
    [
        (APGDCE, Norm.LINF, "0.03"),
        (APGDCE, Norm.L2, "0.12"),
        (APGDCE, Norm.L1, "0.4"),
        (APGDDLR, Norm.LINF, "0.03"),
        (APGDDLR, Norm.L2, "0.12"),
        # Not the ratio in L1: in the wider balls it reaches 1, a plateau that is all rounding.
    ],
)
def test_the_search_is_the_algorithm_box_written_out(attack, norm, epsilon):
    classifier, batch = precise(12)
    threat = nets.threat(epsilon, norm=norm)
    found = proposed(attack(steps=30), classifier, batch, threat)
    goal = DLR(batch.labels)
    if attack is APGDCE:
        goal = CrossEntropy(batch.labels, classifier.outputs)
    first = ThreatModel(norm, Epsilon.parse(str(3 * threat.epsilon.value)), BOX)
    start = region(batch.inputs, threat=first if norm is Norm.L1 else threat)
    points = start.random_point(ExampleStreams.derive(0, batch.ids).child(0))
    outcomes = set()
    for number, label in enumerate(batch.labels.tolist()):
        f, one = Landscape(classifier, goal, number), slice(number, number + 1)
        if norm is Norm.L1:
            path = l1_apgd(f, points[one], batch.inputs[one], threat=threat, steps=30)
        else:
            path = algorithm_1(f, points[one], batch.inputs[one], threat=threat, steps=30, rho=0.75)
        expected = expected_points(path, f, label)
        torch.testing.assert_close(found[one], expected, rtol=0, atol=1e-6)
        outcomes.add(int(classifier.module(expected).argmax(1)) != label)
    assert outcomes == {True, False}
    assert [each[0] for each in RADII] == [3, 2]


def optimum(w: Tensor, x: Tensor, threat: ThreatModel) -> float:
    """The largest rise of w x in the ball cut with the box: by its dual, or greedily in L1."""
    room, slope = torch.where(w > 0, 1 - x, x), w.abs()
    if threat.norm is Norm.LINF:
        return float((slope * room.clamp(max=threat.radius)).sum())
    if threat.norm is Norm.L1:
        budget, best = threat.radius, 0.0
        for number in slope.argsort(descending=True).tolist():
            spent = min(budget, float(room[number]))
            best, budget = best + spent * float(slope[number]), budget - spent
        return best
    low, high = 0.0, 1e6  # the change is min(room, t w), with the t that uses up the budget
    for _ in range(200):
        t = (low + high) / 2
        inside = float((t * slope).minimum(room).norm()) <= threat.radius
        low, high = (t, high) if inside else (low, t)
    return float((slope * (low * slope).minimum(room)).sum())


@pytest.mark.parametrize("attack", EVERY)
@pytest.mark.parametrize(
    ("norm", "epsilon", "factor"),
    [(Norm.LINF, "0.3", 0.999), (Norm.L2, "1.2", 0.96), (Norm.L1, "2.5", 0.96)],
)
def test_in_the_box_the_optimum_of_a_linear_model_is_reached(attack, norm, epsilon, factor):
    """With two classes: all three objectives are margins or rise with them."""
    w = torch.rand(12, generator=nets.generator(3), dtype=torch.float64) * 4 - 2
    classifier = nets.logistic(w, bias=0.3)
    inputs = torch.rand(6, 12, generator=nets.generator(1), dtype=torch.float64)
    batch = Batch(torch.arange(6), inputs, torch.arange(6) % 2)
    threat = nets.threat(epsilon, norm=norm)
    found = proposed(attack(), classifier, batch, threat)
    gained = margins(classifier, found, batch) - margins(classifier, inputs, batch)
    for x, label, gain in zip(inputs, batch.labels.tolist(), gained.tolist(), strict=True):
        best = optimum(w if label == 0 else -w, x, threat)
        assert factor * best <= gain <= best + 1e-9


@pytest.mark.parametrize(
    ("norm", "epsilon"), [(Norm.LINF, "0.025"), (Norm.L2, "0.12"), (Norm.L1, "0.4")]
)
@pytest.mark.parametrize("attack", EVERY)
def test_stopping_at_the_first_success_misleads_the_same_in_fewer_passes(attack, norm, epsilon):
    classifier, batch = precise()
    threat = nets.threat(epsilon, norm=norm)
    best = proposed(attack(steps=25), classifier, batch, threat)
    full, classifier.passes = classifier.passes, PassCount()
    first = proposed(attack(steps=25, keep="first-success"), classifier, batch, threat)
    spent = classifier.passes
    misled = margins(classifier, best, batch) > 0
    assert torch.equal(margins(classifier, first, batch) > 0, misled)
    assert 3 < int(misled.sum()) < 37
    assert spent.backward < 0.9 * full.backward
    # Those that were never misled went the same way alone as in company.
    torch.testing.assert_close(first[~misled], best[~misled], rtol=0, atol=1e-6)


@pytest.mark.parametrize("keep", ["best-loss", "first-success"])
@pytest.mark.parametrize("norm", Norm)
def test_an_example_goes_its_own_way_whoever_leaves(norm, keep):
    classifier, batch = precise(20)
    threat = nets.threat({"linf": "0.025", "l2": "0.12", "l1": "0.4"}[norm], norm=norm)
    attack = APGDT(steps=12, n_target_classes=2, keep=keep)
    together = proposed(attack, classifier, batch, threat)
    for number in range(20):
        one = Batch(
            *(part[number : number + 1] for part in (batch.ids, batch.inputs, batch.labels))
        )
        alone = proposed(attack, classifier, one, threat)
        torch.testing.assert_close(alone[0], together[number], rtol=0, atol=1e-9)


@pytest.mark.parametrize("attack", [APGDCE(steps=12, restarts=4), APGDT(steps=12, restarts=2)])
@pytest.mark.parametrize("keep", ["best-loss", "first-success"])
@pytest.mark.parametrize("norm", Norm)
def test_tries_abreast_end_as_one_after_the_other(norm, keep, attack):
    classifier, batch = precise(20)
    threat = nets.threat({"linf": "0.02", "l2": "0.1", "l1": "0.3"}[norm], norm=norm)
    attack = replace(attack, keep=keep)
    called = []
    handle = classifier.module.register_forward_hook(lambda *_: called.append(None))
    in_turn = proposed(attack, classifier, batch, threat)
    turns, spent = len(called), classifier.passes
    called.clear()
    classifier.passes = PassCount()
    with classifier.watching(torch.empty(61, *nets.SHAPE)):  # three tries of twenty
        abreast = proposed(attack, classifier, batch, threat)
    handle.remove()
    torch.testing.assert_close(abreast, in_turn, rtol=0, atol=1e-9)
    assert len(called) < 0.6 * turns
    # Those that one try misleads have begun others with it.
    assert (classifier.passes == spent) is (keep == "best-loss")
    assert classifier.passes.backward < 2 * spent.backward
    assert 3 < int((margins(classifier, abreast, batch) > 0).sum()) < 18


@pytest.mark.parametrize(("norm", "more"), [(Norm.LINF, 1), (Norm.L2, 1), (Norm.L1, 3)])
def test_passes_are_those_of_the_algorithm(norm, more):
    classifier, batch = precise(5)
    threat = nets.threat("0.01", norm=norm)
    for attack, tries, clean in ((APGDCE, 1, 0), (APGDDLR, 1, 0), (APGDT, 3, 1)):
        classifier.passes = PassCount()
        proposed(attack(steps=20, restarts=2), classifier, batch, threat)
        forward = 5 * (clean + 2 * tries * (20 + more))
        assert classifier.passes == PassCount(forward=forward, backward=5 * 2 * tries * 20)


@pytest.mark.parametrize("attack", EVERY)
def test_restarts_never_reduce_the_error(attack):
    classifier, batch = precise()
    threat = nets.threat("0.02")
    misled = [
        margins(
            classifier,
            proposed(attack(steps=4, restarts=restarts), classifier, batch, threat),
            batch,
        )
        > 0
        for restarts in (1, 2, 4)
    ]
    assert bool((misled[1] | ~misled[0]).all())
    assert bool((misled[2] | ~misled[1]).all())
    assert 0 < int(misled[2].sum()) < 40


def test_the_likeliest_wrong_classes_are_aimed_at(monkeypatch):
    classifier, batch = precise(10)
    seen = []
    made = TargetedDLR.__init__

    def noted(self, labels, targets):
        seen.append(targets)
        made(self, labels, targets)

    monkeypatch.setattr(TargetedDLR, "__init__", noted)
    proposed(APGDT(steps=1, n_target_classes=2), classifier, batch, nets.threat("0.01"))
    with classifier.evaluating():
        order = classifier.predict(batch.inputs).argsort(dim=1, descending=True)
    aimed = [each for each in seen if len(each) == 10]
    assert torch.equal(aimed[0], order[:, 1])
    assert any(torch.equal(each, order[:, 2]) for each in aimed)


def test_where_the_softmax_saturates_the_search_goes_on():
    classifier = nets.linear(spread=2_000.0)
    batch = nets.labelled(classifier, nets.random_batch(50))
    threat = nets.threat("0.3")
    for attack in EVERY:
        found = proposed(attack(steps=10), classifier, batch, threat)
        assert int((margins(classifier, found, batch) > 0).sum()) > 40


class Rooted(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs) + (inputs.abs().sqrt() * 0).flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("attack", EVERY)
@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("keep", ["best-loss", "first-success"])
def test_nan_gradients_fail_rather_than_look_robust(attack, norm, keep):
    classifier, batch = precise(4)
    rooted = Classifier(Rooted(classifier.module), classes=nets.CLASSES, input_shape=nets.SHAPE)
    batch.inputs[3] = 0.0  # most steps down end at the box, where the root has no slope
    with pytest.raises(OutputError, match="gradient is NaN or infinite"):
        proposed(attack(steps=5, keep=keep), rooted, batch, nets.threat("0.001", norm=norm))


@pytest.mark.parametrize("attack", EVERY)
@pytest.mark.parametrize("norm", Norm)
def test_no_gradient_moves_nothing_but_the_random_start(attack, norm):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(nets.PIXEL_COUNT, nets.CLASSES))
    nn.init.zeros_(flat[1].weight)
    nn.init.zeros_(flat[1].bias)
    classifier = Classifier(flat, classes=nets.CLASSES, input_shape=nets.SHAPE)
    found = proposed(attack(steps=5), classifier, nets.random_batch(5), nets.threat(norm=norm))
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize(
    ("attack", "classes", "told"),
    [
        (APGDDLR(), 2, ["the difference of logits ratio needs 3 classes, the model has 2: the m"]),
        (APGDDLR(), 3, []),
        (APGDT(), 3, ["the targeted ratio needs 4 classes, the model has 3: the diff"]),
        (APGDT(), 4, []),
        (APGDCE(), 2, []),
        (AutoAttack(), 3, ["apgd-t: the targeted ratio needs 4 classes"]),
    ],
)
def test_it_is_said_where_there_are_too_few_classes_for_a_ratio(attack, classes, told):
    caveats = list(attack.caveats(classes))
    assert len(caveats) == len(told)
    assert all(each.startswith(start) for each, start in zip(caveats, told, strict=True))

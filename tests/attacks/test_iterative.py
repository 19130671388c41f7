"""BIM, MI-FGSM and PGD in L1: optima of linear models, early stops, and what goes wrong."""

import math
from copy import copy

import nets
import pytest
import torch
from torch import Tensor, nn

from gibbon.attacks.base import Attack
from gibbon.attacks.bim import BIM
from gibbon.attacks.fgsm import FGSM
from gibbon.attacks.mi_fgsm import MIFGSM, accumulate
from gibbon.attacks.pgd import PGD
from gibbon.attacks.pgd_l1 import PGDL1
from gibbon.core.errors import OutputError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin
from gibbon.models.pass_count import PassCount

DIMENSIONS = 12


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


def regression() -> tuple[Classifier, Batch, Tensor]:
    w = torch.rand(DIMENSIONS, generator=nets.generator(3), dtype=torch.float64) * 4 - 2
    inputs = torch.rand(6, DIMENSIONS, generator=nets.generator(1), dtype=torch.float64)
    return nets.logistic(w, bias=0.3), Batch(torch.arange(6), inputs, torch.arange(6) % 2), w


ITERATIVE = {
    Norm.LINF: [BIM(steps=10, step_size=0.05), MIFGSM()],
    Norm.L2: [MIFGSM()],
    Norm.L1: [
        PGDL1(steps=40, random_start=False),
        PGDL1(steps=100, step_size=0.1, loss="margin", keep="best-loss"),
    ],
}
EVERY = [(norm, attack) for norm, attacks in ITERATIVE.items() for attack in attacks]


@pytest.mark.parametrize(("norm", "attack"), EVERY)
def test_the_optimum_of_a_linear_model_is_reached(norm, attack):
    classifier, batch, w = regression()
    dual = w.norm(p={Norm.LINF: 1, Norm.L2: 2, Norm.L1: math.inf}[norm])
    found = proposed(attack, classifier, batch, nets.threat("0.25", norm=norm, bounds=None))
    gained = margins(classifier, found, batch) - margins(classifier, batch.inputs, batch)
    torch.testing.assert_close(gained, (0.25 * dual).expand(6), rtol=1e-3, atol=0)


def test_in_the_box_pgd_in_l1_reaches_the_optimum_of_a_linear_model():
    """The best change fills the coordinates of the largest weights, each up to the box."""
    classifier, batch, w = regression()
    threat = nets.threat("2.5", norm=Norm.L1)
    attack = PGDL1(steps=200, step_size=0.1, random_start=False)
    found = proposed(attack, classifier, batch, threat)
    gained = margins(classifier, found, batch) - margins(classifier, batch.inputs, batch)
    for x, label, gain in zip(batch.inputs, batch.labels.tolist(), gained.tolist(), strict=True):
        ascent = w if label == 0 else -w
        room = torch.where(ascent > 0, 1 - x, x)
        budget, best = threat.radius, 0.0
        for coordinate in ascent.abs().argsort(descending=True).tolist():
            spent = min(budget, float(room[coordinate]))
            best, budget = best + spent * float(ascent[coordinate].abs()), budget - spent
        assert 0.98 * best <= gain <= best + 1e-9


def test_bims_defaults_are_those_of_the_paper():
    """min(ε + 4, 1.25 ε) steps of one pixel's step each."""
    for pixels, steps in ((1, 2), (2, 3), (8, 10), (16, 20), (32, 36)):
        classifier, batch = nets.linear(classes=2, bounds=Bounds(0.0, 255.0)), nets.random_batch(3)
        batch = nets.labelled(classifier, batch)
        classifier.passes = PassCount()
        threat = nets.threat(pixels, bounds=None)
        moved = proposed(BIM(), classifier, batch, threat) - batch.inputs
        assert classifier.passes == PassCount(forward=3 * steps, backward=3 * steps)
        torch.testing.assert_close(moved.abs(), torch.full_like(moved, pixels))
    for epsilon, steps in (("8/255", 10), ("16/255", 20), (8 / 255, 10)):
        classifier = nets.linear()
        proposed(BIM(), classifier, batch, nets.threat(epsilon))
        assert classifier.passes.backward == 3 * steps


def test_one_step_of_epsilon_is_fgsm(mlp, batch):
    threat = nets.threat("0.1")
    expected = proposed(FGSM(), mlp, batch, threat)
    for attack in (BIM(steps=1, step_size=0.1), MIFGSM(steps=1)):
        torch.testing.assert_close(proposed(attack, mlp, batch, threat), expected)


def test_without_momentum_mi_fgsm_is_bim(mlp, batch):
    threat = nets.threat("0.1")
    plain = proposed(BIM(steps=10, step_size=0.01), mlp, batch, threat)
    forgetful = proposed(MIFGSM(decay=0), mlp, batch, threat)
    torch.testing.assert_close(forgetful, plain)
    assert not torch.allclose(proposed(MIFGSM(), mlp, batch, threat), plain, atol=1e-3)


def test_momentum_is_that_of_the_paper_by_hand():
    momentum = torch.tensor([[1.0, -1.0], [0.5, 0.5], [0.25, 0.0]])
    gradient = torch.tensor([[3.0, 1.0], [0.0, -2e-20], [0.0, 0.0]])
    found = accumulate(momentum, gradient, decay=0.5)
    torch.testing.assert_close(found, torch.tensor([[1.25, -0.25], [0.25, -0.75], [0.125, 0.0]]))


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_a_zero_gradient_moves_nothing_and_makes_no_nan(norm):
    """Where the mean gradient is zero, dividing by it makes NaN of the whole attack."""
    flat = nn.Sequential(nn.Flatten(), nn.Linear(nets.PIXEL_COUNT, nets.CLASSES))
    nn.init.zeros_(flat[1].weight)
    classifier = Classifier(flat, classes=nets.CLASSES, input_shape=nets.SHAPE)
    batch = nets.random_batch()
    found = proposed(MIFGSM(), classifier, batch, nets.threat(norm=norm))
    assert torch.equal(found, batch.inputs)


@pytest.mark.parametrize("target", ["random", "least-likely", "second"])
@pytest.mark.parametrize("attack", [BIM, MIFGSM])
def test_a_targeted_attack_reaches_its_class(attack, target):
    classifier = nets.linear()
    batch = nets.labelled(classifier, nets.random_batch(60))
    threat = nets.threat("0.3", bounds=None)
    found = proposed(attack(steps=15, target=target), classifier, batch, threat)
    if attack is BIM:
        found = proposed(attack(target=target), classifier, batch, threat)
    with classifier.evaluating():
        clean, reached = classifier.predict(batch.inputs), classifier.predict(found).argmax(1)
    assert bool((reached != batch.labels).all())
    ranks = (clean >= clean.gather(1, reached[:, None])).sum(1)  # 1 is the class that was predicted
    if target == "random":
        assert set(ranks.tolist()) == {2, 3, 4}
    else:
        assert float((ranks == (4 if target == "least-likely" else 2)).double().mean()) > 0.95


def wandering() -> tuple[Classifier, Batch]:
    return nets.mlp(spread=12.0), nets.random_batch(60)


LONG = [
    (Norm.LINF, "0.03", BIM, {"steps": 7, "step_size": 0.02}),
    (Norm.LINF, "0.03", MIFGSM, {"steps": 7, "step_size": 0.02}),
    (Norm.L2, "0.1", MIFGSM, {"steps": 7, "step_size": 0.3}),
    (Norm.L1, "0.3", PGDL1, {"steps": 7, "sparsity": 0.8, "step_size": 0.25}),
]


@pytest.mark.parametrize(("norm", "epsilon", "attack", "parameters"), LONG)
def test_who_is_misled_leaves_and_the_others_go_on_alike(norm, epsilon, attack, parameters):
    classifier, batch = wandering()
    threat = nets.threat(epsilon, norm=norm)
    with_all = {
        steps: proposed(attack(**{**parameters, "steps": steps}), classifier, batch, threat)
        for steps in range(1, 8)
    }
    classifier.passes = PassCount()
    first = proposed(attack(keep="first-success", **parameters), classifier, batch, threat)
    spent = copy(classifier.passes)
    misled = {steps: margins(classifier, points, batch) > 0 for steps, points in with_all.items()}
    clean = margins(classifier, batch.inputs, batch) > 0
    expected_passes = 0
    for number in range(60):
        hits = [steps for steps in misled if bool(misled[steps][number])]
        if attack is not PGDL1 and bool(clean[number]):
            expected, lasted = batch.inputs[number], 1
        elif attack is PGDL1:
            continue  # from a random point: its fate before the first step is not seen here
        else:
            stop = min(hits, default=7)
            expected, lasted = with_all[stop][number], min(stop + 1, 7)
        torch.testing.assert_close(first[number], expected, rtol=0, atol=1e-5)
        expected_passes += lasted
    if attack is not PGDL1:
        # A forward pass alone comes first where the next point is expected to mislead.
        assert spent.backward <= expected_passes
        assert expected_passes <= spent.forward <= 1.25 * expected_passes
    assert spent.forward < 60 * 7
    by_first = margins(classifier, first, batch) > 0
    assert bool((by_first | ~misled[7]).all())
    assert 0 < int(by_first.sum()) < 60


@pytest.mark.parametrize(("norm", "epsilon", "attack", "parameters"), LONG)
def test_the_best_iterate_is_never_below_the_last_in_loss(norm, epsilon, attack, parameters):
    classifier, batch = wandering()
    threat = nets.threat(epsilon, norm=norm)
    loss = classifier.outputs.exact_loss
    with classifier.evaluating():
        low, high = (
            loss(
                classifier.predict(
                    proposed(attack(keep=keep, **parameters), classifier, batch, threat)
                ),
                batch.labels,
            )
            for keep in ("last", "best-loss")
        )
    assert bool((high >= low).all())
    assert bool((high > low).any())


@pytest.mark.parametrize(("keep", "more"), [("last", 0), ("best-loss", 1)])
@pytest.mark.parametrize(("norm", "epsilon", "attack", "parameters"), LONG)
def test_passes_are_those_of_the_steps(norm, epsilon, attack, parameters, keep, more):
    classifier, batch = wandering()
    proposed(attack(keep=keep, **parameters), classifier, batch, nets.threat(epsilon, norm=norm))
    assert classifier.passes == PassCount(forward=60 * (7 + more), backward=60 * 7)


def test_sparse_steps_leave_coordinates_that_the_box_holds_alone():
    w = torch.tensor([5.0, 4.0, 1.0, 0.5], dtype=torch.float64)
    classifier = nets.logistic(w, bias=0.0)
    inputs = torch.tensor([[1.0, 0.5, 0.5, 0.5]], dtype=torch.float64)
    batch = Batch(torch.arange(1), inputs, torch.tensor([0]))
    attack = PGDL1(steps=1, step_size=0.2, random_start=False)
    found = proposed(attack, classifier, batch, nets.threat("0.4", norm=Norm.L1))
    torch.testing.assert_close(found - inputs, torch.tensor([[0.0, 0.2, 0.0, 0.0]]).double())


def test_pgd_in_l1_misleads_more_than_pgds_own_signs_scaled_into_the_ball():
    classifier = nets.mlp()
    batch = nets.labelled(classifier, nets.random_batch(100))
    threat = nets.threat("1", norm=Norm.L1)
    sparse = margins(classifier, proposed(PGDL1(), classifier, batch, threat), batch) > 0
    dense = proposed(PGD(), classifier, batch, nets.threat(1 / nets.PIXEL_COUNT))
    assert int(sparse.sum()) > 2 * int((margins(classifier, dense, batch) > 0).sum()) > 0


class Rooted(nn.Module):
    """Has a gradient of NaN wherever a pixel is 0."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Tensor) -> Tensor:
        nothing = inputs.abs().sqrt() * 0  # whose gradient is 0 / 0 at a root of 0
        return self.body(inputs) + nothing.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("attack", "norm"),
    [
        (BIM(), Norm.LINF),
        (MIFGSM(keep="best-loss"), Norm.LINF),
        (MIFGSM(keep="first-success"), Norm.L2),
        (PGDL1(random_start=False), Norm.L1),
    ],
)
def test_nan_gradients_fail_rather_than_look_robust(attack, norm):
    whole = nets.mlp()
    rooted = Classifier(Rooted(whole.module), classes=nets.CLASSES, input_shape=nets.SHAPE)
    batch = nets.labelled(whole, nets.random_batch(10))
    proposed(attack, rooted, batch, nets.threat("0.001", norm=norm, bounds=None))
    batch.inputs[3, 0, 2, 2] = 0.0
    with pytest.raises(OutputError, match="gradient is NaN or infinite"):
        proposed(attack, rooted, batch, nets.threat("0.001", norm=norm, bounds=None))

"""Stopping at an example's first success costs fewer passes and finds the same errors."""

from __future__ import annotations

import nets
import pytest
from torch import Tensor

from gibbon.attacks import ATTACKS
from gibbon.attacks.base import STOPPING, Attack, can_stop
from gibbon.attacks.factory import build_attack
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.specs.suite import AttackSpec
from gibbon.verify.guard import guarding
from gibbon.verify.judge import judge
from gibbon.verify.proposal import propose

STEPS = 12
RESTARTS = ("pgd", "pgd-l1", "apgd-ce", "apgd-dlr")
EPSILON = {Norm.LINF: "0.03", Norm.L2: "0.12", Norm.L1: "0.4"}
STOPPABLE = [name for name in ATTACKS.names() if can_stop(ATTACKS.load(name))]
CASES = [(name, norm) for name in STOPPABLE for norm in ATTACKS.load(name).norms]


def built(name: str, norm: Norm, **parameters: object) -> Attack:
    parameters = {"steps": STEPS, **parameters}
    if name in RESTARTS:
        parameters["restarts"] = 2
    return build_attack(AttackSpec(name=name, epsilon=EPSILON[norm], norm=norm, **parameters))


def misled(attack: Attack, classifier: Classifier, batch: Batch, norm: Norm) -> tuple[Tensor, int]:
    """Which examples are misled, and how many gradients it took."""
    threat = nets.threat(EPSILON[norm], norm=norm)
    before = classifier.passes.backward
    with classifier.evaluating(), guarding(classifier, batch) as guarded:
        streams = ExampleStreams.derive(0, batch.ids)
        (tries,) = propose(attack, classifier, guarded.batch, threats=[threat], streams=streams)
        found = judge(classifier, batch, proposed=tries, threat=threat)
    return found.any_misled, classifier.passes.backward - before


def test_these_attacks_can_stop():
    assert {"pgd", "pgd-l1", "bim", "mi-fgsm", "apgd-ce", "apgd-dlr", "apgd-t"} <= set(STOPPABLE)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_on_a_linear_model_the_same_examples_are_misled(name, norm):
    """There every step leads nearer, so that what any point misleads the last one does."""
    classifier = nets.linear(classes=2)
    batch = nets.labelled(classifier, nets.random_batch(150))
    usual, passes = misled(built(name, norm), classifier, batch, norm)
    stopped, fewer = misled(built(name, norm, keep=STOPPING), classifier, batch, norm)
    assert usual.equal(stopped)
    assert 0 < int(usual.sum()) < len(usual)
    assert fewer < passes


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_no_error_is_lost_on_any_model(name, norm):
    classifier = nets.mlp(spread=8.0)
    batch = nets.labelled(classifier, nets.random_batch(150))
    usual, _ = misled(built(name, norm), classifier, batch, norm)
    stopped, _ = misled(built(name, norm, keep=STOPPING), classifier, batch, norm)
    assert bool((stopped | ~usual).all())
    assert 0 < int(usual.sum()) < len(usual)
    if name.startswith("apgd"):  # which returns a misclassified point wherever it met one
        assert usual.equal(stopped)


@pytest.mark.parametrize(("name", "norm"), [("pgd", Norm.LINF), ("pgd", Norm.L2), ("pgd", Norm.L1)])
def test_the_best_margin_and_the_first_success_mislead_the_same(name, norm):
    """The largest margin over all points is positive exactly where one of them is misclassified."""
    classifier = nets.mlp(spread=8.0)
    batch = nets.labelled(classifier, nets.random_batch(150))
    best, _ = misled(built(name, norm, keep="best-loss", loss="margin"), classifier, batch, norm)
    first, _ = misled(built(name, norm, keep=STOPPING, loss="margin"), classifier, batch, norm)
    assert best.equal(first)
    assert 0 < int(best.sum()) < len(best)

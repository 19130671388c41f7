"""Our autoattack and its authors' code: the same answer, example by example."""

import numpy as np
import peers
import pytest
import torch
from torch import nn

from gibbon.attacks.factory import build_attack
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel
from gibbon.datasets import DataRequest
from gibbon.datasets.base import Batch
from gibbon.datasets.registered.mnist import load
from gibbon.models.classifier import Classifier
from gibbon.specs.suite import AttackSpec
from gibbon.verify.answers import ask
from gibbon.verify.judge import judge
from gibbon.verify.proposal import propose

pytestmark = [
    pytest.mark.peers,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]

BOX = Bounds(0.0, 1.0)
PICTURES = 200
THEIRS = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}
# Where some examples survive and others do not; the share on which both must agree.
CASES = [
    ("convolutional", Norm.LINF, "0.1", 0.99),
    ("convolutional", Norm.L2, "1.5", 0.99),
    ("maxout-label-leaking", Norm.LINF, "0.1", 0.99),
    # The budget where most hangs on random starts: with another seed the authors' code disagrees
    # with itself on 3 of 200 examples, and we with it on 2 to 4.
    ("maxout-label-leaking", Norm.L2, "1.5", 0.975),
    ("maxout-label-leaking", Norm.L1, "8", 0.99),
]


def convolutional() -> Classifier:
    """A small network trained for some seconds: nothing defends it."""
    pictures = load(DataRequest(split="train")).batch(np.arange(4000))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip
        optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(6):
            for rows in torch.randperm(4000).split(100):
                loss = nn.functional.cross_entropy(
                    net(pictures.inputs[rows]), pictures.labels[rows]
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return Classifier(net, classes=10, input_shape=(1, 28, 28), bounds=BOX)


def model(name: str) -> Classifier:
    from gibbon_zoo.zoo import build

    return convolutional() if name == "convolutional" else build(name)


def pictures(count: int = PICTURES) -> Batch:
    return load(DataRequest(split="test")).batch(np.arange(count))


def ours(classifier: Classifier, batch: Batch, *, threat: ThreatModel) -> torch.Tensor:
    streams = ExampleStreams.derive(0, batch.ids)
    attack = build_attack(AttackSpec(name="autoattack", norm=threat.norm, epsilon=threat.epsilon))
    (tries,) = propose(attack, classifier, batch, threats=[threat], streams=streams)
    return judge(classifier, batch, proposed=tries, threat=threat).any_misled


def theirs(classifier: Classifier, batch: Batch, *, threat: ThreatModel) -> torch.Tensor:
    attack = peers.library("pyautoattack").AutoAttack(
        classifier, norm=THEIRS[threat.norm], eps=threat.radius, seed=0, device="cpu"
    )
    points, _ = attack.run_standard_evaluation(
        batch.inputs.clone(), batch.labels.clone(), batch_size=len(batch.ids)
    )
    return ask(classifier, points.detach()).predicted != batch.labels


@pytest.mark.parametrize(("name", "norm", "epsilon", "agreement"), CASES)
def test_the_same_examples_are_misled(name, norm, epsilon, agreement):
    peers.library("pyautoattack")
    batch, threat = pictures(), ThreatModel(norm, Epsilon.parse(epsilon), BOX)
    classifier = model(name)
    with classifier.evaluating():
        here = ours(classifier, batch, threat=threat)
        there = theirs(classifier, batch, threat=threat)
    assert 0.05 < float(here.float().mean()) < 0.95
    assert float((here == there).float().mean()) >= agreement

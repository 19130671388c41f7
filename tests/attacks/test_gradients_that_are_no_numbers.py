"""No attack that takes gradients may read NaN as robustness: its cell fails."""

import nets
import pytest
import torch
from test_conformance import VARIANTS
from torch import Tensor, nn

from gibbon.attacks import ATTACKS
from gibbon.attacks.base import Attack, threats_of
from gibbon.attacks.factory import build_attack
from gibbon.core.errors import OutputError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import ThreatModel
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.specs.suite import AttackSpec
from gibbon.verify.guard import guarding
from gibbon.verify.judge import judge
from gibbon.verify.proposal import propose

# Shrunk and put on black, as in every step of the first variant, no input is bright.
OTHERWISE = {"di-mi-fgsm": {"steps": 3, "probability": 0}}


class HalfBroken(nn.Module):
    """Finite outputs; the gradient is NaN for bright inputs: a root at 0, times 0."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        bright = (flat.mean(1, keepdim=True) > 0.5).to(flat.dtype)
        root = (bright * (flat - flat).square().sum(1, keepdim=True) + 1 - bright).sqrt()
        return self.module(inputs) + root


def run(attack: Attack, classifier: Classifier, batch: Batch, threat: ThreatModel) -> None:
    """Attacks as a run does."""
    with guarding(classifier, batch) as guarded:
        streams = ExampleStreams.derive(0, batch.ids)
        (tries,) = propose(attack, classifier, guarded.batch, threats=[threat], streams=streams)
        judge(classifier, batch, proposed=tries, threat=threat)


def taking_gradients() -> list[str]:
    return [name for name in ATTACKS.names() if ATTACKS.load(name).needs_gradient]


@pytest.mark.parametrize("name", taking_gradients())
def test_gradients_that_are_no_numbers_fail_the_attack(name):
    module = HalfBroken(nets.mlp().module)
    classifier = Classifier(module, classes=nets.CLASSES, input_shape=nets.SHAPE)
    batch = nets.labelled(classifier, nets.random_batch(8))
    bright = batch.inputs.flatten(1).mean(1) > 0.5
    assert 0 < int(bright.sum()) < 8
    parameters = OTHERWISE.get(name) or VARIANTS.get(name, [{}])[0]
    spec = AttackSpec.model_validate({"name": name, "epsilon": "0.01", **parameters})
    attack = build_attack(spec)
    (threat,) = threats_of(spec, attack, bounds=classifier.bounds)
    with classifier.evaluating(), pytest.raises(OutputError, match="NaN or infinite"):
        run(attack, classifier, batch, threat)
    assert torch.isfinite(classifier.module(batch.inputs)).all()

"""Attacks of other libraries see the model as our own do: logits before a softmax, another
backward pass, and gradients averaged over draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gibbon.attacks.base import tries_of
from gibbon.attacks.factory import build_attack
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel
from gibbon.models.attacked_view import attacked_view
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import PROBABILITIES, margin
from gibbon.models.pass_count import PassCount
from gibbon.specs.adaptation import Adaptation
from gibbon.specs.suite import AttackSpec

SHAPE = (1, 4, 4)
INPUTS = 0.3 + 0.4 * torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0))
ATTACKS = {
    "foolbox:LinfPGD": {"steps": 4},
    "torchattacks:PGD": {"steps": 4, "alpha": 0.15},
    "art:ProjectedGradientDescentPyTorch": {"max_iter": 4, "eps_step": 0.1},
    "advlib:pgd_linf": {"steps": 4, "relative_step_size": 0.4},
}


class Hidden(nn.Module):
    """A linear model behind rounding, before a softmax; with noise if wanted."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.round = Rounds()
        self.linear = nn.Linear(16, 3)
        self.softmax = nn.Softmax(1)
        self.noise = noise
        with torch.no_grad():
            weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
            self.linear.weight.copy_(2 * weight)
            self.linear.bias.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        clean = self.round(inputs.flatten(1))
        if self.noise:
            clean = clean + self.noise * torch.randn_like(clean)
        return self.softmax(self.linear(clean))


class Rounds(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs.detach() * 64).round() / 64


@pytest.fixture(params=ATTACKS)
def name(request: pytest.FixtureRequest) -> str:
    module = {"advlib": "adv_lib"}
    library = request.param.partition(":")[0]
    pytest.importorskip(module.get(library, library))
    return str(request.param)


def candidates(name: str, keys: Adaptation, *, noise: float = 0.0) -> tuple[Classifier, Tensor]:
    model = Classifier(Hidden(noise), classes=3, input_shape=SHAPE, outputs=PROBABILITIES)
    attack = build_attack(AttackSpec(name=name, epsilon=(Epsilon.parse("0.4"),), **ATTACKS[name]))
    threat = ThreatModel(Norm.LINF, Epsilon.parse("0.4"), Bounds(0.0, 1.0))
    with model.evaluating():
        labels = model.predict(INPUTS).argmax(1)
        model.passes = PassCount()
        view = attacked_view(model, keys, inputs=INPUTS)
        streams = ExampleStreams.derive(0, torch.arange(8))
        (found,) = tries_of(attack, view, INPUTS, labels=labels, threat=threat, streams=streams)
    return model, found


@pytest.mark.peers
def test_they_follow_the_gradient_of_the_view(name: str) -> None:
    keys = Adaptation(backward=(("round", "identity"),), before="softmax")
    model, found = candidates(name, keys)
    with model.evaluating():
        labels = model.predict(INPUTS).argmax(1)
        lead = model.module.get_submodule("linear")
        before, after = (margin(lead(each.flatten(1)), labels) for each in (INPUTS, found))
    assert (after - before).mean() > 1
    assert (found - INPUTS).abs().amax() > 0.2


@pytest.mark.peers
def test_their_gradients_are_averaged_and_counted(name: str) -> None:
    backward = (("round", "identity"),)
    once, _ = candidates(name, Adaptation(backward=backward, before="softmax"), noise=0.1)
    keys = Adaptation(5, backward, "softmax")
    several, found = candidates(name, keys, noise=0.1)
    assert several.passes.forward == 5 * once.passes.forward
    assert several.passes.backward == 5 * once.passes.backward
    assert torch.equal(candidates(name, keys, noise=0.1)[1], found)  # seeded

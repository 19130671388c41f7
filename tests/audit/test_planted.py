"""Attacks are tested on problems whose adversarial example is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gibbon.attacks.factory import build_attack
from gibbon.audit.features import feature_reader
from gibbon.audit.planted import (
    PlantedResult,
    PlantedSettings,
    audit_attack,
    point_on_sphere,
    points_in_ball,
)
from gibbon.audit.planted_table import planted_table
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.metrics.distances import distances
from gibbon.models.classifier import Classifier
from gibbon.specs.suite import AttackSpec

UNIT = Bounds(0.0, 1.0)
FEW = PlantedSettings(inner=49, random=50)


def threat_of(epsilon: object, norm: Norm = Norm.LINF, bounds: Bounds | None = UNIT) -> ThreatModel:
    return ThreatModel(norm, Epsilon.parse(epsilon), bounds)


def net(*, wrapped: type[nn.Module] | None = None, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(36, 64), nn.ReLU(), nn.Linear(64, 5)]
    return nn.Sequential(*([wrapped()] if wrapped else []), *layers).eval()


class Shattered(nn.Module):
    """Rounds its inputs to 8 bits: the gradient is zero everywhere."""

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs * 255).round() / 255


class Flipped(nn.Module):
    """Passes its inputs on, and the gradient with the other sign back."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * inputs.detach() - inputs


def batch(count: int = 6) -> Batch:
    inputs = ExampleStreams.derive(3, torch.arange(count)).uniform((1, 6, 6))
    return Batch(torch.arange(count), inputs, torch.zeros(count, dtype=torch.int64))


def result(
    module: nn.Module, attack: str, threat: ThreatModel, *, count: int = 6, **parameters: object
) -> PlantedResult:
    spec = AttackSpec.model_validate(
        {"name": attack, "epsilon": str(threat.epsilon), "norm": threat.norm, **parameters}
    )
    classifier = Classifier(module, classes=5, input_shape=(1, 6, 6))
    with classifier.evaluating() as source:
        return audit_attack(
            source,
            batch(count),
            attack=build_attack(spec),
            label=attack,
            threat=threat,
            settings=FEW,
        )


@pytest.mark.parametrize(
    ("norm", "epsilon"), [(Norm.LINF, "0.1"), (Norm.L2, "0.5"), (Norm.L1, "3")]
)
def test_a_sound_attack_finds_what_was_planted(norm: Norm, epsilon: str) -> None:
    found = result(net(), "pgd", threat_of(epsilon, norm), steps=40, restarts=3)
    assert found.problems == found.made == 6
    assert found.passed, found
    assert found.random_found < found.problems


@pytest.mark.parametrize("fault", [Shattered, Flipped])
def test_an_attack_without_a_useful_gradient_fails(fault: type[nn.Module]) -> None:
    found = result(net(wrapped=fault), "pgd", threat_of("0.1"), steps=40)
    assert found.problems > 0
    assert not found.passed
    (row,) = planted_table("net", "data", [found]).rows
    assert row[-1].text == "fails"


def test_an_attack_without_gradients_is_not_misled_by_a_shattered_one() -> None:
    blind = result(net(wrapped=Shattered), "pgd", threat_of("0.1"), steps=40, random_start=False)
    square = result(net(wrapped=Shattered), "square", threat_of("0.1"), queries=600)
    assert square.found > blind.found


def test_one_tiny_step_fails_and_noise_fails() -> None:
    weak = result(net(), "pgd", threat_of("0.1"), steps=1, step_size=0.001, random_start=False)
    assert not weak.passed
    assert not result(net(), "noise-uniform", threat_of("0.1")).passed


def test_features_are_what_the_last_linear_layer_gets() -> None:
    module = net()
    reader = feature_reader(module, torch.zeros(2, 1, 6, 6))
    assert (reader.call, reader.place) == (1, "the input of its last linear layer")
    inputs = torch.rand(4, 1, 6, 6)
    assert torch.equal(reader(inputs), module[:3](inputs))


def test_without_a_linear_layer_the_outputs_are_the_features() -> None:
    module = nn.Sequential(nn.Conv2d(1, 5, 6), nn.Flatten()).eval()
    reader = feature_reader(module, torch.zeros(2, 1, 6, 6))
    assert (reader.call, reader.place) == (None, "the model's outputs")
    assert result(module, "pgd", threat_of("0.1"), steps=40).passed


def test_a_constant_model_gives_no_problem() -> None:
    module = net()
    with torch.no_grad():
        module[1].weight.zero_()
    found = result(module, "pgd", threat_of("0.1"))
    assert (found.problems, found.share, found.passed) == (0, None, False)
    table = planted_table("net", "data", [found])
    assert "no problem could be made" in table.notes[0]


def test_the_model_is_as_before() -> None:
    module = net()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    result(module, "pgd", threat_of("0.1"), count=2)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.requires_grad for parameter in module.parameters())


@given(
    norm=st.sampled_from(list(Norm)),
    radius=st.sampled_from(["0.05", "0.3", "1.5"]),
    boxed=st.booleans(),
    seed=st.integers(0, 2**30),
)
@settings(max_examples=40, deadline=None)
def test_points_lie_where_they_should(norm: Norm, radius: str, boxed: bool, seed: int) -> None:
    bounds = UNIT if boxed else None
    threat = threat_of(radius, norm, bounds)
    streams = ExampleStreams.derive(seed, torch.tensor([0]))
    centre = ExampleStreams.derive(1, torch.tensor([0])).uniform((1, 4, 4))
    inner = points_in_ball(centre, threat=threat, count=20, streams=streams, reach=0.9)
    planted = point_on_sphere(centre, threat=threat, streams=streams)
    slack = 1e-5
    assert bool(
        (distances(inner, centre.expand_as(inner), norm=norm) <= 0.9 * threat.radius + slack).all()
    )
    assert bool((distances(planted, centre, norm=norm) <= threat.radius + slack).all())
    if threat.radius <= 0.5 or not boxed:  # else the box leaves no way to go so far
        assert float(distances(planted, centre, norm=norm)) >= threat.radius - slack
    if boxed:
        assert bool(((inner >= 0) & (inner <= 1)).all() & ((planted >= 0) & (planted <= 1)).all())

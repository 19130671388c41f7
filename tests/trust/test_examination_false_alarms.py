"""The examination raises nothing of honest networks but what is true of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from gibbon.datasets.base import Batch
from gibbon.diagnostics.examination.examine import FULL_BUDGET, Candidates, examine
from gibbon.models.classifier import Classifier
from gibbon.models.sources.build import build_model
from gibbon.records.examination import Examination
from gibbon.runner.device.precision import Variant, in_float32, vary
from gibbon.runner.plan.probe_model import probe_model
from gibbon.runner.settings import Precision
from gibbon.specs.suite import ModelSpec

# True of networks with random weights: they know nothing, and some of them hardly answer.
RANDOM = {"error-at-chance", "tiny-outputs", "zero-gradient"}
ZOO = (
    *("softmax", "maxout", "maxout-adv", "maxout-label-leaking", "maxout-80-adv"),
    *("maxout-l1", "maxout-rotation", "rbf"),
)
PICTURES = (3, 64, 64)


def examined(
    classifier: Classifier, batch: Batch, *, budget: int, precision: Precision = "float32"
) -> Examination:
    varied = vary(classifier, Variant(precision))
    moved = batch.inputs[:8] + 0.05 * torch.ones_like(batch.inputs[:8])
    with varied.evaluating():
        observed = probe_model(varied, batch, device=torch.device("cpu")).observed
        return examine(
            varied,
            batch,
            budget=budget,
            observed=observed,
            exact=in_float32(varied),
            candidates=Candidates(moved.clamp(0, 1), batch.ids[:8], batch.labels[:8]),
        )


def kinds(found: Examination) -> set[str]:
    assert "failed" not in {each.result for each in found.checks}, found.checks
    assert found.passes <= found.budget
    return {each.kind for each in found.found}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ZOO)
def test_trained_networks_of_the_zoo(
    mnist: tuple[Tensor, Tensor], name: str, precision: Precision
) -> None:
    spec = ModelSpec(name=name, model=name)
    batch = Batch(torch.arange(64), *mnist)
    classifier = build_model(spec, input_shape=(1, 28, 28)).classifier
    for budget in (30, 134, FULL_BUDGET):
        found = examined(classifier, batch, budget=budget, precision=precision)
        assert kinds(found) <= {"saturated-outputs"}, found.found


@pytest.mark.parametrize("name", ["softmax", "maxout-80-adv"])
def test_networks_of_the_zoo_with_random_weights(mnist: tuple[Tensor, Tensor], name: str) -> None:
    spec = ModelSpec(name=name, model=name)
    classifier = build_model(spec, input_shape=(1, 28, 28)).classifier
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in classifier.module.parameters():
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.05 * drawn)
        found = examined(classifier, Batch(torch.arange(64), *mnist), budget=400)
        assert kinds(found) <= RANDOM, found.found


def pictures(count: int) -> Batch:
    """Smooth colours, with labels that mean nothing."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    inputs = nn.functional.interpolate(coarse, size=PICTURES[1:], mode="bilinear").clamp(0, 1)
    return Batch(torch.arange(count), inputs, torch.arange(count) % 10)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("mobilenet_v2", {}),
        ("mobilenet_v3_small", {}),
        ("efficientnet_b0", {}),
        ("squeezenet1_1", {}),
        ("shufflenet_v2_x1_0", {}),
        ("regnet_y_400mf", {}),
        ("vit_b_16", {"image_size": 64}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_networks_of_torchvision_with_random_weights(
    name: str, options: dict[str, Any], precision: Precision
) -> None:
    torch.manual_seed(0)
    build = getattr(torchvision.models, name)
    net = build(num_classes=10, **options)
    classifier = Classifier(net, classes=10, input_shape=PICTURES)
    found = examined(classifier, pictures(6), budget=134, precision=precision)
    assert kinds(found) <= RANDOM, found.found


class Threshold(nn.Module):
    """Units that begin where a pixel of 0 is after a perturbation of 0.3, as robust training makes
    them, before a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(784, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last((inputs.flatten(1) - 0.3).relu())
        return outputs


def test_kinks_at_the_candidates_themselves(mnist: tuple[Tensor, Tensor]) -> None:
    inputs, labels = mnist
    classifier = Classifier(Threshold(), classes=10, input_shape=(1, 28, 28))
    moved = (inputs[:8] + 0.3).clamp(0, 1)
    candidates = Candidates(moved, torch.arange(8), labels[:8])
    batch = Batch(torch.arange(64), inputs, labels)
    for budget in (200, 400, FULL_BUDGET):
        found = examine(classifier, batch, budget=budget, candidates=candidates)
        assert kinds(found) <= RANDOM, found.found

"""Networks whose loss jumps between neighbouring inputs, and networks with many kinks and none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gibbon.datasets.base import Batch
from gibbon.diagnostics.examination.examine import FULL_BUDGET, examine
from gibbon.models.classifier import Classifier
from gibbon.records.examination import Examination
from gibbon.runner.device.precision import Variant, in_float32, vary
from gibbon.runner.plan.probe_model import probe_model
from gibbon.runner.settings import Precision

KIND = "discontinuous-loss"


class Winners(nn.Module):
    """Keeps a share of the units, the largest ones (Xiao et al. 2020, equation 1)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        least = flat.topk(max(1, int(self.share * flat.shape[1])), dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(inputs)


class Levels(nn.Module):
    """Rounds activations to a few levels, with the gradient of the rectifier."""

    def forward(self, inputs: Tensor) -> Tensor:
        active = inputs.relu()
        return active + ((4 * active).round() / 4 - active).detach()


class Attention(nn.Module):
    """Passes the half of the channels with the largest means."""

    def forward(self, inputs: Tensor) -> Tensor:
        active = inputs.relu()
        if active.ndim < 4:
            return active
        means = active.mean((2, 3))
        kept = means >= means.median(1, keepdim=True).values
        return active * kept[:, :, None, None]


class Branches(nn.Module):
    """Sends each input through one of two layers, by the sign of a third."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.ways = nn.Linear(784, 16), nn.ModuleList(nn.Linear(784, 10) for _ in "ab")

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        return torch.where(
            self.gate(flat).prod(1, keepdim=True) > 0, *(way(flat) for way in self.ways)
        )


def dense(activation: Callable[[], nn.Module]) -> nn.Module:
    layers = [nn.Linear(784, 200), activation(), nn.Linear(200, 200), activation()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(200, 10))


def convolutional(activation: Callable[[], nn.Module]) -> nn.Module:
    first = [nn.Conv2d(1, 8, 4, 2, 1), activation(), nn.Conv2d(8, 16, 4, 2, 1), activation()]
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(784, 64), activation(), nn.Linear(64, 10))


class Median(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        patches = nn.functional.unfold(inputs, 3, padding=1)
        return patches.view(len(inputs), 9, -1).median(1).values.view_as(inputs)


class Steep(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.sigmoid(200 * inputs)


FAULTS = {
    "a fifth of the units, dense": lambda: dense(lambda: Winners(0.2)),
    "a tenth of the units, dense": lambda: dense(lambda: Winners(0.1)),
    "a fifth of the units, convolutional": lambda: convolutional(lambda: Winners(0.2)),
    "a tenth of the units, convolutional": lambda: convolutional(lambda: Winners(0.1)),
    "activations in levels": lambda: convolutional(Levels),
    "hard attention": lambda: convolutional(Attention),
    "hard branches": Branches,
}
NEAR_MISSES = {
    "rectifiers, dense": lambda: dense(nn.ReLU),
    "rectifiers, convolutional": lambda: convolutional(nn.ReLU),
    "smooth units": lambda: convolutional(nn.GELU),
    "pieces that are steep": lambda: dense(lambda: nn.LeakyReLU(-3.0)),
    "a steep sigmoid": lambda: dense(Steep),
    "a median": lambda: nn.Sequential(Median(), convolutional(nn.ReLU)),
    "pooling": lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1), convolutional(nn.ReLU)),
}


def fitted(build: Callable[[], nn.Module], batch: Batch, *, steps: int) -> nn.Module:
    torch.manual_seed(0)
    net = build()
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(batch.inputs), batch.labels).backward()
        optimiser.step()
    return net.eval()


def examined(net: nn.Module, batch: Batch, precision: Precision = "float32") -> Examination:
    plain = Classifier(net, classes=10, input_shape=(1, 28, 28))
    classifier = vary(plain, Variant(precision))
    with classifier.evaluating():
        observed = probe_model(classifier, batch, device=torch.device("cpu")).observed
        return examine(
            classifier,
            batch,
            budget=FULL_BUDGET,
            observed=observed,
            exact=in_float32(classifier),
        )


@pytest.fixture
def batch(mnist: tuple[Tensor, Tensor]) -> Batch:
    return Batch(torch.arange(64), *mnist)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_loss_that_jumps_is_flagged(batch: Batch, name: str, precision: Precision) -> None:
    found = examined(fitted(FAULTS[name], batch, steps=30), batch, precision)
    assert KIND in {each.kind for each in found.found}, found.checks
    assert found.passes <= FULL_BUDGET


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("steps", [0, 30])
@pytest.mark.parametrize("name", NEAR_MISSES)
def test_kinks_are_no_jumps(batch: Batch, name: str, steps: int, precision: Precision) -> None:
    found = examined(fitted(NEAR_MISSES[name], batch, steps=steps), batch, precision)
    assert KIND not in {each.kind for each in found.found}, found.found


def test_the_jumps_are_named_and_not_the_gradient_that_is_right(batch: Batch) -> None:
    found = examined(fitted(FAULTS["a fifth of the units, convolutional"], batch, steps=30), batch)
    severities = {each.kind: each.severity for each in found.found}
    assert severities[KIND] == "serious"
    assert "gradient-mismatch" not in severities

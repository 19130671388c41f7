"""Small models and random batches for tests, each from a generator of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gibbon.conformance.subjects import CLASSES, SHAPE, generator, labelled, random_batch
from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.models.classifier import PIXELS, Classifier
from gibbon.models.outputs import LOG_SCORES, PROBABILITIES, OutputRule

# The batches that plug-in authors' attacks are tried on serve the tests too.
__all__ = ["CLASSES", "SHAPE", "Batch", "generator", "labelled", "random_batch"]

PIXEL_COUNT = 36


def filled(module: nn.Module, *, seed: int, spread: float = 1.0) -> nn.Module:
    """The module with weights from U(-spread, spread) / sqrt(fan in), vectors from U(-0.5, 0.5).

    The weights of each unit are centred, so that a mean grey level favours no class.
    """
    draws = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.rand(parameter.shape, generator=draws, dtype=torch.float64)
            if parameter.ndim == 1:
                parameter.copy_(noise - 0.5)
                continue
            rows = noise.flatten(1)
            centred = (rows - rows.mean(1, keepdim=True)).view(parameter.shape)
            parameter.copy_(2 * spread * centred / rows.shape[1] ** 0.5)
    return module


def linear(
    *, classes: int = CLASSES, seed: int = 1, spread: float = 3.0, bounds: Bounds = PIXELS
) -> Classifier:
    net = nn.Sequential(nn.Flatten(), nn.Linear(PIXEL_COUNT, classes))
    return Classifier(
        filled(net, seed=seed, spread=spread), classes=classes, input_shape=SHAPE, bounds=bounds
    )


def mlp(*, seed: int = 2, spread: float = 3.0, bounds: Bounds = PIXELS) -> Classifier:
    net = nn.Sequential(nn.Flatten(), nn.Linear(PIXEL_COUNT, 24), nn.Tanh(), nn.Linear(24, CLASSES))
    return Classifier(
        filled(net, seed=seed, spread=spread), classes=CLASSES, input_shape=SHAPE, bounds=bounds
    )


def conv(*, seed: int = 3, bounds: Bounds = PIXELS) -> Classifier:
    """With batch normalisation and dropout, so that training mode would show."""
    net = nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(5 * PIXEL_COUNT, CLASSES),
    )
    return Classifier(
        filled(net, seed=seed, spread=20.0), classes=CLASSES, input_shape=SHAPE, bounds=bounds
    )


class _Ending(nn.Module):
    def __init__(self, rule: OutputRule) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, outputs: Tensor) -> Tensor:
        if self.rule is PROBABILITIES:
            return outputs.softmax(1)
        return nn.functional.logsigmoid(outputs) if self.rule is LOG_SCORES else outputs


def with_rule(rule: OutputRule, *, seed: int = 4) -> Classifier:
    """A small network whose outputs are of a given kind."""
    body = mlp(seed=seed).module
    net = nn.Sequential(body, _Ending(rule))
    return Classifier(net, classes=CLASSES, input_shape=SHAPE, outputs=rule)


def on_grid(inputs: Tensor) -> Tensor:
    """The inputs rounded to multiples of 1/4096, with the gradient of the inputs themselves.

    A sum of their products with weights that are multiples of 1/8 is exact in float32, in whichever
    order it is added, as long as it stays below 512: so it is equal on every processor, for every
    number of threads and every batch size.
    """
    return inputs + (torch.round(4096 * inputs) / 4096 - inputs).detach()


def logistic(weights: Tensor, bias: float) -> Classifier:
    """Logistic regression in float64 as two logits, 0 and ``w x + b``; inputs have shape (D,)."""
    net = nn.Linear(len(weights), 2).double()
    with torch.no_grad():
        net.weight[0].zero_()
        net.weight[1].copy_(weights)
        net.bias.copy_(torch.tensor([0.0, bias]))
    return Classifier(net, classes=2, input_shape=(len(weights),))


def threat(
    epsilon: object = "0.1", *, norm: Norm = Norm.LINF, bounds: Bounds | None = PIXELS
) -> ThreatModel:
    return ThreatModel(norm, Epsilon.parse(epsilon), bounds)

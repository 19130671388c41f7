"""Fixed small models and batches on which attacks are checked.

All take inputs of shape (1, 6, 6), or with the number of channels that the attack needs, and have
four classes.  `boundary_case` is a linear model whose smallest adversarial distance is known in
closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gibbon.attacks.base import Attack
from gibbon.core.threat import Bounds, Norm
from gibbon.datasets.base import Batch
from gibbon.models.classifier import PIXELS, Classifier
from gibbon.models.outputs import LOG_SCORES, LOGITS, PROBABILITIES, OutputRule
from gibbon.models.pass_count import PassCount, add_passes

Shape = tuple[int, int, int]

SHAPE: Shape = (1, 6, 6)
CLASSES = 4
HIDDEN, CHANNELS = 24, 5


def shape_for(attack: Attack) -> Shape:
    """Returns the shape of the inputs on which an attack is checked."""
    return (attack.channels or SHAPE[0], *SHAPE[1:])


def generator(seed: int) -> torch.Generator:
    """Returns a new generator of random numbers."""
    return torch.Generator().manual_seed(seed)


def linear(*, shape: Shape = SHAPE) -> Classifier:
    """Returns a linear model with random weights."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), CLASSES))
    return _classifier(_filled(net, seed=1, spread=3.0), shape=shape)


def perceptron(*, bounds: Bounds = PIXELS, seed: int = 2, shape: Shape = SHAPE) -> Classifier:
    """Returns a smooth network with one hidden layer."""
    hidden, top = nn.Linear(math.prod(shape), HIDDEN), nn.Linear(HIDDEN, CLASSES)
    net = nn.Sequential(nn.Flatten(), hidden, nn.Tanh(), top)
    return _classifier(_filled(net, seed=seed, spread=3.0), bounds=bounds, shape=shape)


def convolutional(*, bounds: Bounds = PIXELS, shape: Shape = SHAPE) -> Classifier:
    """Returns a network with batch normalisation and dropout, which training mode changes."""
    channels, height, width = shape
    net = nn.Sequential(
        nn.Conv2d(channels, CHANNELS, 3, padding=1),
        nn.BatchNorm2d(CHANNELS),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(CHANNELS * height * width, CLASSES),
    )
    return _classifier(_filled(net, seed=3, spread=20.0), bounds=bounds, shape=shape)


def with_outputs(rule: OutputRule, *, shape: Shape = SHAPE) -> Classifier:
    """Returns a network with outputs of the given rule: probabilities or log-scores."""
    endings: dict[str, nn.Module] = {
        PROBABILITIES.name: nn.Softmax(dim=1),
        LOG_SCORES.name: nn.LogSigmoid(),
    }
    net = nn.Sequential(perceptron(seed=4, shape=shape).module, endings[rule.name])
    return _classifier(net, rule=rule, shape=shape)


class Counting(nn.Module):
    """A module that counts its passes, however it is called."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.tally = PassCount()

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the outputs of the wrapped module."""
        outputs: Tensor = self.module(inputs)
        add_passes(self.tally, forward=len(inputs))
        if outputs.requires_grad:
            outputs.register_hook(self._count)  # type: ignore[no-untyped-call]
        return outputs

    def _count(self, gradient: Tensor) -> None:
        add_passes(self.tally, backward=len(gradient))


def counting(*, shape: Shape = SHAPE) -> tuple[Classifier, PassCount]:
    """Returns a smooth network, and the tally of its own passes."""
    module = Counting(perceptron(shape=shape).module)
    return _classifier(module, shape=shape), module.tally


def random_batch(
    count: int = 40, *, seed: int = 5, shape: tuple[int, ...] = SHAPE, bounds: Bounds = PIXELS
) -> Batch:
    """Returns noise with random labels."""
    draws = generator(seed)
    inputs = torch.rand(count, *shape, generator=draws) * bounds.width + bounds.low
    labels = torch.randint(CLASSES, (count,), generator=draws)
    ids = torch.randperm(10 * count, generator=draws)[:count]
    return Batch(ids, inputs, labels)


def labelled(classifier: Classifier, batch: Batch) -> Batch:
    """Returns the batch with the model's predictions as labels: no clean mistakes."""
    with classifier.evaluating():
        return Batch(batch.ids, batch.inputs, classifier.predict(batch.inputs).argmax(1))


@dataclass(frozen=True)
class BoundaryCase:
    """A linear model and examples at one distance from its decision boundary.

    ``distance`` gives the smallest adversarial distance by norm: the margin, equal for all
    examples, divided by the dual norm of the difference of two classes' weights.
    """

    classifier: Classifier
    batch: Batch
    distance: dict[Norm, float]


def boundary_case(count: int = 24, *, shape: Shape = SHAPE) -> BoundaryCase:
    r"""Returns a linear model with :math:`\|w_k - w_y\|_q` equal for all pairs of classes.

    Each class has weights of one size on a fourth of the pixels, disjoint from the others', so that
    moving the pixels of its class sets the margin of an example; then
    :math:`r_p = (z_y - \max_{k \ne y} z_k) / \|w_k - w_y\|_q` with :math:`1/p + 1/q = 1`.

    >>> case = boundary_case()
    >>> {str(norm): round(value, 4) for norm, value in case.distance.items()}
    {'linf': 0.0111, 'l2': 0.0471, 'l1': 0.2}
    """
    size, margin = 5.0, 1.0
    coordinates, each = math.prod(shape), math.prod(shape) // CLASSES
    draws = generator(11)
    signs = (torch.randint(2, (CLASSES, each), generator=draws) * 2 - 1).double()
    order = torch.randperm(coordinates, generator=draws).view(CLASSES, each)
    weights = torch.zeros(CLASSES, coordinates, dtype=torch.float64)
    weights.scatter_(1, order, size * signs)
    layer = nn.Linear(coordinates, CLASSES)
    with torch.no_grad():
        layer.weight.copy_(weights)
        layer.bias.copy_(-weights.sum(1) / 2)  # a grey picture favours no class
    points = 0.4 + 0.2 * torch.rand(count, coordinates, generator=draws, dtype=torch.float64)
    labels = torch.arange(count) % CLASSES
    scores = (points - 0.5) @ weights.T
    others = scores.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
    own = scores.gather(1, labels.unsqueeze(1)).squeeze(1)
    step = (margin + others - own) / (size * each)
    points += step.unsqueeze(1) * weights[labels] / size
    inputs = points.float().view(count, *shape)
    classifier = _classifier(nn.Sequential(nn.Flatten(), layer), shape=shape)
    batch = Batch(torch.arange(count), inputs, labels)
    lengths = {Norm.LINF: 2 * each, Norm.L2: (2 * each) ** 0.5, Norm.L1: 1}  # in the dual norm
    distance = {norm: margin / (size * length) for norm, length in lengths.items()}
    return BoundaryCase(classifier, batch, distance)


def _classifier(
    module: nn.Module, *, shape: Shape, bounds: Bounds = PIXELS, rule: OutputRule = LOGITS
) -> Classifier:
    return Classifier(module, classes=CLASSES, input_shape=shape, outputs=rule, bounds=bounds)


def _filled(module: nn.Module, *, seed: int, spread: float) -> nn.Module:
    """Returns the module with weights from U(-spread, spread) / sqrt(fan in), centred."""
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

"""The models and examples that everyone works on."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from gibbon.datasets import DATASETS, DataRequest
from gibbon.datasets.base import Batch, sample_ids
from gibbon.models.classifier import Classifier
from gibbon.models.registry import MODELS

CLASSES = 10
SHAPE = (1, 28, 28)
TRAINED_ON = 30_000
TRAINED_AT = 0.15


@dataclass(frozen=True)
class Subject:
    """A model as we take it, and a bare copy for the others: eval mode, frozen, not hooked."""

    classifier: Classifier
    bare: nn.Module

    @classmethod
    def of(cls, classifier: Classifier) -> Subject:
        bare = copy.deepcopy(classifier.module).eval().requires_grad_(False)
        return cls(classifier, bare)


@cache
def shipped(name: str) -> Subject:
    """One of the zoo's models."""
    return Subject.of(MODELS.load(name)())


def digits(count: int) -> Batch:
    """The first examples of the fixed sample of MNIST's test set."""
    dataset = DATASETS.load("mnist")(DataRequest())
    return dataset.batch(np.asarray(sample_ids(dataset, count)))


@cache
def convolutional() -> Subject:
    """A small convolutional network, trained for half a minute on FGSM's examples from random
    starts in a ball of 0.15 (Wong, Rice and Kolter 2020), one pass over half of MNIST's training
    set: it is partly robust.
    """
    dataset = DATASETS.load("mnist")(DataRequest(split="train"))
    pictures = dataset.batch(np.arange(TRAINED_ON))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, CLASSES),
        )  # fmt: skip
        optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
        for rows in torch.arange(TRAINED_ON).split(100):
            inputs, labels = pictures.inputs[rows], pictures.labels[rows]
            attacked = _attacked(net, inputs, labels)
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(attacked), labels).backward()
            optimiser.step()
    return Subject.of(Classifier(net, classes=CLASSES, input_shape=SHAPE))


def _attacked(net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    start = (2 * torch.rand_like(inputs) - 1).mul_(TRAINED_AT).requires_grad_()
    loss = nn.functional.cross_entropy(net((inputs + start).clamp(0, 1)), labels)
    (gradient,) = torch.autograd.grad(loss, start)
    moved = start.detach().add(gradient.sign(), alpha=1.25 * TRAINED_AT)
    return (inputs + moved.clamp_(-TRAINED_AT, TRAINED_AT)).clamp_(0, 1)

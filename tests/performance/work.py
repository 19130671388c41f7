"""The same work done by the bare module, by this package and by other libraries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.attacks.base import Attack
from benchmark.attacks.fgsm import FGSM
from benchmark.attacks.pgd import PGD
from benchmark.classifier import Classifier
from benchmark.datasets import DATASETS, DataRequest
from benchmark.datasets.base import Batch, sample_ids
from benchmark.errors import WeightsError
from benchmark.models import MODELS
from benchmark.rng import ExampleStreams
from benchmark.threat import Epsilon, Norm, ThreatModel
from benchmark.verify import clean_answers, guarding, judge, propose
from model_zoo.maxout import Maxout

EPSILONS = ("0.05", "0.1", "0.15", "0.2", "0.25")
PGD_EPSILON = "0.1"
STEPS = 20
STEP = 0.0125


def maxout() -> Classifier:
    """The zoo's network, or an untrained one of the same size where its weights are not there."""
    try:
        return MODELS.load("maxout")()
    except WeightsError:
        net = Maxout()
        draws = torch.Generator().manual_seed(0)
        empty = torch.empty(0)
        net.start(empty, empty, spread=0.05, generator=draws)
        return Classifier(net, classes=10, input_shape=(1, 28, 28))


def digits(count: int) -> Batch:
    """The first examples of the fixed sample of MNIST's test set."""
    dataset = DATASETS.load("mnist")(DataRequest())
    return dataset.batch(np.asarray(sample_ids(dataset, count)))


def threats(epsilons: Sequence[str], classifier: Classifier) -> list[ThreatModel]:
    return [ThreatModel(Norm.LINF, Epsilon.parse(each), classifier.bounds) for each in epsilons]


def bare_passes(module: nn.Module, inputs: Tensor, *, gradients: int, forwards: int) -> None:
    """Forward-and-backwards to the inputs, then forwards: nothing else."""
    for _ in range(gradients):
        leaf = inputs.detach().requires_grad_()
        outputs = module(leaf)
        torch.autograd.grad(outputs, leaf, torch.ones_like(outputs))
    with torch.no_grad():
        for _ in range(forwards):
            module(inputs)


def by_us(
    attack: Attack, classifier: Classifier, batch: Batch, epsilons: Sequence[str], *, clean: bool
) -> list[float]:
    """Adversarial errors, checked and predicted as in a run."""
    asked = threats(epsilons, classifier)
    errors = []
    with guarding(classifier, batch) as guarded:
        streams = ExampleStreams.derive(0, batch.ids)
        proposals = propose(attack, classifier, guarded.batch, threats=asked, streams=streams)
        for threat, tries in zip(asked, proposals, strict=True):
            judged = judge(classifier, batch, proposed=tries, threat=threat)
            errors.append(float(judged.any_misled.double().mean()))
        if clean:
            clean_answers(classifier, batch, watch=guarded.watch)
    return errors


class Ours:
    name = "gibbon"

    def __init__(self, classifier: Classifier, batch: Batch) -> None:
        self.classifier, self.batch = classifier, batch

    def fgsm(self) -> list[float]:
        return by_us(FGSM(), self.classifier, self.batch, EPSILONS, clean=True)

    def pgd(self) -> list[float]:
        attack = PGD(steps=STEPS, step_size=STEP, random_start=False)
        return by_us(attack, self.classifier, self.batch, [PGD_EPSILON], clean=False)


class OursFromRandomStarts(Ours):
    name = "gibbon, random"

    def pgd(self) -> list[float]:
        attack = PGD(steps=STEPS, step_size=STEP)
        return by_us(attack, self.classifier, self.batch, [PGD_EPSILON], clean=False)


class Foolbox:
    name = "foolbox"

    def __init__(self, classifier: Classifier, batch: Batch) -> None:
        import foolbox

        self.attacks = foolbox.attacks
        self.model = foolbox.PyTorchModel(classifier.module, bounds=(0, 1), device="cpu")
        self.batch = batch

    def _errors(self, attack: object, epsilons: Sequence[str]) -> list[float]:
        radii = [float(Epsilon.parse(each)) for each in epsilons]
        _, _, success = attack(self.model, self.batch.inputs, self.batch.labels, epsilons=radii)  # type: ignore[operator]
        return success.double().mean(1).tolist()

    def fgsm(self) -> list[float]:
        return self._errors(self.attacks.LinfFastGradientAttack(), EPSILONS)

    def pgd(self) -> list[float]:
        attack = self.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS, random_start=False)
        return self._errors(attack, [PGD_EPSILON])


class Torchattacks:
    name = "torchattacks"

    def __init__(self, classifier: Classifier, batch: Batch) -> None:
        import torchattacks

        self.library = torchattacks
        self.module, self.batch = classifier.module, batch

    def _error(self, attack: object) -> float:
        candidates = attack(self.batch.inputs, self.batch.labels)  # type: ignore[operator]
        with torch.no_grad():
            predicted = self.module(candidates).argmax(1)
        return float((predicted != self.batch.labels).double().mean())

    def fgsm(self) -> list[float]:
        radii = [float(Epsilon.parse(each)) for each in EPSILONS]
        return [self._error(self.library.FGSM(self.module, eps=radius)) for radius in radii]

    def pgd(self) -> list[float]:
        radius = float(Epsilon.parse(PGD_EPSILON))
        return [
            self._error(
                self.library.PGD(
                    self.module, eps=radius, alpha=STEP, steps=STEPS, random_start=False
                )
            )
        ]


class Art:
    name = "art"

    def __init__(self, classifier: Classifier, batch: Batch) -> None:
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        self.attacks = evasion
        self.classifier = PyTorchClassifier(
            model=classifier.module,
            loss=nn.CrossEntropyLoss(),
            input_shape=classifier.input_shape,
            nb_classes=classifier.classes,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        self.inputs, self.labels = batch.inputs.numpy(), batch.labels.numpy()

    def _error(self, attack: object) -> float:
        candidates = attack.generate(self.inputs, y=self.labels)  # type: ignore[attr-defined]
        predicted = self.classifier.predict(candidates, batch_size=len(self.labels)).argmax(1)
        return float(np.mean(predicted != self.labels))

    def fgsm(self) -> list[float]:
        return [
            self._error(
                self.attacks.FastGradientMethod(
                    self.classifier, eps=float(Epsilon.parse(each)), batch_size=len(self.labels)
                )
            )
            for each in EPSILONS
        ]

    def pgd(self) -> list[float]:
        return [
            self._error(
                self.attacks.ProjectedGradientDescent(
                    self.classifier,
                    eps=float(Epsilon.parse(PGD_EPSILON)),
                    eps_step=STEP,
                    max_iter=STEPS,
                    batch_size=len(self.labels),
                    verbose=False,
                )
            )
        ]


PEERS = (Foolbox, Torchattacks, Art)

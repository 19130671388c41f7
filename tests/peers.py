"""Other libraries' attacks on our classifiers, where those libraries are installed."""

from __future__ import annotations

import warnings
from types import ModuleType

import pytest
import torch
from torch import Tensor

from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier

ANYWHERE = (-100.0, 100.0)  # libraries that insist on bounds get some that are never met


def library(name: str) -> ModuleType:
    """The library, or a skipped test; what it warns about on import is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, exc_type=ImportError)


def ends(bounds: Bounds | None) -> tuple[float, float]:
    return ANYWHERE if bounds is None else (bounds.low, bounds.high)


class Foolbox:
    name = "foolbox"

    def __init__(self) -> None:
        self.library = library("foolbox")

    def _model(self, classifier: Classifier, threat: ThreatModel):
        bounds = ends(threat.bounds)
        return self.library.PyTorchModel(classifier.module, bounds=bounds, device="cpu")

    def _run(self, attack, classifier: Classifier, batch: Batch, threat: ThreatModel) -> Tensor:
        model = self._model(classifier, threat)
        _, candidates, _ = attack(model, batch.inputs, batch.labels, epsilons=threat.radius)
        return candidates

    def fgsm(self, classifier: Classifier, batch: Batch, threat: ThreatModel) -> Tensor:
        attack = self.library.attacks.LinfFastGradientAttack(random_start=False)
        return self._run(attack, classifier, batch, threat)

    def pgd(
        self, classifier: Classifier, batch: Batch, threat: ThreatModel, *, steps: int, step: float
    ) -> Tensor:
        attacks = self.library.attacks
        kind = {Norm.LINF: attacks.LinfPGD, Norm.L2: attacks.L2PGD}[threat.norm]
        attack = kind(abs_stepsize=step, steps=steps, random_start=False)
        return self._run(attack, classifier, batch, threat)

    def noise_uniform(self, classifier: Classifier, batch: Batch, threat: ThreatModel) -> Tensor:
        attack = self.library.attacks.LinfAdditiveUniformNoiseAttack()
        return self._run(attack, classifier, batch, threat)


class Torchattacks:
    name = "torchattacks"  # always clips to [0, 1]

    def __init__(self) -> None:
        self.library = library("torchattacks")

    def fgsm(self, classifier: Classifier, batch: Batch, threat: ThreatModel) -> Tensor:
        attack = self.library.FGSM(classifier.module, eps=threat.radius)
        return attack(batch.inputs, batch.labels)

    def pgd(
        self, classifier: Classifier, batch: Batch, threat: ThreatModel, *, steps: int, step: float
    ) -> Tensor:
        kind = {Norm.LINF: self.library.PGD, Norm.L2: self.library.PGDL2}[threat.norm]
        attack = kind(
            classifier.module, eps=threat.radius, alpha=step, steps=steps, random_start=False
        )
        return attack(batch.inputs, batch.labels)


class Art:
    name = "art"

    def __init__(self) -> None:
        library("art")
        self.estimators = library("art.estimators.classification")
        self.attacks = library("art.attacks.evasion")

    def _classifier(self, classifier: Classifier, threat: ThreatModel):
        return self.estimators.PyTorchClassifier(
            model=classifier.module,
            loss=torch.nn.CrossEntropyLoss(),
            input_shape=classifier.input_shape,
            nb_classes=classifier.classes,
            clip_values=ends(threat.bounds),
            device_type="cpu",
        )

    def fgsm(self, classifier: Classifier, batch: Batch, threat: ThreatModel) -> Tensor:
        attack = self.attacks.FastGradientMethod(
            self._classifier(classifier, threat), eps=threat.radius, batch_size=len(batch.labels)
        )
        return torch.from_numpy(attack.generate(batch.inputs.numpy(), y=batch.labels.numpy()))

    def pgd(
        self, classifier: Classifier, batch: Batch, threat: ThreatModel, *, steps: int, step: float
    ) -> Tensor:
        attack = self.attacks.ProjectedGradientDescent(
            self._classifier(classifier, threat),
            norm={Norm.LINF: "inf", Norm.L2: 2}[threat.norm],
            eps=threat.radius,
            eps_step=step,
            max_iter=steps,
            num_random_init=0,
            batch_size=len(batch.labels),
            verbose=False,
        )
        return torch.from_numpy(attack.generate(batch.inputs.numpy(), y=batch.labels.numpy()))


LIBRARIES = {each.name: each for each in (Foolbox, Torchattacks, Art)}

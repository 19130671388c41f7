"""The same work done by other libraries, as their documentation says, on the whole batch at once.

Each returns the errors that it found, having asked the model about its examples where the library
does not say.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from subjects import CLASSES, SHAPE
from torch import Tensor, nn
from turns import Contestant

from gibbon.attacks.adapters.advlib import ADVLIB
from gibbon.core.errors import MissingLibraryError
from gibbon.datasets.base import Batch


class Rival(ABC):
    """A library at work on one model."""

    name: str

    @abstractmethod
    def __init__(self, module: nn.Module) -> None:
        """Imports the library; `ImportError` or `MissingLibraryError` where it is missing."""

    @abstractmethod
    def pgd(
        self, batch: Batch, *, epsilon: float, step: float, steps: int, random: bool = False
    ) -> list[float]:
        """The error under PGD on the cross-entropy, from the inputs or from random points."""


class FGSMRival(Rival):
    """A library that has the fast gradient sign method too."""

    @abstractmethod
    def fgsm(self, batch: Batch, *, epsilons: Sequence[float]) -> list[float]:
        """The errors at each epsilon."""


class Foolbox(FGSMRival):
    name = "foolbox"

    def __init__(self, module: nn.Module) -> None:
        import foolbox

        self.attacks = foolbox.attacks
        self.model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")

    def _errors(self, attack: Any, batch: Batch, epsilons: Sequence[float]) -> list[float]:
        _, _, success = attack(self.model, batch.inputs, batch.labels, epsilons=list(epsilons))
        found: list[float] = success.double().mean(1).tolist()
        return found

    def fgsm(self, batch: Batch, *, epsilons: Sequence[float]) -> list[float]:
        return self._errors(self.attacks.LinfFastGradientAttack(), batch, epsilons)

    def pgd(
        self, batch: Batch, *, epsilon: float, step: float, steps: int, random: bool = False
    ) -> list[float]:
        attack = self.attacks.LinfPGD(abs_stepsize=step, steps=steps, random_start=random)
        return self._errors(attack, batch, [epsilon])


class Torchattacks(FGSMRival):
    name = "torchattacks"

    def __init__(self, module: nn.Module) -> None:
        import torchattacks

        self.library = torchattacks
        self.module = module

    def _error(self, attack: Any, batch: Batch) -> float:
        return misled(self.module, attack(batch.inputs, batch.labels), batch.labels)

    def fgsm(self, batch: Batch, *, epsilons: Sequence[float]) -> list[float]:
        return [
            self._error(self.library.FGSM(self.module, eps=epsilon), batch) for epsilon in epsilons
        ]

    def pgd(
        self, batch: Batch, *, epsilon: float, step: float, steps: int, random: bool = False
    ) -> list[float]:
        attack = self.pgd_attack(epsilon=epsilon, step=step, steps=steps, random=random)
        return [self._error(attack, batch)]

    def pgd_attack(self, *, epsilon: float, step: float, steps: int, random: bool = False) -> Any:
        return self.library.PGD(
            self.module, eps=epsilon, alpha=step, steps=steps, random_start=random
        )


class Art(FGSMRival):
    name = "ART"

    def __init__(self, module: nn.Module) -> None:
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        self.attacks = evasion
        self.classifier = PyTorchClassifier(
            model=module,
            loss=nn.CrossEntropyLoss(),
            input_shape=SHAPE,
            nb_classes=CLASSES,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )

    def _error(self, attack: Any, batch: Batch) -> float:
        labels = batch.labels.numpy()
        candidates = attack.generate(batch.inputs.numpy(), y=labels)
        predicted = self.classifier.predict(candidates, batch_size=len(labels)).argmax(1)
        return float(np.mean(predicted != labels))

    def fgsm(self, batch: Batch, *, epsilons: Sequence[float]) -> list[float]:
        attacks = self.attacks
        count = len(batch.ids)
        return [
            self._error(
                attacks.FastGradientMethod(self.classifier, eps=epsilon, batch_size=count), batch
            )
            for epsilon in epsilons
        ]

    def pgd(
        self, batch: Batch, *, epsilon: float, step: float, steps: int, random: bool = False
    ) -> list[float]:
        attack = self.attacks.ProjectedGradientDescent(
            self.classifier,
            eps=epsilon,
            eps_step=step,
            max_iter=steps,
            num_random_init=int(random),
            batch_size=len(batch.ids),
            verbose=False,
        )
        return [self._error(attack, batch)]


class Advlib(Rival):
    name = "advlib"

    def __init__(self, module: nn.Module) -> None:
        # Through our adapter: it imports the library also where visdom is missing.
        ADVLIB.attack("pgd_linf")
        from adv_lib.attacks import pgd_linf

        self.attack = pgd_linf
        self.module = module

    def pgd(
        self, batch: Batch, *, epsilon: float, step: float, steps: int, random: bool = False
    ) -> list[float]:
        candidates = self.attack(
            self.module,
            batch.inputs,
            batch.labels,
            epsilon,
            steps=steps,
            random_init=random,
            absolute_step_size=step,
        )
        return [misled(self.module, candidates, batch.labels)]


RIVALS: tuple[type[Rival], ...] = (Foolbox, Torchattacks, Art, Advlib)


def rivals(module: nn.Module) -> list[Rival]:
    """Those that are installed."""
    found = []
    for kind in RIVALS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found.append(kind(module))
            except (ImportError, MissingLibraryError):
                continue
    return found


def misled(module: nn.Module, candidates: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((module(candidates).argmax(1) != labels).double().mean())


def autoattack(library: Any, module: nn.Module, batch: Batch, *, epsilon: float) -> Contestant:
    """The standard version by its authors' code."""

    def work() -> list[float]:
        attack = library.AutoAttack(module, norm="Linf", eps=epsilon, seed=0, device="cpu")
        _, predicted = attack.run_standard_evaluation(
            batch.inputs, batch.labels, batch_size=len(batch.ids)
        )
        return [float((predicted != batch.labels).double().mean())]

    return Contestant("pyautoattack", work)


@dataclass(frozen=True)
class TransferLoop:
    """A matrix of transfer as a loop around torchattacks: errors are counted, nothing is kept.

    Args:
        models: sources and targets.
        batches: the examples.
        epsilon: of PGD.
        step: its step size.
        steps: how many.
    """

    models: Sequence[Torchattacks]
    batches: Sequence[Batch]
    epsilon: float
    step: float
    steps: int

    def by_pairs(self) -> list[float]:
        """The errors of targets, source by source; examples are made anew for each pair."""
        return [
            float(
                np.mean(
                    [misled(target.module, *self._crafted(source, each)) for each in self.batches]
                )
            )
            for source in self.models
            for target in self.models
        ]

    def by_sources(self) -> list[float]:
        """The same, each source's examples made once."""
        found = []
        for source in self.models:
            crafted = [self._crafted(source, each) for each in self.batches]
            found += [
                float(np.mean([misled(target.module, *each) for each in crafted]))
                for target in self.models
            ]
        return found

    def _crafted(self, source: Torchattacks, batch: Batch) -> tuple[Tensor, Tensor]:
        attack = source.pgd_attack(epsilon=self.epsilon, step=self.step, steps=self.steps)
        return attack(batch.inputs, batch.labels), batch.labels

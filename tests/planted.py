"""Small models, a dataset and attacks whose behaviour is known, planted into the registries."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol

import numpy as np
import pytest
import torch
from nets import on_grid
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn

from gibbon.attacks import ATTACKS
from gibbon.attacks.base import STRICT, Attack, DirectionAttack
from gibbon.core.registry import Entry, Registry
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import ThreatModel
from gibbon.datasets import DATASETS
from gibbon.datasets.base import ArrayDataset
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import LOGITS, OutputRule
from gibbon.models.registry import MODELS
from gibbon.records.run import RunRecord
from gibbon.runner.folder_state.publish import Publish
from gibbon.specs.suite import Suite

EXAMPLES, SHAPE, CLASSES = 60, (1, 4, 4), 3
COORDINATES = 16


def squares(*, seed: int = 0, examples: int = EXAMPLES, name: str = "squares") -> ArrayDataset:
    """Noise, with one of three patches brighter than the rest: the class."""
    random = np.random.default_rng(seed)
    targets = np.arange(examples) % CLASSES
    pixels = random.integers(40, 160, (examples, *SHAPE), dtype=np.uint8)
    for example, target in enumerate(targets):
        pixels[example, 0, target] += 60
    return ArrayDataset(name, pixels, targets=targets, classes=("a", "b", "c"))


class Rows(nn.Module):
    """Scores a class by the mean of its row of pixels, plus a random linear map.

    Its outputs are computed without rounding: see `nets.on_grid`.
    """

    def __init__(self, seed: int = 0, *, factor: float = 1.0) -> None:
        super().__init__()
        weight = torch.randn(CLASSES, COORDINATES, generator=torch.Generator().manual_seed(seed))
        for row in range(CLASSES):
            weight[row, 4 * row : 4 * row + 4] += 2.0
        self.weight = nn.Parameter(torch.round(8 * weight) / 8)
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(on_grid(inputs.flatten(1)), self.weight) * self.factor


def classifier(
    module: nn.Module, *, outputs: OutputRule = LOGITS, classes: int = CLASSES
) -> Classifier:
    return Classifier(module, classes=classes, input_shape=SHAPE, outputs=outputs)


def rows(seed: int = 0, *, factor: float = 1.0) -> Callable[[], Classifier]:
    return lambda: classifier(Rows(seed, factor=factor))


class NaNBeyond(Rows):
    """Returns NaN wherever a pixel leaves the range of the clean data by much."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        beyond = inputs.flatten(1).amax(1) > 0.95
        return torch.where(beyond.unsqueeze(1), torch.nan, outputs)


class _Planted(Attack):
    """Proposes what `change` makes of the inputs."""

    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        raise NotImplementedError

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        yield self.change(inputs, threat)


@checked(frozen=True, kw_only=True, config=STRICT)
class Raises(_Planted):
    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        raise RuntimeError("planted trouble")


@checked(frozen=True, kw_only=True, config=STRICT)
class RaisesAtTenth(_Planted):
    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        if threat.radius == 0.1:
            raise RuntimeError("planted trouble at 0.1")
        return inputs + threat.radius


@checked(frozen=True, kw_only=True, config=STRICT)
class ReturnsNaN(_Planted):
    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        return torch.full_like(inputs, torch.nan)


@checked(frozen=True, kw_only=True, config=STRICT)
class LeavesBudget(_Planted):
    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        return (inputs + 2 * threat.radius + 0.01).clamp(0, 1)


@checked(frozen=True, kw_only=True, config=STRICT)
class ReturnsInputs(_Planted):
    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        return inputs


@checked(frozen=True, kw_only=True, config=STRICT)
class Brightens(DirectionAttack):
    """Adds epsilon to every pixel; asks the model nothing."""

    def direction(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        streams: ExampleStreams,
    ) -> Tensor:
        return torch.ones_like(inputs)


@checked(frozen=True, kw_only=True, config=STRICT)
class Darkens(_Planted):
    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        return (inputs - threat.radius).clamp_min(0.0)


@checked(frozen=True, kw_only=True, config=STRICT)
class Flaky(_Planted):
    """Raises until somebody sets `mended`."""

    mended: ClassVar[bool] = False

    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        if not self.mended:
            raise RuntimeError("not mended yet")
        return inputs + threat.radius


def _press() -> None:
    raise KeyboardInterrupt


# As a hand on the keyboard, which is no part of the attack: what an attack names is in its digest.
INTERRUPTS = SimpleNamespace(after=0, asked=[], press=_press)


@checked(frozen=True, kw_only=True, config=STRICT)
class Interrupts(_Planted):
    """Raises what Ctrl-C raises once it was asked `after` times."""

    def change(self, inputs: Tensor, threat: ThreatModel) -> Tensor:
        state = vars(sys.modules[__name__])["INTERRUPTS"]
        state.asked.append(len(inputs))
        if len(state.asked) == state.after:
            state.press()
        return inputs + threat.radius


@dataclass
class Plant:
    """Adds entries to the registries for the time of a test."""

    patch: pytest.MonkeyPatch
    built: dict[str, list[Classifier]] = field(default_factory=dict)

    def model(self, name: str, build: Callable[..., Any]) -> None:
        """Registers a builder; what it builds is kept in ``built``."""

        def noted() -> Any:
            model = build()
            self.built.setdefault(name, []).append(model)
            return model

        self._add(MODELS, name, noted)

    def attack(self, name: str, kind: type[Attack]) -> None:
        self._add(ATTACKS, name, kind)

    def dataset(self, name: str, load: Callable[..., Any]) -> None:
        self._add(DATASETS, name, load)

    def _add(self, registry: Registry[Any], name: str, thing: Any) -> None:
        registry.names()  # plug-ins are read before the entry is put in
        entry = Entry(name, f"{name}, planted", lambda: thing, "the tests")
        self.patch.setitem(registry._entries, name, entry)


class Run(Protocol):
    """Runs a suite of the planted things into a folder."""

    def __call__(
        self,
        suite: Suite,
        folder: str = "run",
        *,
        publish: Publish | None = None,
        **settings: Any,
    ) -> RunRecord: ...

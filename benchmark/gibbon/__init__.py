"""Gibbon: an adversarial-robustness benchmark harness for PyTorch.

The names below are the public interface.  Each is imported when it is first used: ``import gibbon``
imports no torch, and neither does ``from gibbon import compare``.

>>> from gibbon import Bounds, Norm
>>> Norm.LINF, Bounds(0, 1).width
(<Norm.LINF: 'linf'>, 1)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gibbon import report
    from gibbon.api.evaluate import evaluate
    from gibbon.api.results import Examples, Results
    from gibbon.api.train import train
    from gibbon.attacks.base import Attack, DirectionAttack
    from gibbon.attacks.minimal import MinimalNormAttack
    from gibbon.conformance import check_attack
    from gibbon.core.errors import (
        AttackError,
        CellError,
        DatasetError,
        DeviceError,
        FlagError,
        GibbonError,
        IncompleteError,
        MemoryShortageError,
        MissingLibraryError,
        ModelError,
        OutputError,
        ProcessEndedError,
        RecordError,
        RequestError,
        RunFolderError,
        SpecError,
        UnknownNameError,
        WeightsError,
    )
    from gibbon.core.rng import ExampleStreams
    from gibbon.core.threat import Bounds, Epsilon, Norm, ThreatModel
    from gibbon.datasets.base import Batch, Dataset
    from gibbon.gate.compare import compare
    from gibbon.models.classifier import Classifier
    from gibbon.models.registry import TrainingResult
    from gibbon.records.run import RunRecord
    from gibbon.specs.suite import AttackSpec, DatasetSpec, ModelSpec, Suite

# The module that each public name is defined in; `report` is itself a module.
_HOMES = {
    "gibbon.api.evaluate": ("evaluate",),
    "gibbon.api.results": ("Examples", "Results"),
    "gibbon.api.train": ("train",),
    "gibbon.attacks.base": ("Attack", "DirectionAttack"),
    "gibbon.attacks.minimal": ("MinimalNormAttack",),
    "gibbon.conformance": ("check_attack",),
    "gibbon.core.errors": (
        "AttackError",
        "CellError",
        "DatasetError",
        "DeviceError",
        "FlagError",
        "GibbonError",
        "IncompleteError",
        "MemoryShortageError",
        "MissingLibraryError",
        "ModelError",
        "OutputError",
        "ProcessEndedError",
        "RecordError",
        "RequestError",
        "RunFolderError",
        "SpecError",
        "UnknownNameError",
        "WeightsError",
    ),
    "gibbon.core.rng": ("ExampleStreams",),
    "gibbon.core.threat": ("Bounds", "Epsilon", "Norm", "ThreatModel"),
    "gibbon.datasets.base": ("Batch", "Dataset"),
    "gibbon.gate.compare": ("compare",),
    "gibbon.models.classifier": ("Classifier",),
    "gibbon.models.registry": ("TrainingResult",),
    "gibbon.records.run": ("RunRecord",),
    "gibbon.specs.suite": ("AttackSpec", "DatasetSpec", "ModelSpec", "Suite"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Attack",
    "AttackError",
    "AttackSpec",
    "Batch",
    "Bounds",
    "CellError",
    "Classifier",
    "Dataset",
    "DatasetError",
    "DatasetSpec",
    "DeviceError",
    "DirectionAttack",
    "Epsilon",
    "ExampleStreams",
    "Examples",
    "FlagError",
    "GibbonError",
    "IncompleteError",
    "MemoryShortageError",
    "MinimalNormAttack",
    "MissingLibraryError",
    "ModelError",
    "ModelSpec",
    "Norm",
    "OutputError",
    "ProcessEndedError",
    "RecordError",
    "RequestError",
    "Results",
    "RunFolderError",
    "RunRecord",
    "SpecError",
    "Suite",
    "ThreatModel",
    "TrainingResult",
    "UnknownNameError",
    "WeightsError",
    "check_attack",
    "compare",
    "evaluate",
    "report",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "report":
        return import_module("gibbon.report")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

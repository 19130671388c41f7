"""The measures that a gate compares, and the keys that identify them in both runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gibbon.core.threat import Epsilon

GateMeasure = Literal[
    "clean_error",
    "adversarial_error",
    "worst_case_error",
    "transfer_error",
    "false_positive_rate",
]
UNATTACKED_MEASURES: tuple[GateMeasure, ...] = ("clean_error", "false_positive_rate")


@dataclass(frozen=True)
class Key:
    """Identifies a measure in both runs of a comparison.

    ``target`` is the model that the examples are scored on, if it is not their source.
    """

    dataset: str
    model: str
    attack: str
    epsilon: Epsilon
    measure: GateMeasure
    target: str = ""

"""The TensorBoard folder of a training, and its row in the dashboard of hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gibbon.core.errors import RunFolderError
from gibbon.core.threat import ThreatModel


@dataclass(frozen=True)
class MonitorSettings:
    """Settings of the TensorBoard files of a training.

    Args:
        folder: TensorBoard folder of the training.
        group: name of the training in the dashboard of hyperparameters.
        recipe: the recipe as nested fields.
        threat: budget of the FGSM that is measured; with an epsilon of 0 none is.
        log_attack: the attack whose error the log calls adversarial: ``"fgsm"`` or ``"pgd"``.
        failed: takes a sentence if events can't be written.
    """

    folder: Path
    group: str
    recipe: Mapping[str, Any]
    threat: ThreatModel
    log_attack: str
    failed: Callable[[str], None]

    def begin(self) -> None:
        """Writes the recipe, in place of an earlier one.  Raises `RunFolderError`."""
        from gibbon.report.tensorboard.training_events import TrainingEvents

        try:
            events = TrainingEvents(self.folder, first_step=1)
            events.begin(self.group, hyperparameters(self.recipe))
        except OSError as error:
            raise RunFolderError(
                f"{self.folder}: can't be written: {error.strerror or error}"
            ) from error

    def end(self, figures: Mapping[str, float | None], *, epochs: int) -> None:
        """Writes the final figures; if that fails, says so."""
        from gibbon.report.tensorboard.training_events import TrainingEvents

        known = {name: value for name, value in figures.items() if value is not None}
        try:
            TrainingEvents(self.folder, first_step=epochs + 1).end(known, step=epochs + 1)
        except (OSError, RunFolderError) as error:
            self.failed(f"TensorBoard: the final figures are not written: {error}")


def hyperparameters(recipe: Mapping[str, Any], *, under: str = "") -> dict[str, bool | float | str]:
    """Returns the fields of a recipe as hyperparameters, by dotted name.

    >>> hyperparameters({"epochs": 3, "optimiser": {"name": "sgd"}, "noise": None})
    {'epochs': 3.0, 'optimiser.name': 'sgd'}
    """
    found: dict[str, bool | float | str] = {}
    for key, value in recipe.items():
        name = f"{under}{key}"
        if isinstance(value, Mapping):
            found |= hyperparameters(value, under=f"{name}.")
        elif isinstance(value, bool | str):
            found[name] = value
        elif isinstance(value, int | float):
            found[name] = float(value)
        elif value is not None:
            found[name] = str(value)
    return found

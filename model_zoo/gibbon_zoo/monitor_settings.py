"""The TensorBoard folder of a training, and its row in the dashboard of hyperparameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gibbon.core.errors import RunFolderError
from gibbon.core.files import unwritable, write_atomically
from gibbon.core.threat import ThreatModel

OWNER_FILE = "training.txt"  # names the training that a TensorBoard folder belongs to


@dataclass(frozen=True)
class MonitorSettings:
    """Settings of the TensorBoard files of a training.

    Args:
        folder: TensorBoard folder of the training.
        stem: start of the names of the training's other files.
        group: name of the training in the dashboard of hyperparameters.
        recipe: the recipe as nested fields.
        threat: budget of the FGSM that is measured; with an epsilon of 0 none is.
        log_attack: the attack whose error the log calls adversarial: ``"fgsm"`` or ``"pgd"``.
        failed: takes a sentence if events can't be written.
    """

    folder: Path
    stem: Path
    group: str
    recipe: Mapping[str, Any]
    threat: ThreatModel
    log_attack: str
    failed: Callable[[str], None]

    def begin(self) -> None:
        """Writes the recipe, in place of an earlier one.

        Raises `RunFolderError` if the folder can't be written, or is another training's.
        """
        from gibbon.report.tensorboard.training_events import TrainingEvents

        try:
            self._claim()
            events = TrainingEvents(self.folder, first_step=1)
            events.begin(self.group, hyperparameters(self.recipe))
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def _claim(self) -> None:
        """Writes whose the folder is.  Raises `RunFolderError` if it is another training's."""
        owner = self.folder / OWNER_FILE
        # Relative, so that the folders may be moved together.
        place = os.path.relpath(self.stem, self.folder)
        known = owner.read_text(encoding="utf-8") if owner.is_file() else place
        if known != place:
            raise RunFolderError(
                f"{self.folder}: holds the TensorBoard files of the training "
                f"{os.path.normpath(self.folder / known)}: choose another folder with "
                f"--tensorboard, such as {self.folder / self.stem.name}, or none with "
                "--no-tensorboard"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(owner, place)

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

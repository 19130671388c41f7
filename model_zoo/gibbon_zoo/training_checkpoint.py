"""Checkpoints: the state that a training needs to continue as if it had never stopped.

Random numbers in a training depend on the recipe's seed and the number of the step alone, so no
generator has to be stored: parameters, optimiser state and the step are enough.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gibbon.core.errors import RunFolderError, WeightsError
from gibbon.core.files import read_plain_file
from gibbon.core.plain_text import shortened
from gibbon_zoo.atomic import write_in_folder
from gibbon_zoo.learner import LoopRecipe

LAYOUT = 3  # raised if the content of a checkpoint changes


@dataclass(frozen=True)
class TrainingCheckpoint:
    """The state of a training after some of its steps.

    Args:
        step: optimiser steps done.
        seconds: time spent on them.
        parameters: the module's tensors by name.
        optimiser: the optimiser's state dict.
        loss: sum of the objective over the steps of the current epoch.
        history: the fields of one `gibbon_zoo.training_log.EpochRecord` for each epoch.
        best: the module's tensors after the best epoch, if training may stop early.
        carried: tensors that an objective carries from step to step, if it does.
    """

    step: int
    seconds: float
    parameters: dict[str, Tensor]
    optimiser: dict[str, Any]
    loss: Tensor
    history: list[dict[str, Any]]
    best: dict[str, Tensor] | None = None
    carried: dict[str, Tensor] = field(default_factory=dict)


def write_checkpoint(path: Path, checkpoint: TrainingCheckpoint, recipe: LoopRecipe) -> None:
    """Writes a checkpoint atomically.  Raises `RunFolderError` if it can't be written."""
    buffer = io.BytesIO()
    content = {"layout": LAYOUT, "recipe": recipe.model_dump_json(), **vars(checkpoint)}
    torch.save(content, buffer)
    write_in_folder(path, buffer.getvalue())


def read_training_checkpoint(path: Path, recipe: LoopRecipe) -> TrainingCheckpoint | None:
    """Returns the checkpoint in a file, or None if there is none.

    Raises `WeightsError` if it is damaged, and `RunFolderError` if it belongs to a training
    by another recipe, seed or number of epochs.
    """
    try:
        content = read_plain_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror or error}") from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            part = archive.testzip()  # torch compares no checksums
        if part is not None:
            raise ValueError(f"the checksum of {part} differs")
        # weights_only: tensors and plain containers; nothing in the file is executed.
        stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        layout, made_by = stored.pop("layout"), stored.pop("recipe")
        if layout != LAYOUT:
            raise ValueError(f"layout {layout}, expected {LAYOUT}")
        recorded = type(recipe).model_validate_json(made_by)
        checkpoint = TrainingCheckpoint(**stored)
    except Exception as error:  # a damaged file can raise any exception
        reason = shortened(str(error).partition("\n")[0]) or type(error).__name__
        raise WeightsError(
            f"{path}: damaged, or not a checkpoint of this version ({reason}); "
            "delete it or start fresh (--fresh)"
        ) from error
    differences = recorded.differences(recipe)
    if differences:
        raise RunFolderError(
            f"{path}: the checkpoint belongs to another training: {'; '.join(differences)}; "
            "repeat that request, choose another folder or start fresh (--fresh)"
        )
    return checkpoint

"""Trainings of a suite's models with several seeds, from the folders that `train --seeds` writes.

A folder of trainings holds ``MODEL/seed-N/MODEL.safetensors`` for each model and seed, as
``checkpoints/`` does after ``train MODEL --seeds 0,1,2``.  MODEL is the name of a user's own model
in the suite.  A training that is not finished has no such file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gibbon.core.errors import SpecError
from gibbon.specs.suite import Experiment, ModelSpec, Suite

SEED_FOLDER = re.compile(r"seed-(\d{1,18})")


def finished_trainings(folder: Path, model: str) -> dict[int, Path]:
    """Returns the weights files of a model's finished trainings by seed, the smallest first."""
    found = {}
    for each in (folder / model).glob("seed-*"):
        seed = SEED_FOLDER.fullmatch(each.name)
        weights = each / f"{model}.safetensors"
        if seed is not None and weights.is_file():
            found[int(seed[1])] = weights
    return dict(sorted(found.items()))


def with_trainings(suite: Suite, folder: Path) -> Suite:
    """Returns a suite in which models are replaced by all of their trainings in a folder.

    The training with the smallest seed keeps the model's name; the one with seed N is called
    ``NAME-seed-N``.  They share the name as their ``seeds_of``, so that tables show mean and
    spread, and verdicts are about all of them.  Models without a training in the folder stay.

    Raises `SpecError` if the folder has no training of any model of the suite.
    """
    experiments = tuple(
        experiment.model_copy(update={"models": tuple(_replaced(experiment, folder))})
        for experiment in suite.experiments
    )
    if experiments == suite.experiments:
        models = [model for each in suite.experiments for model in each.models]
        names = {trained_name(each, named=each.name) for each in models}
        raise SpecError(
            "no finished training of a model of the suite: expected "
            f"MODEL/seed-N/MODEL.safetensors, with a model among {', '.join(sorted(names))}",
            where=f"--trainings {folder}",
        )
    # Decoded again, so that names which two models would share are refused.
    return Suite.model_validate(
        {**dict(suite), "experiments": [dict(experiment) for experiment in experiments]}
    )


def trainings_folder(model: ModelSpec) -> str | None:
    """Returns the folder of trainings that a model's weights are in; None if they are in none.

    >>> trained = ModelSpec(name="a", model="a", weights="out/a/seed-1/a.safetensors", seeds_of="a")
    >>> trainings_folder(trained)
    'out'
    >>> trainings_folder(ModelSpec(name="a", model="a", weights="a.safetensors"))
    """
    if model.weights is None or model.seeds_of is None:
        return None
    path = Path(model.weights)
    trained = trained_name(model, named=model.seeds_of)
    if path.name != f"{trained}.safetensors" or not SEED_FOLDER.fullmatch(path.parent.name):
        return None
    return path.parents[2].as_posix() if path.parents[1].name == trained else None


def trained_name(model: ModelSpec, *, named: str) -> str:
    """Returns the name that trainings of a model have: the registered one, or that of the user.

    ``named`` is the name of the model in the suite; ``train --model SOURCE --name NAME`` gives it
    to the weights of a model that is not registered.

    >>> trained_name(ModelSpec(name="net", model="path/to/net.py:build"), named="net")
    'net'
    """
    return named if "/" in model.model or ":" in model.model else model.model


def _replaced(experiment: Experiment, folder: Path) -> Iterator[ModelSpec]:
    for model in experiment.models:
        name = trained_name(model, named=model.name)
        trained = not model.ensemble and (not model.arguments or name != model.model)
        found = finished_trainings(folder, name) if trained else {}
        if not found:
            yield model
            continue
        for place, (seed, weights) in enumerate(found.items()):
            name = model.name if place == 0 else f"{model.name}-seed-{seed}"
            yield model.model_copy(
                update={"name": name, "weights": weights.as_posix(), "seeds_of": model.name}
            )

"""Completes and checks inputs that belong to no class, and the models that they are given to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch

from gibbon.core.errors import DatasetError, ModelError, SpecError
from gibbon.core.threat import Bounds
from gibbon.datasets.base import Dataset
from gibbon.models.registry import MODELS
from gibbon.models.sources.build import build_model, preprocessing_of
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.selection import Selection
from gibbon.specs.naming import RUBBISH
from gibbon.specs.suite import DatasetSpec, Experiment, ModelSpec

COLOURS = 3  # channels of the images that a model's own preprocessing is about
NO_FORM = (
    "the shape of one draw is not known: give shape, such as 3,224,224, or compare it against "
    "a dataset with classes, whose inputs have one"
)
Form = tuple[tuple[int, ...], Bounds | None]


def noise_form(
    experiment: Experiment,
    like: Dataset | None,
    declared: Mapping[str, Form | None],
    *,
    where: str,
) -> DatasetSpec:
    """Returns the spec of an experiment's noise with the shape and bounds of its draws.

    They are its own, else those of the inputs with a class, else those that a model declares, one
    that is given as an object or a registered one; or the size that a model's own preprocessing
    crops images to.  A spec of anything but noise comes back as it is.

    Args:
        experiment: the experiment.
        like: the dataset that confidences are compared with.
        declared: shape and bounds of the inputs of models that are given as objects, by name; None
            for a model that declares none.
        where: names the dataset in error messages.

    Raises `SpecError` if the shape is not known.
    """
    spec = experiment.dataset
    if not spec.source.startswith(RUBBISH) or (spec.shape is not None and spec.bounds is not None):
        return spec
    known = (like.input_shape, like.bounds) if like is not None else None
    shape, bounds = known or next(_forms(experiment.models, declared), (None, None))
    if spec.shape is None and shape is None:
        raise SpecError(NO_FORM, where=f"{where}.shape")
    update: dict[str, object] = {"shape": spec.shape or shape}
    if spec.bounds is None and bounds is not None:
        update["bounds"] = (bounds.low, bounds.high)
    return spec.model_copy(update=update)


def _forms(specs: Iterable[ModelSpec], declared: Mapping[str, Form | None]) -> Iterator[Form]:
    """Yields the shape and bounds of the inputs that models declare."""
    for spec in specs:
        if spec.name in declared:
            given = declared[spec.name]
            if given is not None:
                yield given
        elif spec.model in MODELS:
            # A registered model declares its inputs; what is given here is not used.
            built = build_model(spec, input_shape=(), bounds=Bounds(0.0, 1.0)).classifier
            if built.input_shape:
                yield built.input_shape, built.bounds
        else:
            found = preprocessing_of(spec)
            side = None if found is None else found.crop or found.resize
            if side is not None:
                height, width = (side, side) if isinstance(side, int) else side
                yield (COLOURS, height, width), None


def check_no_class(dataset: Dataset, *, where: str) -> None:
    """Raises `DatasetError` for a dataset with classes, which an object may have."""
    if not dataset.info.no_class:
        raise DatasetError(f"{where}: {dataset.name!r} has classes, expected inputs without them")


def unlabelled(selection: Selection) -> Selection:
    """Returns a selection whose sample has a class for each input, of which nothing is read.

    A model is probed with gradients of its loss, which needs classes that exist.
    """
    sample = selection.sample
    return replace(selection, sample=replace(sample, labels=torch.zeros_like(sample.labels)))


def check_gradients(models: Iterable[LoadedModel], *, where: str) -> None:
    """Raises `ModelError` if a model has no gradients, which fooling images are made with."""
    for place, model in enumerate(models):
        if model.probed.forward_only:
            raise ModelError(
                f"{where}models[{place}]: {model.name!r}: {model.probed.forward_only}: fooling "
                "images are made with gradients; leave out fooling"
            )

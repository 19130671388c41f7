"""Checks and completes a request against the loaded attacks and model configurations."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from gibbon.core.errors import RequestError, SpecError
from gibbon.core.reading import expanded
from gibbon.datasets.class_map import read_class_map
from gibbon.datasets.image_listing import list_csv, list_folder, list_pictures
from gibbon.datasets.open import KINDS, kind_of
from gibbon.models.sources import Preprocessing, Size
from gibbon.models.sources.build import preprocessing_of
from gibbon.specs.suite import DatasetSpec, Experiment, ModelSpec, Suite

LISTERS = {"folder": list_folder, ".csv": list_csv}


def with_preprocessing(suite: Suite) -> tuple[Suite, tuple[str, ...]]:
    """Returns a suite with the resizing and cropping of its models' own configuration.

    They are added if the images have different sizes, the suite gives neither ``resize`` nor
    ``crop``, and the configurations of all models agree.  The second value holds a sentence that
    says what was added, or nothing.
    """
    completed = [_with_preprocessing(each) for each in suite.experiments]
    experiments, notes = zip(*completed, strict=True)
    said = tuple(dict.fromkeys(filter(None, notes)))
    return suite.model_copy(update={"experiments": experiments}) if said else suite, said


def _with_preprocessing(experiment: Experiment) -> tuple[Experiment, str]:
    data = experiment.dataset
    if data.resize is not None or data.crop is not None:
        return experiment, ""
    found = _common_preprocessing(experiment.models)
    if found is None or not _of_different_sizes(data):
        return experiment, ""
    how = found.interpolation if found.resize is not None else "bilinear"
    added = {"resize": found.resize, "crop": found.crop, "interpolation": how}
    experiment = experiment.model_copy(update={"dataset": data.model_copy(update=added)})
    sources = " and ".join(dict.fromkeys(model.model for model in experiment.models))
    return experiment, f"{_description(found)}: as the configuration of {sources} says"


def _common_preprocessing(models: Iterable[ModelSpec]) -> Preprocessing | None:
    """Returns the preprocessing that all models' configurations give, if they agree on one."""
    try:
        found = {preprocessing_of(model) for model in models}
    except RequestError:
        return None  # reported, with its key path, when the model is checked
    first = found.pop()
    return None if found or first is None or (first.resize, first.crop) == (None, None) else first


def _of_different_sizes(data: DatasetSpec) -> bool:
    kind = kind_of(data.source, where="dataset")
    lister = next((LISTERS[name] for name in LISTERS if KINDS[name] is kind), None)
    if lister is None:
        return False
    place = expanded(data.source, SpecError)
    class_map = read_class_map(data.class_map) if data.class_map is not None else None
    listing = list_pictures(place) if data.no_class else lister(place, class_map)
    sizes = filter(None, map(_size, listing.paths))
    return any(first != size for first, size in pairwise(sizes))


def _size(path: Path) -> tuple[int, int] | None:
    if not path.is_file():  # to open a pipe would wait for ever
        return None
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return None  # reported when all images are read


def _description(found: Preprocessing) -> str:
    steps = []
    if found.resize is not None:
        how = "" if found.interpolation == "bilinear" else f" ({found.interpolation})"
        steps.append(f"resize {_side(found.resize)}{how}")
    if found.crop is not None:
        steps.append(f"crop {_side(found.crop)}")
    return ", ".join(steps)


def _side(size: Size) -> str:
    return str(size) if isinstance(size, int) else "x".join(map(str, size))

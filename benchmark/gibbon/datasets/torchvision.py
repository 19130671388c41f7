"""torchvision's datasets, by the name of the class: ``torchvision:CIFAR100``.

Labels are torchvision's and count among the model's classes.  Images are resized, cropped and
converted as those of a folder are.
"""

from __future__ import annotations

import inspect
from typing import Any

from gibbon.core.errors import DatasetError, SpecError, suggest
from gibbon.core.reading import expanded
from gibbon.datasets import DataRequest
from gibbon.datasets.base import Dataset
from gibbon.datasets.image_transforms import Preparation
from gibbon.datasets.registered.download import FAILURES, silence_bounded
from gibbon.datasets.wrap import adopt_data
from gibbon.specs.suite import DatasetSpec

PREFIX = "torchvision:"
OURS = ("root", "download", "transform", "target_transform", "transforms", "loader")

# Base classes, wrappers, and datasets without pairs of an image and a class.
NOT_OFFERED = ("VisionDataset", "DatasetFolder", "ImageFolder", "wrap_dataset_for_transforms_v2")


def open_torchvision(spec: DatasetSpec, request: DataRequest) -> Dataset:
    """Returns a dataset of torchvision.

    Args:
        spec: names its class after ``torchvision:``, and sets the transforms of every image and
            further arguments of its class, which take precedence over the request's split.
        request: the split, for classes that take ``train`` or ``split``, and the folder of its
            files.

    Raises `SpecError` if there is no such dataset or it does not take the arguments, and
    `DatasetError` if its files are not there and can't be downloaded.
    """
    from torchvision import datasets

    wanted = spec.source.removeprefix(PREFIX)
    offered = [each for each in datasets.__all__ if each not in NOT_OFFERED]
    if wanted not in offered:
        raise SpecError(f"torchvision has no dataset {wanted!r}{suggest(wanted, offered)}")
    kind = getattr(datasets, wanted)
    given = _arguments(kind, request, spec.arguments, say=spec.source)
    folder = expanded(request.folder, DatasetError)
    try:
        if "root" in given:
            folder.mkdir(parents=True, exist_ok=True)
        with silence_bounded():
            data = kind(**given)
    except (*FAILURES, ValueError, TypeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        cure = f"put its files into {folder}, name the folder that holds them with --data-dir" + (
            ", or allow downloading" if given.get("download") is False else ""
        )
        raise DatasetError(f"torchvision:{wanted} can't be loaded ({reason}); {cure}") from error
    preparation = Preparation.of(spec)
    return adopt_data(data, name=spec.name, preparation=preparation, workers=request.workers)


def _arguments(
    kind: type, request: DataRequest, arguments: dict[str, Any], *, say: str
) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters
    for key in arguments:
        if key in OURS:
            raise SpecError(f"{say}: {key} can't be set in arguments")
        if key not in parameters:
            raise SpecError(f"{say} takes no argument {key!r}{suggest(key, parameters)}")
    requested = {
        "root": expanded(request.folder, DatasetError),
        "download": request.download,
        "train": request.split == "train",
        "split": request.split,
    }
    given = {key: value for key, value in requested.items() if key in parameters} | arguments
    missing = [
        key
        for key, each in parameters.items()
        if each.default is each.empty
        and key not in given
        and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    if missing:
        raise SpecError(f"{say} needs {', '.join(missing)}: give it in arguments")
    return given

"""Opens the dataset of a spec: a registered name, a path, or a factory.

====================================  ==========================================================
``mnist``                             a registered name
``photos/val``                        a folder of class folders, ``CLASS/PICTURE.jpg``
``photos.csv``                        a CSV file with the columns ``path,label``
``data.npz``, ``data.npy``            arrays of inputs and labels
``torchvision:CIFAR100``              a dataset of torchvision's, by the name of its class
``path/to/data.py:load``,             a factory: a function that returns tensors, a torch
``package.module:load``               ``Dataset``, a ``DataLoader`` or a Gibbon ``Dataset``
``rubbish:gaussian``,                 noise that belongs to no class
``rubbish:uniform``
====================================  ==========================================================

With ``classes = "none"`` the inputs of any of these are taken without their labels: a folder may
then hold its pictures in any way, a CSV file needs a column ``path`` alone, and arrays no labels.

A registered name takes precedence over a path: write ``./mnist`` for a folder of that name.  An
option that does not apply to the source is an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gibbon.core.errors import DatasetError, SpecError, suggest
from gibbon.core.import_path import is_reference, load_reference
from gibbon.core.reading import expanded
from gibbon.core.registry import their_code
from gibbon.core.threat import PIXEL_BOUNDS, Bounds
from gibbon.datasets import DATASETS, DataRequest
from gibbon.specs.naming import RUBBISH
from gibbon.specs.suite import DatasetSpec

if TYPE_CHECKING:
    from gibbon.datasets.base import Dataset

TORCHVISION = "torchvision:"
IMAGENET = "imagenet"
CLASSES = ("class_map", "class_order")
PREPARATION = ("resize", "crop", "interpolation", "colour")
EVERYWHERE = ("name", "source", "skip_unreadable", "classes")
OF_CLASSES = (*CLASSES, "labels")
FORMS = (
    "a registered name, a folder of class folders, a .csv file of paths and labels, an .npz or "
    ".npy file, torchvision:NAME, path/to/data.py:FACTORY, package.module:FACTORY or "
    "rubbish:gaussian"
)


@dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    Args:
        title: name in error messages.
        example: an example of its form.
        options: options that it takes besides a name.
        open: returns the dataset of a spec.
    """

    title: str
    example: str
    options: tuple[str, ...]
    open: Callable[[DatasetSpec, DataRequest], Dataset]


def check_dataset(spec: DatasetSpec, *, where: str) -> None:
    """Checks that the source of a spec exists and takes the spec's options.

    Loads nothing and opens no file.  Raises `SpecError` or `UnknownNameError`.
    """
    kind = kind_of(spec.source, where=where)
    fields = DatasetSpec.model_fields
    for option in fields:
        default = fields[option].get_default(call_default_factory=True)
        if option in (*EVERYWHERE, *kind.options) or getattr(spec, option) == default:
            continue
        if option == "bounds":
            raise SpecError(
                f"{spec.source!r} is {kind.title}, whose inputs have their own bounds, [0, 1] for "
                "pictures: bounds are for arrays and factories",
                where=f"{where}.bounds",
            )
        if option == "shape":
            raise SpecError(
                f"{spec.source!r} is {kind.title}, whose inputs have their own shape: shape is for "
                "noise",
                where=f"{where}.shape",
            )
        takes = ", ".join(kind.options) or "no options"
        raise SpecError(
            f"{spec.source!r} is {kind.title}, which has no use for {option}; it takes {takes}",
            where=where,
        )
    if spec.interpolation != fields["interpolation"].default and spec.resize is None:
        raise SpecError(
            "interpolation only applies to resized pictures: give resize, too", where=where
        )
    if spec.no_class:
        for option in OF_CLASSES:
            if getattr(spec, option) is not None:
                raise SpecError(
                    f"{spec.name!r} has inputs without a class: leave out {option}",
                    where=f"{where}.{option}",
                )
    files = {"class_map": spec.class_map if spec.class_map != IMAGENET else None}
    if kind is KINDS[".npy"] and not spec.no_class:
        if spec.labels is None:
            raise SpecError(
                f"{spec.source!r} holds inputs alone: give labels, another .npy file", where=where
            )
        files["labels"] = spec.labels
    for option, path in files.items():
        if path is not None and not expanded(path, SpecError).is_file():
            raise SpecError(f"{option}: no file {path!r}", where=where)


def open_dataset(spec: DatasetSpec, request: DataRequest) -> Dataset:
    """Returns the dataset of a spec.  Raises a `RequestError` that names source and cure."""
    from gibbon.datasets.without_classes import WithoutClasses

    check_dataset(spec, where=f"dataset {spec.name!r}")
    opened = kind_of(spec.source).open(spec, request)
    return WithoutClasses(opened) if spec.no_class and not opened.info.no_class else opened


def kind_of(source: str, *, where: str = "") -> SourceKind:
    """Returns the kind of source that a text names.

    Raises `SpecError` if it looks like a path that does not exist, or has no known form.
    """
    if source in DATASETS:
        return KINDS["registered"]
    if source.startswith(TORCHVISION):
        return KINDS["torchvision"]
    if source.startswith(RUBBISH):
        from gibbon.datasets.rubbish import distribution_of

        distribution_of(source, where=where)
        return KINDS["rubbish"]
    path = expanded(source, SpecError)
    if path.is_dir():
        return KINDS["folder"]
    if path.suffix in (".csv", ".npz", ".npy"):
        if path.is_file():
            return KINDS[path.suffix]
        raise SpecError(f"no file {source!r}", where=where)
    if is_reference(source):
        place = source.rpartition(":")[0]
        if place.endswith(".py") and not Path(place).expanduser().is_file():
            raise SpecError(f"no file {place!r}", where=where)
        return KINDS["factory"]
    if path.is_file():
        raise SpecError(
            f"{source!r} is a file of no kind that is known; expected {FORMS}", where=where
        )
    if ":" not in source and len(path.parts) > 1:
        raise SpecError(f"no file or folder {source!r}", where=where)
    known = DATASETS.names()
    raise SpecError(
        f"unknown dataset {source!r}{suggest(source, known)} Known: {', '.join(sorted(known))}; "
        f"or give {FORMS.removeprefix('a registered name, ')}",
        where=where,
    )


def _open_registered(spec: DatasetSpec, request: DataRequest) -> Dataset:
    return DATASETS.load(spec.source)(request)


def _open_images(spec: DatasetSpec, request: DataRequest) -> Dataset:
    from gibbon.datasets.class_map import read_class_map
    from gibbon.datasets.image_dataset import ImageDataset, open_cache
    from gibbon.datasets.image_listing import list_csv, list_folder, list_pictures
    from gibbon.datasets.image_transforms import Preparation

    place = Path(spec.source).expanduser()
    if spec.no_class:
        listing = list_pictures(place)
    else:
        listed = list_folder if place.is_dir() else list_csv
        class_map = read_class_map(spec.class_map) if spec.class_map is not None else None
        listing = listed(place, class_map, spec.class_order)
    return ImageDataset(
        spec.name,
        listing,
        preparation=Preparation.of(spec),
        cache=open_cache(request.folder, place),
        workers=request.workers,
    )


def _open_npz(spec: DatasetSpec, request: DataRequest) -> Dataset:
    from gibbon.datasets.array_files import open_npz

    path = Path(spec.source).expanduser()
    return open_npz(
        spec.name,
        path,
        inputs=spec.inputs,
        labels=spec.labels,
        layout=spec.layout,
        bounds=bounds_of(spec),
        labelled=not spec.no_class,
    )


def _open_npy(spec: DatasetSpec, request: DataRequest) -> Dataset:
    from gibbon.datasets.array_files import open_npy

    path = Path(spec.source).expanduser()
    labels = None if spec.no_class else Path(str(spec.labels)).expanduser()
    return open_npy(spec.name, path, labels=labels, layout=spec.layout, bounds=bounds_of(spec))


def _open_torchvision(spec: DatasetSpec, request: DataRequest) -> Dataset:
    from gibbon.datasets.torchvision import open_torchvision

    return open_torchvision(spec, request)


def _open_factory(spec: DatasetSpec, request: DataRequest) -> Dataset:
    from gibbon.datasets.image_transforms import Preparation
    from gibbon.datasets.wrap import adopt_data, with_placeholders

    factory = load_reference(spec.source, what="dataset")
    if not callable(factory):
        raise DatasetError(
            f"dataset {spec.source!r} must name a factory, a function that returns the data, "
            f"got {type(factory).__name__}"
        )
    check_arguments(factory, spec.arguments, say=f"dataset {spec.source!r}")
    with their_code(f"dataset {spec.source!r} can't be made"):
        data = factory(**spec.arguments)
    if spec.no_class:
        data = with_placeholders(data)
    # Whether a user's code works in several processes is the user's to say.
    workers = request.workers or 0
    return adopt_data(
        data,
        name=spec.name,
        preparation=Preparation.of(spec),
        workers=workers,
        bounds=bounds_of(spec),
    )


def _open_rubbish(spec: DatasetSpec, request: DataRequest) -> Dataset:
    from gibbon.datasets.rubbish import DEFAULT_COUNT, Rubbish, distribution_of

    if spec.shape is None:
        raise SpecError(
            f"the shape of a draw of {spec.source!r} is not known: give shape, such as [1, 28, 28]",
            where=f"dataset {spec.name!r}",
        )
    return Rubbish(
        spec.name,
        distribution_of(spec.source),
        shape=spec.shape,
        count=DEFAULT_COUNT if spec.count is None else spec.count,
        bounds=bounds_of(spec) or PIXEL_BOUNDS,
        seed=request.seed,
    )


def bounds_of(spec: DatasetSpec) -> Bounds | None:
    """Returns the bounds of inputs that a spec declares, or None if it declares none."""
    return None if spec.bounds is None else Bounds(*spec.bounds)


def check_arguments(function: Callable[..., Any], arguments: dict[str, Any], *, say: str) -> None:
    """Raises `SpecError` if a function does not take these keyword arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # compiled code without a signature
        return
    parameters = signature.parameters
    free = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    for name in arguments:
        if name not in parameters and not free:
            raise SpecError(f"{say} takes no argument {name!r}{suggest(name, parameters)}")
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise SpecError(f"{say}: {error}: give it in arguments") from None


KINDS = {
    "registered": SourceKind("a registered dataset", "mnist", ("split",), _open_registered),
    "folder": SourceKind(
        "a folder of pictures", "photos/val", (*CLASSES, *PREPARATION), _open_images
    ),
    ".csv": SourceKind(
        "a CSV file of pictures", "photos.csv", (*CLASSES, *PREPARATION), _open_images
    ),
    ".npz": SourceKind(
        "a file of arrays", "data.npz", ("inputs", "labels", "layout", "bounds"), _open_npz
    ),
    ".npy": SourceKind("a file of an array", "data.npy", ("labels", "layout", "bounds"), _open_npy),
    "torchvision": SourceKind(
        "a dataset of torchvision's",
        "torchvision:CIFAR100",
        ("split", "arguments", *PREPARATION),
        _open_torchvision,
    ),
    "factory": SourceKind(
        "a factory", "path/to/data.py:load", ("arguments", "bounds", *PREPARATION), _open_factory
    ),
    "rubbish": SourceKind(
        "noise that belongs to no class",
        "rubbish:gaussian",
        ("count", "shape", "bounds"),
        _open_rubbish,
    ),
}

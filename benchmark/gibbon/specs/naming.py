"""Names of models, attacks and suites that are made from sources and files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from gibbon.core.errors import SpecError
from gibbon.core.reading import usable_path

LONGEST_NAME = 80


def name_of(source: str) -> str:
    """Returns a name for a source; ``.`` is named after the folder that it is."""
    with usable_path(source, SpecError):
        return name_from(source) or name_from(str(Path(source).resolve())) or "data"


def suite_name(dataset: str, models: Sequence[str], *, precision: str = "float32") -> str:
    """Returns the name of a suite that was given none, made from its dataset and its models.

    Another precision is part of the name, so that its results don't replace those in float32.

    >>> suite_name("mnist", ["softmax", "maxout"])
    'mnist-softmax+maxout'
    """
    words = re.sub(r"[^A-Za-z0-9._+-]+", "-", f"{dataset}-{'+'.join(models)}")
    ending = "" if precision == "float32" else f"-{precision}"
    return words[: LONGEST_NAME - len(ending)] + ending


def unlike(names: Sequence[str], *, taken: Iterable[str] = ()) -> list[str]:
    """Returns the names made unique: a repeated name gets a number.

    ``taken`` are further names that may not be used.

    >>> unlike(["pgd", "fgsm", "pgd", "pgd-2"])
    ['pgd', 'fgsm', 'pgd-3', 'pgd-2']
    """
    used = set(taken)
    reserved = {*names, *used}
    found = []
    for name in names:
        number, new = 2, name
        while new in used or (new != name and new in reserved):
            new, number = f"{name}-{number}", number + 1
        used.add(new)
        found.append(new)
    return found


FILE_SUFFIXES = (
    *(".safetensors", ".torchscript", ".pt2", ".pth", ".pt", ".ckpt", ".onnx"),
    *(".npz", ".npy", ".csv"),
)

PYTHON_FILE = ".py:"  # of a reference: path/to/net.py:build
RUBBISH = "rubbish:"  # of noise: rubbish:gaussian, rubbish:uniform
ENSEMBLE = "ensemble:"  # of the sources of its members, with commas between them


def name_from(source: str) -> str:
    """Returns the default name of a model or dataset in tables.

    >>> [name_from(each) for each in ("maxout", "torchvision:resnet50", "nets/small.py:Net")]
    ['maxout', 'resnet50', 'Net']
    >>> [name_from(each) for each in ("exports/net.onnx", "photos/val", "hf:org/vit-base")]
    ['net', 'val', 'vit-base']
    >>> name_from("ensemble:maxout,torchvision:resnet50"), name_from("rubbish:gaussian")
    ('maxout+resnet50', 'rubbish-gaussian')
    """
    if source.startswith(RUBBISH):
        source = source.replace(":", "-", 1)
    if is_composed(source):
        return "+".join(map(name_from, members_in_text(source)))[:80]
    last = source.rstrip("/").rpartition(":")[2].rstrip("/")
    words = PurePath(last).name if "/" in last or "\\" in last else last
    for suffix in FILE_SUFFIXES:
        words = words.removesuffix(suffix)
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", words).lstrip("._+-")[:80]


def label_from(attack: str) -> str:
    """Returns the default label of an attack in tables.

    >>> label_from("pgd"), label_from("foolbox:LinfPGD"), label_from("attacks/mine.py:Mine")
    ('pgd', 'foolbox-LinfPGD', 'Mine')
    """
    _, python, name = attack.rpartition(PYTHON_FILE)
    return name if python else attack.replace(":", "-")


def is_composed(source: str) -> bool:
    """Returns whether a model source names an ensemble."""
    return source.startswith(ENSEMBLE)


def members_in_text(source: str) -> list[str]:
    """Returns the names of the members of an ensemble's source."""
    return [each.strip() for each in source.removeprefix(ENSEMBLE).split(",")]

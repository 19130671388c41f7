"""Compares the names of a model's classes with those of a dataset, whose order may be another."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import numpy as np

from gibbon.core.errors import ModelError
from gibbon.datasets.base import Dataset

SHOWN = 6  # classes that an error names
WRITTEN = 40  # classes up to which an error writes out the class map


def check_class_names(names: tuple[str, ...], dataset: Dataset) -> None:
    """Raises `ModelError` if the model has a class of the dataset at another place.

    Names are compared without regard to case, hyphens and underscores; one that a side does not
    have, or has twice, decides nothing.

    Args:
        names: the names that the model states for its outputs, in order; empty if none.
        dataset: the dataset; only classes with an example are compared.
    """
    if dataset.info.no_class:
        return
    places: dict[str, set[int]] = {}
    for place, name in enumerate(names):
        for synonym in _synonyms(name):
            places.setdefault(synonym, set()).add(place)
    own: dict[str, int] = {}
    for label in np.unique(dataset.labels).tolist():
        name = dataset.classes[label]
        if dataset.partial and name == str(label):
            continue  # a number that stands for a class without a name
        found = set().union(*(places.get(each, set()) for each in _synonyms(name)))
        if len(found) == 1:
            own[name] = found.pop()
    moved = {name: place for name, place in own.items() if place != _label(dataset, name)}
    if moved:
        raise ModelError(_message(moved, own, dataset))


def _message(moved: Mapping[str, int], own: Mapping[str, int], dataset: Dataset) -> str:
    first = list(moved.items())[:SHOWN]
    more = f" and {len(moved) - SHOWN} more" if len(moved) > SHOWN else ""
    pairs = ", ".join(
        f"{name!r} is {place} of the model and {_label(dataset, name)} of the dataset"
        for name, place in first
    )
    cure = "for a torch dataset, give it a target_transform; for files, a class map"
    if len(own) <= WRITTEN:
        cure += f", --class-map map.json with {json.dumps(dict(own), ensure_ascii=False)}"
    return (
        f"its classes are in another order than those of dataset {dataset.name!r}: {pairs}{more}: "
        f"{cure}"
    )


def _label(dataset: Dataset, name: str) -> int:
    return dataset.classes.index(name)


def _synonyms(name: str) -> set[str]:
    """Returns the names of a class, which commas separate, in one spelling."""
    texts = {name, *name.split(",")}
    return {re.sub(r"[\s_-]+", " ", text).strip().casefold() for text in texts} - {""}

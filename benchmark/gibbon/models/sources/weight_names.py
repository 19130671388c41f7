"""Weights that are given by a name, not as a file."""

from __future__ import annotations

from pathlib import Path

from gibbon.specs.naming import FILE_SUFFIXES
from gibbon.specs.suite import ModelSpec

RANDOM = "random"  # no weights: the model starts from fixed random numbers
DEFAULT = "default"  # the library's default weights


def names_file(weights: str) -> bool:
    """Returns whether a spec's weights are a file and not a name that its source knows.

    >>> names_file("net.safetensors"), names_file("IMAGENET1K_V1"), names_file("random")
    (True, False, False)
    """
    return weights.endswith(FILE_SUFFIXES) or "/" in weights or Path(weights).is_file()


def word_of(spec: ModelSpec) -> str | None:
    """Returns the name of a library's weights, or None if the spec has a file or random weights."""
    if spec.weights is None:
        return DEFAULT
    return None if spec.weights == RANDOM or names_file(spec.weights) else spec.weights

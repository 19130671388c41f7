"""Weights that are named by a word and not by a file."""

from __future__ import annotations

from pathlib import Path

from gibbon.specs.naming import FILE_SUFFIXES
from gibbon.specs.suite import ModelSpec

RANDOM = "random"  # none: the model starts from fixed random numbers
DEFAULT = "default"  # the ones that the library takes by itself


def names_file(weights: str) -> bool:
    """Says whether what is given as weights names a file and not a word of the source.

    >>> names_file("net.safetensors"), names_file("IMAGENET1K_V1"), names_file("random")
    (True, False, False)
    """
    return weights.endswith(FILE_SUFFIXES) or "/" in weights or Path(weights).is_file()


def word_of(spec: ModelSpec) -> str | None:
    """Returns which of a library's weights are asked for, or None: a file's, or random ones."""
    if spec.weights is None:
        return DEFAULT
    return None if spec.weights == RANDOM or names_file(spec.weights) else spec.weights

"""Compares the first-layer filters of two networks for 28 x 28 pictures.

    python -m tools.paper.filters maxout maxout-adv --output results/the-paper

Goodfellow, Shlens and Szegedy (2015), section 6 and figure 3, find the filters of an adversarially
trained network more localised and interpretable.  What an eye calls so is measured in two ways, for
every filter w of a network, in the 20 x 20 pixels of a picture that hold the digit (the weights of
the border see no input, and stay as they were drawn):

- smoothness: the correlation of neighbouring weights, 1 for a smooth picture and 0 for noise;
- spread: the participation ratio, (sum w^2)^2 / (400 sum w^4), the share of the picture that a
  filter covers: small if it is localised.

Their difference is tested over filters (`gibbon.metrics.order_tests`).  A network is one training,
and its filters are no independent draws of a recipe: the test is about these two networks.
It writes ``filters.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from gibbon.core.files import write_atomically
from gibbon.metrics.order_tests import TrainingValues, compare_measures
from gibbon_zoo.weights_folder import WEIGHTS

SIDE: Final = 28
DIGIT: Final = slice(4, 24)  # of rows and of columns: MNIST's digits are in the centre
Pictures = NDArray[np.float64]


def filters_of(file: Path) -> Pictures:
    """Returns the first layer's filters, shape (F, 28, 28).

    Raises SystemExit if no layer has 784 inputs.
    """
    for weights in load_file(file).values():
        if weights.ndim >= 2 and SIDE * SIDE in weights.shape:
            axis = weights.shape.index(SIDE * SIDE)
            moved = np.moveaxis(weights.astype(np.float64), axis, -1)
            return np.asarray(moved.reshape(-1, SIDE, SIDE), dtype=np.float64)
    raise SystemExit(f"{file}: no layer has {SIDE * SIDE} inputs")


def smoothness(filters: Pictures) -> NDArray[np.float64]:
    """Returns the correlation of horizontally and vertically neighbouring weights, shape (F,).

    >>> ramp = np.add.outer(np.arange(28.0), np.arange(28.0))
    >>> noise = np.random.default_rng(0).standard_normal((28, 28))
    >>> smooth = smoothness(np.stack([ramp, noise]))
    >>> bool(smooth[0] > 0.99), bool(abs(smooth[1]) < 0.1)
    (True, True)
    """
    pairs = [
        (filters[:, :, :-1].reshape(len(filters), -1), filters[:, :, 1:].reshape(len(filters), -1)),
        (filters[:, :-1].reshape(len(filters), -1), filters[:, 1:].reshape(len(filters), -1)),
    ]
    first, second = (np.concatenate(sides, axis=1) for sides in zip(*pairs, strict=True))
    first, second = first - first.mean(1, keepdims=True), second - second.mean(1, keepdims=True)
    size = np.sqrt(np.square(first).sum(1) * np.square(second).sum(1))
    return np.asarray((first * second).sum(1) / np.where(size > 0, size, 1.0), dtype=np.float64)


def spread(filters: Pictures) -> NDArray[np.float64]:
    """Returns the share of the picture that each filter covers, shape (F,).

    >>> one = np.zeros((28, 28))
    >>> one[3, 4] = 2.0
    >>> spread(np.stack([np.ones((28, 28)), one])).round(4).tolist()
    [1.0, 0.0013]
    """
    squares = np.square(filters).reshape(len(filters), -1)
    fourth = np.square(squares).sum(1) * squares.shape[1]
    return np.asarray(np.square(squares.sum(1)) / np.where(fourth > 0, fourth, 1.0))


def compare(first: Pictures, second: Pictures) -> dict[str, Any]:
    """Returns the means of both measures, and a test of their difference, second minus first."""
    found: dict[str, Any] = {}
    for name, measure in (("smoothness", smoothness), ("spread", spread)):
        one, other = (_observed(measure(each[:, DIGIT, DIGIT])) for each in (first, second))
        tested = compare_measures([other], [one], paired=False)
        if tested is None:
            raise SystemExit("a network without filters")
        found[name] = {
            "first": tested.second,
            "second": tested.first,
            "difference": tested.difference,
            "low": tested.interval.low,
            "high": tested.interval.high,
            "p_value": tested.p_value,
            "test": tested.test,
        }
    return found


def _observed(values: NDArray[np.float64]) -> TrainingValues:
    return TrainingValues(values, np.ones(len(values), dtype=np.bool_))


def main(words: list[str]) -> int:
    """Writes the comparison."""
    parser = argparse.ArgumentParser(description="Compare first-layer filters of two networks.")
    parser.add_argument("first", help="model of the zoo, or a weights file")
    parser.add_argument("second", help="model of the zoo, or a weights file")
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args(words)
    files = [
        Path(each) if each.endswith(".safetensors") else WEIGHTS / f"{each}.safetensors"
        for each in (asked.first, asked.second)
    ]
    names = [file.stem for file in files]
    filters = [filters_of(file) for file in files]
    asked.output.mkdir(parents=True, exist_ok=True)
    content = {
        "first": names[0],
        "second": names[1],
        "filters": [len(each) for each in filters],
        **compare(*filters),
    }
    write_atomically(asked.output / "filters.json", json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

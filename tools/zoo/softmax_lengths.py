"""Trains the softmax regression for several lengths and measures what the recipe was chosen by.

    python -m tools.zoo.softmax_lengths [--data-dir FOLDER]

Each network is trained by the recipe of ``softmax`` on all training images of MNIST but the last
10,000, at a rate that gives the wanted product of rate and number of updates.  Its errors on the
last 10,000 and its answers to 10,000 draws of N(0, I) are written to
`results/the-paper/softmax.json`, from which `docs/training.md` has its table.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from gibbon.core.files import write_atomically
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon_zoo.measurement import measure
from gibbon_zoo.recipe import shipped_recipe
from tools.pipe_table import pipe_table
from tools.records.machine import ROOT
from tools.zoo.networks import load_split, trained_classifier

RECORD: Final = ROOT / "results" / "the-paper" / "softmax.json"
LENGTHS: Final = (50, 60, 65, 70, 75, 80, 85, 90, 100)
HELD_OUT: Final = 10_000
PUBLISHED: Final = {"fgsm_confidence": 0.793, "noise": 0.598, "noise_confidence": 0.708}
EPSILON: Final = 0.25


def measured(length: float, shown: Batch, unseen: Batch) -> dict[str, float]:
    """Returns the figures of a network trained for a product of rate and updates."""
    recipe = shipped_recipe("softmax")
    updates = recipe.epochs * -(-len(shown.labels) // recipe.batch_size)
    rate = recipe.optimiser.model_copy(update={"learning_rate": length / updates})
    with tempfile.TemporaryDirectory() as folder:
        changed = recipe.model_copy(update={"optimiser": rate})
        classifier = trained_classifier(changed, shown, stem=Path(folder) / "softmax")
    found = measure(classifier, inputs=unseen.inputs, labels=unseen.labels, epsilon=EPSILON)
    noise, confidence = answers_to_noise(classifier)
    return {
        "length": length,
        "clean_error": found.clean_error,
        "fgsm_error": found.fgsm_error,
        "fgsm_confidence": found.fgsm_confidence or 0.0,
        "noise": noise,
        "noise_confidence": confidence,
    }


def answers_to_noise(classifier: Classifier) -> tuple[float, float]:
    """Returns the share of draws with a probability above 0.5, and the mean of these."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(HELD_OUT, *classifier.input_shape, generator=generator)
    with torch.no_grad(), classifier.evaluating():
        highest = classifier.outputs.confidence(classifier.module(draws))
    sure = highest > 0.5
    return float(sure.float().mean()), float(highest[sure].mean()) if sure.any() else 0.0


def softmax_table(record: Path) -> str:
    """Returns the table of a record in markdown, with the published numbers below."""
    lines = [
        [
            f"{row['length']:.0f}",
            f"{100 * row['clean_error']:.2f}",
            f"{100 * row['fgsm_error']:.2f} / {100 * row['fgsm_confidence']:.1f}",
            f"{100 * row['noise']:.1f} / {100 * row['noise_confidence']:.1f}",
            f"{distance(row):.1f}",
        ]
        for row in json.loads(record.read_text())
    ]
    return pipe_table(
        [*lines, ["published", "", "99.9 / 79.3", "59.8 / 70.8", ""]],
        ["rate x updates", "clean", "FGSM / confidence", "noise / confidence", "distance"],
        left=0,
    )


def distance(row: dict[str, Any]) -> float:
    """Returns the distance from the three published numbers, in points.

    >>> distance({"fgsm_confidence": 0.823, "noise": 0.558, "noise_confidence": 0.708})
    5.0
    """
    return round(100 * math.hypot(*(row[name] - value for name, value in PUBLISHED.items())), 6)


def main() -> int:
    """Measures all lengths, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args()
    dataset = load_split("mnist", "train", given.data_dir)
    cut = len(dataset) - HELD_OUT
    shown, unseen = (
        dataset.batch(np.arange(start, end, dtype=np.int64))
        for start, end in ((0, cut), (cut, len(dataset)))
    )
    rows = [measured(each, shown, unseen) for each in LENGTHS]
    write_atomically(given.record, json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

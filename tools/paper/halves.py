"""Writes two disjoint halves of MNIST's training images, for models trained on different examples.

    python -m tools.paper.halves build/halves

Goodfellow, Shlens and Szegedy (2015), section 8, say that models trained on disjoint training sets
give an adversarial example the same wrong class.  The files: ``half-a.npz`` and ``half-b.npz``, of
29,000 images each, and ``validation.npz``, of 2,000 that neither holds, which `train` watches.  The
arrays are ``inputs``, (N, 28, 28) uint8, and ``labels``; a seeded shuffle divides them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import numpy as np

from gibbon.datasets import DATASETS, DataRequest

SEED: Final = 0
WATCHED: Final = 2_000


def write_halves(folder: Path) -> None:
    """Writes the files into a folder."""
    data = DATASETS.load("mnist")(DataRequest(split="train"))
    batch = data.batch(np.arange(len(data), dtype=np.int64))
    pictures = (batch.inputs[:, 0] * 255).round().byte().numpy()
    labels = batch.labels.numpy()
    order = np.random.default_rng(SEED).permutation(len(labels))
    watched, rest = order[:WATCHED], order[WATCHED:]
    folder.mkdir(parents=True, exist_ok=True)
    middle = len(rest) // 2
    parts = {"half-a": rest[:middle], "half-b": rest[middle:], "validation": watched}
    for name, ids in parts.items():
        np.savez(folder / f"{name}.npz", inputs=pictures[ids], labels=labels[ids])


def main(words: list[str]) -> int:
    """Writes the files."""
    parser = argparse.ArgumentParser(description="Write two halves of MNIST's training images.")
    parser.add_argument("folder", type=Path)
    write_halves(parser.parse_args(words).folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""MNIST's threes against its sevens: the task of Goodfellow et al. (2015) for logistic regression.

Source: Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015,
section 5, https://arxiv.org/abs/1412.6572.  12,396 training and 2,038 test pictures.

An example id is the position in this dataset's split, which holds the threes and sevens of MNIST's
split in MNIST's order; it is not the example's id in ``mnist``.
"""

from __future__ import annotations

import numpy as np

from gibbon.datasets import DataRequest
from gibbon.datasets.base import ArrayDataset
from gibbon.datasets.registered import mnist

CLASSES = ("3", "7")


def load(request: DataRequest) -> ArrayDataset:
    """Returns a split of MNIST's threes (label 0) and sevens (label 1); see `mnist.load`.

    Inputs have shape (1, 28, 28).
    """
    digits = mnist.load(request)
    wanted = np.isin(digits.labels, [int(name) for name in CLASSES])
    return ArrayDataset(
        name="mnist-3v7",
        pixels=digits.pixels[wanted],
        targets=(digits.labels[wanted] == int(CLASSES[1])).astype(np.int64),
        classes=CLASSES,
    )

"""MNIST: handwritten digits, embedded in this package.

60,000 training and 10,000 test pictures, 28 x 28, grey, of the digits 0 to 9.  Source: LeCun,
Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proceedings
of the IEEE 86(11), 1998; http://yann.lecun.com/exdb/mnist/.

An example id is the position in the published file of its split.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import DatasetError
from gibbon.datasets import DataRequest, Split
from gibbon.datasets.base import ArrayDataset
from gibbon.datasets.registered.checksum import verify
from gibbon.datasets.registered.idx import parse_idx, read_file, unzipped

CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
FOLDER = Path(__file__).parent / "data" / "mnist"

# SHA-256 of the embedded files, as in SHA256SUMS beside them.
SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971"
    ),
    "train-labels-idx1-ubyte.gz": (
        "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b"
    ),
}
STEMS: dict[Split, str] = {"train": "train", "test": "t10k"}
REMEDY = "install Gibbon again, or restore the file from the repository"


def load(request: DataRequest) -> ArrayDataset:
    """Returns a split of MNIST; of ``request`` only the split matters.

    Inputs have shape (1, 28, 28).  A split is read and verified once in a process.  Raises
    `DatasetError`, which names the file, if one is missing or damaged.
    """
    return _read_split(FOLDER, request.split)


@lru_cache(maxsize=2)
def _read_split(folder: Path, split: Split) -> ArrayDataset:
    images = _read_verified(folder / f"{STEMS[split]}-images-idx3-ubyte.gz")
    labels = _read_verified(folder / f"{STEMS[split]}-labels-idx1-ubyte.gz")
    return ArrayDataset(
        name="mnist", pixels=images[:, np.newaxis], targets=labels.astype(np.int64), classes=CLASSES
    )


def _read_verified(path: Path) -> NDArray[Any]:
    expected = SHA256[path.name]
    if not path.exists():
        raise DatasetError(
            f"{path}: missing: expected a file with SHA-256 {expected}, found none; {REMEDY}"
        )
    content = read_file(path)
    verify(content, path, expected=expected, remedy=REMEDY)
    return parse_idx(unzipped(content, path), path)

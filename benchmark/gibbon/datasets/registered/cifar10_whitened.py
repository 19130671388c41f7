"""CIFAR-10 contrast-normalised and whitened, as convolutional maxout networks were trained on it.

The space in which Goodfellow et al. (2015), section 4, attack at an epsilon of 0.1: see
`gibbon.datasets.registered.whitening`.  Its coordinates have no natural limits; `BOUNDS` are wide
enough to hold every picture, and clipping to them is next to no restriction.

The whitening is learnt from the training split, which takes about a minute of one core, and kept
in the request's folder (``whitening-<digest>.npy``, 38 MB).  What was learnt depends in its last
digits on the linear algebra library; the dataset's digest, which is of the pictures, does not.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.core.errors import DatasetError, RunFolderError
from gibbon.core.files import read_plain_file, write_atomically
from gibbon.core.reading import expanded
from gibbon.core.threat import Bounds
from gibbon.datasets import DataRequest
from gibbon.datasets.base import ArrayDataset, Batch, Dataset
from gibbon.datasets.registered import cifar10
from gibbon.datasets.registered.whitening import FILTER_BIAS, SCALE, Whitening, learn_whitening

BOUNDS = Bounds(-32.0, 32.0)
BATCH = 2000  # pictures at a time, of which the whitening is learnt
Pictures = Callable[[DataRequest], ArrayDataset]


class WhitenedDataset(Dataset):
    """A dataset whose batches are whitened as they are read.

    Args:
        name: registered name.
        pictures: the images to whiten.
        whitening: the transform.
        learnt_from: digest of the images that the whitening was computed from.
    """

    def __init__(
        self, name: str, pictures: ArrayDataset, *, whitening: Whitening, learnt_from: str
    ) -> None:
        self.info = replace(pictures.info, name=name, bounds=BOUNDS)
        self._pictures = pictures
        self._whitening = whitening
        self._learnt_from = learnt_from

    @property
    def digest(self) -> str:
        """SHA-256 over the pictures, those the whitening was learnt from, and its constants."""
        parts = (self._pictures.digest, self._learnt_from, SCALE, FILTER_BIAS)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def batch(self, ids: NDArray[np.int64]) -> Batch:
        """Returns the whitened examples with these ids.

        Raises `DatasetError` if there is no example with such an id, or one lies outside
        `BOUNDS`, which none of CIFAR-10 does.
        """
        raw = self._pictures.batch(ids)
        parts = [self._whitening(part) for part in torch.split(raw.inputs, BATCH)]
        inputs = torch.cat(parts) if parts else raw.inputs
        if len(inputs) > 0 and float(inputs.abs().max()) > BOUNDS.high:
            raise DatasetError(
                f"dataset {self.name!r}: a whitened coordinate is {float(inputs.abs().max()):.1f} "
                f"in size, outside of the bounds of {BOUNDS.high:g}: its pictures are not CIFAR-10"
            )
        return Batch(raw.ids, inputs, raw.labels)


def load(request: DataRequest) -> WhitenedDataset:
    """Returns a split of CIFAR-10 whitened; raises as `cifar10.load` does."""
    return whitened("cifar10-whitened", cifar10.load, request)


def whitened(name: str, read: Pictures, request: DataRequest) -> WhitenedDataset:
    """Returns a split of the images that ``read`` loads, whitened under a registered name."""
    training = read(DataRequest("train", request.folder, request.download, request.workers))
    pictures = training if request.split == "train" else read(request)
    whitening = _whitening(training, expanded(request.folder, DatasetError))
    return WhitenedDataset(name, pictures, whitening=whitening, learnt_from=training.digest)


def _whitening(pictures: ArrayDataset, folder: Path) -> Whitening:
    numbers = hashlib.sha256(repr((pictures.digest, SCALE, FILTER_BIAS)).encode()).hexdigest()
    path = folder / f"whitening-{numbers[:16]}.npy"
    kept = _read(path, width=int(np.prod(pictures.input_shape)))
    if kept is not None:
        return kept
    everything = np.arange(len(pictures), dtype=np.int64)
    pieces = np.array_split(everything, max(1, len(everything) // BATCH))
    learnt = learn_whitening(pictures.batch(ids).inputs for ids in pieces)
    with suppress(OSError, RunFolderError):  # kept nowhere, it is learnt again next time
        folder.mkdir(parents=True, exist_ok=True)
        rows = torch.cat((learnt.mean.unsqueeze(0), learnt.matrix)).numpy()
        write_atomically(path, _as_npy(rows))
    return learnt


def _as_npy(rows: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    return buffer.getvalue()


def _read(path: Path, *, width: int) -> Whitening | None:
    """Returns the whitening in a file, or None if there is none that fits."""
    try:
        rows = np.asarray(np.load(io.BytesIO(read_plain_file(path)), allow_pickle=False))
    except Exception:  # noqa: BLE001  NumPy's reader raises anything on a damaged head
        return None
    if rows.shape != (width + 1, width) or rows.dtype != np.float32 or not np.isfinite(rows).all():
        return None
    tensor = torch.from_numpy(rows)
    return Whitening(tensor[0], tensor[1:])

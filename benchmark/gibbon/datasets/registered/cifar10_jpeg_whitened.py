"""CIFAR-10 as JPEG images, contrast-normalised and whitened.

See `gibbon.datasets.registered.cifar10_jpeg` for the images, and
`gibbon.datasets.registered.cifar10_whitened` for the whitening.
"""

from __future__ import annotations

from gibbon.datasets import DataRequest
from gibbon.datasets.registered import cifar10_jpeg
from gibbon.datasets.registered.cifar10_whitened import WhitenedDataset, whitened


def load(request: DataRequest) -> WhitenedDataset:
    """Returns a split of CIFAR-10 as JPEG, whitened; raises as `cifar10_jpeg.load` does."""
    return whitened("cifar10-jpeg-whitened", cifar10_jpeg.load, request)

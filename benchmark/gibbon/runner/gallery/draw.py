"""Draws the pictures of a gallery: inputs and changes as bytes, no larger than needed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gibbon.core.threat import Bounds
from gibbon.records.gallery import quantised, quantised_change
from gibbon.runner.gallery.select import picture_size

# If the pictures take a smaller share of the inputs' bounds than this, as those of whitened data
# do, drawing them from bound to bound would leave a few shades of one grey.
SMALL_RANGE = 0.25


class DrawnPictures(NamedTuple):
    """The pictures of a gallery; the fields are those of `Gallery`."""

    clean: NDArray[np.uint8]
    change: NDArray[np.int8]
    scale: NDArray[np.float32]
    low: float
    high: float
    narrowed: bool


def draw_examples(
    clean: NDArray[np.float32], change: NDArray[np.float32], *, bounds: Bounds
) -> DrawnPictures:
    """Returns clean inputs and what the attack added, both of shape (N, C, H, W), as bytes."""
    low, high = bounds.low, bounds.high
    both = np.stack((clean, clean + change))
    least, most = (float(both.min()), float(both.max())) if both.size else (low, high)
    narrowed = 0 < most - least < SMALL_RANGE * bounds.width
    if narrowed:
        low, high = least, most
    changes, scale = quantised_change(change)
    return DrawnPictures(quantised(clean, low=low, high=high), changes, scale, low, high, narrowed)


def shrunk(values: Tensor, side: int) -> NDArray[np.float32]:
    """Returns pictures whose longer side is at most ``side``: means of the pixels they cover."""
    size = picture_size(values.shape[-2], values.shape[-1], side)
    if size != tuple(values.shape[-2:]):
        values = torch.nn.functional.adaptive_avg_pool2d(values, size)
    array: NDArray[Any] = values.detach().float().cpu().numpy()
    return array

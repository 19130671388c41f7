"""Draws the gallery of a cell: pictures as bytes, no larger than needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gibbon.records.gallery import Gallery, quantised, quantised_change
from gibbon.runner.gallery.select import GalleryFrame, picture_size

# Pictures that take less of the inputs' bounds than this would all be drawn in a few shades of one
# grey: whitened ones, whose bounds are wide.
LITTLE = 0.25


@dataclass(frozen=True)
class PicturedExamples:
    """The examples of one gallery, in the order of the dataset; every array has N examples.

    ``clean`` and ``change`` have the shape (N, C, H, W) of the pictures; the other arrays are those
    of `Gallery`.
    """

    why: tuple[str, ...]
    example_id: NDArray[np.int64]
    label: NDArray[np.int32]
    before: NDArray[np.int32]
    after: NDArray[np.int32]
    sure_before: NDArray[np.float32]
    sure_after: NDArray[np.float32]
    valid: NDArray[np.bool_]
    clean: NDArray[np.float32]
    change: NDArray[np.float32]


def gallery(shown: PicturedExamples, frame: GalleryFrame, *, digest: str) -> Gallery:
    """Returns the gallery of the cell with this digest."""
    change, scale = quantised_change(shown.change)
    low, high = drawn = _drawn_range(shown, frame)
    return Gallery(
        digest=digest,
        why=shown.why,
        example_id=shown.example_id,
        label=shown.label,
        before=shown.before,
        after=shown.after,
        sure_before=shown.sure_before,
        sure_after=shown.sure_after,
        valid=shown.valid,
        clean=quantised(shown.clean, low=low, high=high),
        change=change,
        scale=scale,
        low=low,
        high=high,
        shape=frame.shape,
        narrowed=drawn != (frame.bounds.low, frame.bounds.high),
    )


def shrunk(values: Tensor, side: int) -> NDArray[np.float32]:
    """Returns pictures whose longer side is at most ``side``: means of the pixels they cover."""
    size = picture_size(values.shape[-2], values.shape[-1], side)
    if size != tuple(values.shape[-2:]):
        values = torch.nn.functional.adaptive_avg_pool2d(values, size)
    array: NDArray[Any] = values.detach().float().cpu().numpy()
    return array


def _drawn_range(shown: PicturedExamples, frame: GalleryFrame) -> tuple[float, float]:
    """Returns what is drawn black and what white: the bounds, or less if little is needed."""
    bounds = frame.bounds
    both = np.stack((shown.clean, shown.clean + shown.change))
    if both.size == 0:
        return bounds.low, bounds.high
    low, high = float(both.min()), float(both.max())
    if 0 < high - low < LITTLE * (bounds.high - bounds.low):
        return low, high
    return bounds.low, bounds.high

"""Checks dtype and range of a user's inputs, with advice that fits what they seem to be.

Inputs are pictures, numbers in [0, 1] or bytes, unless the user declares other bounds, which is how
tables, waveforms and embeddings are given.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gibbon.core.errors import TOKENS, DatasetError
from gibbon.core.threat import PIXEL_BOUNDS, Bounds
from gibbon.datasets.base import PIXEL_MAX

PICTURE_AXES = 3  # channels, height, width
FEW_CHANNELS = 4  # red, green, blue, and one more
OVERSHOOT = 0.15  # beyond [0, 1] by filters with negative lobes: bicubic and Lanczos
NORMALISED = (
    "attacks work on pixels: leave Normalize out of the transform and give mean and std to the "
    "model"
)
BYTES_AS_FLOATS = "divide them by 255, or give them as uint8"


def check_dtype(dtype: np.dtype[Any], *, say: str, declared: Bounds | None = None) -> None:
    """Raises `DatasetError`, which begins with ``say``, if inputs are neither bytes nor floats.

    ``declared`` are the bounds that the user declared, if any.
    """
    if dtype == np.uint8 or np.issubdtype(dtype, np.floating):
        return
    if declared is not None and np.issubdtype(dtype, np.integer):
        box = f"[{declared.low:g}, {declared.high:g}]"
        raise DatasetError(
            f"{say}: inputs must be floating-point in {box}, as declared, got {dtype}: numbers on "
            f"a scale: convert them with .float(); {TOKENS}"
        )
    expected = "inputs must be uint8, of which 255 stands for 1, or floating-point in [0, 1]"
    if np.issubdtype(dtype, np.integer):
        raise DatasetError(
            f"{say}: {expected}, got {dtype}: pictures: convert them to uint8; numbers on a scale: "
            "convert them with .float() and declare their bounds, such as bounds=(0, 100) "
            f"(--bounds 0,100); {TOKENS}"
        )
    raise DatasetError(f"{say}: {expected}, got {dtype}")


def check_range(
    low: float,
    high: float,
    *,
    name: str,
    shape: tuple[int, ...],
    declared: Bounds | None = None,
) -> None:
    """Raises `DatasetError` if inputs are outside of their bounds, with the range and a remedy.

    Args:
        low: lowest value of all inputs.
        high: highest value of all inputs.
        name: the dataset's name.
        shape: shape of one input.
        declared: the bounds that the user declared; [0, 1] if None.
    """
    bounds = PIXEL_BOUNDS if declared is None else declared
    if low >= bounds.low and high <= bounds.high:  # NaN is not in any box
        return
    say = f"dataset {name!r}: inputs must be in [{bounds.low:.9g}, {bounds.high:.9g}], found"
    if math.isnan(low) or math.isnan(high):
        raise DatasetError(f"{say} NaN")
    found = f"[{_digits(low, bounds.low)}, {_digits(high, bounds.high)}]"
    raise DatasetError(f"{say} {found}: {_cure(low, high, shape, declared)}")


def looks_like_picture(shape: tuple[int, ...]) -> bool:
    """Returns whether one input has the shape of a picture: (channels, height, width)."""
    return len(shape) == PICTURE_AXES and shape[0] <= FEW_CHANNELS and min(shape[1:]) > 1


def _digits(value: float, bound: float) -> str:
    """Returns a number with enough digits to differ from the bound; ``1`` if it is the bound."""
    for digits in range(4, 18):
        text = f"{value:.{digits}g}"
        if value == bound or float(text) != bound:
            return text
    return repr(value)


def _cure(low: float, high: float, shape: tuple[int, ...], declared: Bounds | None) -> str:
    bounds = PIXEL_BOUNDS if declared is None else declared
    beyond = max(bounds.low - low, high - bounds.high)
    clamp = f"inputs.clamp({bounds.low:g}, {bounds.high:g})"
    if beyond <= 1e-5 * bounds.width:
        return f"they leave it by rounding: clamp them, {clamp}"
    if declared is not None:
        return (
            f"clamp them, {clamp}, or declare bounds that hold them, such as {_bounds(low, high)}"
        )
    if beyond <= OVERSHOOT and looks_like_picture(shape):
        return (
            "a resize with a bicubic or Lanczos filter overshoots: clamp after it, "
            f"{clamp}; inputs that are no pictures: declare their bounds, {_bounds(low, high)}"
        )
    if low >= 0 and high <= PIXEL_MAX and looks_like_picture(shape):
        return BYTES_AS_FLOATS
    if looks_like_picture(shape):
        return f"{NORMALISED}; inputs that are no pictures: declare bounds, {_bounds(low, high)}"
    columns = (
        ""
        if len(shape) > 1
        else (
            "; columns of different units: scale each to one range first, such as (x - mean) / std"
        )
    )
    return (
        f"inputs of shape {shape} are no pictures: declare the bounds of their values, "
        f"{_bounds(low, high)}, or wider ones if other values are possible; epsilon is in the same "
        f"units{columns}"
    )


def _bounds(low: float, high: float) -> str:
    """Returns the option that declares bounds which hold a range, with rounded ends."""
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-30))) / 2
    ends = f"{math.floor(low / step) * step:g}", f"{math.ceil(high / step) * step:g}"
    return f"bounds=({ends[0]}, {ends[1]}) (--bounds={ends[0]},{ends[1]})"

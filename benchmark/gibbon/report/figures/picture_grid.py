"""Small pictures in a grid, as one PNG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GAP = 1  # pixels between two pictures, before enlarging
LEAST_SIDE = 48  # pixels of a picture after enlarging


def grid_png(pictures: NDArray[np.floating], *, gap: int = GAP, least: int = LEAST_SIDE) -> bytes:
    """Returns a PNG of pictures in rows.

    Args:
        pictures: shape (rows, columns, channels, height, width) with 1 or 3 channels, in [0, 1];
            numbers outside are clipped.
        gap: pixels between two pictures.
        least: pixels that a picture's shorter side has at least: it is enlarged by a whole number.
    """
    rows, columns, channels, height, width = pictures.shape
    pixels = (np.clip(pictures, 0.0, 1.0) * 255).round().astype(np.uint8)
    sheet = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8
    )
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            picture = pixels[row, column].transpose(1, 2, 0)
            sheet[top : top + height, left : left + width] = picture
    factor = max(1, -(-least // min(height, width)))
    sheet = sheet.repeat(factor, axis=0).repeat(factor, axis=1)
    image = Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return stream.getvalue()

"""Converts, resizes and crops images as torchvision does.

Images are PIL's.  They are resized with antialiasing and cropped from the centre by
`torchvision.transforms.v2.functional`, so that an input is, byte by byte, what torchvision's own
pipelines make of the picture.  As in torchvision's loader, an orientation in the EXIF data is not
applied.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from gibbon.datasets.image_transforms import MODES, Preparation, both_sides, colour_of


def prepare(picture: Image, preparation: Preparation) -> NDArray[np.uint8]:
    """Returns the input made from an image: uint8, shape (C, H, W)."""
    mode = MODES[preparation.colour or colour_of(picture.mode)]
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # equal colours, without PIL's warning
    if picture.mode != mode:
        picture = picture.convert(mode)
    if preparation.resize is not None:
        resize = preparation.resize
        size = [resize] if isinstance(resize, int) else list(resize)
        how = InterpolationMode(preparation.interpolation)
        picture = functional.resize(picture, size, interpolation=how, antialias=True)
    if preparation.crop is not None:
        picture = functional.center_crop(picture, list(both_sides(preparation.crop)))
    pixels = np.asarray(picture)
    return pixels[np.newaxis].copy() if mode == "L" else pixels.transpose(2, 0, 1).copy()

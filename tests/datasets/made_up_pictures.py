"""Pictures that tests write: small, lossless, and known to the byte."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("ant", "bee", "cat")


@dataclass(frozen=True)
class Content:
    """What a dataset is to hold: uint8, shape (N, 3, H, W), and labels in ascending order."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def with_pixel(self, example: int) -> Content:
        """One number of one pixel, a little brighter or darker."""
        pixels = self.pixels.copy()
        pixels[example, 1, 2, 3] ^= 1
        return replace(self, pixels=pixels)

    def with_label(self, example: int, label: int) -> Content:
        labels = self.labels.copy()
        labels[example] = label
        return replace(self, labels=labels)

    def swapped(self, one: int, other: int) -> Content:
        """Two examples of one class, the other way round."""
        order = np.arange(len(self.labels))
        order[[one, other]] = order[[other, one]]
        assert self.labels[one] == self.labels[other]
        return Content(self.pixels[order], self.labels[order])


def made_up(count: int = 12, *, height: int = 6, width: int = 5, seed: int = 0) -> Content:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    return Content(pixels, np.arange(count) * len(CLASSES) // count)


def picture_of(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def write_folder(root: Path, content: Content, *, classes: tuple[str, ...] = CLASSES) -> Path:
    for name in classes:
        (root / name).mkdir(parents=True)
    for example, (pixels, label) in enumerate(zip(content.pixels, content.labels, strict=True)):
        picture_of(pixels).save(root / classes[label] / f"{example:04}.png")
    return root


def write_csv(root: Path, content: Content) -> Path:
    root.mkdir(parents=True)
    lines = ["path,label"]
    for example, (pixels, label) in enumerate(zip(content.pixels, content.labels, strict=True)):
        picture_of(pixels).save(root / f"{example}.png")
        lines.append(f"{example}.png,{label}")
    path = root / "pictures.csv"
    path.write_text("\n".join(lines))
    return path

"""The inputs of examples as the viewer draws them: pictures as PNG, other inputs as numbers."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gibbon.records.gallery import COLOURS, Gallery, quantised, quantised_change, read_gallery
from gibbon.records.kept_examples import KeptExamples, clean_folder
from gibbon.records.run import DatasetCard, Evaluation

Display = Literal["picture", "signal", "values"]
PictureKind = Literal["clean", "change", "adversarial"]
KINDS: Final[tuple[PictureKind, ...]] = ("clean", "change", "adversarial")

_FEW: Final = 64  # numbers that are listed; more of them in a row are drawn as a signal
_POINTS: Final = 1000  # points of a drawn signal
_CHANNELS: Final = 4  # channels of a signal that are drawn


def display_of(shape: tuple[int, ...]) -> Display:
    """Returns how inputs of a shape are shown.

    >>> display_of((3, 32, 32)), display_of((1, 16000)), display_of((8,))
    ('picture', 'signal', 'values')
    """
    if len(shape) == 3 and shape[0] in COLOURS and min(shape[1:]) > 1:
        return "picture"
    if len(shape) in (1, 2) and shape[-1] > _FEW and math.prod(shape[:-1]) <= _CHANNELS:
        return "signal"
    return "values"


@dataclass(frozen=True)
class ShownInput:
    """A clean and an adversarial input, or pictures of them.

    Args:
        clean, adversarial: float32, shape of an input; None if only pictures are stored.
        pictures: uint8, shape (C, H, W), of the parts of `KINDS`; None for inputs that are none.
        scale: the largest change, which is black or white in its picture.
        note: what a reader should know of the pictures; may be empty.
    """

    clean: NDArray[np.float32] | None
    adversarial: NDArray[np.float32] | None
    pictures: tuple[NDArray[np.uint8], ...] | None
    scale: float
    note: str = ""


@dataclass
class InputStore:
    """Reads the inputs of a run's examples: kept ones, else those of its galleries.

    Args:
        folder: the run's folder.
    """

    folder: Path

    def __post_init__(self) -> None:
        self._stores: dict[str, KeptExamples] = {}
        self._galleries: dict[str, Gallery | None] = {}

    def kept(self, row: Evaluation) -> int:
        """Returns how many examples of a cell are kept."""
        return len(self._store(row.digest).places)

    def stored(
        self, row: Evaluation, card: DatasetCard | None, ids: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Returns of which examples of a cell `find` has the inputs, shape (N,)."""
        if card is None:
            return np.zeros(len(ids), dtype=np.bool_)
        found = self._store(clean_folder(card.digest)).has(ids)
        if not row.unattacked:
            found &= self._store(row.digest).has(ids)
        gallery = self._gallery(row.digest)
        return found if gallery is None else found | np.isin(ids, gallery.example_id)

    def find(self, row: Evaluation, card: DatasetCard | None, example: int) -> ShownInput | None:
        """Returns the inputs of an example of a cell, or None if nothing of it is stored."""
        if card is None:
            return None
        clean = self._store(clean_folder(card.digest)).read(example)
        if clean is not None and row.unattacked:
            return _shown(clean, clean, card)
        adversarial = self._store(row.digest).read(example)
        if clean is not None and adversarial is not None and clean.shape == adversarial.shape:
            return _shown(clean, adversarial, card)
        return self._of_gallery(row, example)

    def _of_gallery(self, row: Evaluation, example: int) -> ShownInput | None:
        gallery = self._gallery(row.digest)
        if gallery is None:
            return None
        places = np.flatnonzero(gallery.example_id == example)
        if not len(places):
            return None
        place = int(places[0])
        note = "reduced in size" if gallery.smaller else ""
        return ShownInput(None, None, gallery.pictures(place), float(gallery.scale[place]), note)

    def _gallery(self, digest: str) -> Gallery | None:
        if digest not in self._galleries:
            self._galleries[digest] = read_gallery(self.folder, digest)
        return self._galleries[digest]

    def _store(self, name: str) -> KeptExamples:
        if name not in self._stores:
            self._stores[name] = KeptExamples(self.folder, name)
        return self._stores[name]


def _shown(
    clean: NDArray[np.float32], adversarial: NDArray[np.float32], card: DatasetCard
) -> ShownInput:
    change = adversarial - clean
    finite = np.nan_to_num(change, nan=0.0, posinf=0.0, neginf=0.0)
    scale = float(np.abs(finite).max(initial=0.0))
    if display_of(clean.shape) != "picture":
        return ShownInput(clean, adversarial, None, scale)
    low, high = card.bounds or (0.0, 1.0)
    signed, _ = quantised_change(finite[None])
    middle = np.clip(np.rint((signed[0].astype(np.float64) / 127 + 1) / 2 * 255), 0, 255)
    both = np.nan_to_num(np.stack((clean, adversarial)))
    beyond = both.min() < low - 1e-4 or both.max() > high + 1e-4
    first, last = quantised(both, low=low, high=high)
    note = "beyond the input's bounds, shown at them" if beyond else ""
    return ShownInput(clean, adversarial, (first, middle.astype(np.uint8), last), scale, note)


def png(picture: NDArray[np.uint8]) -> bytes:
    """Returns a picture of shape (C, H, W) as a PNG file."""
    image: Any = Image.fromarray(
        picture[0] if len(picture) == 1 else np.ascontiguousarray(picture.transpose(1, 2, 0))
    )
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def numbers(shown: ShownInput) -> dict[str, Any] | None:
    """Returns inputs that are no pictures as numbers for the page; None for pictures.

    A signal has the lowest and the highest value of each of its pieces, so that no peak is lost;
    other inputs have their most changed coordinates.
    """
    clean, adversarial = shown.clean, shown.adversarial
    if clean is None or adversarial is None or shown.pictures is not None:
        return None
    if display_of(clean.shape) == "signal":
        channels = clean.reshape(-1, clean.shape[-1]), adversarial.reshape(-1, clean.shape[-1])
        return {
            "display": "signal",
            "length": int(clean.shape[-1]),
            "channels": [
                {
                    "clean": _envelope(before),
                    "change": _envelope(after - before),
                    "adversarial": _envelope(after),
                }
                for before, after in zip(*channels, strict=True)
            ],
        }
    flat, after = clean.ravel(), adversarial.ravel()
    most = np.argsort(-np.abs(after - flat), kind="stable")[:_FEW]
    if flat.size <= _FEW:
        most = np.arange(flat.size)
    return {
        "display": "values",
        "of": int(flat.size),
        "rows": [
            {
                "place": ", ".join(str(int(part)) for part in np.unravel_index(at, clean.shape)),
                "clean": _number(flat[at]),
                "change": _number(after[at] - flat[at]),
                "adversarial": _number(after[at]),
            }
            for at in most.tolist()
        ],
    }


def _envelope(values: NDArray[np.float32]) -> list[list[float]]:
    pieces = np.array_split(np.nan_to_num(values), min(len(values), _POINTS))
    return [[float(piece.min()), float(piece.max())] for piece in pieces]


def _number(value: float) -> str:
    return f"{value:.5g}"

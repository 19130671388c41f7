"""Galleries: a few examples of a cell, before and after the attack, in a small file.

The runner, which has the candidates, writes one file a cell into the folder ``pictures`` of a run;
the report shows them.  This needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gibbon.core.files import read_plain_file
from gibbon.core.npz import packed, unpacked

FOLDER: Final = "pictures"
COLOURS: Final = (1, 3)  # the numbers of channels that a picture may have
_BYTE, _SIGNED_BYTE = 255.0, 127.0


@dataclass(frozen=True)
class Gallery:
    """Examples of one cell with the answers of its source model.

    Args:
        digest: the cell's.
        why: the reason that each example was selected: ``"random"``, ``"misled"``, ``"withstood"``.
        example_id: int64, shape (N,).
        label, before, after: int32, shape (N,): class, answer to the clean example, and to the
            adversarial one.
        sure_before, sure_after: float32, shape (N,): the confidences of these answers.
        valid: bool, shape (N,): whether the candidate keeps to the threat model; others are not
            counted.
        clean: uint8, shape (N, C, H, W), from ``low`` to ``high``.
        change: int8, shape (N, C, H, W): what the attack added, in units of ``scale / 127``.
        scale: float32, shape (N,): the largest change of each example.
        low, high: the bounds of the inputs, or the range of the pictures if it is much smaller.
        shape: (H, W) of the inputs, which is larger than that of pictures that were reduced.
        narrowed: whether ``low`` and ``high`` are not the bounds.
    """

    digest: str
    why: tuple[str, ...]
    example_id: NDArray[np.int64]
    label: NDArray[np.int32]
    before: NDArray[np.int32]
    after: NDArray[np.int32]
    sure_before: NDArray[np.float32]
    sure_after: NDArray[np.float32]
    valid: NDArray[np.bool_]
    clean: NDArray[np.uint8]
    change: NDArray[np.int8]
    scale: NDArray[np.float32]
    low: float
    high: float
    shape: tuple[int, int]
    narrowed: bool = False

    @property
    def smaller(self) -> bool:
        """Whether the pictures are smaller than the inputs."""
        return tuple(self.clean.shape[2:]) != self.shape

    def pictures(self, place: int) -> tuple[NDArray[np.uint8], ...]:
        """Returns an example, its scaled change, and their sum, each uint8 of shape (C, H, W).

        Grey is no change; a sum is clipped to the bounds.
        """
        clean, change = self.clean[place], self.change[place].astype(np.float64)
        shown = (change / _SIGNED_BYTE + 1) / 2 * _BYTE
        added = change * self.scale[place] / _SIGNED_BYTE * _BYTE / (self.high - self.low)
        total = clean + added
        return clean, _bytes(shown), _bytes(total)

    def beyond(self, place: int) -> bool:
        """Returns whether the sum leaves the bounds by more than rounding."""
        clean = self.clean[place] / _BYTE * (self.high - self.low)
        total = clean + self.change[place] * float(self.scale[place]) / _SIGNED_BYTE
        slack = (self.high - self.low) / _BYTE
        return bool(total.min() < -slack or total.max() > self.high - self.low + slack)


def quantised_change(
    change: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Returns changes, shape (N, ...), as signed bytes, and the largest size of each example's.

    >>> change, scale = quantised_change(np.array([[0.5, -0.25]], dtype=np.float32))
    >>> change.tolist(), scale.tolist()
    ([[127, -64]], [0.5])
    """
    scale = np.abs(change).reshape(len(change), -1).max(axis=1, initial=0.0)
    by = np.where(scale > 0, scale, 1.0).reshape(-1, *[1] * (change.ndim - 1))
    return np.rint(change / by * _SIGNED_BYTE).astype(np.int8), scale.astype(np.float32)


def quantised(inputs: NDArray[np.float32], *, low: float, high: float) -> NDArray[np.uint8]:
    """Returns inputs as bytes from ``low`` to ``high``."""
    return _bytes((inputs.astype(np.float64) - low) / (high - low) * _BYTE)


def gallery_bytes(gallery: Gallery) -> bytes:
    """Returns the content of a gallery's file."""
    values = vars(gallery)
    arrays: dict[str, Any] = {
        name: value for name, value in values.items() if isinstance(value, np.ndarray)
    }
    about = {name: value for name, value in values.items() if name not in arrays}
    return packed(about, arrays)


def read_gallery(run: Path, digest: str) -> Gallery | None:
    """Returns the gallery of a cell in a run's folder, or None if no usable one is stored."""
    path = gallery_file(run, digest)
    try:
        about, arrays = unpacked(read_plain_file(path))
        about |= {"why": tuple(about["why"]), "shape": tuple(about["shape"])}
        gallery = Gallery(**about, **arrays)
        usable = gallery.digest == digest and _fits(gallery)
    except Exception:  # noqa: BLE001  a damaged archive may raise any error
        return None
    return gallery if usable else None


def gallery_file(run: Path, digest: str) -> Path:
    """Returns the path of the gallery of a cell in a run's folder."""
    return run / FOLDER / f"{digest}.npz"


def _fits(gallery: Gallery) -> bool:
    """Returns whether the arrays of a gallery have consistent shapes."""
    count = len(gallery.why)
    pictures = gallery.clean.shape
    single = (
        *(gallery.example_id, gallery.label, gallery.before, gallery.after),
        *(gallery.sure_before, gallery.sure_after, gallery.valid, gallery.scale),
    )
    return (
        all(each.shape == (count,) for each in single)
        and gallery.change.shape == pictures
        and len(pictures) == 4
        and pictures[0] == count
        and pictures[1] in COLOURS
        and gallery.clean.dtype == np.uint8
        and gallery.change.dtype == np.int8
        and gallery.low < gallery.high
    )


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.clip(np.rint(values), 0, _BYTE).astype(np.uint8)
    return rounded

"""Data of illustrations, computed once with the models and stored for the report to draw.

Each kind is one file of arrays, ``<kind>.npz`` in the folder ``figures`` of a run, drawn by
`gibbon.report.figures.illustrations`.  This needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RecordError
from gibbon.core.files import read_plain_file, unwritable, write_atomically
from gibbon.core.npz import packed, unpacked

FOLDER: Final = "figures"

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]


class Answer(NamedTuple):
    """A model's answer to an input: the class's name and the confidence, a fraction of 1."""

    label: str
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Addition:
    """A picture, its perturbation, and the sum.

    Args:
        title: of the figure.
        model: the name of the model that answered.
        source: of the picture.
        truth: the picture's class.
        epsilon: as it was written.
        picture: uint8, shape (H, W) or (H, W, 3).
        direction: int8 signs of the perturbation, of the same shape.
        before, alone, after: answers to the picture, to the direction drawn as a picture, and to
            the sum.
    """

    kind: ClassVar[str] = "addition"
    title: str
    model: str
    source: str
    truth: str
    epsilon: str
    picture: NDArray[np.uint8]
    direction: NDArray[np.int8]
    before: Answer
    alone: Answer
    after: Answer


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """The weights of a linear model of two classes, and examples with its answers.

    Args:
        title, model, epsilon: as for `Addition`.
        classes: the names of both.
        weights: float32, shape (H, W); large values indicate class 1.
        clean: uint8, shape (N, H, W).
        attacked: float32, shape (N, H, W), in units of [0, 1], which it may leave.
        label, predicted, misled: int32, shape (N,): class, answer to the clean example, and to the
            attacked one.
        clean_error, attacked_error: over all test examples.
    """

    kind: ClassVar[str] = "linear"
    title: str
    model: str
    epsilon: str
    classes: tuple[str, ...]
    weights: Floats
    clean: NDArray[np.uint8]
    attacked: Floats
    label: Integers
    predicted: Integers
    misled: Integers
    clean_error: float
    attacked_error: float


@dataclass(frozen=True, kw_only=True)
class Filters:
    """First-layer filters of several models.

    Args:
        title: as for `Addition`.
        models: their names.
        filters: float16, shape (models, K, H, W): enough for grey levels.
    """

    kind: ClassVar[str] = "filters"
    title: str
    models: tuple[str, ...]
    filters: NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The logits of one example moved along one direction, by every epsilon of a grid.

    Args:
        title, model: as for `Addition`.
        example: a description of the example.
        label: its class.
        classes: their names.
        epsilons: float32, shape (E,), ascending.
        logits: float32, shape (E, K).
        shown: float32, shape (S,): the epsilons of the strip.
        strip: float32, shape (S, H, W), in units of [0, 1], which it may leave.
    """

    kind: ClassVar[str] = "sweep"
    title: str
    model: str
    example: str
    label: int
    classes: tuple[str, ...]
    epsilons: Floats
    logits: Floats
    shown: Floats
    strip: Floats

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the example is classified correctly at each epsilon: shape (E,)."""
        found: NDArray[np.bool_] = self.logits.argmax(axis=1) == self.label
        return found


Illustration = Addition | LinearModel | Filters | Sweep
KINDS: Final[tuple[type[Illustration], ...]] = (Addition, LinearModel, Filters, Sweep)


def save_illustration(illustration: Illustration, folder: Path) -> Path:
    """Writes an illustration into a folder of a run and returns the file.

    Raises `RunFolderError` if it can't be written.
    """
    values = vars(illustration)
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    about = {name: value for name, value in values.items() if name not in arrays}
    path = folder / f"{illustration.kind}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    write_atomically(path, packed(about, arrays))
    return path


def digest_of(illustration: Illustration) -> str:
    """Returns a digest of an illustration's data, which the files drawn from it contain."""
    digest = hashlib.sha256(illustration.kind.encode())
    for each in fields(illustration):
        value = getattr(illustration, each.name)
        held = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
        digest.update(f"{each.name} {len(held)} ".encode() + held)
    return digest.hexdigest()


def illustrations(run: Path) -> Iterator[Illustration]:
    """Yields the illustrations in a run's folder, in the order of `KINDS`.

    Raises `RecordError` if a file can't be read.
    """
    for kind in KINDS:
        path = run / FOLDER / f"{kind.kind}.npz"
        if path.exists():
            yield _read(kind, path)


def _read(kind: type[Illustration], path: Path) -> Illustration:
    try:
        about, arrays = unpacked(read_plain_file(path))
        given: dict[str, Any] = {name: _value(value) for name, value in about.items()}
        return kind(**given, **arrays)
    except Exception as error:  # a damaged archive may raise any error
        raise RecordError(
            f"{path}: is no illustration of this version of Gibbon: {error}; remove it or make it "
            "again"
        ) from error


def _value(value: Any) -> Any:
    """Returns a value decoded from JSON; an answer is stored as a name and a number."""
    if not isinstance(value, list):
        return value
    if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], float):
        return Answer(value[0], value[1])
    return tuple(value)

"""Arrays in NumPy's files: ``.npz``, several arrays by name, and ``.npy``, one array.

A large array never sits in memory: an ``.npy`` file is mapped, a large member of an ``.npz`` file
is unpacked to a temporary file and mapped from there.  Nothing in a file is executed: arrays of
Python objects, which are pickles, are refused.  An example id is the position in the array.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from gibbon.core.archives import check_unpacked_size
from gibbon.core.errors import DatasetError, RequestError, suggest
from gibbon.core.plain_text import shortened
from gibbon.core.reading import check_regular
from gibbon.core.threat import Bounds
from gibbon.datasets.array_dataset import HeldDataset, Layout

SUFFIX = ".npy"  # of the members of an .npz file
HELD_BYTES = 64 << 20  # a larger array is mapped
LAYOUTS = {3: "NHW", 4: "NCHW or NHWC"}  # layouts of arrays of images, by number of axes
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class Header:
    """Header of an array in a file."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]

    @property
    def inputs(self) -> bool:
        """Whether the array may hold inputs."""
        pixels = self.dtype == np.uint8 or np.issubdtype(self.dtype, np.floating)
        return len(self.shape) > 1 and pixels

    @property
    def labels(self) -> bool:
        """Whether the array may hold labels."""
        return len(self.shape) == 1 and np.issubdtype(self.dtype, np.integer)

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def open_npz(
    name: str,
    path: Path,
    *,
    inputs: str | None,
    labels: str | None,
    layout: Layout | None,
    bounds: Bounds | None = None,
    labelled: bool = True,
) -> HeldDataset:
    """Returns the dataset of an ``.npz`` file.

    Args:
        name: name in tables and messages.
        path: the file.
        inputs: the name of the array of inputs; the only suitable array if None.
        labels: the name of the array of labels; the only suitable array if None.
        layout: the order of the axes; required for pictures of three or four axes.
        bounds: lowest and highest value of an input; [0, 1] if None.  Inputs with declared bounds
            need no layout.
        labelled: whether it has labels; those of inputs without a class are 0, and are not read.

    Raises `DatasetError` if it is damaged, the choice of arrays is ambiguous, or they don't fit
    together.
    """
    check_regular(path, DatasetError)
    with _reading(path), zipfile.ZipFile(path) as archive:
        check_unpacked_size(archive, path, problem=DatasetError)
        headers = {}
        for member in archive.namelist():
            if member.endswith(SUFFIX):
                with archive.open(member) as stream:
                    headers[member.removesuffix(SUFFIX)] = _header(stream)
        wanted = _choose(path, headers, inputs, option="inputs")
        _check_layout(f"{path}: {wanted!r}", headers[wanted].shape, layout, bounds)
        pixels = _member(archive, wanted, headers[wanted], path=path)
        numbers: NDArray[Any] = np.zeros(len(pixels), dtype=np.int64)
        if labelled:
            targets = _choose(path, headers, labels, option="labels")
            numbers = _member(archive, targets, headers[targets], path=path)
    return HeldDataset(name, pixels, labels=numbers, layout=layout, bounds=bounds)


def open_npy(
    name: str,
    path: Path,
    *,
    labels: Path | None,
    layout: Layout | None,
    bounds: Bounds | None = None,
) -> HeldDataset:
    """Returns the dataset of an ``.npy`` file of inputs and another one of labels.

    Without the latter, which inputs without a class don't need, all labels are 0.

    Raises `DatasetError` if one is damaged, or they don't fit together.
    """
    arrays = []
    for each in (path, *([] if labels is None else [labels])):
        check_regular(each, DatasetError)
        with _reading(each):
            with each.open("rb") as file:
                header = _header(file)
                _refuse_objects(header, str(each))
                _check_size(header, each.stat().st_size)
            arrays.append(np.load(each, mmap_mode="r", allow_pickle=False))
    inputs, *given = arrays
    numbers = given[0] if given else np.zeros(len(inputs) if inputs.ndim else 0, dtype=np.int64)
    _check_layout(str(path), inputs.shape, layout, bounds)
    return HeldDataset(name, inputs, labels=np.asarray(numbers), layout=layout, bounds=bounds)


def _choose(
    path: Path,
    headers: Mapping[str, Header],
    asked: str | None,
    *,
    option: Literal["inputs", "labels"],
) -> str:
    candidates = [name for name, header in headers.items() if getattr(header, option)]
    listed = "; ".join(f"{name} {header}" for name, header in headers.items()) or "none"
    if asked is not None:
        if asked not in headers:
            hint = suggest(asked, headers)
            raise DatasetError(f"{path}: has no array {asked!r}{hint} Arrays: {listed}")
        return asked
    if len(candidates) == 1:
        return candidates[0]
    found = "several arrays" if candidates else "no array"
    raise DatasetError(
        f"{path}: {found} that may be the {option}: name it with {option}.  Arrays: {listed}"
    )


def _check_layout(
    say: str, shape: tuple[int, ...], layout: Layout | None, bounds: Bounds | None
) -> None:
    if layout is None and len(shape) in LAYOUTS and bounds is None:
        raise DatasetError(
            f"{say} has shape {shape}, and the order of axes is never guessed: declare the layout, "
            f"{LAYOUTS[len(shape)]}; for inputs that are no pictures declare their bounds instead, "
            "such as --bounds=-1,1"
        )


def _member(archive: zipfile.ZipFile, name: str, header: Header, *, path: Path) -> NDArray[Any]:
    _refuse_objects(header, f"{path}: {name!r}")
    member = name + SUFFIX
    with archive.open(member) as stream:
        _check_size(header, archive.getinfo(member).file_size)
        if archive.getinfo(member).file_size <= HELD_BYTES:
            return np.asarray(npy.read_array(stream, allow_pickle=False))
        with tempfile.TemporaryFile(prefix="gibbon-") as file:
            shutil.copyfileobj(stream, file)
            file.seek(0)
            _header(file)
            return np.memmap(
                file,
                dtype=header.dtype,
                mode="r",
                offset=file.tell(),
                shape=header.shape,
                order="F" if header.fortran_order else "C",
            )


def _header(stream: IO[bytes]) -> Header:
    version = npy.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"version {version[0]}.{version[1]} of the format is not known")
    return Header(*HEADERS[version](stream))


def _check_size(header: Header, there: int) -> None:
    """Raises ValueError if a header promises more numbers than follow it, before they are read."""
    promised = math.prod(header.shape) * header.dtype.itemsize
    if promised > there:
        raise ValueError(f"its header is of {promised:,} bytes of numbers, it has {there:,} bytes")


def _refuse_objects(header: Header, say: str) -> None:
    if header.dtype.hasobject:
        raise DatasetError(
            f"{say} holds Python objects, a pickle, which can run code when it is loaded: save "
            "plain numbers"
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns errors of reading into a `DatasetError` about a damaged file.

    NumPy parses a header as Python's source, so that a damaged one may raise any error.
    """
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        reason = shortened(str(error)) or type(error).__name__
        raise DatasetError(f"{path}: damaged, or not a file of NumPy arrays: {reason}") from error

"""CIFAR-10: small colour photographs.

50,000 training and 10,000 test pictures, 3 x 32 x 32, of 10 classes.  Source: Krizhevsky, "Learning
multiple layers of features from tiny images", 2009; https://www.cs.toronto.edu/~kriz/cifar.html.

Looked for in the request's folder, in this order: the binary version, then the Python version
(torchvision's layout), each in its own sub-folder, as bare files, or as the archive that is
published; then downloaded through torchvision.  The Python version is pickled, and unpickling can
run code, so only bytes with the published checksum are unpickled.

An example id is the position in ``test_batch``, or in ``data_batch_1`` to ``data_batch_5`` one
after the other; both versions and torchvision count alike.
"""

from __future__ import annotations

import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import DatasetError
from gibbon.core.reading import expanded
from gibbon.core.registry import lazily
from gibbon.datasets import DataRequest, Split
from gibbon.datasets.base import ArrayDataset
from gibbon.datasets.registered.checksum import verify
from gibbon.datasets.registered.download import find_or_download
from gibbon.datasets.registered.idx import read_file

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
INPUT_SHAPE = (3, 32, 32)  # red, green, blue; rows from the top
RECORD_BYTES = 1 + 3 * 32 * 32  # of the binary version: the label, then the picture
HOME_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
FILES: dict[Split, tuple[str, ...]] = {
    "train": ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
    "test": ("test_batch",),
}


@dataclass(frozen=True)
class Records:
    """The examples of one file: uint8, shape (N, 3072), and labels, shape (N,)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Version:
    """A form in which CIFAR-10 is published.

    Args:
        archive: name of the published archive.
        folder: the folder inside the archive.
        suffix: of the files' names.
        md5: the files' MD5, by name without suffix; nothing better was published.
        decode: returns the records of a verified file's bytes.
    """

    archive: str
    folder: str
    suffix: str
    md5: Mapping[str, str]
    decode: Callable[[bytes], Records]


def load(request: DataRequest) -> ArrayDataset:
    """Returns a split of CIFAR-10.

    Inputs have shape (3, 32, 32).  Raises `DatasetError`, which names the file or the places that
    searched, if a file is damaged or not available.
    """
    batches = _read_batches(request)
    return ArrayDataset(
        name="cifar10",
        pixels=np.concatenate([batch.pixels for batch in batches]).reshape(-1, *INPUT_SHAPE),
        targets=np.concatenate([batch.labels for batch in batches]),
        classes=CLASSES,
    )


def _decode_binary(content: bytes) -> Records:
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD_BYTES)
    return Records(records[:, 1:], records[:, 0].astype(np.int64))


def _decode_pickle(content: bytes) -> Records:
    # Only for bytes whose checksum was verified.  Python 2 wrote them; its strings are latin-1.
    entry = pickle.loads(content, encoding="latin1")  # noqa: S301
    return Records(entry["data"], np.array(entry["labels"], dtype=np.int64))


BINARY = Version(
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    suffix=".bin",
    md5={
        "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25",
        "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
        "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421",
        "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
        "data_batch_5": "53f37980c15c3d472c316c40844f3f0d",
        "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
    },
    decode=_decode_binary,
)
PYTHON = Version(
    archive="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    suffix="",
    md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    decode=_decode_pickle,
)
VERSIONS = (BINARY, PYTHON)


def _read_batches(request: DataRequest) -> list[Records]:
    folder = expanded(request.folder, DatasetError)
    names = ", ".join(FILES[request.split])
    tried = dict.fromkeys(place for version in VERSIONS for place in _places(folder, version))
    archives = " or ".join(version.archive for version in VERSIONS)
    return find_or_download(
        lambda: _find(folder, request.split),
        request,
        download=_download,
        keep=PYTHON.folder,
        missing=(
            f"cifar10: {names} (.bin or pickled) are not in any of {', '.join(map(str, tried))}"
        ),
        remedy=(
            f"put {archives} from {HOME_PAGE} into {folder}, as it is or unpacked, or name the "
            "folder that holds it with --data-dir"
        ),
    )


def _places(folder: Path, version: Version) -> tuple[Path, Path, Path]:
    return folder / version.folder, folder, folder / version.archive


def _find(folder: Path, split: Split) -> list[Records] | None:
    for version in VERSIONS:
        *unpacked, archive = _places(folder, version)
        names = [name + version.suffix for name in FILES[split]]
        for place in unpacked:
            if all((place / name).is_file() for name in names):
                files = ((place / name, read_file(place / name)) for name in names)
                return _decode_verified(files, version)
        if archive.is_file():
            return _decode_verified(_read_members(archive, names, folder=version.folder), version)
    return None


def _read_members(archive: Path, names: list[str], *, folder: str) -> Iterator[tuple[Path, bytes]]:
    # Read in memory: nothing that the archive names is written anywhere.
    try:
        with tarfile.open(archive) as tar:
            for name in names:
                stream = tar.extractfile(f"{folder}/{name}")
                if stream is None:
                    raise KeyError(f"{folder}/{name} is not a file in it")
                yield archive / folder / name, stream.read()
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise DatasetError(
            f"{archive}: damaged archive: {error}; delete it, or replace it by the one from "
            f"{HOME_PAGE}"
        ) from error


def _decode_verified(files: Iterator[tuple[Path, bytes]], version: Version) -> list[Records]:
    remedy = f"delete it, or replace it by the file in {version.archive} from {HOME_PAGE}"
    batches = []
    for path, content in files:
        expected = version.md5[path.name.removesuffix(version.suffix)]
        verify(content, path, expected=expected, remedy=remedy, algorithm="MD5")
        batches.append(version.decode(content))
    return batches


def _download(folder: Path) -> None:
    lazily("torchvision.datasets:CIFAR10")()(folder, download=True)

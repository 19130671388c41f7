"""Fashion-MNIST: pictures of clothes in MNIST's format.

60,000 training and 10,000 test pictures, 28 x 28, grey, of 10 kinds of clothes.  Source: Xiao,
Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
algorithms", 2017, https://arxiv.org/abs/1708.07747.

Looked for, in this order: the request's folder, in torchvision's layout (``FashionMNIST/raw/``) or
as bare IDX files, each plain or gzipped; Debian's package ``dataset-fashion-mnist``; a download
through torchvision.  Wherever they come from, the unzipped files have to be the published ones.

An example id is the position in the published file of its split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import DatasetError
from gibbon.core.reading import expanded
from gibbon.core.registry import lazily
from gibbon.datasets import DataRequest, Split
from gibbon.datasets.base import ArrayDataset
from gibbon.datasets.registered.checksum import verify
from gibbon.datasets.registered.download import find_or_download
from gibbon.datasets.registered.idx import parse_idx, read_file, unzipped

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
TORCHVISION_LAYOUT = "FashionMNIST/raw"
HOME_PAGE = "https://github.com/zalandoresearch/fashion-mnist"

# SHA-256 of the files unzipped: Debian gzips them anew, so the zipped ones differ.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FILES: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def load(request: DataRequest) -> ArrayDataset:
    """Returns a split of Fashion-MNIST.

    Inputs have shape (1, 28, 28).  Raises `DatasetError`, which names the file or the places that
    searched, if a file is damaged or not available.
    """
    images, labels = (
        _read_verified(path, SHA256[name])
        for name, path in zip(FILES[request.split], _locate(request), strict=True)
    )
    return ArrayDataset(
        name="fashion-mnist",
        pixels=images[:, np.newaxis],
        targets=labels.astype(np.int64),
        classes=CLASSES,
    )


def _locate(request: DataRequest) -> list[Path]:
    names = FILES[request.split]
    folder = expanded(request.folder, DatasetError)
    places = [folder / TORCHVISION_LAYOUT, folder, DEBIAN_FOLDER]
    return find_or_download(
        lambda: _find(names, places),
        request,
        download=_download,
        keep=TORCHVISION_LAYOUT,
        missing=(
            f"fashion-mnist: {names[0]} and {names[1]}, plain or .gz, are not both in any of "
            f"{', '.join(map(str, places))}"
        ),
        remedy=(
            f"put {names[0]}.gz and {names[1]}.gz from {HOME_PAGE} into {folder}, or install the "
            "Debian package dataset-fashion-mnist, or name the folder that holds them with "
            "--data-dir"
        ),
    )


def _find(names: tuple[str, str], places: list[Path]) -> list[Path] | None:
    for place in places:
        found = [path for name in names if (path := _plain_or_zipped(place / name)) is not None]
        if len(found) == len(names):
            return found
    return None


def _plain_or_zipped(path: Path) -> Path | None:
    zipped = path.with_name(f"{path.name}.gz")
    return next((candidate for candidate in (path, zipped) if candidate.is_file()), None)


def _download(folder: Path) -> None:
    lazily("torchvision.datasets:FashionMNIST")()(folder, download=True)


def _read_verified(path: Path, expected: str) -> NDArray[Any]:
    content = unzipped(read_file(path), path)
    remedy = f"delete it, or replace it by the file from {HOME_PAGE}"
    verify(content, path, expected=expected, remedy=remedy)
    return parse_idx(content, path)

"""Datasets: registered ones, and users' own from files and Python objects.

`DATASETS` maps a name to a function that takes a `DataRequest` and returns a `Dataset`.
`gibbon.datasets.open` opens the dataset of a spec, `gibbon.datasets.wrap` wraps
tensors, torch datasets and loaders.  torch is not imported before a dataset is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from gibbon.core.errors import SpecError
from gibbon.core.registry import Entry, Registry, lazily

if TYPE_CHECKING:
    from gibbon.datasets.base import Dataset

Split = Literal["train", "test"]


@dataclass(frozen=True)
class DataRequest:
    """Selects a split of a dataset, and sets how it is found and read.

    Args:
        split: ``"test"`` for evaluation, ``"train"`` for training.
        folder: folder of datasets that are not embedded, which downloads go to; ``~`` is the home
            folder.
        download: whether missing files may be fetched from the network.
        workers: processes that decode images; chosen by the number of processors if None.
        seed: seed of data that are drawn.

    Raises `SpecError` if there is no such split, or the number of workers is negative.
    """

    split: Split = "test"
    folder: Path = Path("~/.cache/gibbon")
    download: bool = True
    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in get_args(Split):
            raise SpecError(f"split must be 'train' or 'test', got {self.split!r}")
        if self.workers is not None and self.workers < 0:
            raise SpecError(f"workers must be 0 or more, got {self.workers}")


DatasetLoader = Callable[[DataRequest], "Dataset"]

DATASETS: Registry[DatasetLoader] = Registry("dataset", group="gibbon.datasets")

# By name; the loader is `load` in the module of that name.
_SUMMARIES = {
    "mnist": "handwritten digits, 28 x 28, 60,000 + 10,000, embedded (LeCun et al. 1998)",
    "mnist-3v7": "MNIST's threes (class 0) against its sevens (class 1), embedded",
    "fashion-mnist": "images of clothes, 28 x 28, 60,000 + 10,000 (Xiao et al. 2017)",
    "cifar10": "colour photographs of 10 classes, 32 x 32, 50,000 + 10,000 (Krizhevsky 2009)",
    "cifar10-whitened": "cifar10 contrast-normalised and ZCA-whitened, as maxout networks take it",
    "cifar10-jpeg": (
        "cifar10's images compressed again as JPEG: a user's own copy in train|test/<class>/"
    ),
    "cifar10-jpeg-whitened": "cifar10-jpeg contrast-normalised and ZCA-whitened",
}
for _name, _summary in _SUMMARIES.items():
    _module = f"gibbon.datasets.registered.{_name.replace('-', '_')}"
    DATASETS.register(Entry(_name, _summary, lazily(f"{_module}:load")))

__all__ = ["DATASETS", "DataRequest", "DatasetLoader", "Split"]

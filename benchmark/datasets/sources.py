"""From a spec to a dataset: a registered name, a path told by what it is, or a factory."""

from __future__ import annotations

from benchmark.datasets import DATASETS, DataRequest
from benchmark.datasets.base import Dataset
from benchmark.specs import DatasetSpec


def check_dataset(spec: DatasetSpec, *, where: str) -> None:
    """Refuses a spec whose source does not exist, before anything is loaded."""
    DATASETS.get(spec.source, where=where)


def open_dataset(spec: DatasetSpec, request: DataRequest) -> Dataset:
    """Returns the dataset of a spec.  Raises a `RequestError` that names source and cure."""
    return DATASETS.load(spec.source)(request)

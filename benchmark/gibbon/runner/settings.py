"""Settings of a run: how it is carried out, not what is measured.  No torch is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gibbon.datasets import DataRequest
from gibbon.specs.base import Precision


@dataclass(frozen=True)
class RunOptions:
    """How to run what was asked for; None is what is chosen by default."""

    output: Path | None = None
    device: str = "auto"
    batch_size: int | None = None
    precision: Precision = "float32"
    compile: bool = False
    models_in_memory: int | None = None
    workers: int | None = None
    skip_unreadable: bool = False
    limit: int | None = None
    fresh: bool = False
    data_dir: Path | None = None
    offline: bool = False
    pictures: bool = True


SAVE_EVERY = 10.0


@dataclass(frozen=True)
class RunSettings:
    """How to run a suite: none of this changes a result beyond float rounding, but ``limit``.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        batch_size: examples in one pass; if None chosen by the size of an input and what is free,
            and halved where memory runs out.
        precision: what the model computes in; ``"bfloat16"`` is another model to the records.
        compile: whether models go through ``torch.compile``.
        models_in_memory: how many models are kept on the device at once; what fits if None.
        workers: processes that decode pictures; chosen by the number of processors if None.
        skip_unreadable: leave out examples that can't be read, whatever the suite says.
        limit: take this many examples of each dataset (see `sample_ids`); all if None.
        fresh: throw away what is recorded and compute everything again.
        data_folder: where datasets that are not embedded are looked for and downloaded to.
        download: whether a dataset that is not there may be fetched.
        save_every: seconds between two savings of a job under way.
        pictures: keep pictures of a few examples of each attack (see `gibbon.runner.gallery.select`).
    """

    device: str = "auto"
    batch_size: int | None = None
    precision: Precision = "float32"
    compile: bool = False
    models_in_memory: int | None = None
    workers: int | None = None
    skip_unreadable: bool = False
    limit: int | None = None
    fresh: bool = False
    data_folder: Path = DataRequest.folder
    download: bool = True
    save_every: float = SAVE_EVERY
    pictures: bool = False

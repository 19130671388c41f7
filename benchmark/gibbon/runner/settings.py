"""Settings of a run: how it is carried out, not what is measured.  No torch is imported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Literal, get_args

from gibbon.core.errors import SpecError
from gibbon.datasets import DataRequest
from gibbon.specs.keep_examples import KeepExamples, parse_keep_examples

Precision = Literal["float32", "bfloat16"]
Bounding = Literal["cheap", "all", "none"]
ExecutorName = Literal["in-process", "processes", "ray"]
SAVE_EVERY = 10.0

# The smallest value of each setting that is a count.
LEAST = {
    **{"batch_size": 1, "models_in_memory": 1, "decoders": 0, "workers": 1, "limit": 1},
    "cell_memory": 1,
}
OF_WORKERS = ("workers", "address", "gpus_per_worker")


@dataclass(frozen=True)
class RunSettings:
    """How to run a suite; beyond float rounding, only ``limit`` and ``precision`` change results.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        batch_size: examples in one pass; if None, estimated from the size of an input and the free
            memory, and halved if memory runs out.
        precision: number format that models compute in; results in ``"bfloat16"`` are recorded as
            those of another model.
        channels_last: whether pictures and kernels of convolutions are stored with the channels
            next to each other, which is faster on some devices.
        compile: whether models are compiled with ``torch.compile``, for a few sizes of batches to
            which smaller ones are padded (see `gibbon.runner.device.compiled`).
        models_in_memory: models kept on the device at once; as many as fit if None.
        decoders: processes that decode images; derived from the number of processors if None.
        executor: where attacks are computed: in this process (``"in-process"``), in worker
            processes of this machine (``"processes"``) or by actors of Ray (``"ray"``); if None,
            in worker processes if ``workers`` is given, else in this process.
        workers: number of workers of an executor; chosen by it if None.
        address: address of the Ray cluster to join, or ``"auto"``; a local Ray if None.
        gpus_per_worker: GPUs of each worker of Ray, which may be a fraction; 1 if the device is a
            GPU, else 0, if None.
        skip_unreadable: leave out examples that can't be read, whatever the suite says.
        limit: evaluate this many examples of each dataset (see `sample_ids`); all if None.
        fresh: discard recorded outcomes and compute everything again.
        repair: make ``run.json`` again from the outcomes, if it is damaged or missing.
        data_folder: folder of datasets that are not embedded, and of downloads.
        download: whether a missing dataset may be downloaded.
        save_every: seconds between two intermediate saves of a running job.
        certify: certified bounds to compute: those that cost little next to the attacks
            (``"cheap"``), ``"all"`` or ``"none"``; what the suite says if None, else the cheap ones
            (see `gibbon.runner.proofs.plan_proofs`).
        pictures: store images of a few examples of each attack (see
            `gibbon.runner.gallery.select`).
        examination: examine each model before it is attacked (see
            `gibbon.diagnostics.examination`); without it a flag is raised.
        keep_examples: adversarial examples to keep in the run's folder: ``"all"``,
            ``"misclassified"`` or a number of each cell; what the suite says if None, else none
            (see `gibbon.runner.kept_examples`).
        isolate: run each attack and each model in a process of its own, so that one that exits,
            crashes or never ends fails its own cell alone (see
            `gibbon.runner.own_processes.process_limits`); what the suite says if None, else not.
        cell_timeout: seconds that a cell may take in its process; what the suite says if None.
        cell_memory: bytes that the process of a cell may take beside what it shares with the run;
            what the suite says if None.

    Raises `SpecError` if a value is impossible, naming the field.  Whether the device exists is
    checked when a plan is made.
    """

    device: str = "auto"
    batch_size: int | None = None
    precision: Precision = "float32"
    channels_last: bool = False
    compile: bool = False
    models_in_memory: int | None = None
    decoders: int | None = None
    executor: ExecutorName | None = None
    workers: int | None = None
    address: str | None = None
    gpus_per_worker: float | None = None
    skip_unreadable: bool = False
    limit: int | None = None
    fresh: bool = False
    repair: bool = False
    data_folder: Path = DataRequest.folder
    download: bool = True
    save_every: float = SAVE_EVERY
    certify: Bounding | None = None
    pictures: bool = False
    examination: bool = True
    keep_examples: KeepExamples | None = None
    isolate: bool | None = None
    cell_timeout: float | None = None
    cell_memory: int | None = None

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            number = getattr(self, name)
            if number is None:
                continue
            if not isinstance(number, Integral) or isinstance(number, bool):
                raise SpecError(f"must be a whole number, got {number!r}", where=name)
            if number < least:
                raise SpecError(f"must be at least {least}, got {number}", where=name)
        if self.precision not in get_args(Precision):
            expected = " or ".join(get_args(Precision))
            raise SpecError(f"must be {expected}, got {self.precision!r}", where="precision")
        if self.certify is not None and self.certify not in get_args(Bounding):
            expected = ", ".join(get_args(Bounding))
            raise SpecError(f"must be one of {expected}, got {self.certify!r}", where="certify")
        if self.executor is not None and self.executor not in get_args(ExecutorName):
            expected = " or ".join(get_args(ExecutorName))
            raise SpecError(f"must be {expected}, got {self.executor!r}", where="executor")
        self._check_workers()
        if self.keep_examples is not None:
            try:
                object.__setattr__(self, "keep_examples", parse_keep_examples(self.keep_examples))
            except ValueError as error:
                raise SpecError(
                    f"must be {error}, got {self.keep_examples!r}", where="keep_examples"
                ) from error
        seconds = self.cell_timeout
        if seconds is not None and not (
            isinstance(seconds, int | float)
            and not isinstance(seconds, bool)
            and 0 < seconds < math.inf
        ):
            raise SpecError(f"must be positive seconds, got {seconds!r}", where="cell_timeout")

    def _check_workers(self) -> None:
        gpus = self.gpus_per_worker
        if gpus is not None and not (
            isinstance(gpus, int | float) and not isinstance(gpus, bool) and 0 <= gpus < math.inf
        ):
            raise SpecError(f"must be a number of GPUs, got {gpus!r}", where="gpus_per_worker")
        if self.address is not None and not self.address.strip():
            raise SpecError("must be an address, or auto, got nothing", where="address")
        for name in OF_WORKERS:
            given, kind = getattr(self, name), self.execution
            if given is not None and (
                kind == "in-process" or (name != "workers" and kind != "ray")
            ):
                expected = "ray or processes" if name == "workers" else "ray"
                raise SpecError(f"is for the executor {expected}, not {kind}", where=name)

    @property
    def execution(self) -> ExecutorName:
        """The executor that is used."""
        if self.executor is not None:
            return self.executor
        return "in-process" if self.workers is None else "processes"

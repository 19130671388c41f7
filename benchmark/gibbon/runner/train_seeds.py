"""Trains a model once for each of several seeds, one after another or side by side.

Each seed has a folder of its own, with its checkpoints: a request that is repeated continues every
training that was interrupted, and repeats none that is finished.  Trainings side by side run in
processes of one thread each.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gibbon.core.errors import RequestError, RunFolderError, SpecError
from gibbon.core.registry import their_code
from gibbon.models.registry import TRAINERS, TrainingProgress, TrainingRequest, TrainingResult

REPORT_SECONDS = 0.5  # between two reports of one process, and two looks at their queue
ENDED = TrainingProgress(step=0, steps=0, epoch=0, epochs=0, loss=0.0)  # the last report of a seed
SeedReport = Callable[[int, TrainingProgress], None]


def parse_seeds(text: str) -> list[int]:
    """Returns the seeds of a list of numbers and ranges.  Raises `SpecError`.

    >>> parse_seeds("0,1,5-7")
    [0, 1, 5, 6, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise SpecError(
                f"seeds are numbers and ranges such as 0,1,2 or 0-4, got {text!r}", where="--seeds"
            )
        seeds += range(int(first), int(last or first) + 1)
    if not seeds or len({*seeds}) < len(seeds):
        fault = "names a seed twice" if seeds else "names no seed"
        raise SpecError(f"{text!r} {fault}", where="--seeds")
    return seeds


def seed_folder(output: Path, seed: int) -> Path:
    """Returns the folder of a seed's training.

    >>> seed_folder(Path("checkpoints/maxout"), 2).as_posix()
    'checkpoints/maxout/seed-2'
    """
    return output / f"seed-{seed}"


def train_seeds(
    model: str,
    request: TrainingRequest,
    *,
    seeds: Sequence[int],
    parallel: int | None = None,
    report: SeedReport = lambda seed, progress: None,
) -> list[TrainingResult]:
    """Trains a model once for each seed and returns the results in the order of the seeds.

    Args:
        model: name of a model with a recipe.
        request: the request for each of them; its output is the folder of their folders, and its
            seed and report are not used.
        seeds: different seeds.
        parallel: number of trainings at a time, each in a process of one thread; if None, they run
            one after another in this process, with its threads.  Results depend on the number of
            threads in the last digits.
        report: called with a seed and the progress of its training, and with `ENDED` after it.

    Raises `UnknownNameError` before anything is trained, and afterwards the error of a training
    that failed; the others are finished first.
    """
    trainer = TRAINERS.load(model)
    jobs = [_Job(model, seed, _of_seed(request, seed)) for seed in seeds]
    if parallel is not None:
        return _side_by_side(jobs, min(parallel, len(jobs)), report)
    results: list[TrainingResult | RequestError] = []
    for job in jobs:
        try:
            with their_code(f"the trainer of {job.model!r} failed"):
                results.append(trainer(replace(job.request, report=partial(report, job.seed))))
        except RequestError as error:
            results.append(error)
        report(job.seed, ENDED)
    return _checked(results, seeds)


def _of_seed(request: TrainingRequest, seed: int) -> TrainingRequest:
    events = request.tensorboard
    if events is not None and events.is_absolute():  # else it is inside of the output folder
        events = seed_folder(events, seed)
    output = seed_folder(request.output, seed)
    return replace(request, output=output, seed=seed, tensorboard=events)


@dataclass(frozen=True)
class _Job:
    model: str
    seed: int
    request: TrainingRequest


def _checked(
    results: Sequence[TrainingResult | RequestError], seeds: Sequence[int]
) -> list[TrainingResult]:
    failed = [
        f"seed {seed}: {result}"
        for seed, result in zip(seeds, results, strict=True)
        if isinstance(result, RequestError)
    ]
    if failed:
        raise RunFolderError("; ".join(failed))
    return [result for result in results if isinstance(result, TrainingResult)]


def _side_by_side(jobs: Sequence[_Job], workers: int, report: SeedReport) -> list[TrainingResult]:
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    line = _SeedConnection(context.Queue(), context.Event(), os.getpid())
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(line,)
    ) as pool:
        # A report can't be sent to another process: each makes its own.  No core is left to decode
        # images on.
        futures = [
            pool.submit(
                _train, replace(job, request=replace(job.request, report=_no_report, decoders=0))
            )
            for job in jobs
        ]
        try:
            _relay(dict(zip(futures, jobs, strict=True)), line.reports, report)
        except BaseException:
            line.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return _checked([future.result() for future in futures], [job.seed for job in jobs])


def _relay(jobs: Mapping[Future[Any], _Job], reports: Any, report: SeedReport) -> None:
    """Passes reports on until all trainings have ended."""
    running: set[Future[Any]] = {*jobs}
    while running:
        ended, running = wait(running, timeout=REPORT_SECONDS)
        with suppress(queue.Empty):
            while True:
                report(*reports.get_nowait())
        for future in ended:
            report(jobs[future].seed, ENDED)


def _no_report(progress: TrainingProgress) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class _SeedConnection:
    """The connection of a process that trains with the one that started it."""

    reports: Any
    stop: Any
    starter: int


_line: _SeedConnection | None = None  # of this process, if it trains


def _start(line: _SeedConnection) -> None:
    global _line
    _line = line
    torch.set_num_threads(1)


def _train(job: _Job) -> TrainingResult | RequestError:
    """Trains in a separate process."""
    line, reported = _line, 0.0
    if line is None:
        raise RuntimeError("this process was not started to train")

    def send(progress: TrainingProgress) -> None:
        nonlocal reported
        if os.getppid() != line.starter:
            os._exit(1)  # nobody waits for a result, or would end this process
        if line.stop.is_set():
            raise SystemExit("interrupted")
        now = time.monotonic()
        if now - reported >= REPORT_SECONDS or progress.step == progress.steps or progress.note:
            reported = now
            line.reports.put((job.seed, progress))

    try:
        with their_code(f"the trainer of {job.model!r} failed"):
            return TRAINERS.load(job.model)(replace(job.request, report=send))
    except RequestError as error:
        # The class of an error may not survive the way back; its message does.
        return RunFolderError(str(error))

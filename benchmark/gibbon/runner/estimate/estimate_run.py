"""Estimates the passes, the time, the memory and the disk space that a run will take.

The models' passes are timed at the run's batch size.  Their number follows from the plan; how many
examples an attack that stops early leaves is estimated by a short attack on a few, with a range.
Nothing is written.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np

from gibbon.attacks.base import Attack
from gibbon.core.errors import ModelError
from gibbon.diagnostics.examination.examine import budget_of_run
from gibbon.models.memory import FLOAT_BYTES, INPUT_COPIES, PASSES, BatchSize, give_back
from gibbon.runner.estimate.attack_passes import NONE, ONE, NumberRange, SearchPasses, search_passes
from gibbon.runner.estimate.parallel import Parallel, parallel_of
from gibbon.runner.estimate.survivors import SurvivorShares, after
from gibbon.runner.estimate.timing import SECONDS, ModelTimes, time_model
from gibbon.runner.execute.jobs import Job, find_jobs
from gibbon.runner.failures.boundary import Attempt, TooLarge, boundary, described
from gibbon.runner.kept_examples.choice import most_kept
from gibbon.runner.model_checks.examine_models import passes_of as run_passes
from gibbon.runner.no_class.measure import missing_answers
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Cell, Plan, PlannedExperiment
from gibbon.runner.plan.selection import read_batch
from gibbon.runner.proofs.plan_proofs import wanted_bounds
from gibbon.runner.run_folder import RunFolder

try:
    import resource
except ImportError:  # there is none on Windows
    resource = None  # type: ignore[assignment]

# Outcomes are about 14 bytes a row and 8 kB a file; then come a cell's rows in tables and
# TensorBoard, and its pictures.
ROW_BYTES, FILE_BYTES, REPORT_BYTES, PICTURE_BYTES = 14, 8_000, 15_000, 40_000
FIXED_BYTES = 150_000
REPORT_MEMORY = 180_000_000  # of what is loaded and held to count and to write the report
CELL_SECONDS, ROW_SECONDS = 0.03, 3e-6  # to count a cell, and to write and draw from its rows
FIXED_SECONDS = NumberRange(1.0, 2.0, 5.0)  # of the record
CHEAP_BOUNDS = NumberRange(0.0, 0.01, 0.1)  # share of the attacks' time
WORKERS_SECONDS = NumberRange(0.5, 2.0, 6.0)  # to start, and to load what they need
EXAMINED = NumberRange(0.2, 0.6, 1.0)  # of the passes that an examination may make
EXAMINED_TOGETHER = 16  # examples of most of its passes


@dataclass(frozen=True)
class ModelEstimate:
    """The times of one model, and the estimated time of the jobs that attack it."""

    dataset: str
    name: str
    batch: int
    forward: float
    backward: float
    seconds: NumberRange


@dataclass(frozen=True)
class RunEstimate:
    """The estimate of a run, or of a shard of it.

    Args:
        cells: number of cells to compute.
        reused: number of cells that are recorded already.
        forward, backward: passes, by example.
        seconds: time from the plan to the record.
        memory: bytes of this process and its workers at most.
        device_memory: bytes on each device that is not the processor, else 0.
        disk: bytes of the folder.
        examples: bytes of the adversarial examples that are kept at most.
        scratch: bytes of candidates that wait on disk for their targets at most.
        models: the models, each with its times.
        notes: what the estimate leaves out.
        workers: workers that the time is divided by; 0 if the run has none.
    """

    cells: int
    reused: int
    forward: NumberRange
    backward: NumberRange
    seconds: NumberRange
    memory: int
    device_memory: int
    disk: int
    examples: int
    scratch: int
    models: tuple[ModelEstimate, ...]
    notes: tuple[str, ...] = ()
    workers: int = 0


@dataclass(frozen=True)
class _Cost:
    """Passes and seconds of a part of a run."""

    forward: NumberRange = NONE
    backward: NumberRange = NONE
    seconds: NumberRange = NONE

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(
            self.forward + other.forward,
            self.backward + other.backward,
            self.seconds + other.seconds,
        )

    def divided(self, share: float) -> _Cost:
        """Returns the cost if the work takes this share of its time."""
        return replace(self, seconds=self.seconds.times(share))


def estimate_run(plan: Plan, folder: RunFolder, *, seconds: float = SECONDS) -> RunEstimate:
    """Returns the estimate of what a plan lacks in a folder, which may not exist.

    Args:
        plan: the plan; that of a shard for the estimate of a shard.
        folder: where the run would go; it is only read.
        seconds: time for each timing of a model: two for each model.

    Raises `ModelError` for whatever a model raises when it is timed.
    """
    return _Estimation(plan, folder, seconds).estimate()


@dataclass
class _Estimation:
    plan: Plan
    folder: RunFolder
    seconds: float
    shares: SurvivorShares = field(init=False)
    parallel: Parallel = field(init=False)
    times: dict[tuple[str, str], ModelTimes] = field(default_factory=dict)
    by_model: dict[tuple[str, str], NumberRange] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shares = SurvivorShares(self.plan)
        self.parallel = parallel_of(self.plan.settings, self.plan.device)

    def estimate(self) -> RunEstimate:
        plan, folder = self.plan, self.folder
        folder.examples = {
            part.digest: experiment.ids
            for experiment in plan.experiments
            for cell in experiment.cells
            for part in (cell, *cell.members)
        }
        jobs = [each for each in find_jobs(plan, folder) if len(each.experiment.ids)]
        answers = [each for each in missing_answers(plan, folder) if len(each.experiment.ids)]
        total = reduce(_Cost.__add__, [self._job(each) for each in jobs], _Cost())
        if wanted_bounds(plan) == "cheap":
            total += _Cost(seconds=total.seconds * CHEAP_BOUNDS)
        for each in answers:
            made = NumberRange.exactly(each.work * len(each.experiment.ids))
            times = self._times(each.experiment, each.source)
            spent = self._passes(times, made, NONE, made.times(1 / times.batch), 0)
            self._note(each.experiment, each.source, spent.seconds)
            total += spent
        if jobs and plan.settings.examination:
            total += self._examinations()
        planned = {cell.digest for cell in plan.cells}
        cells = [
            cell
            for job in jobs
            for cell in job.cells
            if cell.digest in planned and cell.digest not in job.again
        ]
        rows = sum(len(each.targets) * self._count(each) for each in cells)
        fixed = FIXED_SECONDS.times(1.0 if cells or answers else 0.1)
        counted = NumberRange.exactly(CELL_SECONDS * len(cells) + ROW_SECONDS * rows)
        if jobs and self.parallel.workers:
            fixed += WORKERS_SECONDS
        whole = sum(len(each.cells) for each in self._with_examples()) + len(answers)
        return RunEstimate(
            cells=len(cells) + len(answers),
            reused=whole - len(cells) - len(answers),
            forward=total.forward,
            backward=total.backward,
            seconds=total.seconds + counted + fixed,
            memory=self._memory(),
            device_memory=0 if plan.device.type == "cpu" else self._device_bytes(),
            disk=self._disk(cells, rows, answers=len(answers)),
            examples=most_kept(plan) if jobs else 0,
            scratch=self._scratch(jobs),
            models=tuple(self._models()),
            notes=tuple(self._notes()),
            workers=self.parallel.workers,
        )

    def _with_examples(self) -> list[PlannedExperiment]:
        """Returns the experiments of which the run, or the shard, has examples."""
        return [each for each in self.plan.experiments if len(each.ids)]

    def _count(self, cell: Cell) -> int:
        ids = self.folder.examples.get(cell.digest)
        return 0 if ids is None else len(ids)

    def _job(self, job: Job) -> _Cost:
        """Returns the cost of a job."""
        experiment, source = job.experiment, job.source
        cells = {part.digest: part for cell in experiment.cells for part in (*cell.members, cell)}
        earlier = cells.get(job.follows) if job.follows is not None else None
        left = ONE if earlier is None else after(earlier, experiment, self.shares, cells)
        examples = left.times(len(experiment.ids))
        attacked = [cell for cell in job.cells if cell.attack is not None]
        cost = _Cost()
        if job.unattacked and not _looks_at_clean(job):
            cost += self._forward(experiment, source, NumberRange.exactly(len(experiment.ids)))
        if job.attack is not None:
            searches = 1 if job.attack.shares_work else len(attacked)
            parts: tuple[Attack, ...] = job.attack.attack.made_of or (job.attack.attack,)
            survive = after(attacked[-1], experiment, self.shares, cells)
            reached, before = examples, left
            for part in parts:
                kept = _ratio(survive, before)
                made = search_passes(part, source.card.classes)
                one = self._search(job, made, reached, kept, tries=len(attacked) // searches)
                for _ in range(searches):
                    cost += one
                if len(parts) > 1:  # the members of a list attack what the others left
                    reached, before = reached * kept, survive
        count = math.ceil(examples.likely)
        divided = self.parallel.share(count, job.batch_size.now)
        cost = cost.divided(divided)
        self._note(experiment, source, cost.seconds)
        together = self.plan.pool.fits(each.handle for each in job.models)
        for cell in job.cells:
            for target in cell.others:
                scored = self._forward(experiment, target, examples)
                scored = scored.divided(divided if together else 1.0)
                self._note(experiment, target, scored.seconds)
                cost += scored
        return cost

    def _search(
        self, job: Job, made: SearchPasses, examples: NumberRange, kept: NumberRange, *, tries: int
    ) -> _Cost:
        """Returns the cost of one search for some examples, of which a share is kept."""
        assert job.attack is not None  # noqa: S101  for the type checker
        times = self._times(job.experiment, job.source)
        batch = self.parallel.batch(math.ceil(examples.likely), job.batch_size.now)
        fooled = NumberRange(1 - kept.high, 1 - kept.likely, 1 - kept.low)
        stopped = NumberRange(fooled.high, fooled.likely, fooled.low) * made.early
        share = NumberRange(
            min(1.0, kept.low + stopped.low),
            min(1.0, kept.likely + stopped.likely),
            min(1.0, kept.high + stopped.high),
        )
        batches = examples.times(1 / batch)
        calls = made.forward * NumberRange(
            *(math.ceil(each) if each > 0 else 0.0 for each in _values(batches))
        )
        eot = job.attack.eot
        forward = (examples * share * made.forward).times(eot)
        backward = (examples * share * made.backward).times(eot)
        judged = examples.times(made.tries * tries * job.source.draws)
        searched = self._passes(times, forward, backward, calls.times(eot), made.operations)
        return searched + self._passes(times, judged, NONE, batches, 2 * made.operations)

    def _forward(
        self, experiment: PlannedExperiment, model: LoadedModel, examples: NumberRange
    ) -> _Cost:
        times = self._times(experiment, model)
        made = examples.times(model.draws)
        return self._passes(times, made, NONE, made.times(1 / times.batch), 5)

    def _passes(
        self,
        times: ModelTimes,
        forward: NumberRange,
        backward: NumberRange,
        calls: NumberRange,
        operations: int,
    ) -> _Cost:
        """Returns the cost of passes in so many calls, with an attack's elementwise operations."""
        ratio = backward.likely / forward.likely if forward.likely else 0.0
        call = times.forward.call + ratio * times.backward.call
        call += operations * times.operation.call
        seconds = (
            forward.times(times.forward.example + operations * times.operation.example)
            + backward.times(times.backward.example)
            + calls.times(call)
        )
        return _Cost(forward, backward, seconds)

    def _examinations(self) -> _Cost:
        cost = _Cost()
        for experiment in self._with_examples():
            for model in experiment.models:
                times = self._times(experiment, model)
                budget = budget_of_run(run_passes(experiment, model))
                made = EXAMINED.times(budget / 2)
                calls = made.times(1 / EXAMINED_TOGETHER)
                cost += self._passes(times, made, made, calls, 0)
        return cost

    def _times(self, experiment: PlannedExperiment, model: LoadedModel) -> ModelTimes:
        key = experiment.spec.dataset.name, model.name
        if key not in self.times:
            size = copy(experiment.batch_sizes[model.name])  # the run finds its own
            found = self._timed(experiment, model, size)
            while found is None:
                give_back(self.plan.device)
                found = self._timed(experiment, model, size)
            self.times[key] = found
        return self.times[key]

    def _timed(
        self, experiment: PlannedExperiment, model: LoadedModel, size: BatchSize
    ) -> ModelTimes | None:
        """Returns the times of a model; None if memory ran out, with the size halved.

        Raises `ModelError` for what the model raises.
        """
        ids = experiment.ids[: size.now]
        batch = read_batch(experiment.dataset, ids).to(self.plan.device)
        self.plan.pool.load([model.handle])
        gradients = any(each.attack.needs_gradient for each in experiment.attacks)
        raised: list[BaseException] = []
        attempt = Attempt(len(ids), size.now, size.may_halve(len(ids)))
        try:
            with boundary(raised.append, attempt), self.parallel.one_worker():
                return time_model(
                    model.classifier, batch.inputs, seconds=self.seconds, backward=gradients
                )
        except TooLarge:
            size.halve(len(ids))
            return None
        raise ModelError(
            f"model {model.name!r}: it failed on {len(ids)} examples of "
            f"{experiment.spec.dataset.name!r} when its passes were timed: {described(raised[0])}"
        ) from raised[0]

    def _note(
        self, experiment: PlannedExperiment, model: LoadedModel, seconds: NumberRange
    ) -> None:
        key = experiment.spec.dataset.name, model.name
        self.by_model[key] = self.by_model.get(key, NONE) + seconds

    def _models(self) -> Iterator[ModelEstimate]:
        for (dataset, name), times in self.times.items():
            count = times.batch
            yield ModelEstimate(
                dataset,
                name,
                count,
                times.forward.of(count, batch=count) / count,
                times.backward.of(count, batch=count) / count,
                self.by_model.get((dataset, name), NONE),
            )

    def _memory(self) -> int:
        """Returns the bytes of this process and of its workers, which load what it has loaded."""
        resident, batch = _resident(), self._batch_bytes(on="cpu")
        if not self.parallel.workers:
            return resident + REPORT_MEMORY + batch
        return resident + REPORT_MEMORY + self.parallel.workers * (resident + batch)

    def _batch_bytes(self, *, on: str) -> int:
        """Returns the bytes of the largest batch: saved tensors, copies of inputs, gradients.

        They are 0 if the run's device is not of the type ``on``.
        """
        if self.plan.device.type != on:
            return 0
        found = [0]
        for experiment in self.plan.all_experiments:
            numbers = math.prod(experiment.dataset.input_shape)
            for model in experiment.models:
                count = min(experiment.batch_sizes[model.name].now, max(1, len(experiment.ids)))
                one = PASSES * model.probed.kept + INPUT_COPIES * FLOAT_BYTES * numbers
                found.append(count * one)
        return max(found)

    def _device_bytes(self) -> int:
        handles = {
            id(model.handle): model.handle.size
            for experiment in self.plan.all_experiments
            for model in experiment.models
        }
        one = sum(handles.values()) + self._batch_bytes(on=self.plan.device.type)
        return one * self.parallel.on_device

    def _disk(self, cells: list[Cell], rows: int, *, answers: int) -> int:
        files = sum(len(each.members) or 1 for each in cells) + answers
        pictures = PICTURE_BYTES if self.plan.settings.pictures else 0
        more = len(cells) * (REPORT_BYTES + pictures)
        return FIXED_BYTES + ROW_BYTES * rows + FILE_BYTES * files + more

    def _scratch(self, jobs: list[Job]) -> int:
        """Returns the bytes of candidates that wait for targets that are not in memory."""
        return sum(
            int(np.float32().nbytes)
            * math.prod(job.experiment.dataset.input_shape)
            * len(job.experiment.ids)
            * sum(bool(cell.others) for cell in job.cells)
            for job in jobs
            if not self.plan.pool.fits(each.handle for each in job.models)
        )

    def _notes(self) -> Iterator[str]:
        if wanted_bounds(self.plan) == "all":
            yield "certified bounds (certify) are not included"


def _looks_at_clean(job: Job) -> bool:
    """Returns whether the first pass of the job's attack gives the clean prediction."""
    return job.attack is not None and job.attack.shares_work and job.attack.attack.needs_gradient


def _ratio(left: NumberRange, of: NumberRange) -> NumberRange:
    """Returns the share that is left of a share, each end with the same end."""
    pairs = zip(_values(left), _values(of), strict=True)
    low, likely, high = (min(1.0, one / two) if two > 0 else 0.0 for one, two in pairs)
    return NumberRange(low, likely, high)


def _values(spread: NumberRange) -> tuple[float, float, float]:
    return spread.low, spread.likely, spread.high


def _resident() -> int:
    """Returns the bytes that this process has held at most so far; 0 if that is unknown."""
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit

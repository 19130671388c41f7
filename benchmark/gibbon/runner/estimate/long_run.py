"""Says how long a run will take before it starts, if it takes long."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from gibbon.core.errors import ProcessEndedError
from gibbon.diagnostics.examination.examine import undisturbed
from gibbon.runner.estimate.attack_passes import NumberRange
from gibbon.runner.estimate.estimate_run import estimate_run
from gibbon.runner.estimate.range_text import duration
from gibbon.runner.execute.jobs import Job
from gibbon.runner.failures.boundary import boundary
from gibbon.runner.no_class.plan_no_class import PlannedAnswers
from gibbon.runner.own_processes.worker import Worker
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Plan
from gibbon.runner.plan.selection import read_batch
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import SILENT, Progress

LONG = 600.0  # seconds of a run whose estimate is given first
FEWEST_PASSES = 5_000  # by example: with fewer the time of the probe must do for an estimate
TIMED = 0.2  # seconds of a timing
PASS_FACTOR = 4  # of a forward pass, for a backward pass and for what an attack does beside them
LOOKS = (1, 64)  # examples of a forward pass that is timed; the share of each is less in a batch


def long_run_note(
    plan: Plan,
    folder: RunFolder,
    jobs: Sequence[Job],
    answers: Sequence[PlannedAnswers],
    worker: Worker,
) -> str:
    """Returns a sentence with the estimate of a run that takes over ten minutes, else an empty one.

    The time of the probe that each model was loaded with says whether it may; if so, a look at
    single examples, then at small batches, if there are so many passes that these are few beside
    them.  Whatever goes wrong here goes wrong in the run, too, and is reported there.
    """
    bounds = [
        *(_bound(each, each.models) for each in jobs),
        *(_bound(each, [each.source]) for each in answers),
    ]
    seconds = sum(bounds)
    if seconds <= LONG:
        return ""
    if count_passes(jobs) + count_passes(answers) < FEWEST_PASSES:
        return f"this run takes up to about {duration(NumberRange.exactly(seconds))}"

    def work(_: Progress) -> str:
        if jobs and any(_at_most(plan, jobs, count) < LONG for count in LOOKS):
            return ""
        seconds = estimate_run(plan, folder, seconds=TIMED).seconds
        return f"this run takes about {duration(seconds)}" if seconds.likely > LONG else ""

    found: list[str] = []
    with boundary(lambda error: found.append("")):
        try:
            found.append(worker.run(work, SILENT))
        except ProcessEndedError:
            found.append("")
    return found[0]


def count_passes(parts: Sequence[Job] | Sequence[PlannedAnswers]) -> int:
    """Returns the number of passes of the parts of a run, by example."""
    return sum(each.work * len(each.experiment.ids) for each in parts)


def _bound(work: Job | PlannedAnswers, models: Iterable[LoadedModel]) -> float:
    """Returns about the largest number of seconds of a part of a run, by the slowest model's probe.

    Args:
        work: the part.
        models: the models that take part.
    """
    experiment = work.experiment
    sizes = experiment.batch_sizes
    slowest = max(
        model.probed.seconds_each(sizes[model.name].now if model.name in sizes else 1)
        for model in models
    )
    return PASS_FACTOR * work.work * len(experiment.ids) * slowest


def _at_most(plan: Plan, jobs: Sequence[Job], count: int) -> float:
    """Returns about the largest number of seconds that jobs may take, by passes of ``count``.

    Models that are not loaded count as the slowest of those that are: to load them only for a look
    at one example would take longer than the look.
    """
    times: dict[tuple[str, str], float] = {}
    for job in jobs:
        key = _place(job)
        if key not in times and plan.pool.has_loaded(job.source.handle):
            times[key] = _seconds(job, plan, count)
    if not times:
        times[_place(jobs[0])] = _seconds(jobs[0], plan, count)
    slowest = max(times.values())
    return sum(
        PASS_FACTOR * job.work * len(job.experiment.ids) * times.get(_place(job), slowest)
        for job in jobs
    )


def _place(job: Job) -> tuple[str, str]:
    return job.experiment.data_digest, job.source.digest


def _seconds(job: Job, plan: Plan, count: int) -> float:
    """Returns the seconds of a forward pass for each of at most ``count`` examples."""
    count = min(count, job.batch_size.now)
    batch = read_batch(job.experiment.dataset, job.experiment.ids[:count]).to(plan.device)
    plan.pool.load([job.source.handle])
    classifier = job.source.classifier
    with undisturbed(classifier, plan.device), classifier.uncounted(), classifier.off_path():
        classifier.predict(batch.inputs)
        started = time.perf_counter()
        classifier.predict(batch.inputs)
        return (time.perf_counter() - started) / len(batch.inputs)

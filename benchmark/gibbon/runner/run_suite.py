"""Runs a suite: plans it, computes the cells without an outcome, counts, and writes the record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RunFolderError
from gibbon.core.global_state import calculating
from gibbon.records.acceptance import check_kinds
from gibbon.records.no_class_answers import answers_file
from gibbon.records.run import (
    RUN_FILE,
    Provenance,
    RunRecord,
)
from gibbon.runner.check_survivors import check_survivors
from gibbon.runner.examine_models import examine_at_candidates, examine_models
from gibbon.runner.execute.jobs import Job, find_jobs
from gibbon.runner.execute.run_job import Execution
from gibbon.runner.finished import finished_record, remember_inputs
from gibbon.runner.gallery.recover import recover_galleries
from gibbon.runner.lost import counted_cells, lost_results
from gibbon.runner.make_record import make_record
from gibbon.runner.no_class.measure import measure_no_class, missing_answers
from gibbon.runner.no_class.plan_no_class import PlannedAnswers, plan_answers
from gibbon.runner.own_process import in_own_process, requesting
from gibbon.runner.plan.make_plan import make_plan
from gibbon.runner.plan.planned import NOTHING_SUPPLIED, Plan, Supplied
from gibbon.runner.process_limits import NO_LIMITS, check_isolation, limits_of
from gibbon.runner.progress import SILENT, Progress
from gibbon.runner.proofs.check_proofs import with_proofs
from gibbon.runner.proofs.prove import prove_all
from gibbon.runner.proofs.published_proofs import check_published_proofs
from gibbon.runner.provenance import now, provenance
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_jobs import run_jobs
from gibbon.runner.settings import RunSettings
from gibbon.runner.worker import (
    IN_THIS_PROCESS,
    CountedProgress,
    InOwnProcesses,
    SentProgress,
    Worker,
    activity,
)
from gibbon.specs.suite import Suite

Publish = Callable[[RunRecord, Path], object]


@calculating()
def run_suite(
    suite: Suite,
    output: Path,
    *,
    settings: RunSettings,
    where: str = "",
    supplied: Supplied = NOTHING_SUPPLIED,
    progress: Progress = SILENT,
    publish: Publish | None = None,
) -> RunRecord:
    """Runs a suite and returns its record; recorded outcomes are not computed again.

    Args:
        suite: the suite.
        output: folder of ``run.json`` and the outcomes.
        settings: how the run is carried out.
        where: name of the suite in error messages, such as its path.
        supplied: models, datasets and attacks to use in place of those that the suite names.
        progress: receives the progress of the run.
        publish: writes tables and figures into the folder, while it is still locked.

    Raises a `RequestError` if the request is wrong, before anything is computed, and
    `RunFolderError` if the folder can't be used.
    """
    check_kinds(suite.accept, where=where or f"suite {suite.name}")
    request = _Request(suite, output, settings, where, supplied, publish)
    limits = limits_of(suite, settings)
    if limits is None:
        return request.run(progress, IN_THIS_PROCESS)
    check_isolation(settings, where=where)
    with requesting("the run"):
        return in_own_process(
            lambda send: request.run(SentProgress(send, limits.seconds), InOwnProcesses(limits)),
            limits=NO_LIMITS,
            heard=CountedProgress(progress).receive,
        )


@dataclass(frozen=True)
class _Request:
    """The arguments of `run_suite` but for its progress."""

    suite: Suite
    output: Path
    settings: RunSettings
    where: str
    supplied: Supplied
    publish: Publish | None

    def run(self, progress: Progress, worker: Worker) -> RunRecord:
        """Runs the suite, its attacks and models on a worker, and returns the record."""
        settings = self.settings
        plan = make_plan(
            self.suite, settings, where=self.where, supplied=self.supplied, progress=progress
        )
        check_published_proofs(plan)
        for sentence in dict.fromkeys(_notes(plan)):
            progress.note(sentence)
        opened = RunFolder.open(self.output, suite=self.suite.name, repair=settings.repair)
        with opened as folder, plan.pool:
            started, origin = time.monotonic(), provenance(plan)
            earlier = _claim(folder, plan, origin)
            record = finished_record(plan, folder, earlier, origin)
            cells = len(tuple(plan.cells)) + len(tuple(plan_answers(plan)))
            if record is None:
                computation = _Computation(plan, folder, progress, worker)
                record, reused = computation.record(earlier, origin)
            else:
                reused = cells
                progress.start(work=0, cells=0, reused=reused)
            finished = {
                "finished": now(),
                "seconds": time.monotonic() - started,
                "computed_cells": cells - reused,
                "reused_cells": reused,
            }
            origin = origin.model_copy(update=finished)
            record = record.model_copy(update={"provenance": origin})
            record.write(folder.path)
            remember_inputs(plan, folder, record)
            if self.publish is not None:
                with _unwritable_is_reported(folder.path):
                    self.publish(record, folder.path)
            return record


@dataclass(frozen=True)
class _Computation:
    """Computes what a run's folder lacks; ``worker`` runs attacks and models."""

    plan: Plan
    folder: RunFolder
    progress: Progress
    worker: Worker

    def record(self, earlier: RunRecord | None, origin: Provenance) -> tuple[RunRecord, int]:
        """Returns the record, and the number of cells that were reused.

        ``earlier`` is the record of an earlier run in the folder, if there is one.
        """
        plan, folder, progress, worker = self.plan, self.folder, self.progress, self.worker
        folder.counted = counted_cells(earlier)
        folder.examples = _examples(plan)
        lost = lost_results(plan, folder, earlier)
        if lost:
            progress.note(lost)
        known = earlier.examinations if earlier is not None else ()
        examined = examine_models(plan, folder, progress=progress, known=known, worker=worker)
        jobs, missing = find_jobs(plan, folder), missing_answers(plan, folder)
        if (jobs or missing) and earlier is not None:
            _mark_running(folder, earlier)
        computed, reused = _cells_to_compute(plan, jobs, missing)
        work = sum(job.work * len(job.experiment.ids) for job in jobs)
        work += sum(each.work * len(each.experiment.ids) for each in missing)
        progress.start(work=work, cells=computed, reused=reused)
        keeper = examined.candidates
        on = worker.sharing(keeper)
        failures = run_jobs(jobs, Execution(plan, folder, progress, keeper.around, on))
        failures += measure_no_class(missing, plan, folder, progress=progress, worker=worker)
        examined.survivors = check_survivors(plan, folder, examined, worker=worker)
        examine_at_candidates(plan, folder, examined, worker=worker)
        with activity(progress, "the certified bounds"):
            proofs = prove_all(plan, folder, progress=progress)
        if plan.settings.pictures:
            recover_galleries(plan, folder, progress=progress, worker=worker)
        record = make_record(plan, folder, examined, failures, origin)
        return with_proofs(record, plan, folder, proofs), reused


def _examples(plan: Plan) -> dict[str, NDArray[np.int64]]:
    """Returns the ids of each cell's examples, by its digest."""
    return {
        part.digest: experiment.ids
        for experiment in plan.experiments
        for cell in experiment.cells
        for part in (cell, *cell.members)
    }


@contextmanager
def _unwritable_is_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFolderError(f"{path}: can't be written: {error.strerror or error}") from error


def _claim(folder: RunFolder, plan: Plan, origin: Provenance) -> RunRecord | None:
    """Marks a new folder as this suite's, and discards recorded outcomes if the run is fresh.

    Returns the record of an earlier run whose results may be used; None if there is none.  Raises
    `RunFolderError` if the recorded suite has the same name, but neither a cell nor a dataset in
    common with this one.
    """
    if not (folder.path / RUN_FILE).exists():
        RunRecord(suite=plan.suite, status="running", provenance=origin).write(folder.path)
    record = RunRecord.read(folder.path)
    recorded = {row.digest for row in record.evaluations}
    recorded |= {row.digest for row in record.no_class}
    planned = {*(cell.digest for cell in plan.cells), *(each.digest for each in plan_answers(plan))}
    if record.suite != plan.suite and recorded.isdisjoint(planned):
        before, now = (
            {experiment.dataset.name for experiment in suite.experiments}
            for suite in (record.suite, plan.suite)
        )
        if recorded and not before & now:
            raise RunFolderError(
                f"{folder.path}: holds another suite of the name {plan.suite.name!r}, on "
                f"{', '.join(sorted(before))}; choose another folder with --output"
            )
    if not plan.settings.fresh:
        return record
    _mark_running(folder, record)
    folder.forget(part.digest for cell in plan.cells for part in (cell, *cell.members))
    for each in plan_answers(plan):
        answers_file(folder.path, each.digest).unlink(missing_ok=True)
    return None


def _mark_running(folder: RunFolder, record: RunRecord) -> None:
    """Marks an earlier record as that of a run that is not finished.

    Its rows stay, but a run that is killed now leaves outcomes that they were not counted from.
    """
    if record.status != "running":
        record.model_copy(update={"status": "running"}).write(folder.path)


def _notes(plan: Plan) -> Iterator[str]:
    """Yields what the user should know before anything is computed."""
    for experiment in plan.all_experiments:
        if experiment.dataset.class_order:
            yield f"{experiment.spec.dataset.name}: classes: {experiment.dataset.class_order}"
        for note in experiment.dataset.notes:
            yield f"{experiment.spec.dataset.name}: {note}"
        for model in experiment.models:
            for note in model.card.notes:
                yield f"{model.name}: {note}"
        yield from map(str, experiment.flags)


def _cells_to_compute(
    plan: Plan, jobs: Iterable[Job], missing: Sequence[PlannedAnswers]
) -> tuple[int, int]:
    """Returns how many cells of the plan are computed, and how many are reused.

    Answers to inputs without a class are counted as cells; ``missing`` are those to compute.
    """
    planned = {cell.digest for cell in plan.cells}  # members of lists are not counted
    computed = sum(
        cell.digest in planned and cell.digest not in job.again
        for job in jobs
        for cell in job.cells
    )
    computed += len(missing)
    return computed, len(tuple(plan.cells)) + len(tuple(plan_answers(plan))) - computed

"""Computes the outcomes and answers that a run's folder lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gibbon.records.run import Failure, RunRecord
from gibbon.runner.estimate.long_run import count_passes, long_run_note
from gibbon.runner.execute.executor import Executor
from gibbon.runner.execute.jobs import Job, find_jobs
from gibbon.runner.execute.run_job import Execution
from gibbon.runner.folder_state.claim_folder import examples_of, mark_running
from gibbon.runner.folder_state.lost import counted_cells, lost_results
from gibbon.runner.kept_examples.choice import choice_of
from gibbon.runner.kept_examples.collect import ExampleCollector
from gibbon.runner.kept_examples.complete import complete_examples
from gibbon.runner.model_checks.keep_candidates import CandidateKeeper
from gibbon.runner.no_class.measure import measure_no_class, missing_answers
from gibbon.runner.no_class.plan_no_class import PlannedAnswers, count_cells
from gibbon.runner.own_processes.worker import Worker
from gibbon.runner.plan.planned import Plan
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_jobs import run_jobs
from gibbon.runner.run_progress.progress import Progress


@dataclass(frozen=True)
class Computed:
    """The failures of what was computed, and the number of cells that were reused."""

    failures: list[Failure]
    reused: int


@dataclass(frozen=True)
class Missing:
    """The jobs whose outcomes a folder lacks, and the answers to inputs without a class."""

    jobs: Sequence[Job]
    answers: Sequence[PlannedAnswers]


@dataclass(frozen=True)
class Computation:
    """Computes what a run's folder lacks; ``worker`` runs attacks and models."""

    plan: Plan
    folder: RunFolder
    progress: Progress
    worker: Worker
    executor: Executor

    def prepare(self, earlier: RunRecord | None) -> Missing:
        """Decides which stored results can be used, notes what was lost, and returns the rest.

        ``earlier`` is the record of an earlier run in the folder, if there is one.  If what is
        missing takes over ten minutes, its estimate is noted.
        """
        self.folder.counted = counted_cells(earlier)
        self.folder.examples = examples_of(self.plan)
        lost = lost_results(self.plan, self.folder, earlier)
        if lost:
            self.progress.note(lost)
        plan, folder = self.plan, self.folder
        # A shard may have no example of a dataset.
        jobs = [each for each in find_jobs(plan, folder) if len(each.experiment.ids)]
        answers = [each for each in missing_answers(plan, folder) if len(each.experiment.ids)]
        if note := long_run_note(plan, folder, jobs, answers, self.worker):
            self.progress.note(note)
        return Missing(jobs, answers)

    def compute(
        self, found: Missing, keeper: CandidateKeeper, earlier: RunRecord | None
    ) -> Computed:
        """Computes and stores what is missing; the keeper receives candidates."""
        plan, folder, progress, worker = self.plan, self.folder, self.progress, self.worker
        jobs, missing = found.jobs, found.answers
        if (jobs or missing) and earlier is not None:
            mark_running(folder, earlier)
        computed, reused = _cells_to_compute(plan, jobs, missing)
        work = count_passes(jobs) + count_passes(missing)
        progress.start(work=work, cells=computed, reused=reused)
        on = worker.sharing(keeper)
        collector = ExampleCollector(choice_of(plan), folder.path, plan.settings.save_every)
        execution = Execution(
            plan,
            folder,
            progress,
            self.executor,
            lambda each: collector.around(keeper.around(each)),
            on,
        )
        failures = run_jobs(jobs, execution)
        complete_examples(plan, folder, progress=progress, worker=worker)
        failures += measure_no_class(missing, plan, folder, progress=progress, worker=worker)
        return Computed(failures, reused)


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
    return computed, count_cells(plan) - computed

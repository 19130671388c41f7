"""The executor that attacks the examples of a job in this process, as one shard."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial

from gibbon.datasets.base import Batch
from gibbon.runner.execute.batch import BatchTask, run_batch
from gibbon.runner.execute.executor import ExamplesLeft, Executor, ShardResult
from gibbon.runner.execute.jobs import Job
from gibbon.runner.failures.batch_loop import in_batches
from gibbon.runner.failures.boundary import Attempt, boundary
from gibbon.runner.job_results.job_result import JobResult
from gibbon.runner.plan.selection import read_batches


class InProcess(Executor):
    """Attacks the examples in this process, batch by batch."""

    elsewhere = False

    def doing(self, job: Job) -> str:
        """Returns the job's name."""
        return job.name

    def results(self, left: ExamplesLeft) -> Generator[ShardResult]:
        """Yields the result of each batch."""
        job, ids, device = left.job, left.ids, left.plan.device
        failures = JobResult().failures

        def compute(stream: Iterator[Batch], attempt: Attempt) -> JobResult:
            found = JobResult(failures=dict(failures))
            with boundary(partial(found.fail, job.cells), attempt):
                run_batch(BatchTask(job, next(stream), device, left.scorer, attempt, found))
            return found

        batches = in_batches(
            len(ids),
            job.batch_size,
            device=device,
            fetch=lambda parts: read_batches(job.experiment.dataset, [ids[part] for part in parts]),
            compute=compute,
            note=left.note,
        )
        with closing(batches):
            for found, count in batches:
                failures |= found.failures
                yield ShardResult(found, count)


IN_PROCESS = InProcess()

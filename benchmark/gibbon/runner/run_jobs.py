"""Runs all jobs, with deferred scoring if the models of a job may not be in memory together."""

from __future__ import annotations

from collections.abc import Sequence

from gibbon.records.run import Failure
from gibbon.runner.execute.jobs import Job
from gibbon.runner.execute.run_job import Execution, run_job
from gibbon.runner.execute.scorer import ScoreNow
from gibbon.runner.execute.scoring_queue import ScoringQueue
from gibbon.runner.unattacked_alone import without_attack


def run_jobs(jobs: Sequence[Job], run: Execution) -> list[Failure]:
    """Runs jobs, writes the outcomes of their cells, and returns the failures."""
    queue = ScoringQueue(run)
    failures: list[Failure] = []
    for job in jobs:
        alone = run.worker.separates and len(job.models) > 1
        fits = not alone and run.plan.pool.fits(each.handle for each in job.models)
        failed = run_job(job, run, ScoreNow()) if fits else queue.run(job)
        failures.extend(without_attack(job, failed, run).values())
    queue.score_all()
    return failures

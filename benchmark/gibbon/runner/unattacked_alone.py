"""Computes an unattacked cell again that failed because the process of its attack ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gibbon.records.run import Failure
from gibbon.runner.execute.jobs import Job
from gibbon.runner.execute.run_job import Execution, run_job
from gibbon.runner.execute.scorer import ScoreNow


def without_attack(
    job: Job, failed: Mapping[str, Failure], run: Execution
) -> Mapping[str, Failure]:
    """Returns the failures of a job by cell digest; the unattacked cell is computed separately.

    The unattacked cell may share another process with the first attack.  If that ended, it is
    run alone.
    """
    head = job.cells[0]
    apart = run.worker.separates or run.executor.elsewhere
    if not apart or job.attack is None or not job.unattacked:
        return failed
    if head.digest not in failed:
        return failed
    others = {digest: each for digest, each in failed.items() if digest != head.digest}
    alone = replace(job, cells=(head,), again=frozenset())
    return {**run_job(alone, run, ScoreNow()), **others}

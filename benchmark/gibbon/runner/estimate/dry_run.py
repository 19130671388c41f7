"""Plans a suite and estimates what its run will take, without writing into its folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gibbon.core.global_state import calculating
from gibbon.core.shard import Shard
from gibbon.runner.estimate.estimate_run import RunEstimate, estimate_run
from gibbon.runner.estimate.timing import SECONDS
from gibbon.runner.own_processes.in_workers import in_workers
from gibbon.runner.own_processes.worker import Worker
from gibbon.runner.plan.make_plan import make_plan
from gibbon.runner.plan.planned import NOTHING_SUPPLIED, Supplied
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import SILENT, Progress
from gibbon.runner.settings import RunSettings
from gibbon.runner.shards.restrict import restricted
from gibbon.specs.suite import Suite


@dataclass(frozen=True)
class DryRun:
    """The estimate of a run, the seconds of its plan, and the device."""

    estimate: RunEstimate
    planned: float
    device: str


@calculating()
def dry_run(
    suite: Suite,
    output: Path,
    *,
    settings: RunSettings,
    shard: Shard | None = None,
    where: str = "",
    supplied: Supplied = NOTHING_SUPPLIED,
    progress: Progress = SILENT,
    seconds: float = SECONDS,
) -> DryRun:
    """Returns the estimate of a suite's run, or of a shard of it.

    The arguments are those of `gibbon.runner.run_suite.run_suite`; ``seconds`` is the time that
    each model's forward and backward passes are timed for.  Loads everything, as the run does, and
    reads what is recorded in the folder.  Raises a `RequestError` if the request is wrong, or the
    run would be refused in the folder.
    """

    def work(progress: Progress, worker: Worker) -> DryRun:
        if output.exists():
            RunFolder(output).check_owner(suite.name, shard, repair=settings.repair)
        started = time.monotonic()
        plan = make_plan(suite, settings, where=where, supplied=supplied, progress=progress)
        planned = time.monotonic() - started
        part = plan if shard is None else restricted(plan, shard)

        with TemporaryDirectory() as empty, plan.pool:
            folder = Path(empty) if settings.fresh else output  # a fresh run uses nothing recorded

            def estimate(_: Progress) -> RunEstimate:
                return estimate_run(part, RunFolder(folder), seconds=seconds)

            return DryRun(worker.run(estimate, progress), planned, plan.device.type)

    return in_workers(work, suite, settings, progress=progress, where=where)

"""Work of runs, shards and merges is watched alike."""

from __future__ import annotations

from gibbon.models.reached_values import ReachedValues, in_use, values_in_use
from gibbon.runner.own_processes.in_workers import in_workers
from gibbon.runner.own_processes.worker import Worker
from gibbon.runner.run_progress.progress import SILENT, Progress
from gibbon.runner.settings import RunSettings
from gibbon.specs.decoding import read_suite


def test_values_that_others_read_are_collected_while_it_works_and_no_longer() -> None:
    def work(progress: Progress, worker: Worker) -> int:
        in_use(ReachedValues([]))
        return len(values_in_use())

    suite = read_suite("smoke")
    assert in_workers(work, suite, RunSettings(), progress=SILENT, where="") == 1
    assert not values_in_use()

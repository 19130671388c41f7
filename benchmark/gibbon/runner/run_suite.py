"""Runs a suite: plans it, computes the cells without an outcome, counts, and writes the record."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from gibbon.core.files import remove_file
from gibbon.core.global_state import calculating
from gibbon.records.acceptance import check_kinds
from gibbon.records.run import RunRecord
from gibbon.runner.compute import Computation
from gibbon.runner.counting.complete_record import Completion
from gibbon.runner.counting.provenance import ended, provenance
from gibbon.runner.executors.open_executor import open_executor, prepare_executor
from gibbon.runner.folder_state.claim_folder import claim
from gibbon.runner.folder_state.finished import finished_record, remember_inputs
from gibbon.runner.folder_state.publish import Publish, published
from gibbon.runner.kept_examples.choice import size_note
from gibbon.runner.model_checks.examine_models import examine_models
from gibbon.runner.no_class.plan_no_class import count_cells
from gibbon.runner.own_processes.in_workers import in_workers
from gibbon.runner.own_processes.worker import Worker
from gibbon.runner.plan.make_plan import make_plan
from gibbon.runner.plan.plan_notes import plan_notes
from gibbon.runner.plan.planned import NOTHING_SUPPLIED, Supplied
from gibbon.runner.proofs.published_proofs import check_published_proofs
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import SILENT, Progress
from gibbon.runner.settings import RunSettings
from gibbon.runner.shards.kept_file import KEPT_FILE, keep_on_disk
from gibbon.specs.suite import Suite


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
    return in_workers(request.run, suite, settings, progress=progress, where=where)


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
        prepare_executor(settings)
        plan = make_plan(
            self.suite, settings, where=self.where, supplied=self.supplied, progress=progress
        )
        check_published_proofs(plan)
        for sentence in dict.fromkeys(plan_notes(plan)):
            progress.note(sentence)
        if kept := size_note(plan, self.output):
            progress.note(kept)
        opened = RunFolder.open(self.output, suite=self.suite.name, repair=settings.repair)
        with opened as folder, plan.pool:
            started, origin = time.monotonic(), provenance(plan)
            earlier = claim(folder, plan, origin)
            record = finished_record(plan, folder, earlier, origin)
            cells = count_cells(plan)
            if record is None:
                known = earlier.examinations if earlier is not None else ()
                executing = open_executor(
                    plan, where=self.where, supplied=self.supplied, progress=progress
                )
                with executing as executor:
                    computation = Computation(plan, folder, progress, worker, executor)
                    missing = computation.prepare(earlier)
                    examined = examine_models(
                        plan, folder, progress=progress, known=known, worker=worker
                    )
                    keep_on_disk(examined.candidates, plan, folder)
                    computed = computation.compute(missing, examined.candidates, earlier)
                reused = computed.reused
                completion = Completion(plan, folder, progress, worker)
                record = completion.record(examined, computed.failures, origin)
            else:
                reused = cells
                progress.start(work=0, cells=0, reused=reused)
            origin = ended(origin, started=started, computed=cells - reused, reused=reused)
            record = record.model_copy(update={"provenance": origin})
            record.write(folder.path)
            remove_file(folder.path / KEPT_FILE)  # the examination is in the record
            remember_inputs(plan, folder, record)
            published(self.publish, record, folder.path)
            return record

"""Computes a shard of a suite's run: the outcomes of some examples, without tables."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from gibbon.core.global_state import calculating
from gibbon.core.shard import Shard
from gibbon.records.acceptance import check_kinds
from gibbon.records.examination import EXAMINATIONS
from gibbon.records.kept_examples import EXAMPLES
from gibbon.records.no_class_answers import NO_CLASS
from gibbon.records.outcomes import OUTCOMES
from gibbon.records.proofs import PROOFS
from gibbon.records.run import RunRecord
from gibbon.runner.compute import Computation
from gibbon.runner.counting.provenance import ended, provenance
from gibbon.runner.executors.open_executor import open_executor, prepare_executor
from gibbon.runner.folder_state.claim_folder import claim
from gibbon.runner.kept_examples.choice import size_note
from gibbon.runner.model_checks.examine_models import examine_models
from gibbon.runner.no_class.plan_no_class import count_cells
from gibbon.runner.own_processes.in_workers import in_workers
from gibbon.runner.own_processes.worker import Worker, activity
from gibbon.runner.plan.make_plan import make_plan
from gibbon.runner.plan.plan_notes import plan_notes
from gibbon.runner.plan.planned import NOTHING_SUPPLIED, Supplied
from gibbon.runner.proofs.prove import prove_all
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import SILENT, Progress
from gibbon.runner.settings import RunSettings
from gibbon.runner.shards.kept_file import KEPT_FILE, keep_on_disk
from gibbon.runner.shards.restrict import card_of, examined_by, restricted
from gibbon.specs.suite import Suite


@calculating()
def run_shard(
    suite: Suite,
    output: Path,
    *,
    shard: Shard,
    settings: RunSettings,
    where: str = "",
    supplied: Supplied = NOTHING_SUPPLIED,
    progress: Progress = SILENT,
) -> RunRecord:
    """Computes the examples of a shard, and returns its record, which has failures and no rows.

    Recorded outcomes are not computed again, as in `run_suite`, whose arguments these are.  The
    folder holds what `gibbon.runner.merge_shards` needs: outcomes, bounds, answers, the
    examinations of some of the models, and a few candidates.

    Raises a `RequestError` if the request is wrong, before anything is computed, and
    `RunFolderError` if the folder can't be used, such as that of another shard.
    """
    check_kinds(suite.accept, where=where or f"suite {suite.name}")
    request = _ShardRequest(suite, output, shard, settings, where, supplied)
    return in_workers(request.run, suite, settings, progress=progress, where=where)


@dataclass(frozen=True)
class _ShardRequest:
    """The arguments of `run_shard` but for its progress."""

    suite: Suite
    output: Path
    shard: Shard
    settings: RunSettings
    where: str
    supplied: Supplied

    def run(self, progress: Progress, worker: Worker) -> RunRecord:
        """Computes the shard, its attacks and models on a worker, and returns the record."""
        settings = self.settings
        prepare_executor(settings)
        whole = make_plan(
            self.suite, settings, where=self.where, supplied=self.supplied, progress=progress
        )
        for sentence in dict.fromkeys(plan_notes(whole)):
            progress.note(sentence)
        if kept := size_note(restricted(whole, self.shard), self.output):
            progress.note(kept)
        opened = RunFolder.open(
            self.output, suite=self.suite.name, repair=settings.repair, shard=self.shard
        )
        with opened as folder, whole.pool:
            started, origin = time.monotonic(), provenance(whole)
            card = card_of(whole, self.shard)
            earlier = claim(folder, whole, origin, shard=card)
            known = () if earlier is None else earlier.examinations
            running = RunRecord(
                suite=self.suite,
                status="running",
                provenance=origin,
                shard=card,
                examinations=known,
            )
            running.write(folder.path)
            plan = restricted(whole, self.shard)
            executing = open_executor(
                whole, where=self.where, supplied=self.supplied, progress=progress
            )
            with executing as executor:
                computation = Computation(plan, folder, progress, worker, executor)
                missing = computation.prepare(earlier)
                examined = examine_models(
                    whole,
                    folder,
                    progress=progress,
                    known=known,
                    wanted=examined_by(whole, self.shard),
                    worker=worker,
                )
                for each in (model for one in whole.experiments for model in one.models):
                    examined.candidates.want(each.digest)
                keep_on_disk(examined.candidates, plan, folder)
                computed = computation.compute(missing, examined.candidates, None)
            with activity(progress, "the certified bounds"):
                prove_all(plan, folder, progress=progress)
            reused = computed.reused
            cells = count_cells(plan) - reused
            record = running.model_copy(
                update={
                    "status": "failed" if computed.failures else "done",
                    "provenance": ended(origin, started=started, computed=cells, reused=reused),
                    "failures": tuple(computed.failures),
                    "examinations": tuple(examined.found.values()),
                    "shard": card.model_copy(update={"stored": _stored(folder.path)}),
                }
            )
            record.write(folder.path)
            return record


def _stored(folder: Path) -> tuple[str, ...]:
    """Returns the files of complete results in a folder, relative to it."""
    found = [
        path
        for name in (OUTCOMES, PROOFS, NO_CLASS, EXAMINATIONS)
        for path in (folder / name).glob("[!.]*.*")
        if not path.name.endswith(".partial.parquet")
    ]
    found.extend((folder / EXAMPLES).glob("*/[!.]*.npz"))
    kept = folder / KEPT_FILE
    if kept.exists():
        found.append(kept)
    return tuple(sorted(path.relative_to(folder).as_posix() for path in found))

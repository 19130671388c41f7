"""Completes a run whose cells are computed: checks of all outcomes, and the record."""

from __future__ import annotations

from dataclasses import dataclass

from gibbon.records.run import Failure, Provenance, RunRecord
from gibbon.runner.counting.make_record import make_record
from gibbon.runner.gallery.recover import recover_galleries
from gibbon.runner.model_checks.check_survivors import check_survivors
from gibbon.runner.model_checks.examine_models import Examined, examine_at_candidates
from gibbon.runner.own_processes.worker import Worker, activity
from gibbon.runner.plan.planned import Plan
from gibbon.runner.proofs.check_proofs import with_proofs
from gibbon.runner.proofs.prove import prove_all
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import Progress


@dataclass(frozen=True)
class Completion:
    """Completes the run in a folder; ``worker`` runs attacks and models."""

    plan: Plan
    folder: RunFolder
    progress: Progress
    worker: Worker

    def record(self, examined: Examined, failures: list[Failure], origin: Provenance) -> RunRecord:
        """Returns the record, after the last checks, bounds and pictures.

        Args:
            examined: the examinations of the models; those at candidates are added.
            failures: those of the cells; those of targets are appended.
            origin: provenance of the numbers.
        """
        plan, folder, progress, worker = self.plan, self.folder, self.progress, self.worker
        examined.survivors = check_survivors(plan, folder, examined, worker=worker)
        examine_at_candidates(plan, folder, examined, worker=worker)
        with activity(progress, "the certified bounds"):
            proofs = prove_all(plan, folder, progress=progress)
        if plan.settings.pictures:
            recover_galleries(plan, folder, progress=progress, worker=worker)
        record = make_record(plan, folder, examined, failures, origin, proofs)
        return with_proofs(record, plan, folder, proofs)

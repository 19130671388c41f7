"""Claims the folder of a run for a plan, and marks records of runs that are not finished."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RunFolderError
from gibbon.core.files import remove_file
from gibbon.records.no_class_answers import answers_file
from gibbon.records.run import RUN_FILE, Provenance, RunRecord
from gibbon.records.shard_card import ShardCard
from gibbon.runner.no_class.plan_no_class import plan_answers
from gibbon.runner.plan.planned import Plan
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.shards.kept_file import KEPT_FILE


def claim(
    folder: RunFolder, plan: Plan, origin: Provenance, *, shard: ShardCard | None = None
) -> RunRecord | None:
    """Marks a new folder as this suite's, and discards recorded outcomes if the run is fresh.

    ``shard`` is the card of a shard; None for a whole run.

    Returns the record of an earlier run whose results may be used; None if there is none.  Raises
    `RunFolderError` if the recorded suite has the same name, but neither a cell nor a dataset in
    common with this one.
    """
    if not (folder.path / RUN_FILE).exists():
        started = RunRecord(suite=plan.suite, status="running", provenance=origin, shard=shard)
        started.write(folder.path)
    record = RunRecord.read_any(folder.path)
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
    mark_running(folder, record)
    remove_file(folder.path / KEPT_FILE)
    folder.forget(part.digest for cell in plan.cells for part in (cell, *cell.members))
    for each in plan_answers(plan):
        remove_file(answers_file(folder.path, each.digest))
    return None


def mark_running(folder: RunFolder, record: RunRecord) -> None:
    """Marks an earlier record as that of a run that is not finished.

    Its rows stay, but a run that is killed now leaves outcomes that they were not counted from.
    """
    if record.status != "running":
        record.model_copy(update={"status": "running"}).write(folder.path)


def examples_of(plan: Plan) -> dict[str, NDArray[np.int64]]:
    """Returns the ids of each cell's examples, by its digest."""
    return {
        part.digest: experiment.ids
        for experiment in plan.experiments
        for cell in experiment.cells
        for part in (cell, *cell.members)
    }

"""Finds stored results that were lost or damaged since they were written, and names them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from gibbon.core.errors import RecordError
from gibbon.records.examination import examination_file, load_examination
from gibbon.records.no_class_answers import answers_file, load_answers
from gibbon.records.outcomes import OUTCOMES, load_outcome
from gibbon.records.proofs import load_proofs, proofs_file
from gibbon.records.run import (
    Agreement,
    Evaluation,
    Failure,
    RunRecord,
    Transfer,
)
from gibbon.runner.no_class.plan_no_class import plan_answers
from gibbon.runner.plan.planned import Plan, PlannedExperiment
from gibbon.runner.proofs.plan_proofs import plan_proofs
from gibbon.runner.run_folder import RunFolder

MISSING = "is missing"
SHOWN = 3  # results that are named; of the others the number is given
AGAIN = "run the suite again"

Row = Evaluation | Transfer | Agreement


def counted_cells(earlier: RunRecord | None) -> frozenset[str]:
    """Returns the digests of the cells that the record of an earlier run counts."""
    rows = earlier.evaluations if earlier is not None else ()
    return frozenset(row.digest for row in rows if row.status == "done")


def lost_results(plan: Plan, folder: RunFolder, earlier: RunRecord | None) -> str:
    """Returns a sentence about the results of a plan that are stored but can't be used.

    ``earlier`` is the record of an earlier run in the folder: a result that it counts and that is
    missing now is lost.  The sentence is empty if there are none.
    """
    found = [
        *_lost_outcomes(plan, folder, earlier),
        *_lost_proofs(plan, folder, earlier),
        *_lost_answers(plan, folder, earlier),
        *_lost_examinations(plan, folder, earlier),
    ]
    if not found:
        return ""
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    what = "1 stored result is" if len(found) == 1 else f"{len(found)} stored results are"
    return f"{what} computed again: {'; '.join(found[:SHOWN])}{more}"


def _lost_outcomes(plan: Plan, folder: RunFolder, earlier: RunRecord | None) -> Iterator[str]:
    counted = counted_cells(earlier)
    parts = {part.digest: (part, cell) for cell in plan.cells for part in (*cell.members, cell)}
    for digest, (part, cell) in parts.items():
        reason = _reason(
            partial(load_outcome, examples=folder.examples.get(digest)), folder.outcomes, digest
        )
        if reason and (reason != MISSING or cell.digest in counted):
            yield f"{OUTCOMES}/{digest}.parquet ({part}) {reason}"


def _lost_proofs(plan: Plan, folder: RunFolder, earlier: RunRecord | None) -> Iterator[str]:
    counted = {row.digest for row in earlier.bounds} if earlier is not None else set()
    planned = {each.digest: each.experiment.ids for each in plan_proofs(plan)}
    for digest, ids in planned.items():
        reason = _reason(partial(load_proofs, examples=ids), folder.path, digest)
        if reason and (reason != MISSING or digest in counted):
            yield f"{proofs_file(folder.path, digest).relative_to(folder.path)} {reason}"


def _lost_answers(plan: Plan, folder: RunFolder, earlier: RunRecord | None) -> Iterator[str]:
    counted: set[str] = set()
    if earlier is not None:
        counted |= {row.digest for row in earlier.no_class if row.status == "done"}
        counted |= {row.digest for row in earlier.fooling if row.status == "done"}
    for planned in {each.digest: each for each in plan_answers(plan)}.values():
        reason = _reason(load_answers, folder.path, planned.digest)
        if reason and (reason != MISSING or planned.digest in counted):
            file = answers_file(folder.path, planned.digest).relative_to(folder.path)
            yield f"{file} ({planned}) {reason}"


def _lost_examinations(plan: Plan, folder: RunFolder, earlier: RunRecord | None) -> Iterator[str]:
    if not plan.settings.examination:
        return
    made = earlier.examinations if earlier is not None else ()
    counted = {(each.model, each.dataset) for each in made}
    keys = {
        (model.digest, experiment.dataset.digest): None
        for experiment in plan.experiments
        for model in experiment.models
    }
    for model, dataset in keys:
        reason = _reason(partial(load_examination, dataset=dataset), folder.path, model)
        if reason and (reason != MISSING or (model, dataset) in counted):
            file = examination_file(folder.path, model=model, dataset=dataset)
            yield f"{file.relative_to(folder.path)} {reason}"


def unexplained_failures(
    experiment: PlannedExperiment, rows: Iterable[Row], failures: Iterable[Failure], where: Path
) -> Iterator[Failure]:
    """Yields a failure for each cell whose rows have failed although nothing raised.

    Its outcome has been lost since it was computed, or was never written: such a row must not be in
    a record that is done.  ``where`` is the folder of outcomes.
    """
    cells = {(each.source.name, each.label, each.epsilon): each for each in experiment.cells}
    known = {
        (each.model, each.attack, each.epsilon)
        for each in failures
        if each.dataset == experiment.spec.dataset.name
    }
    for row in rows:
        model = row.model if isinstance(row, Evaluation) else row.source
        key = (model, row.attack, row.epsilon)
        if row.status == "failed" and key not in known and key in cells:
            known.add(key)
            cell = cells[key]
            reason = _reason(load_outcome, where, cell.digest) or "lacks answers of a target"
            yield cell.failure(f"the outcome {OUTCOMES}/{cell.digest}.parquet {reason}: {AGAIN}")


def _reason(load: Callable[[Path, str], object], folder: Path, digest: str) -> str:
    """Returns why a stored result can't be used, or an empty text if it can."""
    try:
        load(folder, digest)
    except RecordError as error:
        return str(error)
    return ""

"""Runs a suite: plan, compute what is missing, count, record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gibbon.core.errors import RunFolderError
from gibbon.records.flags import masking_flags
from gibbon.records.outcomes import Outcome
from gibbon.records.run import (
    RUN_FILE,
    Agreement,
    DatasetCard,
    Evaluation,
    Failure,
    MemberEvaluation,
    Provenance,
    RunRecord,
    Transfer,
    WorstCase,
)
from gibbon.runner import count as aggregate
from gibbon.runner.execute.jobs import find_jobs
from gibbon.runner.execute.run_job import Execution
from gibbon.runner.execute.run_jobs import run_jobs
from gibbon.runner.gallery.recover import recover_galleries
from gibbon.runner.plan.make_plan import make_plan
from gibbon.runner.plan.planned import NOTHING_SUPPLIED, Cell, Plan, Supplied
from gibbon.runner.progress import Progress, Silent
from gibbon.runner.provenance import now, provenance
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

Publish = Callable[[RunRecord, Path], None]
UNSTEADY = "answers the same inputs differently each time: its numbers are one draw of many"
UNREPEATABLE = (
    f"{UNSTEADY}; its random numbers come from elsewhere than torch, numpy and random, so that "
    "they are never taken from an earlier run"
)


def run_suite(
    suite: Suite,
    output: Path,
    *,
    settings: RunSettings,
    where: str = "",
    supplied: Supplied = NOTHING_SUPPLIED,
    progress: Progress | None = None,
    publish: Publish | None = None,
) -> RunRecord:
    """Returns the record of a suite, having computed what was not there yet.

    ``run.json`` and the outcomes go to ``output``; ``publish`` writes tables and figures there,
    while the folder is still locked.  ``where`` is what error messages call the suite;
    ``supplied`` holds models and datasets that are there already.

    Raises a `RequestError` where the request is wrong, before anything is computed.
    """
    teller = progress if progress is not None else Silent()
    plan = make_plan(suite, settings, where=where, supplied=supplied, progress=teller)
    for sentence in dict.fromkeys(_told(plan)):
        teller.note(sentence)
    with RunFolder.open(output, suite=suite.name) as folder, plan.pool:
        started = time.monotonic()
        origin = provenance(plan)
        _check_kin(folder, plan)
        if settings.fresh:
            folder.forget(
                part.digest
                for each in plan.experiments
                for cell in each.cells
                for part in (cell, *cell.members)
            )
        _claim(folder, suite, origin)
        jobs = find_jobs(plan, folder)
        planned = {cell.digest for experiment in plan.experiments for cell in experiment.cells}
        todo = sum(cell.digest in planned for job in jobs for cell in job.cells)
        total = sum(len(experiment.cells) for experiment in plan.experiments)
        work = sum(job.work * len(job.experiment.ids) for job in jobs)
        teller.start(work=work, cells=todo, reused=total - todo)
        failures = run_jobs(jobs, Execution(plan, folder, teller))
        if settings.pictures:
            recover_galleries(plan, folder, progress=teller)
        finished = origin.model_copy(
            update={
                "finished": now(),
                "seconds": time.monotonic() - started,
                "computed_cells": todo,
                "reused_cells": total - todo,
            }
        )
        record = _count(plan, folder, failures, finished)
        record.write(folder.path)
        if publish is not None:
            try:
                publish(record, folder.path)
            except OSError as error:
                reason = error.strerror or error
                raise RunFolderError(f"{folder.path}: can't be written: {reason}") from error
        return record


def _check_kin(folder: RunFolder, plan: Plan) -> None:
    """Refuses a folder whose run has this suite's name and nothing else in common with it.

    Raises `RunFolderError`.
    """
    if not (folder.path / RUN_FILE).exists():
        return
    record = RunRecord.read(folder.path)
    recorded = {row.digest for row in record.evaluations}
    planned = {cell.digest for experiment in plan.experiments for cell in experiment.cells}
    if record.suite != plan.suite and recorded and not recorded & planned:
        before = {experiment.dataset.name for experiment in record.suite.experiments}
        now = {experiment.dataset.name for experiment in plan.suite.experiments}
        if not before & now:
            raise RunFolderError(
                f"{folder.path}: holds another suite of the name {plan.suite.name!r}, on "
                f"{', '.join(sorted(before))}; choose another folder with --output"
            )


def _claim(folder: RunFolder, suite: Suite, origin: Provenance) -> None:
    """Marks a new folder as this suite's; the record of a finished run stays until the next is."""
    if not (folder.path / RUN_FILE).exists():
        RunRecord(suite=suite, status="running", provenance=origin).write(folder.path)


def _told(plan: Plan) -> Iterator[str]:
    """Yields what the user should know before anything is computed."""
    for experiment in plan.experiments:
        for note in experiment.dataset.notes:
            yield f"{experiment.spec.dataset.name}: {note}"
        for model in experiment.models:
            for note in model.card.notes:
                yield f"{model.name}: {note}"
        yield from experiment.flags


def _count(plan: Plan, folder: RunFolder, failures: list[Failure], origin: Provenance) -> RunRecord:
    evaluations: list[Evaluation] = []
    transfers: list[Transfer] = []
    agreements: list[Agreement] = []
    worst_cases: list[WorstCase] = []
    members: list[MemberEvaluation] = []
    for experiment in plan.experiments:
        outcomes = {
            cell.digest: outcome
            for cell in experiment.cells
            if (outcome := folder.read(cell.digest)) is not None
        }
        failures.extend(_target_failures(experiment.cells, outcomes))
        evaluations.extend(aggregate.evaluations(experiment, outcomes))
        transfers.extend(aggregate.transfers(experiment, outcomes))
        agreements.extend(aggregate.agreements(experiment, outcomes))
        worst_cases.extend(aggregate.worst_cases(experiment, outcomes))
        members.extend(aggregate.members(experiment, outcomes))
    flags = [
        f"{row.dataset}, {row.model}, {row.attack} at epsilon {row.epsilon}: {row.flags}"
        for row in evaluations
        if row.flags
    ]
    flags += [
        f"{experiment.spec.dataset.name}, {model.name}: "
        f"{UNSTEADY if model.repeats else UNREPEATABLE}"
        for experiment in plan.experiments
        for model in experiment.models
        if not model.steady
    ]
    flags += [sentence for experiment in plan.experiments for sentence in experiment.flags]
    cards = {
        (model.name, model.digest): model.card
        for experiment in plan.experiments
        for model in experiment.models
    }
    return RunRecord(
        suite=plan.suite,
        status="failed" if failures else "done",
        provenance=origin,
        models=tuple(cards.values()),
        datasets=tuple(
            DatasetCard(
                name=experiment.dataset.name,
                digest=experiment.dataset.digest,
                examples=len(experiment.ids),
                of=len(experiment.dataset),
                classes=experiment.dataset.classes,
                input_shape=experiment.dataset.input_shape,
                notes=experiment.dataset.notes,
                skipped=experiment.skipped,
            )
            for experiment in plan.experiments
        ),
        evaluations=tuple(evaluations),
        transfers=tuple(transfers),
        agreements=tuple(agreements),
        worst_cases=tuple(worst_cases),
        members=tuple(members),
        failures=tuple(failures),
        flags=(*flags, *masking_flags(evaluations, transfers)),
    )


def _target_failures(cells: tuple[Cell, ...], outcomes: dict[str, Outcome]) -> Iterator[Failure]:
    for cell in cells:
        outcome = outcomes.get(cell.digest)
        for target in cell.targets:
            error = outcome.meta.target_errors.get(target.digest) if outcome else None
            if error is None:
                continue
            yield Failure(
                dataset=cell.dataset,
                model=cell.source.name,
                attack=cell.label,
                epsilon=cell.epsilon,
                error=f"scored on {target.name}: {error}",
                traceback="",
            )

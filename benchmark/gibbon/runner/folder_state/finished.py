"""Recognises a run that has nothing to do: its record was counted from the same stored results.

Reading all outcomes, counting them and drawing bootstrap samples takes longer than the plan of a
finished suite.  The record of a finished run is used again if nothing that it was made from has
changed: the plan, the code, and every byte of the stored results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gibbon.core.errors import RecordError
from gibbon.core.files import read_plain_file, write_atomically
from gibbon.core.package_digest import package_digest
from gibbon.records.checksums import (
    checked_content,
    content_checksum,
    file_checksum,
    with_checksum,
)
from gibbon.records.examination import examination_file
from gibbon.records.gallery import gallery_file
from gibbon.records.kept_examples import KeptExamples, clean_folder
from gibbon.records.no_class_answers import answers_file
from gibbon.records.outcomes import OUTCOMES
from gibbon.records.proofs import proofs_file
from gibbon.records.run import RUN_FILE, Provenance, RunRecord
from gibbon.runner.no_class.plan_no_class import plan_answers
from gibbon.runner.plan.planned import Plan
from gibbon.runner.proofs.plan_proofs import plan_proofs
from gibbon.runner.run_folder import RunFolder

INPUTS_FILE: Final = ".gibbon.inputs.json"

# What a record says of the time and the place of its run, and nothing of its results.
_OF_ONE_RUN: Final = (
    *("started", "finished", "seconds", "computed_cells", "reused_cells"),
    *("commit", "dirty", "platform", "threads", "batch_size"),
)


def finished_record(
    plan: Plan, folder: RunFolder, earlier: RunRecord | None, origin: Provenance
) -> RunRecord | None:
    """Returns the earlier record of a plan without the provenance, or None if it must be made.

    It must be made if the earlier run is not done, if anything that it was made from has changed,
    or if that is not known.
    """
    if earlier is None or earlier.status != "done":
        return None
    try:
        written = checked_content(read_plain_file(folder.path / INPUTS_FILE))
    except (OSError, RecordError):
        return None
    if written == {"record": _record_checksum(folder), "inputs": _inputs(plan, folder, origin)}:
        return earlier
    return None


def remember_inputs(plan: Plan, folder: RunFolder, record: RunRecord) -> None:
    """Stores a digest of what the record in the folder was made from, if it is done."""
    if record.status == "done":
        written = {
            "record": _record_checksum(folder),
            "inputs": _inputs(plan, folder, record.provenance),
        }
        write_atomically(folder.path / INPUTS_FILE, with_checksum(json.dumps(written, indent=1)))


def _record_checksum(folder: RunFolder) -> str:
    return _checksum(folder.path / RUN_FILE)


def _inputs(plan: Plan, folder: RunFolder, origin: Provenance) -> str:
    """Returns a digest of everything that a record is made from."""
    settings = plan.settings
    parts = {
        "code": package_digest(),
        "origin": {
            key: value for key, value in origin.model_dump().items() if key not in _OF_ONE_RUN
        },
        "suite": plan.suite.model_dump(mode="json"),
        "certify": settings.certify,
        "examination": settings.examination,
        "pictures": settings.pictures,
        "kept": [settings.keep_examples, *_kept_files(plan, folder.path)],
        "experiments": [
            {
                "data": experiment.data_digest,
                "dataset": experiment.card.model_dump(mode="json"),
                "models": [model.card.model_dump(mode="json") for model in experiment.models],
                "draws": [model.draws for model in experiment.models],
                "flags": [flag.model_dump(mode="json") for flag in experiment.flags],
                "cells": [
                    [cell.digest, str(cell), [target.digest for target in cell.targets]]
                    for cell in experiment.cells
                ],
            }
            for experiment in plan.all_experiments
        ],
    }
    found = hashlib.sha256(content_checksum(parts).encode())
    for path in _stored_files(plan, folder.path):
        found.update(_checksum(path).encode() + b";")
    return found.hexdigest()


def _stored_files(plan: Plan, folder: Path) -> Iterator[Path]:
    """Yields the files of all results of a plan, whether they are there or not."""
    for cell in plan.cells:
        for part in (*cell.members, cell):
            yield folder / OUTCOMES / f"{part.digest}.parquet"
        yield gallery_file(folder, cell.digest)
    for planned in plan_proofs(plan):
        yield proofs_file(folder, planned.digest)
    for answers in plan_answers(plan):
        yield answers_file(folder, answers.digest)
    for experiment in plan.experiments:
        for model in experiment.models:
            yield examination_file(folder, model=model.digest, dataset=experiment.dataset.digest)
    for row in plan.suite.published:
        if row.proved is not None:
            yield Path(row.proved)


def _kept_files(plan: Plan, folder: Path) -> Iterator[tuple[str, int]]:
    """Yields the files of kept examples, each with its size, which is read fast."""
    names = [cell.digest for cell in plan.cells]
    for name in (*names, *(clean_folder(each.dataset.digest) for each in plan.experiments)):
        for path in KeptExamples(folder, name).files:
            yield f"{name}/{path.name}", path.stat().st_size


def _checksum(path: Path) -> str:
    try:
        return file_checksum(read_plain_file(path))
    except OSError:
        return ""

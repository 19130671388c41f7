"""Reads published proofs: files with the ids of examples that somebody else proved robust."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import SpecError
from gibbon.core.reading import read_text_file
from gibbon.core.threat import ThreatModel
from gibbon.runner.plan.planned import Plan, PlannedExperiment
from gibbon.specs.published import PublishedRow
from gibbon.specs.suite import Suite

LONGEST_ID = 18  # digits
SHOWN = 40  # letters of a line in an error message


def published_proofs(
    suite: Suite, experiment: PlannedExperiment
) -> Iterator[tuple[str, ThreatModel, str, NDArray[np.int64]]]:
    """Yields the proofs of an experiment's models: model, threat model, by whom, and the ids.

    A proof holds under a threat model of its epsilon and norm, with or without a box: without one
    the attack is allowed more, so that only attacks inside the box are compared.
    """
    name = experiment.spec.dataset.name
    for row in suite.published:
        if row.proved is None or row.dataset != name:
            continue
        ids = read_ids(Path(row.proved))
        for threat in {each for planned in experiment.attacks for each in planned.threats}:
            if threat.epsilon == row.epsilon and threat.norm == row.norm and threat.bounds:
                yield row.model, threat, _author(row), ids


def check_published_proofs(plan: Plan) -> None:
    """Raises `SpecError` if a file of published proofs can't be read, or names other examples."""
    sizes = {each.spec.dataset.name: len(each.dataset) for each in plan.experiments}
    for row in plan.suite.published:
        if row.proved is None:
            continue
        ids = read_ids(Path(row.proved))
        if row.dataset in sizes and len(ids) and int(ids.max()) >= sizes[row.dataset]:
            raise SpecError(
                f"names example {ids.max()}, but {row.dataset!r} has {sizes[row.dataset]} examples",
                where=row.proved,
            )


def read_ids(path: Path) -> NDArray[np.int64]:
    """Returns the example ids in a text file, one a line; a line that begins with # is left out.

    Raises `SpecError` if the file can't be read or a line is no id.
    """
    lines = read_text_file(path, SpecError).splitlines()
    ids = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not text.isdecimal() or len(text) > LONGEST_ID:
            raise SpecError(
                f"line {number} must be the id of an example, a whole number from 0, got "
                f"{text[:SHOWN]!r}",
                where=str(path),
            )
        ids.append(int(text))
    return np.array(ids, dtype=np.int64)


def _author(row: PublishedRow) -> str:
    return f"the published proofs ({row.section})"

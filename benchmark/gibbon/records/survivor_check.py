"""The record of a short attack on examples that all attacks of a run missed.

It belongs to one model on one dataset under one threat model, and to the attacks whose results it
looked at, by the digests of their cells: other results are checked anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from gibbon.core.errors import RecordError
from gibbon.core.files import own_folder, read_plain_file, unwritable, write_atomically
from gibbon.core.threat import Norm
from gibbon.records.checksums import checked_text, with_checksum
from gibbon.records.examination import EXAMINATIONS
from gibbon.records.record import Record

SURVIVOR_FORMAT: Literal[1] = 1  # goes up when the attack changes, so that it is made again


class SurvivorCheck(Record):
    """The result of a short attack on the survivors of all attacks with one threat model.

    Args:
        dataset, model: their names in the suite.
        norm, epsilon: the threat model.
        attacks: the labels of the attacks with this threat model.
        cells: digests of the cells of the model and these attacks, sorted.
        survivors: examples that are classified correctly unattacked and under every attack.
        examples: examples that the attacks were run on.
        tried: survivors that were attacked.
        misclassified: ids of those of which a misclassified point was found.
        methods: the ways of searching that were used, in words.
        reason: why nothing was decided; empty if survivors were attacked.
        passes: forward and backward passes, by example.
        budget: passes that were allowed.
    """

    format: Literal[1] = SURVIVOR_FORMAT
    dataset: str = ""
    model: str = ""
    norm: str = "linf"
    epsilon: str = ""
    attacks: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    survivors: int = Field(default=0, ge=0)
    examples: int = Field(default=0, ge=0)
    tried: int = Field(default=0, ge=0)
    misclassified: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()
    reason: str = ""
    passes: int = Field(default=0, ge=0)
    budget: int = Field(default=0, ge=0)

    @property
    def looked_at(self) -> str:
        """The number of examples, the attacks that missed them and the ways of searching."""
        how = ", ".join(self.methods) or "no passes"
        what = "example" if self.survivors == 1 else "examples"
        return (
            f"{self.tried} of {self.survivors:,} {what} that {', '.join(self.attacks)} missed at "
            f"{Norm(self.norm).symbol} epsilon {self.epsilon}, by {how}"
        )


def _file(folder: Path, cells: tuple[str, ...]) -> Path:
    name = hashlib.blake2b("\n".join(cells).encode(), digest_size=16).hexdigest()
    return folder / EXAMINATIONS / f"survivors-{name}.json"


def read_survivor_check(folder: Path, cells: tuple[str, ...]) -> SurvivorCheck | None:
    """Returns the stored check of these cells in a run's folder, or None if none is usable."""
    try:
        content = checked_text(read_plain_file(_file(folder, cells)))
        found = SurvivorCheck.model_validate_json(content)
    except (OSError, RecordError, ValidationError):
        return None
    return found if found.cells == cells else None


def write_survivor_check(folder: Path, check: SurvivorCheck) -> None:
    """Writes a check into a run's folder, atomically.  Raises `RunFolderError`."""
    path = _file(folder, check.cells)
    try:
        own_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    write_atomically(path, with_checksum(check.model_dump_json(indent=1)))

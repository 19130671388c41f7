"""The examination of a model: the checks that were made of it on a few examples, and their results.

An examination holds no name of a suite: it belongs to a model and a dataset by their digests, is
stored in the run's folder, and serves every later run with the same model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, model_validator

from gibbon.core.errors import RecordError
from gibbon.core.files import own_folder, read_plain_file, unwritable, write_atomically
from gibbon.records.checksums import checked_text, with_checksum
from gibbon.records.flag_kinds import Severity
from gibbon.records.flag_share import FlagShare, with_share_text
from gibbon.records.flags import Flag
from gibbon.records.record import Record

EXAMINATIONS = "examinations"  # folder of the files
EXAMINATION_FORMAT: Literal[5] = 5  # goes up when a check changes, so that it is made again

Result = Literal["passed", "flagged", "abstained", "left out", "failed"]


class ExaminedCheck(Record):
    """A check of an examination.

    Args:
        name: a few words, such as ``"gradient at the data"``.
        result: ``passed``; ``flagged``; ``abstained``: it could not decide; ``left out``: it needs
            more passes than were left; ``failed``: it raised an exception.
        looked_at: what it examined, with numbers; empty if it was left out.
        reason: why it abstained, was left out or failed.
        figures: what it measured, by name.
    """

    name: str = Field(min_length=1)
    result: Result
    looked_at: str = ""
    reason: str = ""
    figures: dict[str, float | None] = Field(default_factory=dict)


class ExaminedFlag(Record):
    """A flag that an examination raises, without the names of dataset and model.

    Empty fields are completed by the kind (`gibbon.records.flag_kinds`).
    """

    kind: str
    severity: Severity | None = None
    figure: str = ""
    share: FlagShare | None = None
    sentence: str = Field(min_length=1)
    advice: str = ""
    suite: str = ""

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, written: Any, info: ValidationInfo) -> Any:
        return with_share_text(written, stored=info.mode == "json")

    def of(self, *, dataset: str, model: str) -> Flag:
        """Returns the flag of a model on a dataset, by their names in a suite."""
        written: dict[str, Any] = self.model_dump(exclude_defaults=True)
        return Flag(**written, dataset=dataset, model=model)


class Examination(Record):
    """The examination of one model on a few examples of one dataset.

    Args:
        model: digest of the model.
        dataset: digest of the dataset's content.
        examples: number of examples that checks looked at; the answers to these were known.
        checks: the checks, in the order in which they were made.
        found: the flags that they raise.
        budget: passes that it was allowed, by example, at the data and at candidates together.
        budget_at_data: the part of them that was allowed before the attacks, which decides whether
            a larger run makes it again; 0 in a file of an earlier version, whose ``budget`` it is.
        forward_passes, backward_passes: passes that it made, by example.
        seconds: time that it took.
        at_candidates: whether the gradient was checked at an attack's candidates, too.
    """

    format: Literal[1, 2, 3, 4, 5] = EXAMINATION_FORMAT
    model: str = ""
    dataset: str = ""
    examples: int = 0
    checks: tuple[ExaminedCheck, ...] = ()
    found: tuple[ExaminedFlag, ...] = ()
    budget: int = 0
    budget_at_data: int = 0
    forward_passes: int = 0
    backward_passes: int = 0
    seconds: float = 0.0
    at_candidates: bool = False

    @property
    def passes(self) -> int:
        """Forward and backward passes together."""
        return self.forward_passes + self.backward_passes

    @property
    def allowed_at_data(self) -> int:
        """Passes that were allowed before the attacks."""
        return self.budget_at_data or self.budget

    @property
    def outdated(self) -> bool:
        """Whether checks have been added or changed since it was made."""
        return self.format != EXAMINATION_FORMAT

    @property
    def incomplete(self) -> bool:
        """Whether a check was left out for want of passes."""
        return any(each.result == "left out" for each in self.checks)

    def flags(self, *, dataset: str, model: str) -> Iterator[Flag]:
        """Yields its flags, with the names that dataset and model have in a suite."""
        for each in self.found:
            yield each.of(dataset=dataset, model=model)

    def then(self, later: Examination) -> Examination:
        """Returns the examination followed by the checks of a later one of the model.

        Of the later flags those of other kinds are added: the others say again what is known.
        The passes that the later one was allowed are counted from those that were made before.
        """
        known = {each.kind for each in self.found}
        more = tuple(each for each in later.found if each.kind not in known)
        return self.model_copy(
            update={
                "checks": (*self.checks, *later.checks),
                "found": (*self.found, *more),
                "budget": max(self.budget, self.passes + later.budget),
                "budget_at_data": self.allowed_at_data,
                "forward_passes": self.forward_passes + later.forward_passes,
                "backward_passes": self.backward_passes + later.backward_passes,
                "seconds": self.seconds + later.seconds,
                "at_candidates": self.at_candidates or later.at_candidates,
            }
        )


def examination_file(folder: Path, *, model: str, dataset: str) -> Path:
    """Returns the file of a model's examination in a run's folder."""
    return folder / EXAMINATIONS / f"{model}-{dataset[:16]}.json"


def read_examination(folder: Path, *, model: str, dataset: str) -> Examination | None:
    """Returns the stored examination of a model on a dataset, or None if there is no usable one."""
    try:
        return load_examination(folder, model, dataset=dataset)
    except RecordError:
        return None


def load_examination(folder: Path, model: str, *, dataset: str) -> Examination:
    """Returns the stored examination of a model on a dataset.

    Raises `RecordError`, whose message is a reason such as "is missing", if it can't be used.
    """
    try:
        path = examination_file(folder, model=model, dataset=dataset)
        found = Examination.model_validate_json(checked_text(read_plain_file(path)))
    except FileNotFoundError as error:
        raise RecordError("is missing") from error
    except OSError as error:
        raise RecordError(f"can't be read: {error.strerror or error}") from error
    except RecordError as error:
        raise RecordError(f"is {error}") from error
    except ValidationError as error:
        raise RecordError("is damaged, or of another version") from error
    if (found.model, found.dataset) != (model, dataset):
        raise RecordError("is the file of another model")
    if found.outdated:
        raise RecordError("was made before checks were added or changed")
    return found


def write_examination(folder: Path, examination: Examination) -> None:
    """Writes an examination into a run's folder, atomically.  Raises `RunFolderError`."""
    path = examination_file(folder, model=examination.model, dataset=examination.dataset)
    try:
        own_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    write_atomically(path, with_checksum(examination.model_dump_json(indent=1)))

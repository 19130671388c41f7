"""The results of a run as plain records that survive a round trip through JSON.

Tables, figures and comparisons are made from these records alone, without torch.  Rates are
fractions of 1.  A rate without examples to count, such as the confidence on misclassified examples
of a model without mistakes, is None.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gibbon.core.errors import RecordError
from gibbon.core.files import write_atomically
from gibbon.core.threat import Norm
from gibbon.specs.base import UNATTACKED, EpsilonField
from gibbon.specs.suite import Suite

FORMAT: Literal[1] = 1
RUN_FILE = "run.json"

Status = Literal["done", "failed"]
Rate = Annotated[float, Field(ge=0, le=1)] | None
Count = Annotated[int, Field(ge=0)] | None
Distance = Annotated[float, Field(ge=0)] | None


class Record(BaseModel):
    """A frozen result; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class CellRecord(Record):
    """A result of one model under one attack at one epsilon on one dataset."""

    dataset: str
    model: str
    attack: str
    epsilon: EpsilonField


class Evaluation(CellRecord):
    """One model under one attack at one epsilon: a row of ``evaluations.csv``.

    The fields are the columns, in their order.  The table of words in the documentation defines
    each rate; ``examples``, ``clean_correct`` and ``misclassified`` are the denominators.
    ``forward_passes`` and ``backward_passes`` count passes of the source model, by example; work
    that several epsilons share is counted once, at the first of them.

    ``nearest_*`` describe the smallest adversarial distances that a search found: the number of
    examples with one (0 if the clean input is misclassified), and quantiles over all examples,
    which are None if too few were found.  They are equal at every epsilon, and None for attacks
    that do not search.
    """

    examples: int
    clean_error: Rate = None
    adversarial_error: Rate = None
    adversarial_error_low: Rate = None
    adversarial_error_high: Rate = None
    attack_success_rate: Rate = None
    misclassified: Count = None
    confidence_on_misclassified: Rate = None
    mean_confidence: Rate = None
    status: Status = "done"
    flags: str = ""
    forward_passes: int = 0
    backward_passes: int = 0
    seconds: float = 0.0
    clean_error_low: Rate = None
    clean_error_high: Rate = None
    clean_correct: Count = None
    attack_success_rate_low: Rate = None
    attack_success_rate_high: Rate = None
    worst_case_error: Rate = None
    worst_case_error_low: Rate = None
    worst_case_error_high: Rate = None
    saturated_share: Rate = None
    zero_gradient_share: Rate = None
    invalid_candidates: Count = None
    mean_distance: float | None = None
    max_distance: float | None = None
    algorithm: str = ""
    norm: Norm | None = None
    clip: bool | None = None
    iterate: str = ""
    parameters: str = ""
    digest: str = ""
    nearest_found: Count = None
    nearest_median: Distance = None
    nearest_q10: Distance = None
    nearest_q90: Distance = None

    @property
    def unattacked(self) -> bool:
        """Whether this is the row of the unattacked examples."""
        return self.attack == UNATTACKED

    @property
    def parameter_values(self) -> dict[str, Any]:
        """The attack's parameters by name; empty if they can't be read."""
        try:
            values = json.loads(self.parameters or "{}")
        except ValueError:
            return {}
        return values if isinstance(values, dict) else {}


class Transfer(Record):
    """Examples made on ``source`` scored on ``target``: a row of ``transfer.csv``."""

    dataset: str
    source: str
    target: str
    attack: str
    epsilon: EpsilonField
    examples: int
    error: Rate = None
    source_misclassified: Count = None
    error_given_source_misclassified: Rate = None
    same_class_given_source_misclassified: Rate = None
    both_misclassified: Count = None
    same_class_given_both_misclassified: Rate = None
    error_low: Rate = None
    error_high: Rate = None
    error_given_source_misclassified_low: Rate = None
    error_given_source_misclassified_high: Rate = None
    same_class_given_source_misclassified_low: Rate = None
    same_class_given_source_misclassified_high: Rate = None
    same_class_given_both_misclassified_low: Rate = None
    same_class_given_both_misclassified_high: Rate = None
    target_clean_error: Rate = None
    confidence_on_misclassified: Rate = None
    status: Status = "done"
    digest: str = ""


class Agreement(Record):
    """Two targets compared with each other on one source's examples.

    ``same_class_given_both_misclassified``: of the examples that both targets misclassify, the
    share that they put into the same wrong class.
    """

    dataset: str
    source: str
    first: str
    second: str
    attack: str
    epsilon: EpsilonField
    examples: int
    both_misclassified: Count = None
    same_class_given_both_misclassified: Rate = None
    same_class_given_both_misclassified_low: Rate = None
    same_class_given_both_misclassified_high: Rate = None
    status: Status = "done"


class WorstCase(Record):
    """Clean and all attacks with one norm, epsilon and clipping rule together.

    An example counts if it is misclassified clean or by any candidate of any of the attacks.
    """

    dataset: str
    model: str
    norm: Norm
    epsilon: EpsilonField
    clip: bool
    attacks: tuple[str, ...]
    examples: int
    misclassified: int
    worst_case_error: Rate
    worst_case_error_low: Rate
    worst_case_error_high: Rate


class MemberEvaluation(CellRecord):
    """One attack of a list, each of which is run on the examples that survive the earlier ones.

    ``given`` is the number of survivors that it was run on, ``misled`` the number of these that it
    misled; ``error_after`` is the share of all examples misclassified clean, by it or by an earlier
    attack, which for the last attack is the worst-case error.
    """

    member: str
    examples: int
    given: Count = None
    misled: Count = None
    error_after: Rate = None
    error_after_low: Rate = None
    error_after_high: Rate = None
    status: Status = "done"
    digest: str = ""


class Failure(CellRecord):
    """A cell that raised an error, with the error and its traceback."""

    error: str
    traceback: str


class ModelCard(Record):
    """A model of the run, with digests of its weights and of its predictions.

    ``notes`` describe how it was loaded, such as a prefix that was stripped from the names of its
    tensors.
    """

    name: str
    model: str
    weights_digest: str
    digest: str
    outputs: str
    classes: int
    parameters: int
    notes: tuple[str, ...] = ()


class DatasetCard(Record):
    """A dataset of the run; ``skipped`` names the files that could not be read."""

    name: str
    digest: str
    examples: int
    of: int
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


class Provenance(Record):
    """The provenance of a run's numbers."""

    gibbon: str
    commit: str
    dirty: bool | None
    python: str
    libraries: dict[str, str]
    platform: str
    device: str
    threads: int
    batch_size: int
    limit: int | None
    started: str
    finished: str = ""
    seconds: float = 0.0
    computed_cells: int = 0
    reused_cells: int = 0


class RunRecord(Record):
    """All results of a run: the content of ``run.json``."""

    format: Literal[1] = FORMAT
    suite: Suite
    status: Literal["running", "done", "failed"]
    provenance: Provenance
    models: tuple[ModelCard, ...] = ()
    datasets: tuple[DatasetCard, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    worst_cases: tuple[WorstCase, ...] = ()
    members: tuple[MemberEvaluation, ...] = ()
    failures: tuple[Failure, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def dataset_cards(self) -> dict[str, DatasetCard]:
        """The card of each experiment's dataset, by its name in the suite.

        Two experiments may use one dataset under two names; a card has the dataset's own name.
        """
        names = [experiment.dataset.name for experiment in self.suite.experiments]
        if len(names) != len(self.datasets):
            return {card.name: card for card in self.datasets}
        return dict(zip(names, self.datasets, strict=True))

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Returns the record in a run's folder.  Raises `RecordError`."""
        path = folder / RUN_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise RecordError(f"{path}: can't be read: {error.strerror or error}") from error
        except ValidationError as error:
            first: Any = error.errors()[0]
            where = "".join(f"{part}." for part in first["loc"])[:-1]
            problem = f"{where}: {first['msg']}" if where else first["msg"]
            raise RecordError(f"{path}: not a run of this version of Gibbon: {problem}") from error

    def write(self, folder: Path) -> None:
        """Writes the record into a run's folder, atomically."""
        write_atomically(folder / RUN_FILE, self.model_dump_json(indent=1) + "\n")

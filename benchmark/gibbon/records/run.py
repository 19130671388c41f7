"""The results of a run as plain records that survive a round trip through JSON.

Tables, figures and comparisons are made from these records alone, without torch.  Rates are
fractions of 1.  A rate without examples to count, such as the confidence on misclassified examples
of a model without mistakes, is None.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from operator import not_
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from gibbon.core.errors import RecordError
from gibbon.core.files import write_atomically
from gibbon.core.plain_text import shown
from gibbon.core.reading import RECORD_BYTES, read_bytes
from gibbon.core.threat import Epsilon, Norm
from gibbon.records.checks import CheckDone
from gibbon.records.checksums import checked_text, with_checksum
from gibbon.records.examination import Examination
from gibbon.records.flag_kinds import ABOUT_ANSWERS, CONTRADICTED
from gibbon.records.flags import Flag, FlagIndex, kinds_text, sorted_flags, with_accepted
from gibbon.records.no_class import FoolingRate, NoClassEvaluation, NoClassShare
from gibbon.records.proofs import ProofMethod
from gibbon.records.record import Record
from gibbon.records.shard_card import ShardCard
from gibbon.records.survivor_check import SurvivorCheck
from gibbon.records.tested_claims import ClaimTest
from gibbon.specs.base import UNATTACKED, EpsilonField
from gibbon.specs.suite import Suite

FORMAT: Literal[1] = 1
RUN_FILE = "run.json"

Status = Literal["done", "failed"]
Rate = Annotated[float, Field(ge=0, le=1)] | None
Count = Annotated[int, Field(ge=0)] | None
Distance = Annotated[float, Field(ge=0)] | None


def complement(rate: float | None) -> float | None:
    """Returns 1 minus a rate; None for None.

    >>> complement(0.25), complement(None)
    (0.75, None)
    """
    return None if rate is None else 1 - rate


def _with_robust_accuracy(written: Any) -> Any:
    """Adds the robust accuracy to the keys of a record that has a worst-case error."""
    if not isinstance(written, Mapping) or "robust_accuracy" in written:
        return written
    return {
        **written,
        "robust_accuracy": _complement_of(written.get("worst_case_error")),
        "robust_accuracy_low": _complement_of(written.get("worst_case_error_high")),
        "robust_accuracy_high": _complement_of(written.get("worst_case_error_low")),
    }


def _complement_of(written: object) -> float | None:
    """Returns 1 minus a rate; None for what is none, which is refused in its own field."""
    if isinstance(written, int | float) and 0 <= written <= 1:
        return complement(float(written))
    return None


class CellRecord(Record):
    """A result of one model under one attack at one epsilon on one dataset."""

    dataset: str
    model: str
    attack: str
    epsilon: EpsilonField


class Evaluation(CellRecord):
    """The results of a model under an attack at one epsilon: a row of ``evaluations.csv``.

    The fields are the columns, in their order.  The table of words in the documentation defines
    each rate; ``examples``, ``clean_correct`` and ``misclassified`` are the denominators.
    ``flags`` holds the kinds of the flags that affect the row, with ``;`` between them.
    ``forward_passes`` and ``backward_passes`` count passes of the source model, by example; work
    that several epsilons share is counted once, at the first of them.

    ``nearest_*`` describe the smallest adversarial distances that a search found: the number of
    examples with one (0 if the clean input is misclassified), and quantiles over all examples,
    which are None if too few were found.  They are equal at every epsilon, and None for attacks
    that do not search.

    Columns ``*_low`` and ``*_high`` are the ends of 95 % intervals: Wilson's for errors and rates,
    bootstrap intervals (BCa) for confidences and the median distance.  An upper end of the latter
    is None if it is infinite.
    ``draws`` is the number of times that the model was evaluated on each input.  If it is above 1,
    because the answers are random, an error is a mean over examples of the share of wrong answers,
    its interval covers both examples and draws, and counts and the worst case take an example as
    misclassified if more than half of its answers are wrong.
    ``certified_error`` is the share of examples that are not proved robust under the row's threat
    model, whatever the attack: an upper bound of the error under any attack.  ``certified_by`` is
    the strongest method that proved an example: ``exact``, ``ibp`` or ``crown``.
    ``target_rate`` is the share of the ``targeted`` examples whose adversarial example is predicted
    as the class that a targeted attack aimed at; an example of a fixed target class has no target.
    ``robust_accuracy`` is 1 - ``worst_case_error``, with the interval of that: an example counts
    that is classified correctly clean and at every candidate that the attack returned.  It is None
    in the unattacked row.
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
    confidence_on_misclassified_low: Rate = None
    confidence_on_misclassified_high: Rate = None
    mean_confidence_low: Rate = None
    mean_confidence_high: Rate = None
    nearest_median_low: Distance = None
    nearest_median_high: Distance = None
    draws: Annotated[int, Field(ge=1)] = 1
    certified_error: Rate = None
    certified_error_low: Rate = None
    certified_error_high: Rate = None
    certified_by: ProofMethod | None = None
    target_rate: Rate = None
    target_rate_low: Rate = None
    target_rate_high: Rate = None
    targeted: Count = None
    robust_accuracy: Rate = None
    robust_accuracy_low: Rate = None
    robust_accuracy_high: Rate = None

    _robust = model_validator(mode="before")(_with_robust_accuracy)

    @property
    def unattacked(self) -> bool:
        """Whether this is the row of the unattacked examples."""
        return self.attack == UNATTACKED

    @property
    def parameter_values(self) -> dict[str, Any]:
        """The attack's parameters by name; empty if they can't be read."""
        try:
            values = json.loads(self.parameters or "{}")
        except (ValueError, RecursionError):
            return {}
        return values if isinstance(values, dict) else {}

    @property
    def is_written_list(self) -> bool:
        """Whether the attack is a list that its parameters write out, as that of ``worst-of``."""
        return isinstance(self.parameter_values.get("attacks"), list)


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
    flags: str = ""


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
    flags: str = ""


class WorstCase(Record):
    """Clean and all attacks with one norm, epsilon and clipping rule together.

    An example counts if it is misclassified clean or by any candidate of any of the attacks.
    ``robust_accuracy`` is 1 - ``worst_case_error``.
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
    certified_error: Rate = None
    certified_error_low: Rate = None
    certified_error_high: Rate = None
    certified_by: ProofMethod | None = None
    robust_accuracy: Rate = None
    robust_accuracy_low: Rate = None
    robust_accuracy_high: Rate = None
    flags: str = ""

    _robust = model_validator(mode="before")(_with_robust_accuracy)


class ModelComparison(Record):
    """Two models compared under one threat model, by their worst cases on the same examples.

    ``only_first`` and ``only_second`` count the examples that one of the models alone
    misclassifies, clean or under any of the attacks; ``p_value`` is that of McNemar's exact test,
    corrected by Holm's procedure over the pairs of models under this threat model.
    ``more_robust`` is the model with significantly fewer errors (5 %), empty if the two can't be
    distinguished; ``examples_needed`` is then about how many examples would be needed for that,
    None if they have as many errors.
    """

    dataset: str
    first: str
    second: str
    norm: Norm
    epsilon: EpsilonField
    clip: bool
    examples: int
    first_error: Rate
    second_error: Rate
    only_first: int
    only_second: int
    p_value: float
    more_robust: str = ""
    examples_needed: Count = None
    flags: str = ""


class SeedStatistics(Record):
    """Models that differ in their training seed, under one attack at one epsilon.

    Columns ``*_mean`` and ``*_sd`` are the mean of a column of ``evaluations.csv`` over the ``n``
    models and its standard deviation (with n - 1), None for one model.  Measures that a model lacks
    are None.
    """

    dataset: str
    seeds_of: str
    attack: str
    epsilon: EpsilonField
    n: int
    models: tuple[str, ...]
    adversarial_error_mean: Rate = None
    adversarial_error_sd: Distance = None
    worst_case_error_mean: Rate = None
    worst_case_error_sd: Distance = None
    confidence_on_misclassified_mean: Rate = None
    confidence_on_misclassified_sd: Distance = None
    mean_confidence_mean: Rate = None
    mean_confidence_sd: Distance = None
    flags: str = ""


class CertifiedBound(Record):
    """The proofs of one model under one threat model: a row of ``bounds.csv``.

    ``certified_error`` is the share of examples that are not proved robust, and the count
    ``proved`` the others, in total and by method.  ``reason`` says why there is no bound, or which
    method was left out.  Passes and seconds are counted in no other table.  ``flags`` are the kinds
    about the model's answers or the data, and contradictions: what an attack missed proves nothing.
    """

    dataset: str
    model: str
    norm: Norm
    epsilon: EpsilonField
    clip: bool
    examples: int
    certified_error: Rate = None
    certified_error_low: Rate = None
    certified_error_high: Rate = None
    certified_by: ProofMethod | None = None
    proved: Count = None
    proved_exact: Count = None
    proved_ibp: Count = None
    proved_crown: Count = None
    reason: str = ""
    requested: bool = False
    forward_passes: int = 0
    backward_passes: int = 0
    seconds: float = 0.0
    digest: str = ""
    flags: str = ""


class MemberEvaluation(CellRecord):
    """The results of an attack of a list, run on the survivors of the attacks before it.

    ``given`` is the number of survivors that it was run on, ``misled`` the number of these that
    became misclassified; ``error_after`` is the share of all examples misclassified clean, under it
    or under an earlier attack, which for the last attack is the worst-case error.
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
    flags: str = ""


class Failure(CellRecord):
    """A cell that raised an error, with the error and its traceback.

    ``raised_by`` says whose code raised it; empty if the error's own text does.
    """

    error: str
    traceback: str
    raised_by: str = Field(default="", exclude_if=not_)

    @property
    def text(self) -> str:
        """The first line of the error, with the party that raised it."""
        line = (self.error.splitlines() or [""])[0]
        return f"{line} (raised by {self.raised_by})" if self.raised_by else line


class PredictionChange(Record):
    """The predictions for clean inputs that the way of computing a model changes.

    Args:
        computed: the way, such as ``"bfloat16"``.
        changed: number of predictions that differ from those in float32.
        of: number of predictions compared; 0 if the model answers at random.
    """

    computed: str
    changed: int = Field(ge=0)
    of: int = Field(ge=0)

    @property
    def share(self) -> float:
        """The share of the predictions that differ."""
        return self.changed / self.of if self.of else 0.0

    @property
    def sentence(self) -> str:
        """A note for tables."""
        if not self.of:
            return f"computed in {self.computed}"
        return (
            f"computed in {self.computed}: {self.changed} of {self.of} predictions for clean "
            f"inputs ({self.share:.1%}) differ from those in float32"
        )


class ModelCard(Record):
    """A model of the run, with digests of its weights and of its predictions.

    ``notes`` describe how it was loaded, such as a prefix that was stripped from the names of its
    tensors; ``class_names`` are those of its outputs, if it states them; ``change`` is what another
    way of computing it changes, None in plain float32.
    """

    name: str
    model: str
    weights_digest: str
    digest: str
    outputs: str
    classes: int
    parameters: int
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = Field(default=(), exclude_if=not_)
    change: PredictionChange | None = Field(default=None, exclude_if=not_)


class DatasetCard(Record):
    """A dataset of the run; ``skipped`` names the files that could not be read.

    ``classes`` are in the order of the labels, and ``class_order`` says how names became labels;
    empty for a dataset that defines its labels.  ``bounds`` are the lowest and the highest value of
    an input, [0, 1] if None.  ``no_class`` says that the inputs belong to no class.
    """

    name: str
    digest: str
    examples: int
    of: int
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    class_order: str = Field(default="", exclude_if=not_)
    bounds: tuple[float, float] | None = Field(default=None, exclude_if=not_)
    no_class: bool = Field(default=False, exclude_if=not_)


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


FlaggedRow = Evaluation | Transfer | Agreement | WorstCase | MemberEvaluation | SeedStatistics
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{0,200}")  # of results, without its suffix
_Row = TypeVar(
    "_Row",
    Evaluation,
    Transfer,
    Agreement,
    WorstCase,
    MemberEvaluation,
    SeedStatistics,
)
_Subject = tuple[str, str, Epsilon]  # model, attack, epsilon
_Worst = tuple[str, str, Norm, Epsilon, bool]  # dataset, model and threat model


def flags_of(row: FlaggedRow, flags: Iterable[Flag] | FlagIndex) -> tuple[Flag, ...]:
    """Returns the flags that affect a row, in their order.

    They are those of the model that made the examples, under the attack or attacks of the row.  Of
    other models that the examples are scored on they are those that name no attack.
    """
    index = flags if isinstance(flags, FlagIndex) else FlagIndex(flags)
    places = {place for subject in _subjects(row) for place in index.places(row.dataset, *subject)}
    return tuple(index[place] for place in sorted(places))


def _subjects(row: FlaggedRow) -> Iterator[_Subject]:
    """Yields what a row is about; without an attack, flags that name one are not meant."""
    match row:
        case Evaluation() | MemberEvaluation():
            yield row.model, row.attack, row.epsilon
        case WorstCase():
            for attack in row.attacks or ("",):
                yield row.model, attack, row.epsilon
        case SeedStatistics():
            for model in row.models:
                yield model, row.attack, row.epsilon
        case Transfer():
            yield row.source, row.attack, row.epsilon
            yield row.target, "", row.epsilon
        case Agreement():
            yield row.source, row.attack, row.epsilon
            for target in (row.first, row.second):
                yield target, "", row.epsilon


def _with_kinds(rows: Iterable[_Row], index: FlagIndex) -> tuple[_Row, ...]:
    return tuple(row.model_copy(update={"flags": kinds_text(flags_of(row, index))}) for row in rows)


def _compared_flags(
    row: ModelComparison, worst: Mapping[_Worst, tuple[Flag, ...]]
) -> Iterator[Flag]:
    """Yields the flags of the worst cases that a comparison is made of."""
    for model in (row.first, row.second):
        yield from worst.get((row.dataset, model, row.norm, row.epsilon, row.clip), ())


def _bound_flags(row: CertifiedBound, index: FlagIndex) -> Iterator[Flag]:
    """Yields the flags that put a certified error in doubt."""
    for place in sorted(set(index.places(row.dataset, row.model, "", None))):
        if index[place].kind in ABOUT_ANSWERS:
            yield index[place]
    for flag in index:
        about = (flag.dataset, flag.model, flag.epsilon) == (row.dataset, row.model, row.epsilon)
        if about and flag.kind == CONTRADICTED:
            yield flag


class RunRecord(Record):
    """All results of a run: the content of ``run.json``.

    ``shard`` is set if the folder holds a shard of a run, which has no rows.
    """

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
    comparisons: tuple[ModelComparison, ...] = ()
    seeds: tuple[SeedStatistics, ...] = ()
    bounds: tuple[CertifiedBound, ...] = ()
    failures: tuple[Failure, ...] = ()
    flags: tuple[Flag, ...] = ()
    checks: tuple[CheckDone, ...] = ()
    examinations: tuple[Examination, ...] = ()
    survivors: tuple[SurvivorCheck, ...] = ()
    no_class: tuple[NoClassEvaluation, ...] = Field(default=(), exclude_if=not_)
    no_class_shares: tuple[NoClassShare, ...] = Field(default=(), exclude_if=not_)
    fooling: tuple[FoolingRate, ...] = Field(default=(), exclude_if=not_)
    claims: tuple[ClaimTest, ...] = Field(default=(), exclude_if=not_)
    shard: ShardCard | None = Field(default=None, exclude_if=not_)

    def with_flags(self, flags: Iterable[Flag]) -> RunRecord:
        """Returns the record with these flags in place of its own, also in the rows they affect."""
        found = sorted_flags(with_accepted(flags, self.suite.accept))
        index = FlagIndex(found)
        worst = {
            (each.dataset, each.model, each.norm, each.epsilon, each.clip): flags_of(each, index)
            for each in self.worst_cases
        }
        bounds = (
            each.model_copy(update={"flags": kinds_text(_bound_flags(each, index))})
            for each in self.bounds
        )
        comparisons = (
            each.model_copy(update={"flags": kinds_text(_compared_flags(each, worst))})
            for each in self.comparisons
        )
        return self.model_copy(
            update={
                "flags": found,
                "evaluations": _with_kinds(self.evaluations, index),
                "transfers": _with_kinds(self.transfers, index),
                "agreements": _with_kinds(self.agreements, index),
                "worst_cases": _with_kinds(self.worst_cases, index),
                "members": _with_kinds(self.members, index),
                "seeds": _with_kinds(self.seeds, index),
                "comparisons": tuple(comparisons),
                "bounds": tuple(bounds),
            }
        )

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
        """Returns the record in a run's folder.

        Raises `RecordError` if it can't be read, or if the folder holds a shard of a run.
        """
        record = cls.read_any(folder)
        if record.shard is not None:
            raise RecordError(
                f"{folder}: holds shard {record.shard.shard} of suite {record.suite.name!r}, not a "
                "whole run: merge all shards first, with gibbon merge FOLDER..."
            )
        return record

    @classmethod
    def read_any(cls, folder: Path) -> RunRecord:
        """Returns the record of a run, or of a shard of one.  Raises `RecordError`."""
        path = folder / RUN_FILE
        content = read_bytes(path, RecordError, limit=RECORD_BYTES)
        try:
            record = cls.model_validate_json(checked_text(content))
        except RecordError as error:
            raise RecordError(f"{path}: {error}") from error
        except ValidationError as error:
            first: Any = error.errors()[0]
            where = "".join(f"{part}." for part in first["loc"])[:-1]
            problem = f"{where}: {first['msg']}" if where else first["msg"]
            raise RecordError(f"{path}: not a run of this version of Gibbon: {problem}") from error
        record.check_whole(where=str(path))
        return record

    def check_whole(self, *, where: str) -> None:
        """Raises `RecordError` if a row can't be used.

        A model has rows under attacks, but no unattacked one; or a digest, by which the files of a
        row are found, is no name of a file in the run's folder.
        """
        digests = [
            *(each.digest for each in self.evaluations),
            *(each.digest for each in self.transfers),
            *(each.digest for each in self.members),
            *(each.digest for each in self.bounds),
            *(each.digest for each in self.no_class),
        ]
        for digest in digests:
            if not _FILE_NAME.fullmatch(digest):
                raise RecordError(
                    f"{where}: damaged: {shown(digest)}, the digest of a row, is no name of a file "
                    "of results"
                )
        pairs = {(each.dataset, each.model) for each in self.evaluations}
        whole = {(e.dataset, e.model) for e in self.evaluations if e.attack == UNATTACKED}
        for dataset, model in sorted(pairs - whole):
            raise RecordError(
                f"{where}: damaged: model {model!r} on {dataset!r} has no unattacked row (attack "
                f"{UNATTACKED!r}), which every other row is compared with"
            )

    def write(self, folder: Path) -> None:
        """Writes the record into a run's folder, atomically, with a checksum of its content."""
        write_atomically(folder / RUN_FILE, with_checksum(self.model_dump_json(indent=1)))

"""Results of `evaluate`: figures as attributes, tables as data frames, and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from gibbon.api.report_page import ReportPage
from gibbon.api.request import Budget
from gibbon.api.run_files import NO_FILES, RunFiles
from gibbon.core.errors import CellError, SpecError, UnknownNameError
from gibbon.core.files import StrPath
from gibbon.core.threat import Epsilon
from gibbon.records.flags import Flag
from gibbon.records.no_class import FoolingRate, NoClassEvaluation, NoClassShare
from gibbon.records.outcomes import Outcome
from gibbon.records.run import Agreement, Evaluation, Failure, RunRecord, Transfer, flags_of
from gibbon.report.text.notebook import record_html
from gibbon.report.text.terminal import print_record
from gibbon.specs.base import UNATTACKED
from gibbon.specs.suite import Experiment, TransferSpec

if TYPE_CHECKING:
    import pandas as pd

NAMED = 5  # of many rows, an error names so many


@dataclass(frozen=True)
class Examples:
    """Outcome of each example under one attack at one epsilon; every array has shape (N,).

    Args:
        example_id: int64: the example's position in the data.
        label: int32: the true class.
        clean_predicted: int32: the class predicted unattacked.
        predicted: int32: the class predicted for the adversarial example.
        confidence: float32: the model's probability for that class.
        distance: float32: distance of the adversarial example from the input in the attack's norm.
        misclassified: bool: whether it is misclassified within the budget and the bounds.
        wrong_share: float64: share of wrong answers to it, 0 or 1 unless the answers are random.
    """

    example_id: NDArray[np.int64]
    label: NDArray[np.int32]
    clean_predicted: NDArray[np.int32]
    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    distance: NDArray[np.float32]
    misclassified: NDArray[np.bool_]
    wrong_share: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.example_id)

    def to_frame(self) -> pd.DataFrame:
        """Returns a pandas data frame with one row per example."""
        import pandas as pd

        return pd.DataFrame(vars(self))


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """Results of `evaluate`: rows by model, attack and epsilon, and the outcome of each example.

    Args:
        record: the content of ``run.json``: rows, flags, failures, provenance.
        outcomes: the outcome of every example in each cell, by the cell's digest.
        files: the files of the run, which pictures and reports are made from.

    Printed, they are the tables of the command line; a notebook shows them as HTML, with curves and
    pictures of examples.
    """

    record: RunRecord
    outcomes: Mapping[str, Outcome]
    files: RunFiles = NO_FILES

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """One row per unattacked model, and per model, attack and epsilon."""
        return self.record.evaluations

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """One row per source, target, attack and epsilon; empty for a single model."""
        return self.record.transfers

    @property
    def no_class(self) -> tuple[NoClassEvaluation, ...]:
        """One row per model on inputs without a class; empty for other data."""
        return self.record.no_class

    @property
    def no_class_shares(self) -> tuple[NoClassShare, ...]:
        """One row per model and class: its share of the false positives."""
        return self.record.no_class_shares

    @property
    def fooling(self) -> tuple[FoolingRate, ...]:
        """One row per model and wanted class; empty unless fooling images were requested."""
        return self.record.fooling

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Cells that raised an exception."""
        return self.record.failures

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Signs that a number may be wrong, the serious ones first."""
        return self.record.flags

    @property
    def serious_flags(self) -> tuple[Flag, ...]:
        """The serious flags that nobody accepted: the numbers must not be used.

        These are the flags that fail verdicts.
        """
        return tuple(flag for flag in self.flags if flag.counts)

    @property
    def clean_error(self) -> float:
        """Share of the examples that the one model misclassifies unattacked.

        Raises `SpecError` if there are several models, `CellError` if the cell failed.
        """
        row = self._only([row for row in self.evaluations if row.unattacked], "models")
        return _known(row.clean_error)

    @property
    def adversarial_error(self) -> float:
        """Share of all examples that are misclassified under the one attack at the one epsilon.

        Raises `SpecError` if there are several attacks or epsilons, `CellError` if the cell failed.
        """
        return _known(self._attacked.adversarial_error)

    @property
    def robust_accuracy(self) -> float:
        """Share of all examples classified correctly clean and at every candidate of every attack.

        It is of the one model, under the one threat model: norm, epsilon and clipping.  After
        `select` it is that of the selected attack.

        Raises `SpecError` if there are several models, or attacks of several threat models,
        `CellError` if a cell failed.
        """
        rows = [row for row in self.evaluations if not row.unattacked]
        if len(rows) == 1 or not rows:
            return _known(self._attacked.robust_accuracy)
        worst = self.record.worst_cases
        failed = [row for row in rows if row.status == "failed"]
        if len(worst) != 1 or failed:
            self._only(failed[:1] or rows, "models, or threat models of attacks")
        (row,) = worst
        return _known(row.robust_accuracy)

    @property
    def confidence_on_misclassified(self) -> float | None:
        """Mean confidence over the misclassified adversarial examples; None if there are none.

        Raises `SpecError` if there are several attacks or epsilons, `CellError` if the cell failed.
        """
        return self._attacked.confidence_on_misclassified

    @property
    def examples(self) -> Examples:
        """Outcome of each example under the one attack at the one epsilon.

        Raises `SpecError` if there are several attacks or epsilons, `CellError` if the cell failed.
        """
        row = self._attacked
        (clean,) = (
            each for each in self.evaluations if each.unattacked and each.model == row.model
        )
        self._only([clean], "models")
        before, after = self.outcomes[clean.digest], self.outcomes[row.digest]
        (digest,) = (card.digest for card in self.record.models if card.name == row.model)
        return Examples(
            after.example_id,
            after.label,
            before.scores[digest].predicted,
            after.scores[digest].predicted,
            after.scores[digest].confidence,
            after.distance,
            after.misclassified(digest),
            after.wrong_share(digest),
        )

    def select(
        self,
        *,
        model: str | None = None,
        attack: str | None = None,
        epsilon: Budget | None = None,
    ) -> Results:
        """Returns the results of a model, of an attack by its label, or at an epsilon.

        Raises `UnknownNameError` or `SpecError` if nothing has that name or epsilon.
        """
        budget = None if epsilon is None else Epsilon.parse(epsilon, where="epsilon")
        experiments = self.record.suite.experiments
        attacks = [each for experiment in experiments for each in experiment.attacks]
        models = {each.name for experiment in experiments for each in experiment.models}
        if model is not None and model not in models:
            raise UnknownNameError("model", model, known=models)
        if attack is not None and attack not in (labels := {each.label for each in attacks}):
            raise UnknownNameError("attack", attack, known=labels)
        chosen = (each for each in attacks if attack in (None, each.label))
        budgets = {each for spec in chosen for each in spec.epsilon}
        if budget is not None and budget not in budgets:
            known = ", ".join(map(str, sorted(budgets)))
            raise SpecError(f"nothing was measured at epsilon {budget}; there are {known}")
        return Results(_narrowed(self.record, model, attack, budget), self.outcomes, self.files)

    def report(self, file: StrPath | None = None) -> ReportPage:
        """Returns the report of the results, as one HTML page that needs no other files.

        Args:
            file: the file that the page is written to, such as ``"report.html"``; none if None.

        A notebook shows the page in a frame.  Raises `RecordError` if a file of the run can't be
        read, `RunFolderError` if the page can't be written.
        """
        from gibbon.report.html.page import report_html

        with self.files.opened() as folder:
            page = ReportPage(self.record.suite.name, report_html(self.record, folder))
        if file is not None:
            page.save(file)
        return page

    def to_frame(self) -> pd.DataFrame:
        """Returns the evaluations as a data frame with the columns of ``evaluations.csv``."""
        from gibbon.report.text.csv import frame

        return frame(Evaluation, self.evaluations)

    def transfer_frame(self) -> pd.DataFrame:
        """Returns the transfers as a data frame with the columns of ``transfer.csv``."""
        from gibbon.report.text.csv import frame

        return frame(Transfer, self.transfers)

    def no_class_frame(self) -> pd.DataFrame:
        """Returns the rows of inputs without a class with the columns of ``no_class.csv``."""
        from gibbon.report.text.csv import frame

        return frame(NoClassEvaluation, self.no_class)

    def __str__(self) -> str:
        text = StringIO()
        print_record(self.record, Console(file=text, color_system=None))
        return text.getvalue()

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        serious = len(self.serious_flags)
        rows = len(self.evaluations) + len(self.no_class)
        flagged = f", {serious} serious flag{'s' if serious > 1 else ''}" if serious else ""
        return f"<Results {self.record.suite.name!r}: {rows} rows{flagged}{failed}>"

    def _repr_html_(self) -> str:
        with self.files.opened() as folder:
            return record_html(self.record, folder)

    @property
    def _attacked(self) -> Evaluation:
        rows = [row for row in self.evaluations if not row.unattacked]
        return self._only(rows, "models, attacks or epsilons")

    def _only(self, rows: Sequence[Evaluation], kind: str) -> Evaluation:
        if not rows:
            raise SpecError("there is no attack among these results, only the clean error")
        if len(rows) > 1:
            named = [f"{row.model}, {row.attack} at {row.epsilon}" for row in rows]
            named[NAMED:] = [f"and {len(rows) - NAMED} more"] if len(rows) > NAMED else []
            what = "; ".join(named)
            raise SpecError(f"there are several {kind}; choose one with select(...): {what}")
        (row,) = rows
        if row.status == "failed":
            reason = next(
                failure.text
                for failure in self.failures
                if (failure.model, failure.attack) == (row.model, row.attack)
                and (row.unattacked or failure.epsilon == row.epsilon)
            )
            raise CellError(f"{row.model}, {row.attack} at epsilon {row.epsilon} failed: {reason}")
        return row


def _known(rate: float | None) -> float:
    if rate is None:
        raise CellError("there is no such number: the unattacked examples failed")
    return rate


def _narrowed(
    record: RunRecord, model: str | None, attack: str | None, epsilon: Epsilon | None
) -> RunRecord:
    """Returns a record restricted to one model, attack and epsilon; None stands for any.

    The unattacked rows stay; transfers stay by the model that the examples were made on, and flags
    if they affect one of these rows, or are about nothing else.
    """

    def kept(row: Evaluation | Failure | Transfer | Agreement) -> bool:
        name = row.model if isinstance(row, Evaluation | Failure) else row.source
        chosen = attack in (None, row.attack) and epsilon in (None, row.epsilon)
        return model in (None, name) and (chosen or row.attack == UNATTACKED)

    def experiment(whole: Experiment) -> Experiment:
        attacks = tuple(
            spec.model_copy(update={"epsilon": left})
            for spec in whole.attacks
            if attack in (None, spec.label)
            and (left := tuple(each for each in spec.epsilon if epsilon in (None, each)))
        )
        named = whole.transfer.attacks if whole.transfer and model is None else ()
        crossed = tuple(each for each in named if each in {spec.label for spec in attacks})
        transfer = TransferSpec(attacks=crossed) if crossed else None
        models = tuple(each for each in whole.models if model in (None, each.name))
        return whole.model_copy(update={"models": models, "attacks": attacks, "transfer": transfer})

    def about(flag: Flag) -> bool:
        chosen = (attack is None or flag.attack in ("", attack)) and (
            epsilon is None or flag.epsilon in (None, epsilon)
        )
        own = model is None or flag.model in ("", model)
        return own and (chosen or flag.attack == UNATTACKED)

    experiments = tuple(map(experiment, record.suite.experiments))
    transfers = tuple(filter(kept, record.transfers))
    affecting = {flag for row in transfers for flag in flags_of(row, record.flags)}
    whole_attacks = attack is None and epsilon is None
    update = {
        "suite": record.suite.model_copy(update={"experiments": experiments}),
        "evaluations": tuple(filter(kept, record.evaluations)),
        "transfers": transfers,
        "agreements": tuple(filter(kept, record.agreements)),
        "worst_cases": tuple(
            row for row in record.worst_cases if whole_attacks and model in (None, row.model)
        ),
        "no_class": tuple(row for row in record.no_class if model in (None, row.model)),
        "no_class_shares": tuple(
            row for row in record.no_class_shares if model in (None, row.model)
        ),
        "fooling": tuple(row for row in record.fooling if model in (None, row.model)),
        "failures": tuple(filter(kept, record.failures)),
        "flags": tuple(flag for flag in record.flags if about(flag) or flag in affecting),
    }
    return record.model_copy(update=update)

"""Counts the answers to inputs without a class: makes the rows of the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gibbon.metrics.bootstrap import BOOTSTRAP_SEED, Bootstrap
from gibbon.metrics.detection import auroc, false_positives_at_tpr, threshold_at_tpr
from gibbon.metrics.intervals import Interval
from gibbon.metrics.rates import MeanShare, Share, mean, mean_share, share
from gibbon.records.no_class import FoolingRate, NoClassEvaluation, NoClassShare
from gibbon.records.no_class_answers import NoClassAnswers, read_answers
from gibbon.records.run import Failure
from gibbon.runner.no_class.plan_no_class import PlannedAnswers, answers_of, plan_answers
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Plan, PlannedExperiment
from gibbon.runner.run_folder import RunFolder

Columns = dict[str, Any]
LOST = "its answers no_class/{}.parquet are missing or damaged: run the suite again"


@dataclass
class NoClassRows:
    """The rows about inputs without a class, and failures that no computation has reported."""

    evaluations: list[NoClassEvaluation] = field(default_factory=list)
    shares: list[NoClassShare] = field(default_factory=list)
    fooling: list[FoolingRate] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def count_no_class(plan: Plan, folder: RunFolder, failures: list[Failure]) -> NoClassRows:
    """Returns the rows of a plan; ``failures`` are those that are known."""
    rows = NoClassRows()
    known = {(each.dataset, each.model, each.attack) for each in failures}
    for planned in plan_answers(plan):
        if not _stored(planned, folder):
            failure = planned.failure(LOST.format(planned.digest))
            if (failure.dataset, failure.model, failure.attack) not in known:
                rows.failures.append(failure)
    for experiment in plan.without_classes:
        for model in experiment.models:
            _Counter(plan, folder, experiment, model).add_to(rows)
    return rows


@dataclass(frozen=True)
class _Counter:
    """Counts the answers of one model in one experiment."""

    plan: Plan
    folder: RunFolder
    experiment: PlannedExperiment
    model: LoadedModel

    def add_to(self, rows: NoClassRows) -> None:
        """Appends the rows."""
        spec = self.experiment.spec
        columns: Columns = {
            "dataset": spec.dataset.name,
            "model": self.model.name,
            "examples": len(self.experiment.ids),
            "threshold": spec.threshold,
            "draws": self.model.draws,
        }
        planned = answers_of(self.experiment, self.model, None)
        columns["digest"] = planned.digest
        columns |= self._fooling_columns(rows)
        answers = _stored(planned, self.folder)
        if answers is None:
            columns["status"] = "failed"
        else:
            claims = _Claims.of(answers)
            columns |= _claim_columns(claims, spec.threshold)
            columns |= self._clean_columns(claims)
            columns |= self._spent()
            shares = list(self._shares(claims))
            columns |= _top(shares)
            rows.shares.extend(shares)
        rows.evaluations.append(NoClassEvaluation.model_validate(columns))

    def _spent(self) -> Columns:
        """Returns passes and seconds, of the answers to the inputs and of fooling images."""
        fooling = self.experiment.spec.fooling
        steps = (None,) if fooling is None else (None, fooling)
        planned = (answers_of(self.experiment, self.model, each) for each in steps)
        metas = [found.meta for each in planned if (found := _stored(each, self.folder))]
        return {
            name: sum(getattr(each, name) for each in metas)
            for name in ("forward_passes", "backward_passes", "seconds")
        }

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the model's classes: its own, those of the clean data, or numbers."""
        count = self.model.card.classes
        clean = self.plan.clean_experiment(self.experiment)
        for names in (() if clean is None else clean.dataset.classes, self.model.card.class_names):
            if len(names) == count:
                return names
        return tuple(map(str, range(count)))

    def _clean_columns(self, claims: _Claims) -> Columns:
        """Returns the columns that compare the confidences with those on inputs with a class."""
        clean = self.plan.clean_experiment(self.experiment)
        if clean is None:
            return {}
        columns: Columns = {"against": clean.spec.dataset.name}
        source = next((each for each in clean.models if each.name == self.model.name), None)
        cells = (each for each in clean.cells if each.attack is None and each.source is source)
        cell = next(cells, None)
        outcome = None if cell is None else self.folder.read(cell.digest)
        if source is None or outcome is None or source.digest not in outcome.scores:
            return columns
        there = outcome.scores[source.digest].confidence
        area = auroc(there, claims.of_example)
        columns |= {"clean_examples": len(there), "auroc": area.value}
        columns |= _ends("auroc", area.interval)
        columns |= _rate(
            "false_positive_rate_at_95_tpr", false_positives_at_tpr(there, claims.of_example)
        )
        return {**columns, "confidence_at_95_tpr": threshold_at_tpr(there)}

    def _shares(self, claims: _Claims) -> Iterator[NoClassShare]:
        """Yields each class's share of the false positives, over all draws of a random model."""
        spec = self.experiment.spec
        taken = claims.predicted[claims.confidence > spec.threshold]
        counts = np.bincount(taken, minlength=self.model.card.classes)
        for index, name in enumerate(self.class_names):
            counted = Share(int(counts[index]), len(taken))
            columns = _rate("share", counted)
            if self.model.draws > 1:  # draws of one example are no independent examples
                columns |= {"share_low": None, "share_high": None}
            yield NoClassShare(
                dataset=spec.dataset.name,
                model=self.model.name,
                index=index,
                of_class=name,
                false_positives=counted.total,
                count=counted.count,
                **columns,
            )

    def _fooling_columns(self, rows: NoClassRows) -> Columns:
        """Appends the rows of fooling images, and returns the columns of their mean."""
        spec, fooling = self.experiment.spec, self.experiment.spec.fooling
        if fooling is None:
            return {}
        planned = answers_of(self.experiment, self.model, fooling)
        answers = _stored(planned, self.folder)
        fooled_by_class = []
        for index, name in enumerate(self.class_names):
            columns: Columns = {"status": "failed"}
            if answers is not None:
                claims = _Claims.of(answers, wanted=index)
                columns = _fooling_rates(claims, index, spec.threshold)
                fooled_by_class.append(_fooled(claims, index, spec.threshold).mean(1))
            rows.fooling.append(
                FoolingRate(
                    dataset=spec.dataset.name,
                    model=self.model.name,
                    index=index,
                    of_class=name,
                    step=fooling.step,
                    direction=fooling.direction,
                    examples=len(self.experiment.ids),
                    threshold=spec.threshold,
                    digest=planned.digest,
                    **columns,
                )
            )
        if not fooled_by_class:
            return {}
        of_example = np.stack(fooled_by_class).mean(0)
        interval = Bootstrap(len(of_example), seed=BOOTSTRAP_SEED).mean(of_example)
        return {"fooling_rate": mean(of_example), **_ends("fooling_rate", interval)}


def observed_claims(
    experiment: PlannedExperiment, model: LoadedModel, folder: RunFolder
) -> tuple[NDArray[np.bool_], NDArray[np.float64]] | None:
    """Returns which inputs a model takes for a class, and its confidences, both of shape (N,).

    None if they are not stored, or the answers are random.
    """
    answers = _stored(answers_of(experiment, model, None), folder)
    if answers is None:
        return None
    claims = _Claims.of(answers)
    positive: NDArray[np.bool_] = claims.confidence[:, 0] > experiment.spec.threshold
    return (positive, claims.of_example) if claims.draws == 1 else None


@dataclass(frozen=True)
class _Claims:
    """Predicted classes and confidences, shape (N, draws), by example id and draw."""

    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]

    @classmethod
    def of(cls, answers: NoClassAnswers, *, wanted: int | None = None) -> _Claims:
        """Returns the answers, or those to steps towards one class."""
        rows = np.arange(len(answers.example_id))
        if wanted is not None:
            rows = np.flatnonzero(answers.wanted == wanted)
        order = rows[np.lexsort((answers.draw[rows], answers.example_id[rows]))]
        draws = int(answers.draw.max()) + 1
        return cls(
            answers.predicted[order].reshape(-1, draws),
            answers.confidence[order].reshape(-1, draws),
        )

    @property
    def draws(self) -> int:
        """Number of draws."""
        return int(self.predicted.shape[1])

    @property
    def of_example(self) -> NDArray[np.float64]:
        """The confidence of each example, a mean over its draws, shape (N,)."""
        found: NDArray[np.float64] = self.confidence.mean(1, dtype=np.float64)
        return found


def _claim_columns(claims: _Claims, threshold: float) -> Columns:
    positive = claims.confidence > threshold
    counted = _counted(positive)
    bootstrap = Bootstrap(len(positive), seed=BOOTSTRAP_SEED)
    columns = _rate("false_positive_rate", counted) | {
        "false_positives": round((counted.value or 0.0) * len(positive)),
        "confidence_on_false_positives": mean(claims.confidence[positive]),
        "mean_confidence": mean(claims.of_example),
        **_ends("mean_confidence", bootstrap.mean(claims.of_example)),
    }
    if claims.draws == 1:
        interval = bootstrap.mean(claims.confidence[:, 0], among=positive[:, 0])
        columns |= _ends("confidence_on_false_positives", interval)
    return columns


def _fooled(claims: _Claims, wanted: int, threshold: float) -> NDArray[np.bool_]:
    """Returns which draws give the wanted class a probability above the threshold, (N, draws)."""
    found: NDArray[np.bool_] = (claims.predicted == wanted) & (claims.confidence > threshold)
    return found


def _fooling_rates(claims: _Claims, wanted: int, threshold: float) -> Columns:
    fooled = _fooled(claims, wanted, threshold)
    counted = _counted(fooled)
    return _rate("fooling_rate", counted) | {
        "fooled": round((counted.value or 0.0) * len(fooled)),
        "predicted_rate": _counted(claims.predicted == wanted).value,
        "confidence_on_fooled": mean(claims.confidence[fooled]),
    }


def _counted(which: NDArray[np.bool_]) -> Share | MeanShare:
    """Returns the share of examples, or the mean over examples of the share of their draws."""
    draws = which.shape[1]
    return share(which[:, 0]) if draws == 1 else mean_share(which.mean(1), draws=draws)


def _top(shares: list[NoClassShare]) -> Columns:
    top = max(shares, key=lambda each: each.count, default=None)
    if top is None or not top.count:
        return {}
    return {"top_class": top.of_class, "top_class_share": top.share}


def _rate(name: str, counted: Share | MeanShare) -> Columns:
    return {name: counted.value, **_ends(name, counted.interval)}


def _ends(name: str, interval: Interval | None) -> Mapping[str, float | None]:
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return {f"{name}_low": low, f"{name}_high": high}


def _stored(planned: PlannedAnswers, folder: RunFolder) -> NoClassAnswers | None:
    """Returns the answers if they are stored for all examples."""
    found = read_answers(folder.path, planned.digest)
    return found if found is not None and found.covers(planned.experiment.ids) else None

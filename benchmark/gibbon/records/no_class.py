"""Results of models on inputs that belong to no class: rows of tables.  Imports no torch.

An input is a false positive if the model gives its predicted class a probability above the
threshold.  Probabilities are the model's confidence as its outputs declare it: softmax, independent
sigmoids, an RBF unit's own output.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gibbon.records.record import Record
from gibbon.specs.base import EpsilonField
from gibbon.specs.suite import Direction

OptionalShare = Annotated[float, Field(ge=0, le=1)] | None
Number = Annotated[int, Field(ge=0)] | None


class NoClassEvaluation(Record):
    """A model on inputs without a class: a row of ``no_class.csv``.

    The fields are the columns, in their order.  ``false_positive_rate`` is the share of the
    ``examples`` that are false positives, and ``false_positives`` their number.
    ``confidence_on_false_positives`` is the mean confidence over them, ``mean_confidence`` over all
    examples.  ``top_class`` is the class that most of the false positives are taken for, and
    ``top_class_share`` its share of them.

    ``auroc`` and ``false_positive_rate_at_95_tpr`` compare the confidences with those on the
    ``clean_examples`` of the dataset ``against``; they are None without one.  The latter is the
    share of the examples whose confidence is at least ``confidence_at_95_tpr``, which 95 % of the
    clean examples reach.

    ``fooling_rate`` is the mean over all classes of the rates in ``fooling.csv``; None if fooling
    images were not requested.

    Columns ``*_low`` and ``*_high`` are the ends of 95 % intervals: Wilson's for rates, bootstrap
    intervals (BCa) for means, DeLong's for the AUROC.  ``draws`` is the number of times that the
    model was evaluated on each input; if it is above 1, because the answers are random, rates are
    mean shares over the draws, ``false_positives`` is the rate times the examples, rounded, and an
    example's confidence is its mean over the draws.  Passes, by example, and seconds include those
    of fooling images.
    """

    dataset: str
    model: str
    examples: int
    threshold: float
    false_positive_rate: OptionalShare = None
    false_positive_rate_low: OptionalShare = None
    false_positive_rate_high: OptionalShare = None
    false_positives: Number = None
    confidence_on_false_positives: OptionalShare = None
    confidence_on_false_positives_low: OptionalShare = None
    confidence_on_false_positives_high: OptionalShare = None
    mean_confidence: OptionalShare = None
    mean_confidence_low: OptionalShare = None
    mean_confidence_high: OptionalShare = None
    top_class: str = ""
    top_class_share: OptionalShare = None
    against: str = ""
    clean_examples: Number = None
    auroc: OptionalShare = None
    auroc_low: OptionalShare = None
    auroc_high: OptionalShare = None
    false_positive_rate_at_95_tpr: OptionalShare = None
    false_positive_rate_at_95_tpr_low: OptionalShare = None
    false_positive_rate_at_95_tpr_high: OptionalShare = None
    confidence_at_95_tpr: OptionalShare = None
    fooling_rate: OptionalShare = None
    fooling_rate_low: OptionalShare = None
    fooling_rate_high: OptionalShare = None
    status: Literal["done", "failed"] = "done"
    draws: Annotated[int, Field(ge=1)] = 1
    forward_passes: int = 0
    backward_passes: int = 0
    seconds: float = 0.0
    digest: str = ""


class NoClassShare(Record):
    """A class among a model's false positives: a row of ``no_class_classes.csv``.

    ``share`` is the part of the ``false_positives`` that the model takes for class ``of_class``,
    whose position among the outputs is ``index``; ``count`` is their number.
    """

    dataset: str
    model: str
    index: int
    of_class: str
    false_positives: int
    count: int
    share: OptionalShare = None
    share_low: OptionalShare = None
    share_high: OptionalShare = None


class FoolingRate(Record):
    """Fooling images for one wanted class: a row of ``fooling.csv``.

    From each of the ``examples`` one step of size ``step`` was taken towards the class
    ``of_class``, whose position among the outputs is ``index``.  ``fooling_rate`` is the share that
    the model then takes for that class with a probability above ``threshold``, ``predicted_rate``
    the share that it takes for it with any probability, and ``confidence_on_fooled`` the mean
    probability over the former.
    """

    dataset: str
    model: str
    index: int
    of_class: str
    step: EpsilonField
    direction: Direction
    examples: int
    threshold: float
    fooling_rate: OptionalShare = None
    fooling_rate_low: OptionalShare = None
    fooling_rate_high: OptionalShare = None
    fooled: Number = None
    predicted_rate: OptionalShare = None
    confidence_on_fooled: OptionalShare = None
    status: Literal["done", "failed"] = "done"
    digest: str = ""

"""Published results that a suite compares with its own."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gibbon.core.threat import ZERO, Norm
from gibbon.specs.base import UNATTACKED, EpsilonField, Name, OneOrMany, Spec

MeasureName = Literal[
    "clean_error",
    "adversarial_error",
    "confidence_on_misclassified",
    "mean_confidence",
    "worst_case_error",
    "certified_error",
    "transfer_error",
    "same_class_given_source_misclassified",
    "same_class_given_both_misclassified",
    "false_positive_rate",
    "confidence_on_false_positives",
    "share_of_false_positives",
    "fooling_rate",
    "auroc",
    "one_picture",
]
# Those of inputs without a class: the row's attack is none, its epsilon 0.
NO_CLASS_MEASURES: tuple[MeasureName, ...] = (
    "false_positive_rate",
    "confidence_on_false_positives",
    "share_of_false_positives",
    "fooling_rate",
    "auroc",
)


def _is_missing(value: object) -> bool:
    return value is None


class PublishedRow(Spec):
    """A published number, which tables show next to the measured one.

    Rates and confidences are fractions of 1.  For transfer measures ``model`` is the source and
    ``target`` the model that is scored; ``compared_with`` names another target if the paper
    compares two targets with each other on the source's examples.

    Args:
        id: the row's own name.
        dataset: the dataset that it was published for, by its name in the suite.
        measure: the quantity, such as ``adversarial_error``.
        section: the section of the publication.
        attack: label of the attack; ``none`` if the examples are not attacked.
        epsilon: the epsilon of the attack; 0 if the examples are not attacked.
        text: the published result in words, for ``one_picture``.
        value: the number; None if ``text`` describes a published result that no run measures.
        above: whether the number is a lower bound of the published result.
        tolerance: largest difference at which the measured number counts as reproduced.
        bound: ``upper`` if no attack may find more errors than ``value``, as with a certified
            error; ``lower`` if the attacks must find at least as many, as with the error under a
            published attack.  The tolerance is then that of the published number's rounding.
        norm: norm of the perturbation that a bound is about.
        proved: text file with the ids of the examples that are proved robust, one a line.
        reason: explanation of a larger difference, printed beside it.
        needs: requirements of the measurement, printed if it was not made.
        note: note that is always printed.
        of_class: name or number of the class that ``share_of_false_positives`` is about, and
            ``fooling_rate``, which without it is the mean over all classes.
        judged_by: what is compared with the number if ``model`` names several trainings: their
            ``mean``, or their ``range`` from the lowest to the highest, for a measure that depends
            on the network that examples are made on.
        effect: the claim of the suite that the number belongs to: if it is refuted, so is the row.
    """

    dataset: Name
    model: Name
    measure: MeasureName
    value: float | None = Field(default=None, ge=0, le=1)
    section: str
    id: Name | None = None
    text: str = ""
    above: bool = Field(default=False, strict=True)
    tolerance: float | None = Field(default=None, ge=0, le=1)
    bound: Literal["lower", "upper"] | None = Field(default=None, exclude_if=_is_missing)
    norm: Norm | None = Field(default=None, exclude_if=_is_missing)
    proved: str | None = Field(default=None, min_length=1, exclude_if=_is_missing)
    reason: str = ""
    needs: str = ""
    attack: Annotated[tuple[Name, ...], OneOrMany] = (UNATTACKED,)
    epsilon: EpsilonField = ZERO
    target: Name | None = None
    compared_with: Name | None = None
    note: str = ""
    of_class: str | int | None = Field(default=None, exclude_if=_is_missing)
    judged_by: Literal["mean", "range"] = Field(default="mean", exclude_if="mean".__eq__)
    effect: Name | None = Field(default=None, exclude_if=_is_missing)

    @model_validator(mode="after")
    def _class_where_there_is_one(self) -> Self:
        if self.measure == "share_of_false_positives" and self.of_class is None:
            raise ValueError("of_class is missing: share_of_false_positives is about one class")
        if self.of_class is not None and self.measure not in (
            "share_of_false_positives",
            "fooling_rate",
        ):
            raise ValueError(f"of_class with measure {self.measure!r}, which is about all classes")
        if self.measure in NO_CLASS_MEASURES and self.attack != (UNATTACKED,):
            raise ValueError(
                f"measure {self.measure!r} is of inputs without a class, which no attack needs: "
                "leave out attack"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _certified_is_a_bound(cls, written: Any) -> Any:
        if isinstance(written, dict) and written.get("measure") == "certified_error":
            return {"bound": "upper", **written}
        return written

    @model_validator(mode="after")
    def _bounds_are_of_errors(self) -> Self:
        errors = ("adversarial_error", "worst_case_error", "certified_error")
        if self.bound is not None and self.measure not in errors:
            raise ValueError(
                f"bound {self.bound!r} with measure {self.measure!r}: a bound is of an error, one "
                f"of {', '.join(errors)}"
            )
        if self.measure == "certified_error" and self.bound != "upper":
            raise ValueError("a certified error is an upper bound: leave out bound")
        if self.proved is not None and (self.bound != "upper" or self.norm is None):
            raise ValueError(
                "proved names examples that no attack may claim: it needs measure "
                '"certified_error" and a norm'
            )
        return self

    @model_validator(mode="after")
    def _transfer_has_target(self) -> Self:
        about_transfer = self.measure.startswith(("transfer_", "same_class_"))
        if about_transfer != (self.target is not None):
            raise ValueError(f"measure {self.measure!r} with target {self.target!r}")
        return self

    @model_validator(mode="after")
    def _says_what_was_published(self) -> Self:
        if (self.value is None) != (self.measure == "one_picture"):
            raise ValueError(f"measure {self.measure!r} with value {self.value!r}")
        if self.value is None and not self.text:
            raise ValueError("text is missing: a row without a value says what was published")
        return self

"""Claims about the order of two measures, which a suite tests on its own results."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from gibbon.core.threat import ZERO
from gibbon.specs.base import UNATTACKED, EpsilonField, Name, Spec
from gibbon.specs.published import NO_CLASS_MEASURES, MeasureName

ClaimOrder = Literal["lower", "higher"]

# The measures that are means over examples, so that two of them can be compared by example.
TESTED: Final[tuple[MeasureName, ...]] = (
    "clean_error",
    "adversarial_error",
    "confidence_on_misclassified",
    "mean_confidence",
    "worst_case_error",
    "transfer_error",
    "same_class_given_source_misclassified",
    "same_class_given_both_misclassified",
    "false_positive_rate",
    "confidence_on_false_positives",
)


class MeasuredQuantity(Spec):
    """A measure of a model on a dataset, as in a row of published numbers.

    Args:
        dataset: name of the dataset in the suite.
        measure: the quantity, such as ``adversarial_error``; a mean over examples.
        attack: label of the attack; ``none`` if the examples are not attacked.
        epsilon: the epsilon of the attack; 0 if the examples are not attacked.

    ``model`` is a model of the dataset's experiment, or a name that models share as ``seeds_of``:
    then it is the mean over them.  For transfer measures it is the source, and ``target`` the model
    that is scored; ``compared_with`` names another target if two targets are compared.
    """

    dataset: Name
    model: Name
    measure: MeasureName
    attack: Name = UNATTACKED
    epsilon: EpsilonField = ZERO
    target: Name | None = None
    compared_with: Name | None = None

    @model_validator(mode="after")
    def _is_a_mean_over_examples(self) -> Self:
        if self.measure not in TESTED:
            raise ValueError(
                f"measure {self.measure!r} is no mean over examples, which the test of an order "
                f"needs: one of {', '.join(TESTED)}"
            )
        about_transfer = self.measure.startswith(("transfer_", "same_class_"))
        if about_transfer != (self.target is not None):
            raise ValueError(f"measure {self.measure!r} with target {self.target!r}")
        if self.compared_with is not None and self.measure != "same_class_given_both_misclassified":
            raise ValueError(
                f"compared_with with measure {self.measure!r}: two targets are compared by "
                "same_class_given_both_misclassified"
            )
        if self.measure in NO_CLASS_MEASURES and self.attack != UNATTACKED:
            raise ValueError(
                f"measure {self.measure!r} is of inputs without a class, which no attack needs: "
                "leave out attack"
            )
        return self


class Claim(Spec):
    """A claim: one measure is lower, or higher, than another or than a constant.

    Args:
        id: the claim's own name, which published rows refer to as their ``effect``.
        section: section of the publication.
        text: the claim in words.
        order: whether ``first`` is claimed to be ``lower`` or ``higher``.
        first: the measure.
        second: the other measure.
        constant: a fraction of 1 in place of ``second``.
        note: note that is always printed.
        needs: requirements of the measurement, printed if it was not made.
    """

    id: Name
    section: str
    text: str = Field(min_length=1)
    order: ClaimOrder
    first: MeasuredQuantity
    second: MeasuredQuantity | None = None
    constant: float | None = Field(default=None, ge=0, le=1)
    note: str = ""
    needs: str = ""

    @model_validator(mode="after")
    def _has_another_side(self) -> Self:
        if (self.second is None) == (self.constant is None):
            given = "both are given" if self.second is not None else "neither is given"
            raise ValueError(f"a claim compares first with second or with constant: {given}")
        return self

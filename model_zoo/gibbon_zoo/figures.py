"""The figures that stand on a card.  No torch here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Figures(BaseModel):
    """Measured figures, fractions of 1, over all examples of the test split.

    Args:
        clean_error: share misclassified unattacked.
        mean_clean_confidence: mean confidence on all clean examples.
        fgsm_error: share misclassified under FGSM, exact direction, not clipped.
        fgsm_confidence: mean confidence on what that misleads; none where it misleads nothing.
        fgsm_naive_error: the same with the plain float32 gradient of the loss.
        fgsm_naive_confidence: likewise.
        fgsm_clipped_error: exact direction, clipped to the bounds of the inputs.
        fgsm_clipped_confidence: likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clean_error: float
    mean_clean_confidence: float
    fgsm_error: float
    fgsm_confidence: float | None
    fgsm_naive_error: float
    fgsm_naive_confidence: float | None
    fgsm_clipped_error: float
    fgsm_clipped_confidence: float | None

"""The measured figures of a card.  No torch here."""

from __future__ import annotations

from gibbon.specs.base import Spec


class Figures(Spec):
    """Measured figures, fractions of 1, over all examples of the test split.

    Args:
        clean_error: share misclassified unattacked.
        mean_clean_confidence: mean confidence on all clean examples.
        fgsm_error: share misclassified under FGSM, exact direction, not clipped.
        fgsm_confidence: mean confidence on the examples misclassified under FGSM; None if there are
            none.
        fgsm_naive_error: share misclassified under FGSM, plain float32 gradient of the loss.
        fgsm_naive_confidence: mean confidence on these examples.
        fgsm_clipped_error: share misclassified under FGSM, exact direction, clipped to the bounds.
        fgsm_clipped_confidence: mean confidence on these examples.
    """

    clean_error: float
    mean_clean_confidence: float
    fgsm_error: float
    fgsm_confidence: float | None
    fgsm_naive_error: float
    fgsm_naive_confidence: float | None
    fgsm_clipped_error: float
    fgsm_clipped_confidence: float | None

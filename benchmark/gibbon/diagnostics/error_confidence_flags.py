"""Flags of errors without an attack that a model is as sure of as of its right answers.

A model is less sure of its errors than of its right answers (D. Hendrycks and K. Gimpel, "A
baseline for detecting misclassified and out-of-distribution examples in neural networks", ICLR
2017, arXiv:1610.02136).  Where it is not, the labels of these examples may be wrong, or their
inputs made to fool a model.  Labels that are drawn at random on a part of the data follow no
pattern, so that only this shows them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gibbon.metrics.detection import auroc
from gibbon.records.flags import Flag
from gibbon.records.outcomes import Outcome

KIND = "sure-errors"
LEAST_ERROR, MOST_ERROR = 0.05, 0.5  # of a model that is wrong on more, confidences say little
LEAST_COUNT = 12  # errors, and right answers
LEAST_CLASSES = 4
# Area under the curve by which confidences tell right answers from errors; 0.5 says that both are
# alike.  Networks with so many errors were at 0.77 to 0.95, also on noisy inputs.
ALIKE = 0.65
SURELY_BELOW = 0.77  # the upper end of the area's 95 % interval


def sure_error_flags(dataset: str, model: str, *, clean: Outcome, digest: str) -> Iterator[Flag]:
    """Yields the flag of a model that is as sure of its errors as of its right answers.

    Args:
        dataset: the dataset's name.
        model: the model's name.
        clean: the outcome of the unattacked examples.
        digest: the model's digest among its targets.
    """
    answers = clean.scores.get(digest)
    if answers is None or answers.wrong_share is not None or not len(clean.label):
        return
    wrong = answers.predicted != clean.label
    count, right = int(wrong.sum()), int((~wrong).sum())
    if not LEAST_ERROR <= wrong.mean() <= MOST_ERROR or min(count, right) < LEAST_COUNT:
        return
    if len(np.unique(clean.label)) < LEAST_CLASSES:
        return
    found = auroc(answers.confidence[~wrong], answers.confidence[wrong])
    area, interval = found.value, found.interval
    # Without an interval, which samples that overlap have, nothing is known.
    if area is None or interval is None or area > ALIKE or interval.high > SURELY_BELOW:
        return
    sure = float(np.median(answers.confidence[wrong]))
    yield Flag(
        kind=KIND,
        dataset=dataset,
        model=model,
        figure=f"area {area:.2f}",
        sentence=f"the model is as sure of its {count} errors without an attack as of its right "
        f"answers (area under the curve {area:.2f}; median confidence {sure:.1%}): labels, or "
        "inputs, of a part of the examples may be wrong",
    )

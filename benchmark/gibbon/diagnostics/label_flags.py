"""Flags of labels that belong to other examples, or to another class, on all or a part of the data.

A model that is right about most inputs shows it: where its answer is not the label, the answer is
the label of the neighbouring example, or the label less one, far more often than by chance, and as
sure as where it is right.  Errors of a model are less sure than its right answers (D. Hendrycks and
K. Gimpel, "A baseline for detecting misclassified and out-of-distribution examples in neural
networks", ICLR 2017, arXiv:1610.02136), which is how labels that are wrong differ from answers that
are (C. G. Northcutt, L. Jiang and I. L. Chuang, "Confident learning", 2021, arXiv:1911.00068).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gibbon.metrics.detection import auroc
from gibbon.records.flag_kinds import Severity
from gibbon.records.flags import Flag
from gibbon.records.outcomes import Outcome

Marks = NDArray[np.bool_]
Labels = NDArray[np.int64]

KIND = "displaced-labels"
# From an example to the one whose label it should have.
OFFSETS = {1: "next", -1: "previous", 2: "next but one", -2: "previous but one"}
LEAST_ERROR, LEAST_MATCHES = 0.1, 8
LEAST_SHARE = 0.5  # of the errors: more than one confusion of classes takes
LEAST_CLASSES = 4  # of fewer, errors have too few places to go
LEVEL = 1e-6  # of the binomial test, for all patterns of a model
# Area under the curve by which the confidence tells right answers from wrong ones: 0.5 says that
# both are alike.  Networks are at 0.75 to 0.95.
ALIKE = 0.65
WHOLE = 0.5  # share of all examples, of a pattern that all labels follow


@dataclass(frozen=True)
class _Pattern:
    """A rule that labels may follow in place of the right one.

    Args:
        name: what the answer is by this rule, in words.
        labels: the label that an example would have without the mistake, shape (N,); -1 if none.
        moves: whether it is about neighbours, and not about the number of the class.
    """

    name: str
    labels: Labels
    moves: bool


def label_flags(
    dataset: str, model: str, *, clean: Outcome, digest: str, labels: Labels, classes: int
) -> Iterator[Flag]:
    """Yields the flag of labels that are those of other examples, or shifted by one class.

    Args:
        dataset: the dataset's name.
        model: the model's name.
        clean: the outcome of the unattacked examples.
        digest: the model's digest among its targets.
        labels: the labels of the whole dataset, by example id.
        classes: number of classes.
    """
    answers = clean.scores.get(digest)
    if answers is None or answers.wrong_share is not None or not len(clean.label):
        return
    given = clean.label.astype(np.int64)
    predicted = answers.predicted.astype(np.int64)
    wrong = predicted != given
    if wrong.mean() < LEAST_ERROR or len(np.unique(given)) < LEAST_CLASSES:
        return
    best: tuple[int, _Pattern] | None = None
    for pattern in _patterns(clean.example_id, given, labels, classes):
        count = int(np.count_nonzero(wrong & (predicted == pattern.labels)))
        if best is None or count > best[0]:
            best = (count, pattern)
    if best is None:
        return
    count, pattern = best
    matches = wrong & (predicted == pattern.labels)
    if not _beyond_chance(matches, wrong, given, predicted, pattern):
        return
    whole = count > WHOLE * len(given) and not _follows(given, pattern, classes)
    alike = _alike(answers.confidence, right=~wrong, matches=matches)
    if not (alike or (whole and pattern.moves)):
        return
    severity: Severity = "serious" if pattern.moves else "warning"
    yield Flag(
        kind=KIND,
        severity=severity,
        dataset=dataset,
        model=model,
        figure=f"{count} of {int(wrong.sum())} errors",
        sentence=f"for {count} of the {int(wrong.sum())} examples that are misclassified "
        f"unattacked, the answer is {pattern.name}"
        + (", and as sure as the right answers" if alike else ""),
    )


def _patterns(ids: Labels, given: Labels, labels: Labels, classes: int) -> Iterator[_Pattern]:
    for offset, name in OFFSETS.items():
        place = ids + offset
        inside = (place >= 0) & (place < len(labels))
        moved = np.where(inside, labels[np.clip(place, 0, len(labels) - 1)], -1)
        yield _Pattern(f"the label of the {name} example", moved, moves=True)
    mirrored = labels[len(labels) - 1 - ids]
    yield _Pattern("the label at the same place from the end", mirrored, moves=True)
    for step, word in ((-1, "less"), (1, "more")):
        shifted = (given + step) % classes
        yield _Pattern(f"one {word} than the label", shifted, moves=False)


def _beyond_chance(
    matches: Marks, wrong: Marks, given: Labels, predicted: Labels, pattern: _Pattern
) -> bool:
    """Returns whether errors follow a pattern more often than another example's label would."""
    from scipy.stats import binom  # late: most commands need no test

    count, errors = int(matches.sum()), int(wrong.sum())
    if count < LEAST_MATCHES or count < LEAST_SHARE * errors:
        return False
    if len(np.unique(given[matches])) < LEAST_CLASSES:
        return False
    shares = np.bincount(given, minlength=int(max(given.max(), predicted.max())) + 1) / len(given)
    chance = float(np.mean(shares[predicted[wrong]]))
    if not pattern.moves:
        chance = max(chance, 1 / (len(np.unique(given)) - 1))
    return bool(binom.sf(count - 1, errors, min(0.5, chance)) <= LEVEL)


def _follows(given: Labels, pattern: _Pattern, classes: int) -> bool:
    """Returns whether the pattern is another order of the classes, which has a check of its own."""
    known = pattern.labels >= 0
    return len(np.unique((pattern.labels[known] - given[known]) % classes)) == 1


def _alike(confidence: NDArray[np.floating], *, right: Marks, matches: Marks) -> bool:
    """Returns whether answers that follow a pattern are as sure as the right ones."""
    if not right.any():
        return False
    area = auroc(confidence[right], confidence[matches]).value
    return area is not None and area <= ALIKE

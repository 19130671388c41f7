"""Checks the clean error against guessing, and whether another order of classes would repair it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import beta
from torch import Tensor

from gibbon.diagnostics.examination.significance import Gain, gain
from gibbon.diagnostics.examination.subject import CheckNotes, CheckReport, Subject, counted
from gibbon.records.examination import ExaminedFlag

CHANCE, ORDER = "clean error against guessing", "order of the classes"
LEVEL = 0.05  # of the upper bound of the accuracy
DEVIATIONS = 1.5  # of the accuracy of guessing, by which one at chance exceeds it at most
MARGIN = 0.12  # by which the upper bound of an accuracy at chance exceeds that of guessing at most
ONE_CLASS, LEAST_ONE_CLASS = 0.95, 20  # share of the answers, and examples
MOST_FREQUENT = 0.9  # share of the labels: of more, one answer may be right
LEAST_ERROR = 0.1  # below it no order of classes is tried
# Part of the way from guessing to perfect that the mean recall in another order must go for a
# warning: a network with random weights gets there too.
WEAK_ABOVE_CHANCE = 0.12
LEAST_HALF = 10  # examples that a matching is found on, and as many that it is tested on


def clean_error(subject: Subject) -> CheckReport:
    """Compares the accuracy on the sample with guessing; raises ``error-at-chance``."""
    observed = subject.observed
    labels, predicted = observed.sample.labels.cpu(), observed.outputs.argmax(1)
    total, classes = len(labels), observed.outputs.shape[1]
    notes = CheckNotes(CHANCE, f"the predictions for {counted(total, 'example')}")
    right, chance = int((predicted == labels).sum()), 1 / classes
    accuracy = right / total
    notes.figures["clean error"] = 1 - accuracy
    notes.figures["error of guessing"] = 1 - chance
    if classes < 2:
        return notes.abstain("there is one class")
    upper = float(beta.ppf(1 - LEVEL, right + 1, total - right)) if right < total else 1.0
    notes.figures["upper bound of the accuracy"] = upper
    deviation = math.sqrt(chance * (1 - chance) / total)
    if accuracy <= chance + DEVIATIONS * deviation and upper <= chance + MARGIN:
        # A model may be right on other classes than the one that it was given.
        alike = bool((labels == labels[0]).all())
        notes.found.append(
            ExaminedFlag(
                kind="error-at-chance",
                severity="warning" if alike else None,
                figure=f"{1 - accuracy:.1%}",
                sentence=f"the clean error is {1 - accuracy:.1%} on {counted(total, 'example')}"
                f"{' of one class' if alike else ''}, "
                f"no better than guessing one of {classes} classes{_in_other_order(subject)}",
            )
        )
        subject.at_chance = True
        return notes.report()
    one = _one_class(labels, predicted)
    if one:
        notes.found.append(
            ExaminedFlag(kind="error-at-chance", figure=f"{1 - accuracy:.1%}", sentence=one)
        )
        return notes.report()
    if accuracy <= chance:
        return notes.abstain(f"{counted(total, 'example')} are too few to tell it from guessing")
    return notes.report()


def _one_class(labels: Tensor, predicted: Tensor) -> str:
    """Returns a sentence about a model that answers one class; empty if it answers others.

    Its accuracy is the share of a class, which is large if one class is frequent.  Rare answers of
    other classes do not count if they are not right more often than the class itself would be.
    """
    total, answered = len(labels), int(predicted.mode().values)
    count = int((predicted == answered).sum())
    frequent = int((labels == answered).sum())
    right = int((predicted == labels).sum())
    if total < LEAST_ONE_CLASS or count < ONE_CLASS * total or frequent > MOST_FREQUENT * total:
        return ""
    if right > frequent:
        return ""
    return (
        f"the model answers class {answered} for {count} of {counted(total, 'example')}: the clean "
        f"error of {1 - right / total:.1%} is that of always answering it, whose share is "
        f"{frequent / total:.1%}"
    )


def class_order(subject: Subject) -> CheckReport:
    """Tries other orders of the classes, without a pass; raises ``preprocessing``.

    Known orders are tried on all examples: shifted by one, sorted as text, reversed.  Any other is
    found on each half, by matching the confusion matrix, and tested on the other one.
    """
    observed = subject.observed
    labels, predicted = observed.sample.labels.cpu(), observed.outputs.argmax(1)
    total, classes = len(labels), observed.outputs.shape[1]
    notes = CheckNotes(ORDER, f"the predictions for {counted(total, 'example')}")
    error = float((predicted != labels).double().mean())
    if error < LEAST_ERROR:
        notes.looked_at = f"a clean error of {error:.1%}, which no order would make much smaller"
        return notes.report()
    if total < 2 * LEAST_HALF:
        return notes.abstain("too few examples")
    best = _best_order(labels, predicted, classes)
    notes.figures["orders tried"] = best.tried
    if not best.name:
        return notes.report()
    notes.figures["clean error"] = best.gain.before
    notes.figures["clean error in the other order"] = best.gain.after
    if best.weak and subject.at_chance:
        return notes.abstain("the clean error is no better than guessing, whose flag names it")
    words = ", or that the weights are not those of the training" if best.weak else ""
    notes.found.append(
        ExaminedFlag(
            kind="preprocessing",
            severity="warning" if best.weak else None,
            figure=f"{best.gain.before:.1%} to {best.gain.after:.1%}",
            sentence=f"{best.sentence}{words and ': a sign that the classes are mixed up'}{words}",
            advice="Give the dataset the model's order of classes, with a class map.",
        )
    )
    return notes.report()


@dataclass(frozen=True)
class _Order:
    """The best of some orders of the classes.

    Args:
        gain: the errors in the given order and in this one.
        name: a description; empty if no order is better.
        tried: number of orders.
        weak: whether a network with random weights may gain as much.
    """

    gain: Gain
    name: str
    tried: int
    weak: bool = False

    @property
    def sentence(self) -> str:
        """The errors in both orders, in words."""
        return (
            f"with another order of the classes ({self.name}) the clean error on "
            f"{self.gain.examples} examples is {self.gain.after:.1%} instead of "
            f"{self.gain.before:.1%}"
        )


def _in_other_order(subject: Subject) -> str:
    """Returns words about an order of the classes with fewer errors; empty if there is none."""
    labels, outputs = subject.observed.sample.labels.cpu(), subject.observed.outputs
    if len(labels) < 2 * LEAST_HALF:
        return ""
    best = _best_order(labels, outputs.argmax(1), outputs.shape[1])
    return f"; {best.sentence}" if best.weak else ""


def _best_order(labels: Tensor, predicted: Tensor, classes: int) -> _Order:
    """Returns the order with the fewest errors, if it has fewer beyond chance."""
    tried = 0
    best: _Order | None = None
    for name, order in _known_orders(classes):
        found = gain(labels, before=predicted, after=order[predicted])
        tried += 1
        if found.sure and (best is None or found.after < best.gain.after):
            best = _Order(found, name, tried)
    if best is not None:
        return _Order(best.gain, best.name, tried)
    halves = _halves(labels)
    after = predicted.clone()
    for fitted, tested in (halves, halves[::-1]):
        order = _matched(predicted[fitted], labels[fitted], classes)
        after[tested] = order[predicted[tested]]
    found = gain(labels, before=predicted, after=after)
    weak = gain(labels, before=predicted, after=after, above_chance=WEAK_ABOVE_CHANCE)
    name = _described(_matched(predicted, labels, classes)) if weak.sure else ""
    return _Order(found, name, tried + 1, weak=weak.sure and not found.sure)


def _halves(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the positions of two halves of the examples, each with half of each class.

    Every second example would not do: labels may alternate.
    """
    seen: dict[int, int] = {}
    parts: tuple[list[int], list[int]] = ([], [])
    for place, label in enumerate(labels.tolist()):
        seen[label] = seen.get(label, 0) + 1
        parts[seen[label] % 2].append(place)
    one, other = (torch.tensor(each, dtype=torch.int64) for each in parts[::-1])
    return one, other


def _known_orders(classes: int) -> Iterator[tuple[str, Tensor]]:
    """Yields orders by name; ``order[k]`` is the label that the model's class k stands for."""
    numbers = torch.arange(classes)
    yield "each label is one less than the model's class", (numbers - 1) % classes
    yield "each label is one more than the model's class", (numbers + 1) % classes
    yield "reversed", numbers.flip(0)
    text = torch.tensor(sorted(range(classes), key=str))
    if not torch.equal(text, numbers):
        yield "the model's classes are sorted as text: 0, 1, 10, 11, 2", text
        yield "the labels are sorted as text: 0, 1, 10, 11, 2", text.argsort()


def _matched(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Returns the order that makes most predictions right; classes without any stay."""
    counts = torch.zeros(classes, classes, dtype=torch.float64)
    counts.index_put_((predicted, labels), torch.ones(len(labels)).double(), accumulate=True)
    counts += 1e-3 * torch.eye(classes)  # of equal ones, the given order
    rows, columns = linear_sum_assignment(-counts.numpy())
    order = torch.arange(classes)
    order[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return order


def _described(order: Tensor) -> str:
    moved = [(old, new) for old, new in enumerate(order.tolist()) if old != new]
    first = ", ".join(f"{old} is {new}" for old, new in moved[:4])
    return f"{first}{' and so on' if len(moved) > 4 else ''}"

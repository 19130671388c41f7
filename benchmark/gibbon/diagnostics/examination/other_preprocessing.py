"""Tries other preprocessing of the inputs, if many clean examples are misclassified.

Each kind is tried on a few examples, the best ones on a few more, and the best of these is tested
on others.  Kinds are compared by the rank of the true class among the outputs, which says more than
right and wrong on few examples, and which does not depend on the outputs' scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gibbon.core.threat import PIXEL_BOUNDS
from gibbon.datasets.input_range import looks_like_picture
from gibbon.diagnostics.examination.significance import Gain, gain
from gibbon.diagnostics.examination.subject import CheckNotes, CheckReport, Subject
from gibbon.records.examination import ExaminedFlag
from gibbon.records.flag_kinds import Severity

NAME = "other preprocessing"
LEAST_ERROR, LEAST_WRONG = 0.15, 8
FEWEST, MOST = 4, 24  # examples that each kind is tried on
FIRST_PART, SECOND_PART = 0.4, 0.15  # of the passes, for all kinds and for the best ones
BEST, MOST_AGAIN = 3, 40  # kinds, and examples that they are tried on
FEWEST_TESTED = 12  # other examples that the best kind is tested on
# With few passes the likeliest kinds are tried, on so many examples each, and the best on more.
# Most passes go to the test of the best one, which 20 examples seldom decide and 40 mostly do.
SCREENED, SCREENED_AGAIN, LEAST_KINDS, MOST_LIKELY, LEAST_TESTED = 3, 3, 3, 6, 20
LEAST_GAIN = 0.05  # of the error
ABOVE_CHANCE = 0.12
# If brightness and contrast alone are changed: part of the errors that is gone for a serious flag,
# with its deviations below the estimate, and for a warning; else it is a note.  Of networks after a
# short training up to 29 % of the errors were gone on many examples, with the right preprocessing.
SURELY_GONE, SURELY = 0.3, 1.645  # one-sided, of 95 %
NEARLY_GONE, NEARLY = 0.28, 1.0
CHECK = "If the model was trained with this preprocessing:"
MAY_GAIN = "; a network that was trained for a short time may gain as much"
BRIGHTEST = 255.0

Channels = tuple[float, ...]

# Means and standard deviations of pixels in [0, 1], by the data that they belong to.
CONSTANTS: Mapping[int, Mapping[str, tuple[Channels, Channels]]] = {
    3: {
        "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    },
    1: {"MNIST": ((0.1307,), (0.3081,))},
}


@dataclass(frozen=True)
class Repair:
    """One kind of preprocessing.

    Args:
        name: it continues "with ...".
        apply: maps inputs of shape (N, ...) to others.
        advice: what to do if it repairs the model.
        suite: keys of a model that do it, in TOML; empty if none does.
        contrast: whether it changes brightness and contrast alone.
    """

    name: str
    apply: Callable[[Tensor], Tensor]
    advice: str = ""
    suite: str = ""
    contrast: bool = False


def other_preprocessing(subject: Subject, allowance: int) -> CheckReport:
    """Tries normalisations, orders of channels, scales and inversion; raises ``preprocessing``."""
    notes, observed = CheckNotes(NAME), subject.observed
    labels, predicted = observed.sample.labels.cpu(), observed.outputs.argmax(1)
    wrong, total = int((predicted != labels).sum()), len(labels)
    if not may_repair(subject):
        notes.looked_at = f"{wrong} errors in {total} examples: no repair of pixels can show"
        return notes.report()
    shape, bounds = tuple(observed.sample.inputs.shape[1:]), subject.classifier.bounds
    kinds = list(_kinds(shape, low=bounds.low, high=bounds.high))
    screening = _screening(len(kinds), total=total, allowance=allowance)
    if screening.kinds < LEAST_KINDS:
        return notes.leave_out(screening.needed)
    kinds, each, again = kinds[: screening.kinds], screening.each, screening.again
    notes.figures["kinds tried"] = len(kinds)
    shuffled, screened = subject.rows(total), each + again
    tried, ranks = len(kinds), _ranks(subject, kinds, shuffled[:each])
    best = sorted(range(len(kinds)), key=lambda place: float(ranks[place].sum()))[:BEST]
    kinds, ranks = [kinds[place] for place in best], ranks[best]
    ranks = torch.cat([ranks, _ranks(subject, kinds, shuffled[each:screened])], 1)
    kind = kinds[int(ranks.sum(1).argmin())]
    given = _rank(observed.outputs[shuffled[:screened]], labels[shuffled[:screened]])
    notes.looked_at = f"{tried} kinds of preprocessing on {each} examples"
    notes.figures["rank of the true class"] = float(given.mean())
    notes.figures["its rank with the best kind"] = float(ranks.mean(1).min())
    if ranks.mean(1).min() >= given.mean():
        return notes.report()
    left = min(allowance - each * tried - again * len(kinds), subject.left)
    tested = shuffled[screened : screened + max(left, 1)]
    outputs = subject.ask(kind.apply(subject.batch(tested).inputs))
    found = gain(
        labels[tested],
        before=predicted[tested],
        after=outputs.argmax(1),
        ranks=(_rank(observed.outputs[tested], labels[tested]), _rank(outputs, labels[tested])),
        least=LEAST_GAIN,
        above_chance=ABOVE_CHANCE,
    )
    notes.looked_at += f", the best one on {len(tested)} others"
    notes.figures["clean error"] = found.before
    notes.figures["clean error with the best kind"] = found.after
    if found.sure:
        severity = _severity(found) if kind.contrast else None
        notes.found.append(
            ExaminedFlag(
                kind="preprocessing",
                severity=severity,
                figure=f"{found.before:.1%} to {found.after:.1%}",
                sentence=f"with {kind.name} the clean error on {found.examples} examples is "
                f"{found.after:.1%} instead of {found.before:.1%}"
                + ("" if severity is None else MAY_GAIN),
                advice=kind.advice if severity is None else f"{CHECK} {kind.advice}",
                suite=kind.suite,
            )
        )
    return notes.report()


def _severity(found: Gain) -> Severity | None:
    """Returns the severity of another brightness or contrast; None for that of the kind of flag.

    Networks after a short training make fewer errors on inputs of a higher contrast, too.
    """
    if found.gone_at_least(SURELY) >= SURELY_GONE:
        return None
    return "warning" if found.gone_at_least(NEARLY) >= NEARLY_GONE else "note"


@dataclass(frozen=True)
class _Screening:
    """The number of kinds to try, the examples of each, and those of each of the best ones.

    ``needed``: passes that it needs at least.
    """

    kinds: int
    each: int
    again: int
    needed: int


def _screening(kinds: int, *, total: int, allowance: int) -> _Screening:
    """Divides passes: all kinds on equally many examples, or the likeliest ones on a few."""
    each = min(MOST, total // 4, int(FIRST_PART * allowance) // kinds)
    needed = FEWEST * kinds + BEST + FEWEST_TESTED
    if each < FEWEST and total >= 4 * FEWEST and allowance >= needed:
        each = FEWEST
    if each >= FEWEST:
        again = min(MOST_AGAIN, total // 4, max(1, int(SECOND_PART * allowance) // BEST))
        return _Screening(kinds, each, again, needed)
    fixed = BEST * SCREENED_AGAIN + LEAST_TESTED
    some = min(kinds, MOST_LIKELY, max(0, allowance - fixed) // SCREENED)
    needed = min(needed, LEAST_KINDS * SCREENED + fixed)
    enough = total >= SCREENED + SCREENED_AGAIN + LEAST_TESTED
    return _Screening(some if enough else 0, SCREENED, SCREENED_AGAIN, needed)


def _ranks(subject: Subject, kinds: list[Repair], rows: list[int]) -> Tensor:
    """Returns the ranks of the true classes with each kind, shape (kinds, M)."""
    given = subject.batch(rows)
    return torch.stack(
        [_rank(subject.ask(kind.apply(given.inputs)), given.labels.cpu()) for kind in kinds]
    )


def _rank(outputs: Tensor, labels: Tensor) -> Tensor:
    """Returns the share of the other classes whose output is as large as the true one's, (N,)."""
    true = outputs.gather(1, labels[:, None])
    return ((outputs >= true).double().sum(1) - 1) / max(1, outputs.shape[1] - 1)


def may_repair(subject: Subject) -> bool:
    """Returns whether inputs are of pixels, with enough errors to try other preprocessing."""
    observed, bounds = subject.observed, subject.classifier.bounds
    if bounds != PIXEL_BOUNDS and not looks_like_picture(tuple(observed.sample.inputs.shape[1:])):
        return False  # of tables, waveforms and embeddings no usual preprocessing is known
    wrong = int((observed.outputs.argmax(1) != observed.sample.labels.cpu()).sum())
    return wrong >= LEAST_WRONG and wrong / len(observed.outputs) >= LEAST_ERROR


def _kinds(shape: tuple[int, ...], *, low: float, high: float) -> Iterator[Repair]:
    """Yields kinds of preprocessing for inputs of a shape and bounds, the likeliest first."""
    width = high - low

    def unit(inputs: Tensor) -> Tensor:
        return (inputs - low) / width

    channels = shape[0] if len(shape) == 3 else 0
    flip = "Give the channels in the order that the model was trained with."
    declare, usual = "Declare the normalisation of the model.", CONSTANTS.get(channels, {})
    for data, (mean, std) in usual.items():
        yield Repair(
            f"the normalisation of {data}",
            partial(_normalised, low=low, width=width, constants=(mean, std)),
            declare,
            f"mean = {list(mean)}\nstd = {list(std)}",
            contrast=True,
        )
        if channels == 3 and data == "ImageNet":
            yield Repair("channels in the order BGR", lambda inputs: inputs.flip(1), flip)
    yield Repair(
        "inputs in [0, 255]",
        lambda inputs: BRIGHTEST * unit(inputs),
        "Scale the inputs.",
        contrast=True,
    )
    halves = (0.5,) * max(1, channels)
    yield Repair(
        "inputs in [-1, 1]",
        lambda inputs: 2 * unit(inputs) - 1,
        declare,
        f"mean = {list(halves)}\nstd = {list(halves)}",
        contrast=True,
    )
    for data, constants in usual.items():
        yield Repair(
            f"the normalisation of {data} undone (it is applied twice)",
            partial(_normalised_back, low=low, width=width, constants=constants),
            "Normalise once: leave out mean and std, or the model's own normalisation.",
            contrast=True,
        )
    yield Repair(
        "inputs divided by 255",
        lambda inputs: inputs / BRIGHTEST,
        "Scale the inputs once.",
        contrast=True,
    )
    yield Repair("inverted inputs", lambda inputs: low + high - inputs, "Invert the inputs.")
    yield Repair(
        "inputs in [0, 1] from [-1, 1]",
        lambda inputs: (inputs + 1) / 2,
        "Scale them.",
        contrast=True,
    )
    if channels == 3:
        yield Repair(
            "channels in the order BGR and inputs in [0, 255]",
            lambda inputs: BRIGHTEST * unit(inputs.flip(1)),
            flip,
        )
        yield Repair(
            "channels in the order BGR and the normalisation of ImageNet",
            lambda inputs: _normalised(
                inputs.flip(1), low=low, width=width, constants=CONSTANTS[3]["ImageNet"]
            ),
            flip,
        )
    if len(shape) == 3:
        yield from _turned(shape)


def _turned(shape: tuple[int, ...]) -> Iterator[Repair]:
    """Yields other orders of the axes, and of the rows and columns, of pictures."""
    channels, square = shape[0], shape[1] == shape[2]
    if channels > 1:
        yield Repair(
            "the axes NHWC read as NCHW",
            lambda inputs: inputs.reshape(len(inputs), *shape[1:], channels).permute(0, 3, 1, 2),
            'Give the order of the axes: layout = "NHWC".',
        )
    if square:
        yield Repair(
            "height and width exchanged",
            lambda inputs: inputs.transpose(2, 3),
            "Exchange height and width of the inputs.",
        )
    yield Repair("pictures upside down", lambda inputs: inputs.flip(2), "Reverse the rows.")
    if square:
        for turns, way in ((1, "left"), (3, "right")):
            yield Repair(
                f"pictures turned a quarter to the {way}",
                partial(torch.rot90, k=turns, dims=(2, 3)),
                "Turn the inputs.",
            )


def _normalised(
    inputs: Tensor, *, low: float, width: float, constants: tuple[Channels, Channels]
) -> Tensor:
    mean, std = (_axes(each, inputs) for each in constants)
    return ((inputs - low) / width - mean) / std


def _normalised_back(
    inputs: Tensor, *, low: float, width: float, constants: tuple[Channels, Channels]
) -> Tensor:
    mean, std = (_axes(each, inputs) for each in constants)
    return (inputs - low) / width * std + mean


def _axes(numbers: tuple[float, ...], inputs: Tensor) -> Tensor:
    return torch.tensor(numbers, device=inputs.device).view(1, -1, *(1,) * (inputs.ndim - 2))

"""Runs a model on a sample of the dataset, for its digest and for its examination."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.datasets.base import Batch, Dataset, sample_ids
from gibbon.diagnostics.examination.closeness import TOLERANCE
from gibbon.diagnostics.examination.observe import (
    GRADIENT_MODES,
    OffDataPoints,
    cause_of,
    comparison,
    in_other_modes,
    largest,
    off_the_data,
    plain_answers,
)
from gibbon.diagnostics.examination.observed import Observed, OtherAnswers
from gibbon.models.classifier import Classifier, probe
from gibbon.models.first_answers import FirstAnswers
from gibbon.models.memory import in_pieces, kept_bytes
from gibbon.models.repeatability import Cause
from gibbon.models.sources.wrap_module import same_random_numbers
from gibbon.runner.device.precision import uncompiled

PROBE_SIZE = 256
PROBE_NUMBERS = PROBE_SIZE * 3 * 32 * 32  # at most; of larger pictures a probe holds fewer
SMALLEST_PROBE = 16
PROBE_DIGITS = 4  # of the probe's means: far coarser than the rounding of another device or batch
FEW, MORE_CALLS = 8, 4  # examples and calls that show randomness which two calls did not
SETTLED_CALLS = 8  # that agree if a model has changed once: random answers would differ again
PROBE_STEADY = 1e-4  # share of the largest output by which a GPU's sums may differ between calls
BETWEEN = "the probe between pixels"
DRAWS = 4  # of a model that answers at random: rare behaviour may be missed by the first
MEASURED_EXAMPLES = 2  # enough to separate the need of each from that of the batch
NO_GRADIENT = "its outputs have no gradient in its inputs"

# Projections of outputs and gradients on random signs, whose standard deviation is about 1.  They
# are rounded down to a multiple of a step, so that a change of sign always shows.  Another batch
# size moves those of outputs by 1e-6; those of gradients by 1e-6 too, but for one unit in a deep
# network that passes a kink, which moves them by up to 0.006.
PROJECTIONS = 4
OUTPUT_STEP = 1 / 256
GRADIENT_STEP = 1 / 4


@dataclass(frozen=True)
class ProbedAnswers:
    """The answers of a model to a sample of the dataset.

    Args:
        predictions: the predicted classes.
        means: rounded means: of the confidences, of the sizes of the outputs, and of the sizes of
            outputs and gradients off the grid of the data.
        projections: rounded projections of the outputs on and off the grid, and of the gradients.
        modes: projections of the answers to single examples, with and without gradients, as far as
            they differ from those in the batch.
        steady: whether the model answers the same inputs alike each time.
        draws: digest of the outputs from a fixed seed; empty for a steady model, and for one whose
            outputs can't be repeated.
        forward_only: the reason why it has no gradients; empty if it has.
        kept: bytes that a backward pass needs for one example.
        observed: the answers themselves.
        seconds: time of a forward pass on the whole sample, once.
    """

    predictions: tuple[int, ...]
    means: tuple[str, ...]
    projections: tuple[int, ...]
    modes: tuple[str, ...]
    steady: bool
    draws: str
    forward_only: str
    kept: int
    observed: Observed
    seconds: float = 0.0

    def seconds_each(self, batch: int) -> float:
        """Returns at most the seconds that an example takes in a forward pass of ``batch``."""
        return self.seconds / max(1, min(batch, len(self.predictions)))


def probe_ids(dataset: Dataset, *, unreadable: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the ids of the examples that models are probed on."""
    fitting = PROBE_NUMBERS // max(1, math.prod(dataset.input_shape))
    size = min(PROBE_SIZE, max(SMALLEST_PROBE, fitting))
    ids = sample_ids(dataset, size)
    return ids[~np.isin(ids, unreadable)]


def _alike(outputs: Tensor, others: Tensor) -> bool:
    return bool((outputs - others).abs().max() <= PROBE_STEADY * others.abs().max())


def _repeats(classifier: Classifier, inputs: Tensor) -> bool:
    """Returns whether more calls agree: a model that chooses among a few ways may agree once."""
    first = _outputs(classifier, inputs)
    return all(_alike(_outputs(classifier, inputs), first) for _ in range(MORE_CALLS))


def probe_model(
    classifier: Classifier, sample: Batch, *, device: torch.device, coarse: bool = False
) -> ProbedAnswers:
    """Returns the answers of a model to a sample.

    ``device`` is where the model is; ``coarse`` is whether it computes with few digits.  Raises
    `ModelError` if the model breaks its declaration.
    """
    batch = sample.to(device)
    outputs = _outputs(classifier, batch.inputs)
    started = time.perf_counter()
    again = _outputs(classifier, batch.inputs)
    seconds = time.perf_counter() - started
    steady = _alike(again, outputs) and _repeats(classifier, batch.inputs[:FEW])
    cause = None if steady else _cause(classifier, batch.inputs)
    draws = "" if steady or cause is Cause.STATE else _draws(classifier, batch.inputs)
    with nullcontext() if steady else same_random_numbers(device):
        off = off_the_data(classifier, batch, key=BETWEEN)
    seen: dict[str, tuple[OtherAnswers, Tensor | None]] = {}
    if steady:
        seen, few = in_other_modes(classifier, batch, outputs=outputs, off=off)
        coarse |= few
        latest = _outputs(classifier, batch.inputs)
        if not _alike(latest, outputs):  # a schedule has changed it since
            steady, seen, again = False, {}, latest
            cause = _cause(classifier, batch.inputs)
            draws = "" if cause is Cause.STATE else _draws(classifier, batch.inputs)
    observed = Observed(
        sample,
        outputs.float(),
        steady=steady,
        repeats=steady or bool(draws),
        cause=cause,
        changed=int((again.argmax(1) != outputs.argmax(1)).sum()),
        nearby=off.kept,
        alone=seen["alone"][0] if seen else None,
        with_gradients=largest([seen[name][0] for name in GRADIENT_MODES]) if seen else None,
        coarse=coarse,
    )
    means = (
        classifier.outputs.confidence(outputs).mean(),
        outputs.abs().mean(),
        off.outputs.double().abs().mean(),
        torch.tensor(torch.nan)
        if off.gradient is None
        else off.gradient.cpu().double().abs().mean(),
    )
    return ProbedAnswers(
        predictions=tuple(outputs.argmax(1).tolist()),
        means=tuple(f"{float(value):.{PROBE_DIGITS}g}" for value in means),
        projections=_projections(outputs, off, sample) if steady else (),
        modes=tuple(_mode(*each, tolerance=observed.tolerance) for each in seen.values()),
        steady=steady,
        draws=draws,
        forward_only=classifier.forward_only or (NO_GRADIENT if off.gradient is None else ""),
        kept=_measured(classifier, batch.inputs),
        observed=observed,
        seconds=seconds,
    )


def since_first(
    probed: ProbedAnswers,
    first: Iterable[FirstAnswers],
    classifier: Classifier,
    device: torch.device,
) -> ProbedAnswers:
    """Returns the answers of a model, as those of one that remembers if its first ones are gone.

    The probe begins after a few calls have been made.  A model that answers otherwise from its
    second call on, by a count that can't be put back, answers the probe alike each time.
    ``classifier`` is the model in float32.
    """
    for each in first:
        found = _compared(each, classifier, device) if probed.steady else None
        if found is not None and found.difference > TOLERANCE:
            observed = replace(
                probed.observed,
                steady=False,
                repeats=False,
                cause=Cause.STATE,
                changed=found.changed,
                alone=None,
                with_gradients=None,
            )
            probed = replace(
                probed, projections=(), modes=(), steady=False, draws="", observed=observed
            )
    return probed


def _compared(
    first: FirstAnswers, classifier: Classifier, device: torch.device
) -> OtherAnswers | None:
    try:
        return comparison(first.outputs, plain_answers(classifier, first.inputs.to(device)))
    except Exception:  # noqa: BLE001  outputs that can't be compared, such as of another shape
        return None


def _cause(classifier: Classifier, inputs: Tensor) -> Cause:
    """Returns why answers were seen to differ between calls.

    If no cause is found, and a number of calls on all inputs agree from now on, the calls before
    have changed the model once and for all.
    """
    cause = cause_of(classifier, inputs[:FEW])
    if cause is not Cause.UNKNOWN:
        return cause
    latest = _outputs(classifier, inputs)
    settled = all(_alike(_outputs(classifier, inputs), latest) for _ in range(SETTLED_CALLS))
    return Cause.STATE if settled else cause


def _projections(outputs: Tensor, off: OffDataPoints, sample: Batch) -> tuple[int, ...]:
    """Returns projections of outputs on and off the data, and of gradients, on random signs.

    An example's signs belong to its id.  Outputs are divided by the norm of all of them, gradients
    by that of the example, so that each example counts alike.
    """
    streams = ExampleStreams.derive(derive_key("gibbon", "signs of the digest"), sample.ids.cpu())
    found = []
    for values in (outputs, off.outputs.double()):
        scale = float(values.norm()) or 1.0
        found += _steps(values / scale, streams.child("outputs"), step=OUTPUT_STEP)
    if off.gradient is not None:
        rows = off.gradient.cpu().flatten(1)
        norms = rows.norm(dim=1, keepdim=True)
        rows = torch.where(norms > 0, rows / norms, 0.0).nan_to_num(0.0) / math.sqrt(len(rows))
        found += _steps(rows, streams.child("gradients"), step=GRADIENT_STEP)
    return tuple(found)


def _steps(values: Tensor, streams: ExampleStreams, *, step: float) -> list[int]:
    """Returns projections of values of shape (N, D), in steps; not finite ones are 0."""
    projected = (
        float((values.double() * streams.child(each).signs(values.shape[1:])).sum())
        for each in range(PROJECTIONS)
    )
    return [math.floor(each / step) if math.isfinite(each) else 0 for each in projected]


def _mode(seen: OtherAnswers, answers: Tensor | None, *, tolerance: float) -> str:
    """Returns the answers in another mode as a text; empty if they are those in the batch."""
    if seen.difference <= tolerance:
        return ""
    if answers is None:
        return seen.error.partition(":")[0]
    return " ".join(f"{float(each):.{PROBE_DIGITS - 1}g}" for each in answers.double().norm(dim=1))


def _measured(classifier: Classifier, inputs: Tensor) -> int:
    """Returns the number of bytes that a backward pass needs for one example."""
    if classifier.forward_only:
        return 0
    return kept_bytes(uncompiled(classifier.module), inputs[:MEASURED_EXAMPLES])


def _outputs(classifier: Classifier, inputs: Tensor) -> Tensor:
    pieces = in_pieces(
        lambda part: probe(classifier, inputs[part]), len(inputs), device=inputs.device
    )
    return torch.cat([each.cpu() for each in pieces]).double()


def _draws(classifier: Classifier, inputs: Tensor) -> str:
    """Returns a digest of the model's outputs if its random numbers start from a fixed seed.

    It covers every bit, since models whose noise differs in strength may answer almost alike.  It
    is empty if the outputs differ nevertheless: then the random numbers come from another source,
    such as the operating system, or from a generator that the model keeps.
    """

    def drawn() -> list[bytes]:
        with same_random_numbers(inputs.device):
            return [_outputs(classifier, inputs).numpy().tobytes() for _ in range(DRAWS)]

    first = drawn()
    return hashlib.sha256(b"".join(first)).hexdigest() if drawn() == first else ""

"""Times the forward and backward passes of a model, without counting them or changing the model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.attacks.toolkit.gradients import Gradients
from gibbon.diagnostics.examination.examine import undisturbed
from gibbon.models.classifier import Classifier

CLOCK = time.perf_counter  # on a busy machine that of the processor is steadier
SECONDS = 1.0  # of each timing
FEWEST, MOST = 2, 200  # calls
SMALL = 8  # a batch is divided by this for the time that does not depend on the batch


@dataclass(frozen=True)
class TimeOfPass:
    """The seconds of a pass of N examples: ``call`` + N ``example``."""

    call: float
    example: float

    def of(self, examples: float, *, batch: int) -> float:
        """Returns the seconds of a pass of so many examples, in batches."""
        if examples <= 0:
            return 0.0
        return max(1.0, examples / batch) * self.call + examples * self.example


@dataclass(frozen=True)
class ModelTimes:
    """The times of a model's passes.

    ``backward`` is that of a gradient with respect to the input, after a forward pass of its own.
    ``operation`` is that of an elementwise operation on a batch of inputs.
    """

    forward: TimeOfPass
    backward: TimeOfPass
    operation: TimeOfPass
    batch: int


def time_model(
    classifier: Classifier, inputs: Tensor, *, seconds: float = SECONDS, backward: bool = True
) -> ModelTimes:
    """Returns the times of a model for a batch of inputs, each timed for about so many seconds.

    Without ``backward`` gradients are not timed, and take no time; nor do they on a model that has
    none.  Any error of the model is raised.
    """
    device, count = inputs.device, len(inputs)
    gradients = Gradients(classifier)
    backward = backward and not classifier.forward_only

    def forward(points: Tensor) -> object:
        return classifier.predict(points)

    def both(points: Tensor) -> object:
        return gradients.at(points, torch.ones_like)

    with undisturbed(classifier, device), classifier.uncounted(), classifier.off_path():
        ahead = _fitted(forward, inputs, seconds)
        whole = _fitted(both, inputs, seconds) if backward else ahead
    spare = torch.empty_like(inputs)
    operation = _fitted(lambda points: torch.add(points, 1, out=spare[: len(points)]), inputs, 0.05)
    back = TimeOfPass(max(0.0, whole.call - ahead.call), max(0.0, whole.example - ahead.example))
    return ModelTimes(ahead, back, operation, count)


def _fitted(run: Callable[[Tensor], object], inputs: Tensor, seconds: float) -> TimeOfPass:
    """Returns the time of a call that fits a whole batch and a part of it."""
    count = len(inputs)
    whole = _timed(run, inputs, seconds)
    few = max(1, count // SMALL)
    if few == count:
        return TimeOfPass(0.0, whole / count)
    part = _timed(run, inputs[:few], seconds / 2)
    example = min(max(0.0, whole - part) / (count - few), whole / count)
    return TimeOfPass(whole - count * example, example)


def _timed(run: Callable[[Tensor], object], inputs: Tensor, seconds: float) -> float:
    """Returns the median seconds of a call, after a first one that may prepare things."""
    run(inputs)
    _wait(inputs.device)
    times: list[float] = []
    began = CLOCK()
    while len(times) < FEWEST or (len(times) < MOST and CLOCK() - began < seconds):
        started = CLOCK()
        run(inputs)
        _wait(inputs.device)
        times.append(CLOCK() - started)
    return sorted(times)[len(times) // 2]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

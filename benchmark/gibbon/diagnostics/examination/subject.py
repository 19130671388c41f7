"""The model under examination, with the passes that it may still make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gibbon.core.frames import raised_in
from gibbon.core.plain_text import message_of
from gibbon.core.rng import seeded_globals
from gibbon.datasets.base import Batch
from gibbon.diagnostics.examination.few_digits import has_few_digits
from gibbon.diagnostics.examination.observe import answers_with_gradients, plain_answers
from gibbon.diagnostics.examination.observed import Observed
from gibbon.models.classifier import Classifier
from gibbon.models.memory import in_pieces
from gibbon.records.examination import ExaminedCheck, ExaminedFlag, Result

SEED = 0  # of random numbers that the model draws
DETECTS = "its answers depend on whether gradients are recorded"


class OutOfPassesError(Exception):
    """Raised if a check is about to make more passes than are left; says how many it needs."""

    def __init__(self, passes: int) -> None:
        super().__init__(f"it needs {passes} passes, more than are left")
        self.passes = passes


@dataclass(eq=False)
class Subject:
    """A model, its answers to a sample, and a budget of passes.

    Args:
        classifier: the model, while it is evaluated.
        observed: its answers to the sample.
        device: where it is.
        budget: passes that the examination may make, forward and backward, by example.
        exact: the model in float32, if this one computes with fewer digits; it counts its passes
            together with this one.

    Attributes:
        coarse: whether rounding hides small differences of its outputs.
        remembers: whether its answers were found to depend on earlier calls.
        mixes: whether its answers were found to depend on the other examples of a batch.
        jumps: whether the loss was found to jump at a large share of the points.
        at_chance: whether the clean error was found to be no better than guessing.

    No check makes more passes than are left, whatever it finds on its way: a call that would raises
    `OutOfPassesError`.
    """

    classifier: Classifier
    observed: Observed
    device: torch.device
    budget: int
    exact: Classifier | None = None
    coarse: bool = field(init=False)
    remembers: bool = field(default=False, init=False)
    mixes: bool = field(default=False, init=False)
    jumps: bool = field(default=False, init=False)
    at_chance: bool = field(default=False, init=False)
    _start: int = field(init=False)

    def __post_init__(self) -> None:
        self._start = self._total
        self.coarse = self.observed.coarse

    @property
    def spent(self) -> int:
        """Passes made so far."""
        return self._total - self._start

    @property
    def left(self) -> int:
        """Passes that may still be made."""
        return self.budget - self.spent

    @property
    def _total(self) -> int:
        return self.classifier.passes.forward + self.classifier.passes.backward

    @property
    def exactly(self) -> Subject:
        """The model in float32, with the passes that are left; itself if there is no other."""
        if self.exact is None or self.left < 1:
            return self
        subject = Subject(self.exact, self.observed, self.device, self.left)
        subject.remembers, subject.mixes = self.remembers, self.mixes
        subject.jumps = self.jumps
        inputs = self.batch(self.rows(1)).inputs
        subject.coarse, _ = has_few_digits(
            lambda given: plain_answers(subject.classifier, given), inputs
        )
        return subject

    @property
    def excuse(self) -> str:
        """The reason why small differences of its answers are no evidence; empty if they are."""
        if self.mixes:
            return "its answers depend on the batch"
        repeats = self.observed.repeats and not self.remembers
        return "" if repeats else "its answers can't be repeated"

    @property
    def detects_gradients(self) -> bool:
        """Whether its answers depend on whether gradients are recorded."""
        found = self.observed.with_gradients
        return found is not None and not found.error and found.difference > self.observed.tolerance

    @property
    def differentiable(self) -> bool:
        """Whether there are gradients."""
        nearby = self.observed.nearby
        return not self.classifier.forward_only and (nearby is None or nearby.gradient is not None)

    @property
    def width(self) -> float:
        """The distance between the lowest and the highest value of an input."""
        return self.classifier.bounds.width

    def rows(self, count: int, *, of: int | None = None) -> list[int]:
        """Returns the positions of examples in the sample, one of each class before a second one.

        ``of`` restricts them to the first examples of the sample.
        """
        return interleaved_by_class(self.observed.sample.labels[:of].tolist())[: max(0, count)]

    def batch(self, rows: list[int]) -> Batch:
        """Returns examples of the sample, on the model's device."""
        sample = self.observed.sample
        return Batch(sample.ids[rows], sample.inputs[rows], sample.labels[rows]).to(self.device)

    def ask(self, inputs: Tensor) -> Tensor:
        """Returns outputs on the CPU, float64, without gradients."""
        self._afford(len(inputs))
        with self.seeded():
            return plain_answers(self.classifier, inputs.to(self.device)).double()

    def ask_with_gradients(self, inputs: Tensor) -> Tensor:
        """Returns outputs on the CPU, float64, while gradients are recorded."""
        self._afford(len(inputs))
        with self.seeded():
            return answers_with_gradients(self.classifier, inputs.to(self.device)).double()

    def ascend(
        self, inputs: Tensor, labels: Tensor, ascent: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns outputs, their cotangent and the input gradient, on the CPU.

        The cotangent is ``ascent`` of the outputs and the labels: the gradient of an objective.
        """
        self._afford(2 * len(inputs))
        found: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        inputs, labels = inputs.to(self.device), labels.to(self.device)

        def run(part: slice) -> Tensor:
            with torch.enable_grad():
                leaf = inputs[part].detach().requires_grad_()
                outputs = self.classifier(leaf)
            cotangent = ascent(outputs.detach(), labels[part])
            (gradient,) = torch.autograd.grad(outputs, leaf, cotangent, allow_unused=True)
            gradient = torch.zeros_like(leaf) if gradient is None else gradient
            found[part.start] = (outputs.detach().cpu(), cotangent.cpu(), gradient.cpu())
            return cotangent

        with self.seeded():
            in_pieces(run, len(inputs), device=self.device)
        outputs, cotangents, gradients = zip(
            *(found[start] for start in sorted(found)), strict=True
        )
        return torch.cat(outputs), torch.cat(cotangents), torch.cat(gradients)

    def _afford(self, passes: int) -> None:
        if passes > self.left:
            raise OutOfPassesError(passes)

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Starts the random numbers of a model that answers at random from the same seed."""
        seeded = nullcontext() if self.observed.steady else seeded_globals(SEED, self.device)
        with seeded:
            yield


@dataclass(frozen=True)
class CheckReport:
    """The record of a check, and the flags that it raises."""

    check: ExaminedCheck
    found: tuple[ExaminedFlag, ...] = ()


@dataclass
class CheckNotes:
    """Collects what a check looked at, what it measured and the flags that it raises."""

    name: str
    looked_at: str = ""
    figures: dict[str, float | None] = field(default_factory=dict)
    found: list[ExaminedFlag] = field(default_factory=list)

    def report(self) -> CheckReport:
        """Returns the report of a check that decided."""
        return self._report("flagged" if self.found else "passed", "")

    def abstain(self, reason: str) -> CheckReport:
        """Returns the report of a check that could not decide, unless it raised a flag."""
        return self._report("flagged" if self.found else "abstained", reason)

    def leave_out(self, passes: int) -> CheckReport:
        """Returns the report of a check that needs more passes than are left."""
        self.looked_at = ""
        return self._report("left out", f"it needs {passes} passes, more than the budget leaves")

    def fail(self, error: BaseException) -> CheckReport:
        """Returns the report of a check that raised an exception."""
        text = f"{type(error).__name__}: {message_of(error)}".splitlines()[0]
        text = f"{text} (raised by {raised_in(error)})"
        return self._report("failed", f"this check could not be made: {text}")

    def _report(self, result: Result, reason: str) -> CheckReport:
        check = ExaminedCheck(
            name=self.name,
            result=result,
            looked_at=self.looked_at,
            reason=reason,
            figures={key: _number(value) for key, value in self.figures.items()},
        )
        return CheckReport(check, tuple(self.found))


def _number(value: float | None) -> float | None:
    """Returns a number that JSON holds."""
    if value is None or value != value:  # NaN
        return None
    return max(-1e300, min(1e300, float(value)))


def counted(count: int, thing: str) -> str:
    """Returns a number of things in words.

    >>> counted(1, "example"), counted(12, "example")
    ('1 example', '12 examples')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def interleaved_by_class(labels: list[int]) -> list[int]:
    """Returns the positions of examples, one of each class before a second one.

    >>> interleaved_by_class([0, 0, 1, 0, 2])
    [0, 2, 4, 1, 3]
    """
    seen: dict[int, int] = {}
    turn = []
    for label in labels:
        turn.append(seen.get(label, 0))
        seen[label] = turn[-1] + 1
    return sorted(range(len(labels)), key=lambda row: (turn[row], row))

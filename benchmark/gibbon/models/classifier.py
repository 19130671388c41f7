"""Wraps a torch module as a classifier with declared inputs and outputs.

A `Classifier` takes inputs in its declared bounds and contains its own normalisation.  It counts
forward and backward passes by example.  While it is evaluated (`Classifier.evaluating`) it is in
eval mode with its parameters frozen, on the device of the evaluation; afterwards all of that is
put back, also after an exception.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gibbon.core.errors import ModelError, OutputError
from gibbon.core.threat import Bounds
from gibbon.models.memory import is_shortage
from gibbon.models.outputs import LOGITS, OutputRule
from gibbon.models.snapshot import Belongings, Listener, Snapshot, move_attributes

PIXELS = Bounds(0.0, 1.0)


@dataclass
class PassCount:
    """Passes made, counted by example: one batch of 100 forward is 100 forward passes."""

    forward: int = 0
    backward: int = 0


@dataclass
class Watch:
    """Records the outputs and gradients that an attack causes on one batch of clean inputs.

    ``outputs`` are the model's outputs on exactly these inputs, or None if it was not called on
    them; they save a second forward pass for the clean prediction.  ``zero_gradient`` (bool, shape
    (N,)) marks the examples whose first input gradient was zero in every coordinate; it is None if
    the attack only took gradients of a part of the batch (``whole`` is False).  ``gradients`` is a
    number that is NaN or infinite if any input gradient was, or None if none was taken.
    """

    inputs: Tensor
    version: int
    room: int
    outputs: Tensor | None = None
    zero_gradient: Tensor | None = None
    gradients: Tensor | None = None
    whole: bool = True

    def add(self, total: Tensor) -> None:
        """Adds a sum over input gradients; it is NaN if any of them is."""
        self.gradients = total if self.gradients is None else self.gradients + total

    def covers(self, inputs: Tensor) -> bool:
        """Returns whether a tensor has the storage, shape and unchanged content of these inputs."""
        return (
            inputs.data_ptr() == self.inputs.data_ptr()
            and inputs.shape == self.inputs.shape
            and inputs.stride() == self.inputs.stride()
            and self.inputs._version == self.version
        )


@dataclass(eq=False)
class Classifier:
    """A torch module with declared classes, inputs and outputs, whose passes are counted.

    Args:
        module: maps inputs of shape (N, *input_shape) to outputs of shape (N, classes).
        classes: number of classes, K.
        input_shape: shape of one input, such as (1, 28, 28).
        outputs: rule that interprets the outputs; logits by default.
        bounds: lowest and highest value of an input.
        forward_only: reason why the module has no gradients; empty if it has.

    Attributes:
        passes: number of passes so far.
        snapshot: during evaluation, the module's state, which must not change.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> classifier = Classifier(net, classes=3, input_shape=(1, 2, 2))
    >>> with classifier.evaluating():
    ...     classifier(torch.rand(5, 1, 2, 2)).shape
    torch.Size([5, 3])
    >>> classifier.passes
    PassCount(forward=5, backward=0)
    """

    module: nn.Module
    classes: int
    input_shape: tuple[int, ...]
    outputs: OutputRule = LOGITS
    bounds: Bounds = PIXELS
    passes: PassCount = field(default_factory=PassCount)
    forward_only: str = ""
    snapshot: Snapshot | None = field(default=None, init=False, repr=False)
    _watch: Watch | None = field(default=None, init=False, repr=False)
    _listening: bool = field(default=False, init=False, repr=False)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Returns the outputs, shape (N, K), differentiable if the inputs require gradients.

        Raises `OutputError` if the module returns anything of another shape.
        """
        outputs = self.module(inputs)
        if not isinstance(outputs, Tensor) or outputs.shape != (len(inputs), self.classes):
            came = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise OutputError(
                f"the model must return a tensor of shape ({len(inputs)}, {self.classes}), "
                f"got {came}"
            )
        if not self._listening:
            self._saw(self.module, (inputs,), outputs)
        return outputs

    @property
    def room(self) -> int:
        """Number of examples in a full batch while one is under attack, else 0.

        Memory is bounded by the batch: an attack with few examples left may evaluate several points
        of each at once, up to this number in total.
        """
        return 0 if self._watch is None else self._watch.room

    def ascend(self, inputs: Tensor, ascent: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the outputs, shape (N, K), and an input gradient of the inputs' shape.

        ``ascent`` maps detached outputs to the gradient of an objective with respect to them; the
        result is the objective's gradient with respect to the inputs.  Takes one forward and one
        backward pass.
        """
        leaf = inputs.detach().requires_grad_()
        with torch.enable_grad():
            outputs = self(leaf)
        (gradient,) = torch.autograd.grad(outputs, leaf, ascent(outputs.detach()))
        return outputs.detach(), self._seen(gradient)

    def loss_gradient(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the gradient of the training loss with respect to the inputs, by plain autograd.

        Most published code does this.  It loses terms if the softmax saturates; see
        `OutputRule.ascent` for the exact direction.
        """
        leaf = inputs.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.outputs.loss(self(leaf), labels).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        return self._seen(gradient)

    def pull_back(
        self, outputs: Tensor, inputs: Tensor, upstream: Tensor, *, again: bool = False
    ) -> Tensor:
        """Returns the input gradient that belongs to a gradient of the outputs.

        Unlike `ascend` it supports several gradients from one forward pass, for which ``again``
        keeps the graph, and losses with a graph of their own.  Takes one backward pass.
        """
        (gradient,) = torch.autograd.grad(outputs, inputs, upstream, retain_graph=again)
        if self._watch is not None:
            self._watch.add(gradient.sum())
        return gradient

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        """Returns finite outputs, shape (N, K), without recording a graph.

        Raises `OutputError` if any output is NaN or infinite, or breaks the declared rule.
        """
        outputs: Tensor = self(inputs)
        if not outputs.is_floating_point():
            raise OutputError(f"the model must return floating-point numbers, got {outputs.dtype}")
        if not math.isfinite(outputs.sum().item()) and not bool(torch.isfinite(outputs).all()):
            bad = int((~torch.isfinite(outputs)).any(1).sum())
            of = f"{bad} of {len(inputs)} examples"
            raise OutputError(f"the model returned NaN or infinity for {of}")
        problem = self.outputs.problem(outputs)
        if problem is not None:
            raise OutputError(f"the model declares {self.outputs.name}, but {problem}")
        return outputs

    @contextmanager
    def evaluating(self, device: torch.device | str | None = None) -> Iterator[Classifier]:
        """Puts the module into eval mode, parameters frozen, on ``device``, for a ``with`` block.

        Afterwards, also after an exception, it restores the mode of every sub-module,
        ``requires_grad``, the tensors of parameters, buffers and attributes, gradients and hooks.
        """
        belongings = Belongings(self.module)
        outer = self.snapshot
        try:
            self.module.eval()
            for parameter in self.module.parameters():  # a ScriptModule has no requires_grad_()
                parameter.requires_grad_(False)
            if device is not None:
                self.module.to(device)
                move_attributes(self.module, torch.device(device))
            with self._listen():
                self.snapshot = Snapshot(self.module)
                yield self
        finally:
            self.snapshot = outer
            belongings.put_back()

    def ask_of_a_part(self) -> None:
        """Declares that the next passes are on a part of the watched batch.

        A gradient of as many rows then does not count as the first one of all its examples.
        """
        if self._watch is not None:
            self._watch.whole = False

    @property
    def watched(self) -> bool:
        """Whether a `Watch` checks its gradients for NaN and infinity."""
        return self._watch is not None

    @contextmanager
    def watching(self, inputs: Tensor, *, room: int = 0) -> Iterator[Watch]:
        """Records outputs and gradients on these inputs in a `Watch`, for a ``with`` block.

        ``room`` is the size of a full batch, if these inputs are fewer.
        """
        watch = Watch(inputs, inputs._version, max(room, len(inputs)))
        previous, self._watch = self._watch, watch
        try:
            yield self._watch
        finally:
            self._watch = previous

    @contextmanager
    def _listen(self) -> Iterator[None]:
        """Counts every call of the module, also those that bypass `__call__`."""
        if self._listening:
            yield
            return
        self._listening = True
        handle = self.module.register_forward_hook(Listener(self._saw))
        try:
            yield
        finally:
            self._listening = False
            handle.remove()

    def _saw(self, module: nn.Module, arguments: tuple[object, ...], outputs: object) -> None:
        """Counts a forward pass, and its backward pass later; records clean outputs."""
        inputs = arguments[0] if arguments else None
        if not isinstance(inputs, Tensor) or not isinstance(outputs, Tensor):
            return
        self.passes.forward += len(inputs)
        if outputs.requires_grad:
            outputs.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        watch = self._watch
        if watch is None or watch.outputs is not None or not watch.covers(inputs):
            return
        # An attack may use the model in training mode: its outputs are no clean prediction.
        if not any(part.training for part in self.module.modules()):
            watch.outputs = outputs.detach().clone()  # the attack may change its own in place

    def _count_backward(self, gradient: Tensor) -> None:
        self.passes.backward += len(gradient)

    def _seen(self, gradient: Tensor) -> Tensor:
        watch = self._watch
        if watch is None:
            return gradient
        # A NaN anywhere makes these sums NaN; they are read back once, in the end.
        examples = len(watch.inputs)
        # With several tries of each example, the first try of all of them comes first.
        several = watch.gradients is None and len(gradient) % examples == 0
        if watch.zero_gradient is None and watch.whole and (several or len(gradient) == examples):
            flat = gradient.flatten(1)
            highest, lowest = flat.amax(1), flat.amin(1)
            watch.zero_gradient = ((highest == 0) & (lowest == 0))[:examples]
            total = (highest + lowest).sum()
        else:
            total = gradient.sum()
        watch.add(total)
        return gradient


def probe(classifier: Classifier, inputs: Tensor) -> Tensor:
    """Returns the model's outputs on a few inputs, after a check against its declaration.

    Raises `ModelError` if the shape is wrong, an output is not finite, or outputs break the
    declared rule.
    """
    try:
        outputs = classifier.predict(inputs)
    except OutputError as error:
        raise ModelError(str(error)) from error
    except (RuntimeError, TypeError, ValueError) as error:
        if is_shortage(error):
            raise
        raise ModelError(
            f"the model can't be run on inputs of shape {tuple(inputs.shape)}: {error}"
        ) from error
    return outputs

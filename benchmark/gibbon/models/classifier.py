"""What a model is to us: a torch module, what its outputs mean, and what its inputs are.

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
    """What a classifier was seen to do on one batch of clean inputs.

    ``outputs`` is what the model returned for exactly these inputs, if it was asked, so that a
    clean prediction need not be paid for twice.  ``zero_gradient`` (bool, shape (N,)) marks the
    examples whose first input gradient was zero in every coordinate; None where a part of them
    alone was asked about, as ``whole`` tells.  ``gradients`` is a number that is NaN or infinite
    where any input gradient was, or None where none was taken.
    """

    inputs: Tensor
    version: int
    room: int
    outputs: Tensor | None = None
    zero_gradient: Tensor | None = None
    gradients: Tensor | None = None
    whole: bool = True

    def add(self, total: Tensor) -> None:
        """Notes a sum over input gradients, NaN where any of them was."""
        self.gradients = total if self.gradients is None else self.gradients + total

    def covers(self, inputs: Tensor) -> bool:
        """Says whether a tensor is these inputs: same storage, shape and unchanged content."""
        return (
            inputs.data_ptr() == self.inputs.data_ptr()
            and inputs.shape == self.inputs.shape
            and inputs.stride() == self.inputs.stride()
            and self.inputs._version == self.version
        )


@dataclass(eq=False)
class Classifier:
    """A torch module as the benchmark sees it.

    Args:
        module: maps inputs of shape (N, *input_shape) to outputs of shape (N, classes).
        classes: number of classes, K.
        input_shape: shape of one input, such as (1, 28, 28).
        outputs: what the outputs mean; logits unless said otherwise.
        bounds: the box that inputs live in.
        forward_only: why the module gives no gradients; empty where it does.

    Attributes:
        passes: what was asked of the module so far.
        snapshot: while it is evaluated, the module's state as it must stay.

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
        """Returns the outputs, shape (N, K), differentiable where the inputs ask for it.

        Raises `OutputError` where the module returns something of another shape.
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
        """How many examples a full batch has while one is under attack, else 0.

        Memory is bounded by the batch: an attack that has few of its examples left may ask for
        several points of each at once, up to this number.
        """
        return 0 if self._watch is None else self._watch.room

    def ascend(self, inputs: Tensor, ascent: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the outputs, shape (N, K), and an input gradient of the inputs' shape.

        ``ascent`` maps detached outputs to the gradient of some objective in them; the result is
        the gradient of that objective in the inputs.  One forward and one backward pass.
        """
        leaf = inputs.detach().requires_grad_()
        with torch.enable_grad():
            outputs = self(leaf)
        (gradient,) = torch.autograd.grad(outputs, leaf, ascent(outputs.detach()))
        return outputs.detach(), self._seen(gradient)

    def loss_gradient(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the gradient of the training loss in the inputs, as plain autograd forms it.

        This is what most code does.  It loses terms where the softmax saturates; see
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
        """Returns a gradient in the outputs as one in the inputs that gave them.

        For what `ascend` can't do: several gradients from one forward pass, which ``again`` leaves
        room for, and losses with a graph of their own.  One backward pass.
        """
        (gradient,) = torch.autograd.grad(outputs, inputs, upstream, retain_graph=again)
        if self._watch is not None:
            self._watch.add(gradient.sum())
        return gradient

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        """Returns finite outputs, shape (N, K), without a graph.

        Raises `OutputError` where any of them is NaN or infinite, or breaks the declared rule.
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
        """While inside: eval mode, frozen parameters, on ``device``.  All put back afterwards.

        Put back are the mode of every sub-module, which parameters are frozen, the tensors of
        parameters, buffers and attributes, gradients and hooks, also after an exception.
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
        """Says that less than the watched batch is asked about from now on.

        A gradient of as many rows is no longer taken for the first one of all its examples.
        """
        if self._watch is not None:
            self._watch.whole = False

    @property
    def watched(self) -> bool:
        """Whether its gradients are looked at by somebody who will refuse NaN and infinity."""
        return self._watch is not None

    @contextmanager
    def watching(self, inputs: Tensor, *, room: int = 0) -> Iterator[Watch]:
        """While inside: notes what the model does on these inputs (see `Watch`).

        ``room`` is the size of a full batch, where these inputs are fewer.
        """
        watch = Watch(inputs, inputs._version, max(room, len(inputs)))
        previous, self._watch = self._watch, watch
        try:
            yield self._watch
        finally:
            self._watch = previous

    @contextmanager
    def _listen(self) -> Iterator[None]:
        """While inside, every use of the module is seen, also one that goes round `__call__`."""
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
        """Counts a pass, forward now and backward when it comes, and notes clean outputs."""
        inputs = arguments[0] if arguments else None
        if not isinstance(inputs, Tensor) or not isinstance(outputs, Tensor):
            return
        self.passes.forward += len(inputs)
        if outputs.requires_grad:
            outputs.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        watch = self._watch
        if watch is not None and watch.outputs is None and watch.covers(inputs) and self._settled():
            watch.outputs = outputs.detach().clone()  # the attack may work in place on its own

    def _settled(self) -> bool:
        # An attack may borrow the model in training mode: that gives no clean prediction.
        return not any(module.training for module in self.module.modules())

    def _count_backward(self, gradient: Tensor) -> None:
        self.passes.backward += len(gradient)

    def _seen(self, gradient: Tensor) -> Tensor:
        watch = self._watch
        if watch is None:
            return gradient
        # A NaN anywhere makes these sums NaN; they are looked at once, in the end.
        examples = len(watch.inputs)
        several = (
            watch.gradients is None and len(gradient) % examples == 0
        )  # tries, all of one first
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
    """Returns the model's outputs on a few inputs once they are known to keep its declaration.

    Raises `ModelError` where the shape is wrong, an output is not finite, or outputs break the
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

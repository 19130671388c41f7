"""Wraps a torch module as a classifier with declared inputs and outputs.

A `Classifier` takes inputs in its declared bounds and contains its own normalisation.  It counts
forward and backward passes by example.  While it is evaluated (`Classifier.evaluating`) it is in
eval mode with its parameters frozen, on the device of the evaluation; afterwards all of that is
put back, also after an exception.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gibbon.core.endings import ends_the_process
from gibbon.core.errors import AttackError, ModelError, OutputError
from gibbon.core.global_state import Modes
from gibbon.core.plain_tensors import STAND_INS, equal, plain, version_of
from gibbon.core.plain_text import message_of
from gibbon.core.threat import Bounds, ThreatModel
from gibbon.models.held_values import Place
from gibbon.models.memory import is_shortage
from gibbon.models.outputs import LOGITS, OutputRule
from gibbon.models.pass_count import PassCount, add_passes, uncounted
from gibbon.models.random_draws import ONE_DRAW, Draws
from gibbon.models.reached_values import ReachedValues
from gibbon.models.snapshot import (
    Lender,
    Listener,
    ModuleReferences,
    Snapshot,
    move_attributes,
)
from gibbon.models.trajectory import ModelCall, Trajectory

PIXELS = Bounds(0.0, 1.0)
NO_TARGET = -1  # in place of a class: the example has no target
MANY_DIGITS = (torch.float32, torch.float64)
CHANGED_INPUT = (
    "the model changed its input in place, which it did not do when it was loaded: "
    "let forward begin with inputs = inputs.clone()"
)


_OUTPUTS: dict[int, Tensor] = {}  # on clean inputs, by the identity of a watch


@dataclass
class Watch:
    """Records the outputs and gradients that an attack causes on one batch of clean inputs.

    ``outputs`` are the model's outputs on exactly these inputs, or None if it was not called on
    them; they save a second forward pass for the clean prediction, and are no attribute, so that an
    attack, which finds the watch on its classifier, can't set them.  ``path`` holds the evidence of
    all passes since `begin`.  ``original`` is a tensor of the values that the inputs must still
    have; None if the attack is trusted not to hide a change of them.
    """

    inputs: Tensor
    version: int
    room: int
    path: Trajectory
    original: Tensor | None = None
    _faults: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Forgets the outputs with the watch."""
        weakref.finalize(self, _OUTPUTS.pop, id(self), None).atexit = False

    @property
    def outputs(self) -> Tensor | None:
        """A copy of the model's outputs on these inputs, shape (N, K), or None."""
        found = _OUTPUTS.get(id(self))
        return None if found is None else found.clone()

    def begin(
        self, labels: Tensor, threat: ThreatModel, *, bounds: Bounds, reach: float
    ) -> Trajectory:
        """Begins to record the path of an attack, and returns the record.

        Args:
            labels: int64, shape (N,): the true classes.
            threat: the norm and the box.
            bounds: the model's bounds.
            reach: the largest distance of a success; infinite for a search of the nearest.
        """
        if (faulty := self.path.faulty) is not None:
            self._faults.append(faulty)
        self.path = Trajectory(
            self.inputs,
            labels=labels,
            threat=threat,
            bounds=bounds,
            reach=reach,
            outputs_stay=self.original is None,
        )
        return self.path

    @property
    def zero_gradient(self) -> Tensor | None:
        """Which examples had a first input gradient of zeros since `begin`, bool, shape (N,).

        None if no gradient was taken.
        """
        return self.path.zero_gradient

    @property
    def gradients(self) -> Tensor | None:
        """A number that is NaN if an input gradient was NaN or infinite; None if none was taken."""
        faulty = self.path.faulty
        faults = self._faults if faulty is None else [*self._faults, faulty]
        return torch.stack(faults).sum() if faults else None

    def covers(self, inputs: Tensor) -> bool:
        """Returns whether a tensor has the storage, shape and unchanged content of these inputs."""
        return (
            type(inputs) is Tensor
            and inputs.data_ptr() == self.inputs.data_ptr()
            and inputs.shape == self.inputs.shape
            and inputs.stride() == self.inputs.stride()
            and self.inputs._version == self.version
            and (self.original is None or equal(self.inputs, self.original))
        )


class ModuleCall(NamedTuple):
    """A call of a module: the inputs, the tensor that the module got, and the modes of torch."""

    inputs: Tensor
    given: Tensor
    modes: Modes


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
        draws: draws of its random numbers that an input is judged by, if it answers at random.
        eager: the module without `torch.compile`; None if that is the module itself.
        foreign: whether the module is code of a user, which in any call may write into its input,
            overwrite its last output and leave global state changed; it gets copies.
        reached: what the code of a foreign module reads from elsewhere, as it was before its first
            call.

    Attributes:
        passes: number of passes so far.
        snapshot: during evaluation, the module's state, which must not change.
        own_places: tensors and other values that the module's own calls change, such as a counter
            of calls.

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
    draws: Draws = ONE_DRAW
    eager: nn.Module | None = None
    foreign: bool = False
    reached: ReachedValues | None = field(default=None, repr=False)
    snapshot: Snapshot | None = field(default=None, init=False, repr=False)
    own_places: frozenset[Place] = field(default=frozenset(), init=False, repr=False)
    _watch: Watch | None = field(default=None, init=False, repr=False)
    _listening: bool = field(default=False, init=False, repr=False)
    _viewed: Classifier | None = field(default=None, init=False, repr=False)
    _unchanged: bool = field(default=True, init=False, repr=False)
    _lent: ModuleCall | None = field(default=None, init=False, repr=False)
    _copied: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Returns the outputs, shape (N, K), differentiable if the inputs require gradients.

        The module gets a tensor that must stay as it is, or, if it is foreign, a copy.  Modes of
        torch that it leaves changed are restored.

        Raises `OutputError` if the module returns anything of another shape, changes its input, or
        raises an exception that is no `Exception`, such as `SystemExit`.
        """
        if not isinstance(inputs, Tensor):
            raise TypeError(f"a model is called with a tensor, got {type(inputs).__name__}")
        version, modes, outer = version_of(inputs), Modes.now(), self._lent
        lent = self._lent = ModuleCall(inputs, inputs.clone() if self.foreign else inputs, modes)
        try:
            returned: object = self.module(lent.given)
        except BaseException as error:  # an exit must not end the run in silence
            if isinstance(error, Exception) or ends_the_process(error):
                raise
            raised = f"{type(error).__name__}: {message_of(error)}"
            raise OutputError(f"the model raised {raised}") from error
        finally:
            self._lent = outer
            if Modes.now() != modes:
                modes.put_back()
        outputs = self.checked(returned, inputs)
        if self.foreign and type(outputs) is Tensor:
            outputs = outputs.clone()
        if version_of(inputs) != version:
            raise OutputError(CHANGED_INPUT)
        if self._viewed is not None:
            call = self._record(inputs, outputs)  # counted where the passes were made
            if call is not None and outputs.requires_grad and self._watch is not None:
                upstream = partial(self._watch.path.took_upstream, call)
                outputs.register_hook(upstream)  # type: ignore[no-untyped-call]
        elif not self._listening:
            self._saw(self.module, (inputs,), outputs)
        return outputs

    def call_on(self, inputs: Tensor) -> object:
        """Returns what the module returns for these inputs, into which it may write."""
        outer, self._lent = self._lent, ModuleCall(inputs, inputs, Modes.now())
        try:
            return self.module(inputs)
        finally:
            self._lent = outer

    def checked(self, outputs: object, inputs: Tensor) -> Tensor:
        """Returns outputs of the right shape, (N, K), as a plain tensor of at least float32.

        Raises `OutputError` for any others.
        """
        expected = (inputs.shape[0], self.classes)
        came: object = type(outputs).__name__
        if isinstance(outputs, Tensor):
            found = self._readable(outputs, inputs)
            if found.shape == expected:
                return found
            came = tuple(found.shape)
        raise OutputError(f"the model must return a tensor of shape {expected}, got {came}")

    @property
    def room(self) -> int:
        """Number of examples in a full batch while one is under attack, else 0.

        Memory is bounded by the batch: an attack with few examples left may evaluate several points
        of each at once, up to this number in total.
        """
        return 0 if self._watch is None else self._watch.room

    def ascend(
        self, inputs: Tensor, ascent: Callable[[Tensor], Tensor], *, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the outputs, shape (N, K), and an input gradient of the inputs' shape.

        ``ascent`` maps detached outputs to the gradient of an objective with respect to them; the
        result is the objective's gradient with respect to the inputs.  ``rows`` as for `on_rows`.
        Takes one forward and one backward pass.
        """
        leaf = inputs.detach().requires_grad_()
        with torch.enable_grad(), self.on_rows(rows):
            outputs = self(leaf)
        return outputs.detach(), self._gradient(outputs, leaf, ascent(outputs.detach()))

    def loss_gradient(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the gradient of the training loss with respect to the inputs, by plain autograd.

        Most published code does this.  It loses terms if the softmax saturates; see
        `OutputRule.ascent` for the exact direction.
        """
        leaf = inputs.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.outputs.loss(self(leaf), labels).sum()
        return self._gradient(loss, leaf)

    def pull_back(
        self, outputs: Tensor, inputs: Tensor, upstream: Tensor, *, again: bool = False
    ) -> Tensor:
        """Returns the input gradient that belongs to a gradient of the outputs.

        Unlike `ascend` it supports several gradients from one forward pass, for which ``again``
        keeps the graph, and losses with a graph of their own.  Takes one backward pass.
        """
        return self._gradient(outputs, inputs, upstream, again=again)

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
        references = ModuleReferences(self.module)
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
            references.put_back()

    def aim(self, targets: Tensor) -> None:
        """Reports the target classes of the attack that is running, if it is targeted.

        Args:
            targets: int64, shape (N,): a class for each example of the batch, `NO_TARGET` for one
                without.  If a list of attacks aims at parts of a batch, no targets are known.
        """
        if self._watch is not None:
            self._watch.path.aim(targets)

    @contextmanager
    def run_on(self, rows: Tensor | None = None) -> Iterator[None]:
        """Declares that the passes in a ``with`` block are a new run on some rows of the batch.

        Runs are restarts, members of a list, and targets.  Runs inside of a run are on its rows.

        Args:
            rows: int64, shape (M,): positions in the batch under attack; None for all.  Several
                runs that share a batch name each row several times.
        """
        with nullcontext() if self._watch is None else self._watch.path.run_on(rows):
            yield

    @contextmanager
    def on_rows(self, rows: Tensor | None) -> Iterator[None]:
        """Declares which rows of its run an attack calls the model on, for a ``with`` block.

        Args:
            rows: int64, shape (M,): a position for each input of a call, in rising order; None for
                all rows.
        """
        if self._watch is None or rows is None:
            yield
        else:
            with self._watch.path.on_rows(rows):
                yield

    @contextmanager
    def off_path(self) -> Iterator[None]:
        """Leaves the passes in a ``with`` block out of the evidence of an attack's path.

        For queries of which the attack may discard successes, and finds them again.
        """
        with nullcontext() if self._watch is None else self._watch.path.off():
            yield

    def is_watched_by(self, watch: Watch) -> bool:
        """Returns whether this watch, and no other, records the calls of the model."""
        return self._watch is watch

    @property
    def watched(self) -> bool:
        """Whether a `Watch` checks its gradients for NaN and infinity."""
        return self._watch is not None

    @contextmanager
    def watching(
        self, inputs: Tensor, *, room: int = 0, original: Tensor | None = None
    ) -> Iterator[Watch]:
        """Records outputs and gradients on these inputs in a `Watch`, for a ``with`` block.

        ``room`` is the size of a full batch, if these inputs are fewer; ``original`` as in `Watch`.
        """
        full = max(room, len(inputs))
        watch = Watch(inputs, inputs._version, full, Trajectory(inputs), original)
        previous, self._watch = self._watch, watch
        try:
            yield self._watch
        finally:
            self._watch = previous

    def show(self, source: Classifier, *, unchanged: bool) -> None:
        """Makes this a view of a classifier, which counts the passes of both.

        The watch of the source records the view's calls.  ``unchanged`` says whether the view's
        outputs are the source's, so that they may be its clean prediction.
        """
        self.snapshot, self._watch = source.snapshot, source._watch
        self._viewed, self._unchanged = source, unchanged

    @contextmanager
    def counting_only(self) -> Iterator[None]:
        """Counts the passes of a ``with`` block, without a record of them by the watch."""
        watch, self._watch = self._watch, None
        try:
            yield
        finally:
            self._watch = watch

    @property
    def listening(self) -> bool:
        """Whether every call of the module is counted."""
        return self._listening

    def note_pass(self, inputs: Tensor, outputs: object) -> None:
        """Counts a forward pass that was made without a call of the module."""
        self._saw(self.module, (inputs,), outputs)

    def note_backward(self, outputs: Tensor, call: ModelCall | None = None) -> None:
        """Counts the backward passes through a tensor of shape (N, ...), when they are made.

        ``call`` is what the path of the attack knows of the forward pass.
        """
        with torch._C.DisableTorchFunctionSubclass():
            Tensor.register_hook(outputs, partial(self._count_backward, call))  # type: ignore[no-untyped-call]

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Leaves the passes of a ``with`` block out of the count.

        Raises `AttackError` in an attack that is not ours, all passes of which are counted.
        """
        if self._watch is not None and self._watch.original is not None:
            raise AttackError("the attack tried to leave passes out of the count")
        with uncounted(self.passes):
            yield

    @contextmanager
    def _listen(self) -> Iterator[None]:
        """Counts every call of the module, also those that bypass `__call__`."""
        if self._listening:
            yield
            return
        self._listening = True
        handles = [self.module.register_forward_hook(Listener(self._saw), with_kwargs=True)]
        if self.foreign:
            lender = Lender(self._lend)
            handles.append(self.module.register_forward_pre_hook(lender, with_kwargs=True))
        try:
            yield
        finally:
            self._listening, self._copied = False, None
            for handle in handles:
                handle.remove()

    def _lend(self, inputs: Tensor) -> Tensor:
        """Returns the tensor that the module gets in a call with these inputs: a copy.

        An attack may call the module, and not the classifier, which has made a copy already.
        """
        if self._lent is not None and inputs is self._lent.given:
            return inputs
        self._copied = inputs, inputs.clone()
        return self._copied[1]

    def _saw(self, module: nn.Module, arguments: tuple[object, ...], outputs: object) -> None:
        """Counts a forward pass, and its backward pass later; records what the watch needs."""
        inputs = next((each for each in arguments if isinstance(each, Tensor)), None)
        if (lent := self._lent) is not None:
            if Modes.now() != lent.modes:
                lent.modes.put_back()
            inputs = lent.inputs if inputs is lent.given else inputs
        if self._copied is not None and inputs is self._copied[1]:
            inputs, self._copied = self._copied[0], None
        if not isinstance(inputs, Tensor) or not isinstance(outputs, Tensor):
            return
        add_passes(self.passes, forward=len(inputs))
        call = self._record(inputs, self._readable(outputs, inputs))
        if outputs.requires_grad:
            self.note_backward(outputs, call)

    def _readable(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """Returns outputs as a plain tensor of at least float32, where the inputs are.

        If nothing is attacked, a stand-in for a tensor stays what it is, for `gibbon.bounds`.
        """
        if self._watch is None and type(outputs) in STAND_INS:
            return outputs
        found = plain(outputs, what="the model's output", problem=OutputError)
        if found.is_floating_point() and found.dtype not in MANY_DIGITS:
            found = found.float()
        return found if found.device == inputs.device else found.to(inputs.device)

    def _record(self, inputs: Tensor, outputs: Tensor) -> ModelCall | None:
        """Records clean outputs, and a point of the attack's path, in the watch.

        Returns what the path knows of the call; None if it records nothing.
        """
        watch = self._watch
        # An attack may use the model in training mode: these are not the outputs under attack.
        if watch is None or self.module.training:
            return None
        if torch._C._functorch.is_functorch_wrapped_tensor(inputs):  # which has no values yet
            return None
        call = watch.path.saw(inputs, outputs)
        if call is not None and outputs.requires_grad and inputs.requires_grad:
            watch.path.follow(inputs, call)
        if id(watch) in _OUTPUTS or not watch.covers(inputs):
            return call
        if self.draws.count > 1 or not self._unchanged:  # one draw is no clean prediction
            return call
        if not any(part.training for part in self.module.modules()):
            _OUTPUTS[id(watch)] = outputs.detach().clone()  # the attack may change its own in place
        return call

    def _count_backward(self, call: ModelCall | None, gradient: Tensor) -> None:
        add_passes(self.passes, backward=gradient.shape[0])
        if call is not None and self._watch is not None:
            self._watch.path.took_upstream(call, gradient)

    def _gradient(
        self,
        outputs: Tensor,
        inputs: Tensor,
        upstream: Tensor | None = None,
        *,
        again: bool = False,
    ) -> Tensor:
        with nullcontext() if self._watch is None else self._watch.path.own_gradient():
            (gradient,) = torch.autograd.grad(outputs, inputs, upstream, retain_graph=again)
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
            f"the model can't be run on inputs of shape {tuple(inputs.shape)}: {message_of(error)}"
        ) from error
    return outputs

"""Wrapper modules for models that write into inputs, reuse outputs, change global state or fail.

A model may write into its input, return a tensor that its next call overwrites, leave global state
changed, or need gradients inside of ``forward``.  `shielded` calls a model on copies of a few
inputs, and puts a module around it for each of these actions that it shows.  A model of known code
(`gibbon.models.known_code`) without them stays as it is, so that nothing is copied for it.  Any
other model may do such things for other inputs or later on: it is marked as foreign, and gets
copies in each call (`gibbon.models.classifier`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gibbon.core.global_state import Changes, GlobalState
from gibbon.core.plain_tensors import equal
from gibbon.models.classifier import Classifier
from gibbon.models.first_answers import FirstAnswers
from gibbon.models.known_code import is_known
from gibbon.models.memory import give_back, is_shortage
from gibbon.models.model_state import ModelState
from gibbon.models.reached_values import ReachedValues, in_use, restoring_values

SOME, FEW = 16, 4  # inputs of the first and of the second call
NEEDS_GRADIENTS = ("does not require grad", "does not have a grad_fn")


class CopiedInput(nn.Module):
    """Gives a network a copy of its input, into which it may write."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, inputs: Tensor) -> Any:
        """Returns the network's outputs."""
        return self.network(inputs.clone())


class CopiedOutput(nn.Module):
    """Returns a copy of a network's output, which its next call may overwrite."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, inputs: Tensor) -> Any:
        """Returns the network's outputs."""
        outputs = self.network(inputs)
        return outputs.clone() if isinstance(outputs, Tensor) else outputs


class GradientsEnabled(nn.Module):
    """Records gradients inside of a network that differentiates in its ``forward``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, inputs: Tensor) -> Any:
        """Returns the network's outputs, without a graph if gradients are not recorded."""
        wanted = torch.is_grad_enabled()
        with torch.enable_grad():
            outputs = self.network(inputs)
        return outputs.detach() if isinstance(outputs, Tensor) and not wanted else outputs


class RestoredState(nn.Module):
    """Restores the global state that a network leaves changed (`GlobalState`)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, inputs: Tensor) -> Any:
        """Returns the network's outputs."""
        state = GlobalState.now()
        try:
            return self.network(inputs)
        finally:
            state.put_back()


class WithoutCudnn(nn.Module):
    """Runs a recurrent network without cuDNN, whose backward pass needs training mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, inputs: Tensor) -> Any:
        """Returns the network's outputs."""
        backend = torch.backends.cudnn
        before, backend.enabled = backend.enabled, False
        try:
            return self.network(inputs)
        finally:
            backend.enabled = before


_SHIELDS = (CopiedInput, CopiedOutput, GradientsEnabled, RestoredState, WithoutCudnn)


@dataclass(frozen=True)
class ModelWrappers:
    """The modules to put around a model, the innermost first, and a sentence for each.

    Args:
        shields: the modules.
        notes: sentences for the model's card.
        foreign: whether the model's code is unknown.
        reached: what that code reads from elsewhere.
        first: its answers in the first of these calls, if it did not fail.
    """

    shields: tuple[Callable[[nn.Module], nn.Module], ...] = ()
    notes: tuple[str, ...] = ()
    foreign: bool = False
    reached: ReachedValues | None = field(default=None, compare=False)
    first: FirstAnswers | None = field(default=None, compare=False)

    def with_state(self, changes: Changes) -> ModelWrappers:
        """Returns these wrappers and one that restores this global state."""
        if RestoredState in self.shields:
            return self
        shields, notes = (*self.shields, RestoredState), (*self.notes, _leaves(changes.numeric))
        return replace(self, shields=shields, notes=notes)

    def around(self, classifier: Classifier) -> Classifier:
        """Returns a classifier with these modules around it; itself if there are none."""
        if not self.shields and not self.foreign:
            return classifier
        module = classifier.module
        for shield in self.shields:
            module = shield(module)
        around = copy.copy(classifier)
        around.module = module
        around.foreign, around.reached = self.foreign, self.reached
        return around


def wrappers_for(classifier: Classifier, inputs: Tensor) -> ModelWrappers:
    """Returns the wrappers that a model needs, found by calls on copies of a few inputs.

    It is called without and with gradients.  Its state and global state are put back, and the
    passes are not counted.  A call that fails shows nothing: its error is found later.

    Args:
        classifier: the model.
        inputs: shape (N, *input_shape), on the device of the evaluation.
    """
    seen, foreign = _ObservedChanges(inputs), not is_known(classifier.module)
    reached = in_use(ReachedValues([classifier.module])) if foreign else None
    with restoring_values(reached), classifier.uncounted(), classifier.evaluating(inputs.device):
        kept, state = ModelState(classifier), GlobalState.now()
        try:
            for gradients in (False, True):
                seen.look(classifier.module, state, gradients=gradients)
        finally:
            state.put_back()
            kept.restore()
        recurrent = inputs.device.type == "cuda" and any(
            isinstance(each, nn.RNNBase) for each in classifier.module.modules()
        )
    found = [*seen.wrappers()]
    if recurrent and not classifier.forward_only:
        note = "its recurrent layers run without cuDNN, which has no gradients in eval mode"
        found.append((WithoutCudnn, note))
    shields = tuple(shield for shield, _ in found)
    return ModelWrappers(shields, tuple(note for _, note in found), foreign, reached, seen.first)


def shielded(classifier: Classifier, inputs: Tensor) -> Classifier:
    """Returns a classifier with the wrappers of `wrappers_for` around it."""
    return wrappers_for(classifier, inputs).around(classifier)


def unshielded(module: nn.Module) -> nn.Module:
    """Returns the network inside of the modules that `wrappers_for` put around it."""
    while isinstance(module, _SHIELDS):
        module = module.network
    return module


def needs_gradients(error: BaseException) -> bool:
    """Returns whether a call failed since it differentiates while gradients are not recorded."""
    return isinstance(error, RuntimeError) and any(each in str(error) for each in NEEDS_GRADIENTS)


class _ObservedChanges:
    """Collects the changes that calls of a model make."""

    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs[:SOME]
        self.writes = self.reuses = self.needs_gradients = False
        self.changed: dict[str, None] = {}
        self.first: FirstAnswers | None = None

    def look(self, module: nn.Module, state: GlobalState, *, gradients: bool) -> None:
        """Calls the model twice, on all inputs and on a few; on fewer if memory is short."""
        while True:
            try:
                self._look(module, state, gradients=gradients)
            except Exception as error:
                if len(self.inputs) == 1 or not is_shortage(error):
                    raise
            else:
                return
            self.inputs = self.inputs[: len(self.inputs) // 2]
            give_back(self.inputs.device)

    def _look(self, module: nn.Module, state: GlobalState, *, gradients: bool) -> None:
        first = self._call(module, self.inputs, state, gradients=gradients)
        kept = None if first is None else first.detach().clone()
        if kept is not None and not gradients and self.first is None:
            self.first = FirstAnswers(self.inputs.detach().clone(), kept)
        second = self._call(module, self.inputs[:FEW].flip(0), state, gradients=gradients)
        if first is not None and kept is not None and second is not None:
            overwritten = not equal(first.detach(), kept)
            shared = first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
            self.reuses |= overwritten or (shared and first.numel() > 0)

    def _call(
        self, module: nn.Module, inputs: Tensor, state: GlobalState, *, gradients: bool
    ) -> Tensor | None:
        leaf = inputs.detach().clone().requires_grad_(gradients)
        given = leaf.clone() if gradients else leaf
        try:
            with torch.set_grad_enabled(gradients):
                outputs: object = module(given)
        except Exception as error:
            if is_shortage(error):
                raise
            self.needs_gradients |= not gradients and needs_gradients(error)
            return None
        finally:
            changes = state.put_back()
            self.changed |= dict.fromkeys(changes.numeric)
            self.writes |= given._version > 0 or not equal(given.detach(), inputs)
        return outputs if type(outputs) is Tensor and outputs.layout is torch.strided else None

    def wrappers(self) -> Iterator[tuple[Callable[[nn.Module], nn.Module], str]]:
        """Yields the modules to put around the model, each with its note."""
        if self.writes:
            yield CopiedInput, "it writes into its input: it gets a copy of it"
        if self.reuses:
            yield CopiedOutput, "it overwrites its output in its next call: the output is copied"
        if self.needs_gradients:
            yield GradientsEnabled, "it differentiates in forward: gradients are recorded there"
        if self.changed:
            yield RestoredState, _leaves(self.changed)


def _leaves(changed: Iterable[str]) -> str:
    return f"its calls leave global state changed ({', '.join(changed)}): it is put back"

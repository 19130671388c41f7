"""Finds the part of a model that shows a fault, so that a flag can name it.

One pass of the whole model records the inputs of each part.  Then parts are called separately with
these, from the first to the last and from the outside inwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.diagnostics.examination.closeness import EPSILON
from gibbon.diagnostics.examination.subject import Subject
from gibbon.models.outputs import look_like_probabilities

EXAMPLES = 2
SAME = 1e-5  # largest relative difference of two equal calls
SCALES = (1e-3, 1e-4, 1e-2)  # of a displacement, as a share of the inputs' size
FLAT_STEP, LARGE_STEP = 1e-4, 1.0  # the same, of a step that changes nothing and of one that must
FLAT_SHARE, MOVED_SHARE = 0.95, 0.3  # of a part's outputs
WRONG = 0.3  # relative error of a gradient
MARGIN = 30 * EPSILON / WRONG  # rounding of a difference relative to the outputs' size


@dataclass(frozen=True, eq=False)
class PartCall:
    """The first call of a part in a pass: its name, its arguments and its outputs."""

    path: str
    module: nn.Module
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: Tensor

    @property
    def inputs(self) -> Tensor:
        """The first argument."""
        inputs: Tensor = self.arguments[0]
        return inputs

    def again(self, inputs: Tensor) -> Tensor:
        """Returns the outputs for other inputs in place of the first argument."""
        rest = [each.clone() if isinstance(each, Tensor) else each for each in self.arguments[1:]]
        outputs: Tensor = self.module(inputs.clone(), *rest, **self.keywords)
        return outputs


Fault = Callable[[PartCall], bool]


def first_random(subject: Subject) -> str:
    """Returns the name of the innermost first part that answers at random; empty if unknown."""
    return _found(subject, _is_random)


def first_wrong_gradient(subject: Subject) -> str:
    """Returns the name of the first part with a wrong backward pass; empty if unknown."""
    return _found(subject, _has_wrong_gradient)


def first_flat(subject: Subject) -> str:
    """Returns the name of the first part with steps in its outputs; empty if unknown."""
    return _found(subject, _is_flat)


def softmax_part(subject: Subject) -> str:
    """Returns the name of the first part whose outputs, not inputs, are probabilities."""
    for call in _calls(subject):
        given = call.inputs
        plain = given.shape == call.outputs.shape and not any(call.module.children())
        if plain and _sums_to_one(call.outputs) and not _sums_to_one(given):
            return call.path
    return ""


def call_of(subject: Subject, path: str) -> PartCall | None:
    """Returns the first call of a part in a pass; None if it is not known."""
    return next((call for call in _calls(subject) if call.path == path), None)


def _found(subject: Subject, fault: Fault) -> str:
    calls = _calls(subject)
    try:
        return _innermost("", calls, fault)
    except Exception:  # noqa: BLE001  a part that can't be called separately is not named
        return ""


def _innermost(outer: str, calls: list[PartCall], fault: Fault) -> str:
    """Returns the first faulty part inside of a part, or the part itself if none is."""
    for call in _direct(outer, calls):
        if fault(call):
            return _innermost(call.path, calls, fault)
    return outer


def _direct(outer: str, calls: list[PartCall]) -> Iterator[PartCall]:
    """Yields the parts that are called by a part, not by a part of it."""
    prefix = f"{outer}." if outer else ""
    inside = [call for call in calls if call.path.startswith(prefix) and call.path != outer]
    names = {call.path for call in inside}
    for call in inside:
        words = call.path.removeprefix(prefix).split(".")
        above = {prefix + ".".join(words[:length]) for length in range(1, len(words))}
        if not above & names:
            yield call


def _calls(subject: Subject) -> list[PartCall]:
    """Returns the calls of parts in one pass over a few examples, in order; empty if too dear."""
    if subject.left < EXAMPLES:
        return []
    inputs = subject.batch(subject.rows(EXAMPLES)).inputs
    with recording(subject.classifier.module) as calls:
        subject.ask(inputs)
    return calls


@contextmanager
def recording(module: nn.Module) -> Iterator[list[PartCall]]:
    """Records the first call of each named part of a module, for a ``with`` block.

    Calls whose first argument or whose result is no tensor of floating-point numbers are left out.
    The list is filled in the end, in the order in which calls began.
    """
    begun: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    ended: dict[str, Tensor] = {}
    found: list[PartCall] = []
    parts = {name: part for name, part in module.named_modules() if name}
    handles: list[RemovableHandle] = []

    def begin(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if name not in begun and arguments and _is_float(arguments[0]):
            copied = tuple(
                each.detach().clone() if isinstance(each, Tensor) else each for each in arguments
            )
            begun[name] = (copied, dict(keywords))

    def end(name: str, outputs: object) -> None:
        if name in begun and name not in ended and isinstance(outputs, Tensor):
            ended[name] = outputs.detach().clone()

    for name, part in parts.items():
        if isinstance(part, torch.jit.ScriptModule):
            continue
        handles += [
            part.register_forward_pre_hook(
                lambda _, arguments, keywords, name=name: begin(name, arguments, keywords),
                with_kwargs=True,
            ),
            part.register_forward_hook(lambda _, __, outputs, name=name: end(name, outputs)),
        ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
        found += [
            PartCall(name, parts[name], *call, ended[name])
            for name, call in begun.items()
            if name in ended and _is_float(ended[name])
        ]


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0


def _sums_to_one(values: Tensor) -> bool:
    if values.ndim != 2 or values.shape[1] < 2:
        return False
    return look_like_probabilities(values)


@torch.no_grad()
def _is_random(call: PartCall) -> bool:
    one, other = call.again(call.inputs), call.again(call.inputs)
    return float((one - other).abs().max()) > SAME * float(one.abs().max())


@torch.no_grad()
def _is_flat(call: PartCall) -> bool:
    """Returns whether small steps leave almost all outputs exactly as they are, and large do not.

    A rectifier leaves those of the units that are off; a part with steps leaves all.
    """
    size = float(call.inputs.abs().max())
    signs = _signs(call.inputs, 0)
    here = call.again(call.inputs)
    near = call.again(call.inputs + FLAT_STEP * size * signs)
    far = call.again(call.inputs + LARGE_STEP * size * signs)
    same = float((here == near).double().mean())
    moved = float((here != far).double().mean())
    return same >= FLAT_SHARE and moved >= MOVED_SHARE


def _has_wrong_gradient(call: PartCall) -> bool:
    """Returns whether the gradient of a part disagrees with differences at every scale."""
    leaf = call.inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        outputs = call.again(leaf)
    weights = _signs(outputs.detach(), 1)
    if outputs.requires_grad:
        (gradient,) = torch.autograd.grad(outputs, leaf, weights, allow_unused=True)
    else:
        gradient = None
    slope = torch.zeros_like(leaf) if gradient is None else gradient
    size = float(leaf.detach().square().mean().sqrt()) or 1.0
    noise = MARGIN * float(outputs.detach().abs().max()) * outputs.numel() ** 0.5
    errors = []
    with torch.no_grad():
        for scale in SCALES:
            step = scale * size * _signs(leaf.detach(), 2)
            above, below = leaf.detach() + step, leaf.detach() - step
            moved = (call.again(above) - call.again(below)).double()
            measured = float((moved * weights.double()).sum())
            predicted = float(((above - below).double() * slope.double()).sum())
            largest = max(abs(measured), abs(predicted))
            if largest > noise:
                errors.append(abs(measured - predicted) / largest)
    return bool(errors) and min(errors) > WRONG


def _signs(like: Tensor, label: int) -> Tensor:
    """Returns -1 or 1 for each number of a tensor, the same ones in each call."""
    key = derive_key("gibbon", "signs of a part", label)
    streams = ExampleStreams.derive(key, torch.arange(len(like)))
    return streams.signs(like.shape[1:]).to(like)

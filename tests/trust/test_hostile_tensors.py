"""Tensors that are not what they seem: of attacks, models and datasets.

Each hostile answer is compared with the plain one of the same numbers: it must be judged alike, or
refused by name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import nets
import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.api.results import Results
from gibbon.attacks.base import STRICT, Attack, DirectionAttack
from gibbon.core.threat import Norm, Verdict
from gibbon.datasets.base import Batch, Dataset, DatasetInfo

COUNT = 60
RADIUS = 0.03


class Lying(Tensor):
    """Answers every question about it as if it were the tensor that it hides."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        hidden = vars(args[0]).get("hidden") if args and isinstance(args[0], Lying) else None
        with torch._C.DisableTorchFunctionSubclass():
            given = args if hidden is None or func is torch.nn.functional.linear else (hidden,)
            return func(*given, *args[len(given) :], **(kwargs or {}))


class LyingBelow(Tensor):
    """Decides about its operations below autograd."""

    hidden: ClassVar[Tensor | None] = None

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        with torch._C._DisableTorchDispatch():
            given = [cls.hidden if isinstance(each, LyingBelow) else each for each in args]
            return func(*given, **(kwargs or {}))


class Methods(Tensor):
    """Overrides the methods that a careless reader calls."""

    hidden: Tensor

    def detach(self, *_: Any, **__: Any) -> Tensor:
        return self.hidden

    clone = to = cpu = float = contiguous = numpy = detach
    __sub__ = __rsub__ = sub = detach

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = Tensor.__hash__
    data_ptr = property(lambda self: self.hidden.data_ptr)
    shape = property(lambda self: self.hidden.shape)
    dtype = property(lambda self: self.hidden.dtype)


def lying(points: Tensor, inputs: Tensor) -> Tensor:
    made = points.as_subclass(Lying)
    made.__dict__["hidden"] = inputs
    return made


def lying_below(points: Tensor, inputs: Tensor) -> Tensor:
    LyingBelow.hidden = inputs
    return Tensor._make_subclass(LyingBelow, points)


def methods(points: Tensor, inputs: Tensor) -> Tensor:
    made = points.as_subclass(Methods)
    made.__dict__["hidden"] = inputs
    return made


def changed_by_a_thread(points: Tensor, inputs: Tensor) -> Tensor:
    """Returns a view of memory that another thread fills for as long as the tests run."""
    made = points.clone()

    def write() -> None:
        for _ in range(200):
            made.copy_(points)

    threading.Thread(target=write, daemon=True).start()
    return made.view_as(made)


HOSTILE = [
    lying,
    lying_below,
    methods,
    changed_by_a_thread,
    lambda points, inputs: nn.Parameter(points),
    lambda points, inputs: points.requires_grad_(),
    lambda points, inputs: points.to_sparse(),
    lambda points, inputs: points.to_mkldnn(),
    lambda points, inputs: torch.stack([points, points])[0],
    lambda points, inputs: (-points)._neg_view(),
]


def far(classifier: Any, inputs: Tensor, labels: Tensor) -> Tensor:
    """Returns misclassified points without regard to the budget."""
    points = inputs
    for _ in range(10):
        _, gradient = classifier.ascend(
            points, lambda outputs: classifier.outputs.ascent(outputs, labels)
        )
        points = (points + 0.1 * gradient.sign()).clamp(0, 1)
    return points.detach()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Acts(Attack):
    """Yields what a function returns."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
    needs_gradient: ClassVar[bool] = False
    act: ClassVar[Callable[..., Any]]

    def propose(self, classifier, inputs, *, labels, threat, streams) -> Iterator[Tensor]:
        """Yields the tries of the function."""
        yield from type(self).act(classifier, inputs, labels)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Directs(DirectionAttack):
    """Returns the direction of a function."""

    act: ClassVar[Callable[..., Any]]

    def direction(self, classifier, inputs, *, labels, streams) -> Tensor:
        """Returns the direction."""
        return type(self).act(classifier, inputs, labels)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    batch = nets.random_batch(count=COUNT)
    net = nets.linear().module
    return batch.inputs, net(batch.inputs).argmax(1)


def measured(act: Any, data: Any, *, model: Any = None, kind: type[Attack] = Acts) -> Results:
    kind.act = staticmethod(act)  # type: ignore[attr-defined]
    module = model if model is not None else nets.linear().module
    return evaluate(module, data, attack=kind(), epsilon=RADIUS, examination=False, bounds="none")


def verdicts(results: Results) -> list[int]:
    row = next(row for row in results.record.evaluations if row.attack != "none")
    return results.outcomes[row.digest].verdict.tolist()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_candidates_beyond_the_budget_are_seen_through(hostile, data):
    def act(classifier, inputs, labels):
        yield hostile(far(classifier, inputs, labels), inputs.clone())

    found = measured(act, data)
    assert not found.failures
    assert found.adversarial_error == found.clean_error == 0
    assert verdicts(found).count(Verdict.OUT_OF_BUDGET) > COUNT // 2


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_direction_is_read_as_it_is(hostile, data):
    def direction(classifier, inputs, labels):
        return classifier.loss_gradient(inputs, labels).sign()

    def act(classifier, inputs, labels):
        found = direction(classifier, inputs, labels)
        return hostile(found, torch.zeros_like(inputs))

    plain = measured(direction, data, kind=Directs)
    assert plain.adversarial_error > plain.clean_error
    assert measured(act, data, kind=Directs).adversarial_error == plain.adversarial_error


class Wrapper(Tensor):
    """A tensor without values, which answers by another one."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Tensor:
        made = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        given = [each.inner if isinstance(each, Wrapper) else each for each in args]
        return func(*given, **(kwargs or {}))


@pytest.mark.parametrize(
    ("hostile", "named"),
    [
        (Wrapper, "a candidate must be a plain tensor, got test_hostile_tensors.Wrapper"),
        (lambda points: points.to("meta"), "got a tensor on the meta device"),
        (lambda points: points.to(torch.complex64), "got .* and torch.complex64"),
        (lambda points: points.half(), "got .* and torch.float16"),
        (lambda points: points.tolist(), "a candidate must be a tensor, got list"),
    ],
)
def test_candidates_without_values_are_refused_by_name(hostile, named, data):
    def act(classifier, inputs, labels):
        yield hostile(inputs.clone())

    (failure,) = measured(act, data).failures
    assert failure.error.startswith("AttackError: ")
    assert pytest.raises(AssertionError, match=named).matches(AssertionError(failure.error))


class SignBit(nn.Module):
    """Answers another class for a negative zero."""

    def forward(self, inputs: Tensor) -> Tensor:
        first = inputs.flatten(1)[:, 0]
        negative = torch.signbit(first).float()
        return torch.stack([1 - negative, negative], dim=1)


def test_a_negative_zero_is_zero():
    inputs = torch.rand(COUNT, 1, 6, 6)
    inputs[:, 0, 0, 0] = -0.0

    def act(classifier, inputs, labels):
        yield torch.where(inputs == 0, torch.tensor(-0.0), inputs)

    found = measured(act, (inputs, torch.zeros(COUNT, dtype=torch.int64)), model=SignBit())
    assert found.clean_error == found.adversarial_error == 0


class Spoof(Tensor):
    """Has the address of another tensor."""

    hidden: Tensor

    def data_ptr(self) -> int:
        return self.hidden.data_ptr()


def spoofed(classifier: Any, inputs: Tensor, labels: Tensor) -> Iterator[Tensor]:
    """Asks about other points under the address of the clean inputs."""
    points = far(classifier, inputs, labels)
    spoof = points.as_subclass(Spoof)
    spoof.__dict__["hidden"] = inputs
    with torch._C.DisableTorchFunctionSubclass():
        classifier.module(spoof)
    yield inputs.clone()


def exchanged(classifier: Any, inputs: Tensor, labels: Tensor) -> Iterator[Tensor]:
    """Puts other points into the memory of the inputs, and the inputs back afterwards."""
    points, kept = far(classifier, inputs.clone(), labels), inputs.clone()
    inputs.numpy()[...] = points.numpy()
    classifier(inputs)
    inputs.numpy()[...] = kept.numpy()
    yield inputs.clone()


@pytest.mark.parametrize("act", [spoofed, exchanged])
def test_the_clean_prediction_is_that_of_the_clean_inputs(act, data):
    found = measured(act, data)
    assert not found.failures
    assert found.clean_error == 0


class Answering(nn.Module):
    """A network whose outputs a function changes."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.change = nets.linear().module, change

    def forward(self, inputs: Tensor) -> Any:
        return self.change(self.net(inputs))


class Scratch(nn.Module):
    """Returns one and the same memory in every call without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.memory = nets.linear().module, torch.zeros(COUNT * 4, nets.CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.net(inputs)
        if outputs.requires_grad:
            return outputs
        place = self.memory[: len(inputs)]
        place.copy_(outputs)
        return place


@pytest.mark.parametrize(
    "model",
    [
        lambda: Answering(lambda outputs: outputs.as_subclass(Lying)),
        lambda: Answering(lambda outputs: outputs.as_subclass(Methods)),
        lambda: Answering(lambda outputs: outputs.to_sparse() * 1.0),
        lambda: Answering(lambda outputs: outputs.double()),
        lambda: Answering(lambda outputs: outputs.expand(1, *outputs.shape)[0]),
        Scratch,
    ],
)
def test_the_outputs_of_a_model_are_read_as_they_are(model, data):
    known = {"attack": "pgd", "epsilon": RADIUS, "steps": 3, "bounds": "none"}
    plain = evaluate(nets.linear().module, data, examination=False, **known)
    found = evaluate(model(), data, examination=False, **known)
    assert not found.failures
    assert (found.clean_error, found.adversarial_error) == (
        plain.clean_error,
        plain.adversarial_error,
    )


class Handed(Dataset):
    """Gives parts of its own memory, in tensors of a subclass."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs = inputs
        names = tuple(map(str, range(nets.CLASSES)))
        self.info = DatasetInfo("handed", labels.numpy(), names, tuple(inputs.shape[1:]))

    @property
    def digest(self) -> str:
        return "handed"

    def batch(self, ids: np.ndarray) -> Batch:
        rows = self.inputs[int(ids[0]) : int(ids[-1]) + 1] if len(ids) == len(self) else None
        inputs = self.inputs[ids] if rows is None else rows
        labels = torch.from_numpy(self.labels[ids])
        return Batch(torch.from_numpy(ids.copy()), inputs.as_subclass(Methods), labels)


class Rounds(nn.Module):
    """Writes into its input, by a way that torch does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.linear().module

    def forward(self, inputs: Tensor) -> Tensor:
        inputs.detach().numpy().round(out=inputs.detach().numpy())
        return self.net(inputs)


def test_the_batches_of_a_dataset_are_copies_of_plain_tensors(data):
    inputs, labels = data
    own = inputs.clone()
    known = {"attack": "fgsm", "epsilon": RADIUS, "examination": False, "bounds": "none"}
    models = {"linear": nets.linear().module, "rounds": Rounds()}
    found = evaluate(models, Handed(own, labels), **known)
    plain = evaluate({"linear": nets.linear().module}, data, **known)
    assert torch.equal(own, inputs)
    one = found.select(model="linear", attack="fgsm")
    assert one.adversarial_error == plain.adversarial_error

"""Runs models through `torch.compile`, for batches of a few sizes.

A compiled function is fastest for one shape, and CUDA graphs can be recorded for one shape only.
Attacks call a model on the examples that are left, in batches of any size.  Such a batch is padded
to the next of a few sizes with copies of its last example, whose answers are discarded.  Each size
is compiled once, and nothing is compiled again.

The answers of some models depend on the other examples of a batch, or on the random numbers that a
batch draws.  Their batches are not padded: they are compiled for batches of any size.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left, insort
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from gibbon.core.errors import ModelError

FEWEST = 8  # examples in the smallest padded batch
FEWEST_OF_ANY_SIZE = 2  # the compiler treats a batch of one as a case of its own
MOST_FULL = 6  # full batches, of cells, of several epsilons at once and so on, that keep their size


class BatchSizes:
    """The sizes that batches are padded to, which follow from the batches that come.

    A batch that is larger than all before it keeps its size, or, if there were `MOST_FULL` of
    these, gets the next power of two.  A smaller one gets the smallest size that holds it: one that
    there is, or its half, a quarter and so on.  So less than half of a batch is padding, unless it
    has fewer than `FEWEST` examples, and the number of sizes grows with the logarithm of the batch
    size.

    >>> sizes = BatchSizes()
    >>> [sizes.holding(count) for count in (100, 37, 51, 50, 100, 3, 60)]
    [100, 50, 100, 50, 100, 13, 100]
    >>> sizes.found
    (13, 25, 50, 100)
    """

    def __init__(self) -> None:
        self._found: list[int] = []
        self._full = 0

    @property
    def found(self) -> tuple[int, ...]:
        """The sizes so far, in rising order."""
        return tuple(self._found)

    def holding(self, count: int) -> int:
        """Returns the size for a batch of ``count`` examples, at least 1."""
        place = bisect_left(self._found, count)
        if place == len(self._found):
            self._full += 1
            larger = count if self._full <= MOST_FULL else 1 << (count - 1).bit_length()
            insort(self._found, size := max(larger, FEWEST))
            return size
        size = self._found[place]
        while -(-size // 2) >= max(count, FEWEST) and size > FEWEST:
            size = -(-size // 2)
            insort(self._found, size)
        return size


class Compiled(nn.Module):
    """Runs a module through `torch.compile`.

    On a GPU the kernels of a padded batch are recorded as a CUDA graph, which starts all of them at
    once.  The caller gets copies of what lies in the graph's memory.

    Args:
        inner: the module; its answer to an example must not depend on the others if it is padded.
        padded: whether batches are padded; otherwise it is compiled for batches of any size.
    """

    def __init__(self, inner: nn.Module, *, padded: bool) -> None:
        super().__init__()
        self.inner = inner
        self.sizes = BatchSizes() if padded else None
        self._runs: dict[Hashable, Callable[[Tensor], Any]] = {}

    def forward(self, inputs: Tensor) -> Any:
        """Returns the inner module's outputs.  Raises `ModelError` if it can't be compiled."""
        count = len(inputs)
        if self.sizes is None:
            return self.inner(inputs) if count < FEWEST_OF_ANY_SIZE else self._of_any_size(inputs)
        if not count:
            return self.inner(inputs)
        size, graph = self.sizes.holding(count), inputs.device.type == "cuda"
        given = _padded(inputs, size)
        outputs = self._call(given, shape=given.shape)
        if not isinstance(outputs, Tensor) or outputs.shape[:1] != (size,):
            return outputs  # the classifier refuses it
        return outputs[:count].clone() if graph else outputs[:count]

    def _of_any_size(self, inputs: Tensor) -> Any:
        given = inputs.view_as(inputs)  # so that the caller's tensor is not marked
        torch._dynamo.maybe_mark_dynamic(given, 0)
        return self._call(given)

    def _call(self, given: Tensor, *, shape: torch.Size | None = None) -> Any:
        """Calls the function that is compiled for a shape; for any if None."""
        modes = torch.is_grad_enabled(), given.requires_grad
        key = (given.device, shape, given.dtype, *modes)
        try:
            if key in self._runs:
                return self._runs[key](given)
            options = _options(given.device.type, static=shape is not None)
            dynamic = None if shape is None else False
            run = torch.compile(_with_own_code(self.inner), dynamic=dynamic, options=options)
            self._runs[key] = run
            with warnings.catch_warnings():  # the compiler looks at the gradient of its input
                warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not")
                return run(given)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ModelError(
                f"torch.compile can't compile it here: {_first_line(error)}; leave out --compile"
            ) from error


def _padded(inputs: Tensor, size: int) -> Tensor:
    """Returns a batch of a size, contiguous, whose gradient is the caller's to keep."""
    more = size - len(inputs)
    if more:
        last = inputs[-1:].detach()
        given = torch.cat([inputs, last.expand(more, *inputs.shape[1:])]).contiguous()
    else:
        given = inputs.contiguous()
    if given.requires_grad:
        given = given.view_as(given)
        given.register_hook(_own_gradient)  # type: ignore[no-untyped-call]
    return given


def _own_gradient(gradient: Tensor) -> Tensor:
    """Returns a gradient that is contiguous, and lies in no memory of a CUDA graph."""
    whole = gradient.contiguous()
    return whole.clone() if whole is gradient and gradient.device.type == "cuda" else whole


def _with_own_code(inner: nn.Module) -> Callable[[Tensor], Any]:
    """Returns a function that calls a module.

    Torch keeps a limited number of compiled variants for each code object: each function has one of
    its own, so that many models and sizes don't use up this number.
    """

    def forward(inputs: Tensor) -> Any:
        return inner(inputs)

    code = forward.__code__.replace()
    return FunctionType(code, forward.__globals__, closure=forward.__closure__)


def _options(device: str, *, static: bool) -> dict[str, Any] | None:
    if device == "cuda" and static:
        return {"triton.cudagraphs": True}
    if device != "cpu":
        return None
    try:  # here, since the import takes seconds
        from gibbon.runner.device.compile_partitioner import SaveLayerOutputs
    except ImportError:  # an older torch, which has no choice of partitioners
        return None
    return {"custom_partitioner_fn": SaveLayerOutputs()}


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__

"""Conversion of tensors that other people's code returns to plain ones.

An attack, a model or a dataset may return a tensor of a subclass, which decides for itself what its
methods, its comparisons and its copies do, or a tensor whose memory is changed after it was
checked.  Numbers are read from plain tensors only: of the class `torch.Tensor` itself, dense, and
for candidates and inputs with memory of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gibbon.core.errors import GibbonError

# Classes of ours whose objects stand for tensors while a module is recorded.
STAND_INS: set[type[Tensor]] = set()

NUMPY_DTYPES = (torch.float32, torch.float64, torch.int64)


def plain(value: object, *, what: str, problem: type[GibbonError]) -> Tensor:
    """Returns the tensor of the class `torch.Tensor` that has a tensor's values.

    It shares the memory and the graph of the tensor, unless that is sparse or quantised.  No method
    of a subclass is called.

    Args:
        value: the tensor.
        what: its name in error messages, with an article.
        problem: class of the error.

    Raises ``problem`` if it is no tensor, or has no values of its own: on the meta device, nested,
    or of a subclass that wraps other tensors.

    >>> class Odd(Tensor):
    ...     @classmethod
    ...     def __torch_function__(cls, func, types, args=(), kwargs=None):
    ...         return "anything"
    >>> plain(torch.ones(2).as_subclass(Odd), what="a candidate", problem=GibbonError)
    tensor([1., 1.])
    """
    kind = type(value)
    if kind is not Tensor:
        if not issubclass(kind, Tensor):
            raise problem(f"{what} must be a tensor, got {kind.__name__}")
        value = _without_subclass(value, what=what, problem=problem)
    tensor: Tensor = value  # type: ignore[assignment]  # checked above
    if stand_in := _stand_in(tensor):
        raise problem(f"{what} must be a plain tensor, got one of {stand_in} that has no values")
    if tensor.is_meta:
        raise problem(f"{what} must have values, got a tensor on the meta device")
    if tensor.is_nested:
        raise problem(f"{what} must be a dense tensor, got a nested one")
    if tensor.layout is not torch.strided:
        return tensor.to_dense()
    return tensor.dequantize() if tensor.is_quantized else tensor


def plain_copy(tensor: Tensor) -> Tensor:
    """Returns a copy of a plain tensor with memory of its own, without a graph; -0 becomes 0.

    A negative zero is at distance 0 from zero, and a model may answer it otherwise.

    >>> plain_copy(torch.tensor([-0.0, 1.0]).expand(2, 2))
    tensor([[0., 1.],
            [0., 1.]])
    """
    values = tensor.detach()
    return torch.add(values, 0.0) if values.is_floating_point() else values.clone()


@torch.no_grad()
def equal(one: Tensor, other: Tensor) -> bool:
    """Returns whether two tensors have equal values; NaN equals NaN."""
    if one.device.type == "cpu" and one.dtype in NUMPY_DTYPES and one.dtype == other.dtype:
        # A quarter of the time that torch.equal takes; NaN goes on below.
        if np.array_equal(one.detach().numpy(), other.detach().numpy()):
            return True
    elif torch.equal(one, other):
        return True
    if not one.is_floating_point() or one.shape != other.shape:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())  # a NaN stays a NaN


@torch.no_grad()
def each_equal(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[bool]:
    """Returns for each pair of tensors whether they are `equal`; one read for all on a GPU.

    >>> each_equal([(torch.ones(2), torch.ones(2)), (torch.ones(1), torch.zeros(1))])
    [True, False]
    """
    away = [
        one.device.type != "cpu" and one.device == other.device and one.shape == other.shape
        for one, other in pairs
    ]
    differs = [(one != other).any() for (one, other), each in zip(pairs, away, strict=True) if each]
    read = iter(torch.stack(differs).tolist() if differs else [])
    # Numbers that differ may be NaN on both sides.
    return [
        (each and not next(read)) or equal(one, other)
        for (one, other), each in zip(pairs, away, strict=True)
    ]


def version_of(tensor: Tensor) -> int:
    """Returns the number of in-place operations on a tensor; -1 if torch does not count them."""
    return -1 if tensor.is_inference() else tensor._version


def _stand_in(tensor: Tensor) -> str:
    """Returns the part of torch that a tensor is a stand-in of; empty if it has values.

    Those of `torch.func` have values while one of its transformations runs.
    """
    if torch.compiler.is_compiling():
        return ""
    functions = torch._C._functorch
    if functions.is_functorch_wrapped_tensor(tensor) and functions.maybe_current_level() is None:
        return "torch.func"
    return "functionalization" if torch._is_functional_tensor(tensor) else ""


def _without_subclass(value: object, *, what: str, problem: type[GibbonError]) -> Tensor:
    kind = type(value)
    with torch._C.DisableTorchFunctionSubclass(), torch._C._DisableTorchDispatch():
        try:
            tensor = Tensor.as_subclass(value, Tensor)  # type: ignore[arg-type]
            dense = tensor.layout is torch.strided and not tensor.is_meta
            empty = dense and tensor.numel() > 0 and tensor.data_ptr() == 0
        except RuntimeError:
            empty = True
    if empty:
        raise problem(
            f"{what} must be a plain tensor, got {kind.__module__}.{kind.__qualname__}, a subclass "
            "that wraps other tensors: return the torch.Tensor that it stands for"
        )
    return tensor

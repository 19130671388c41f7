"""The features of a model: what its last linear layer gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class _LinearCalls(TorchFunctionMode):
    """Notes the inputs of `torch.nn.functional.linear`, which `torch.nn.Linear` calls too."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs the function, and notes the input of a linear layer."""
        if func is functional.linear and args:
            self.inputs.append(args[0])
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class FeatureReader:
    """Reads the features of a module, shape (N, D), differentiable in the inputs.

    Args:
        module: the model.
        call: position of the linear layer, among those that a pass calls, whose input is read; None
            for the model's own outputs.
    """

    module: nn.Module
    call: int | None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Returns the features of inputs, one row an example."""
        if self.call is None:
            outputs: Tensor = self.module(inputs)
            return outputs.flatten(1)
        calls = _LinearCalls()
        with calls:
            self.module(inputs)
        features = calls.inputs[self.call]
        return features.flatten(1)

    @property
    def place(self) -> str:
        """The place of the features, in words."""
        return "the model's outputs" if self.call is None else "the input of its last linear layer"


@torch.no_grad()
def feature_reader(module: nn.Module, sample: Tensor) -> FeatureReader:
    """Returns a reader of what the last linear layer gets, or of the outputs if there is none.

    A layer counts if it gets one row of numbers for each example, more than one of them.

    Args:
        module: the model, in eval mode.
        sample: shape (N, *input_shape).
    """
    with _LinearCalls() as calls:
        module(sample)
    for place in reversed(range(len(calls.inputs))):
        shape = calls.inputs[place].shape
        if len(shape) == 2 and shape[0] == len(sample) and shape[1] > 1:
            return FeatureReader(module, place)
    return FeatureReader(module, None)

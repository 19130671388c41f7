"""Computes models in bfloat16, with channels last, or through `torch.compile`.

All of these are modules around the model's own module, which they leave unchanged.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from gibbon.core.errors import ModelError
from gibbon.models.classifier import Classifier
from gibbon.runner.device.compiled import Compiled
from gibbon.runner.settings import Precision, RunSettings

PICTURE_DIMENSIONS = 3  # channels, height, width


@dataclass(frozen=True)
class Variant:
    """The way a model is computed: see `RunSettings`."""

    precision: Precision = "float32"
    channels_last: bool = False
    compiled: bool = False

    @classmethod
    def of(cls, settings: RunSettings) -> Self:
        """Returns the way that the settings of a run describe."""
        return cls(settings.precision, settings.channels_last, settings.compile)

    def words(self, input_shape: tuple[int, ...]) -> str:
        """Returns what may change the answers to inputs of a shape, in words; empty if nothing."""
        parts: list[str] = [self.precision] if self.precision != "float32" else []
        if self.channels_last and len(input_shape) == PICTURE_DIMENSIONS:
            parts.append("channels-last")
        return ", ".join(parts)


class Bfloat16(nn.Module):
    """Runs those operations of a module in bfloat16 that autocast considers safe."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Any:
        """Returns the inner module's outputs as float32."""
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
            outputs = self.inner(inputs)
        return outputs.float() if isinstance(outputs, Tensor) else outputs


class ChannelsLast(nn.Module):
    """Stores pictures, and the kernels of convolutions, with the channels next to each other.

    Values stay equal; sums are made in another order.  Kernels are stored so while the model is
    evaluated, when its tensors are moved to a device.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Any:
        """Returns the inner module's outputs."""
        given: Tensor = _AsChannelsLast.apply(inputs)
        return self.inner(given)

    # Module.to calls it for all parameters and buffers; evaluation puts these back afterwards.
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(lambda tensor: _channels_last(fn(tensor)), recurse)  # type: ignore[no-untyped-call]
        return self


class _AsChannelsLast(torch.autograd.Function):
    """Returns pictures with channels last; their gradient is contiguous, as callers expect it."""

    @staticmethod
    def forward(context: Any, inputs: Tensor) -> Tensor:
        """Returns a copy of the inputs."""
        return inputs.clone(memory_format=torch.channels_last)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """Returns the gradient, contiguous."""
        return gradient.contiguous()


def vary(classifier: Classifier, variant: Variant, *, padded: bool = False) -> Classifier:
    """Returns a classifier that is computed in this way, or the given one if nothing changes.

    ``padded`` is whether batches may be padded if it is compiled.  Raises `ModelError` for another
    precision of a model that is not run by torch, or that has parameters of float64.
    """
    module, by_torch = classifier.module, not classifier.forward_only
    if variant.precision == "bfloat16":
        if not by_torch:
            raise ModelError(
                f"{classifier.forward_only}, and computes in a precision of its own: "
                "leave out --precision"
            )
        if any(each.dtype == torch.float64 for each in module.parameters()):
            raise ModelError(
                "its parameters are torch.float64, which bfloat16 leaves as they are: leave out "
                "--precision"
            )
        module = Bfloat16(module)
    if variant.channels_last and by_torch and len(classifier.input_shape) == PICTURE_DIMENSIONS:
        module = ChannelsLast(module)
    if variant.compiled and by_torch:
        module = Compiled(module, padded=padded)
    if module is classifier.module:
        return classifier
    varied = copy.copy(classifier)
    varied.module = module
    varied.eager = uncompiled(module)
    return varied


def uncompiled_classifier(classifier: Classifier) -> Classifier:
    """Returns a classifier that runs without `torch.compile`; both count their passes together."""
    module = uncompiled(classifier.module)
    return classifier if module is classifier.module else replace(classifier, module=module)


def in_float32(classifier: Classifier) -> Classifier | None:
    """Returns the classifier without `Bfloat16`, or None if it is computed in float32."""
    module = without_layout(classifier.module)
    return replace(classifier, module=module.inner) if isinstance(module, Bfloat16) else None


def uncompiled(module: nn.Module) -> nn.Module:
    """Returns the module that runs without `torch.compile`."""
    return _without(module, Compiled)


def without_layout(module: nn.Module) -> nn.Module:
    """Returns the module that runs in its precision, with neither compiler nor channels last."""
    return _without(module, Compiled, ChannelsLast)


def unvaried(module: nn.Module) -> nn.Module:
    """Returns the module that `vary` put others around."""
    return _without(module, Compiled, ChannelsLast, Bfloat16)


def _without(module: nn.Module, *kinds: type[Compiled | ChannelsLast | Bfloat16]) -> nn.Module:
    while isinstance(module, kinds):
        module = module.inner
    return module


def _channels_last(tensor: Tensor) -> Tensor:
    picture = tensor.ndim == 1 + PICTURE_DIMENSIONS and tensor.is_floating_point()
    return tensor.contiguous(memory_format=torch.channels_last) if picture else tensor

"""Computes models in bfloat16 or through `torch.compile`.

Both are modules around the model's own module, which they leave unchanged.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from gibbon.core.errors import ModelError
from gibbon.models.classifier import Classifier
from gibbon.runner.settings import Precision

FEWEST = 2  # examples in the smallest batch that is compiled


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


class Compiled(nn.Module):
    """Runs a module through `torch.compile`, for batches of any size.

    A single example is not compiled: the compiler treats a batch of one as a case of its own.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

        def forward(inputs: Tensor) -> Any:
            return inner(inputs)

        # Torch keeps a limited number of compiled variants for each code object: each model has
        # a code object of its own, so that many models don't use up this number.
        self._own = FunctionType(
            forward.__code__.replace(), forward.__globals__, closure=forward.__closure__
        )
        self._runs: dict[str, Callable[[Tensor], Any]] = {}

    def forward(self, inputs: Tensor) -> Any:
        """Returns the inner module's outputs.  Raises `ModelError` if it can't be compiled."""
        if len(inputs) < FEWEST:
            return self.inner(inputs)
        given = inputs.view_as(inputs)  # so that the caller's tensor is not marked
        torch._dynamo.maybe_mark_dynamic(given, 0)
        try:
            return self._compiled(inputs.device.type)(given)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ModelError(
                f"torch.compile can't compile it here: {_first_line(error)}; leave out --compile"
            ) from error

    def _compiled(self, device: str) -> Callable[[Tensor], Any]:
        if device not in self._runs:
            self._runs[device] = torch.compile(self._own, options=_options(device))
        return self._runs[device]


def vary(classifier: Classifier, *, precision: Precision, compiled: bool) -> Classifier:
    """Returns a classifier that is computed in this way, or the given one if nothing changes.

    Raises `ModelError` for another precision of a model that is not run by torch.
    """
    module = classifier.module
    if precision == "bfloat16":
        if classifier.forward_only:
            raise ModelError(
                f"{classifier.forward_only}, and computes in a precision of its own: "
                "leave out --precision"
            )
        module = Bfloat16(module)
    if compiled and not classifier.forward_only:
        module = Compiled(module)
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
    module = uncompiled(classifier.module)
    return replace(classifier, module=module.inner) if isinstance(module, Bfloat16) else None


def uncompiled(module: nn.Module) -> nn.Module:
    """Returns the module that runs without `torch.compile`."""
    return module.inner if isinstance(module, Compiled) else module


def _options(device: str) -> dict[str, Any] | None:
    if device != "cpu":
        return None
    try:  # here, since the import takes seconds
        from gibbon.runner.compile_partitioner import SaveLayerOutputs
    except ImportError:  # an older torch, which has no choice of partitioners
        return None
    return {"custom_partitioner_fn": SaveLayerOutputs()}


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__

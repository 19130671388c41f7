"""Wraps TorchScript modules, so that parameters can be frozen, moved and restored."""

from __future__ import annotations

import copy
import warnings
from typing import Any, Self

import torch
from torch import Tensor, nn


class Script(nn.Module):
    """A plain module around a TorchScript module.

    A TorchScript module rejects ``requires_grad_`` and hooks, and a frozen one has no mode.  The
    wrapper registers its tensors, uncopied, in a tree of plain modules of equal names.
    """

    def __init__(self, script: nn.Module) -> None:
        super().__init__()
        self.__dict__["script"] = script  # not among the sub-modules
        self._mode: bool | None = None
        with torch.no_grad():
            for name, tensor in script.named_parameters():
                # torch's mark of a parameter; nn.Parameter(tensor) would be another object.
                setattr(tensor, "_is_param", True)  # noqa: B010
                _owner(self, name).register_parameter(name.rpartition(".")[2], tensor)
            for name, buffer in script.named_buffers():
                _owner(self, name).register_buffer(name.rpartition(".")[2], buffer)
        self.train(bool(getattr(script, "training", False)))

    @classmethod
    def around(cls, script: nn.Module, *, own: bool) -> Self:
        """Wraps a script, or a copy of it if it belongs to the caller (``own`` is False)."""
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            return cls(script if own else copy.deepcopy(script))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the script's outputs, in the mode of this module."""
        script: nn.Module = self.__dict__["script"]
        if self._mode != self.training:
            script.train(self.training)
            self._mode = self.training
        for buffer in self.buffers():
            if buffer.device != inputs.device:
                buffer.data = buffer.data.to(inputs.device)
        outputs: Tensor = script(inputs)
        return outputs

    def _apply(self, change: Any, recurse: bool = True) -> Self:
        with torch.no_grad():
            for tensor in (*self.parameters(), *self.buffers()):
                tensor.data = change(tensor.data)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self).around(self.__dict__["script"], own=False)


def _owner(module: nn.Module, name: str) -> nn.Module:
    for part in name.split(".")[:-1]:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    return module

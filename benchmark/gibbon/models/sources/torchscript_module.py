"""TorchScript modules as plain ones: their parameters can be frozen, moved and put back."""

from __future__ import annotations

import copy
import warnings
from typing import Any, Self

import torch
from torch import Tensor, nn


def is_script(module: nn.Module) -> bool:
    """Says whether a module is TorchScript's."""
    return isinstance(module, torch.jit.ScriptModule)


class Script(nn.Module):
    """A TorchScript module behind a plain one.

    TorchScript's own refuses ``requires_grad_`` and hooks, and a frozen one has no mode.  Here its
    tensors, the very same, stand in a tree of plain modules of the same names.
    """

    def __init__(self, script: nn.Module) -> None:
        super().__init__()
        self.__dict__["script"] = script  # not among the sub-modules
        self._mode: bool | None = None
        with torch.no_grad():
            for name, tensor in script.named_parameters():
                # What torch looks at to call a tensor a parameter; a copy would not be the same.
                setattr(tensor, "_is_param", True)  # noqa: B010
                _owner(self, name).register_parameter(name.rpartition(".")[2], tensor)
            for name, buffer in script.named_buffers():
                _owner(self, name).register_buffer(name.rpartition(".")[2], buffer)
        self.train(bool(getattr(script, "training", False)))

    @classmethod
    def around(cls, script: nn.Module, *, own: bool) -> Self:
        """Returns it around a script; around a copy of one that is somebody else's."""
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            return cls(script if own else copy.deepcopy(script))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns what the script returns, in the mode that this module is in."""
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

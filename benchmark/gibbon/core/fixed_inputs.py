"""Example code, for error messages, of a wrapper that fixes all inputs of a model but one."""

from __future__ import annotations

from typing import Final

FIXED_INPUTS: Final = """
    class Fixed(torch.nn.Module):
        def __init__(self, model, other):
            super().__init__()
            self.model = model
            self.register_buffer("other", other)  # of one example, shape (1, ...)

        def forward(self, inputs):
            other = self.other.expand(len(inputs), *self.other.shape[1:])
            return self.model(inputs, other)
"""

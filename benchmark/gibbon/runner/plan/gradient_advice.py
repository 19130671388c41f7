"""Advice for a model whose outputs have no gradient in its inputs, by what the model is made of."""

from __future__ import annotations

from torch import nn

from gibbon.core.errors import TOKENS
from gibbon.models.sources.wrap_module import has_embedding


def gradient_advice(module: nn.Module) -> str:
    """Returns what may be the cause, as a part of a sentence; empty for a model in integers.

    >>> gradient_advice(nn.Linear(2, 2))[:44]
    '; if its forward breaks the gradient itself,'
    >>> gradient_advice(nn.Flatten())
    ''
    """
    if has_embedding(module):
        return f"; {TOKENS}"
    if any(each.is_floating_point() for each in module.parameters()):
        return (
            "; if its forward breaks the gradient itself, by torch.no_grad(), detach(), .numpy() "
            "or rounding, leave that out of forward"
        )
    return ""

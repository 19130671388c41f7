"""Digests of the code that a model's answers and gradients come from."""

from __future__ import annotations

from torch import nn

from gibbon.runner.plan.reach import Reach


def model_code(module: nn.Module) -> str | None:
    """Returns a digest of the code of a module and of its parts, but for that of torch and Gibbon.

    It also covers the numbers and words that parts hold, such as a stride or the sign of a custom
    gradient, unless a method other than ``__init__`` writes them, as it does a counter of calls.
    None if there is too much code to be followed.

    >>> class Scaled(nn.Module):
    ...     def __init__(self, factor):
    ...         super().__init__()
    ...         self.factor = factor
    ...     def forward(self, inputs):
    ...         return self.factor * inputs
    >>> model_code(Scaled(2.0)) == model_code(Scaled(2.0)) != model_code(Scaled(3.0))
    True
    """
    reach = Reach(
        packages=frozenset(type(part).__module__.partition(".")[0] for part in module.modules()),
        registered=frozenset(map(id, module.modules())),
    )
    parts = [f"{name}={reach.of(part)}" for name, part in module.named_modules()]
    digest = reach.digest(*parts)
    return None if reach.is_full else digest
